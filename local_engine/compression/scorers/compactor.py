"""How unlike the others a key is, and what the chunk around it attends to ("Compactor: Calibrated Query-Agnostic KV
Cache Compression with Approximate Leverage Scores", section 3).

No later question is needed: the statistical leverage of a key says how much of the row space of all keys is lost with
it, and attention within a chunk, in both directions, which tokens carry their surroundings. Keys are taken before
rotation, since their content is meant, and sketched to few dimensions first.

As in the authors' own code, and unlike attention, logits within a chunk are not divided by sqrt(D): each query then
points at few keys, and c_i says which ones are pointed at rather than which ones are near. The weight of the leverage
is what their code tends to where little is kept: there it is the share that is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs
from lcdoc.local_engine.compression.scorers.leverage import leverage_scores, sketch
from lcdoc.local_engine.compression.scorers.window_attention import window_queries
from lcdoc.local_engine.errors import InvalidRequestError

_STATE: Final = "compactor"
_POOLED: Final = 3


@dataclass(frozen=True, slots=True)
class Compactor:
    """s_i = z(c_i) + weight * z(l_i), z bringing a row to mean 0 and deviation 1.

    c_i is the sum of the attention that the queries of i's chunk give it among the chunk's keys, times |v_i|, averaged
    over 3 neighbours. It is found when an entry is new, and kept with it. Entries that were older than the window then
    count as average.
    """

    weight: float = 1.0
    """Of the leverage beside the attention; 0 or more. More of it suits texts of which single facts are asked."""
    chunk: int = 256
    """Entries that attend to each other."""
    scaled: bool = False
    """Whether logits within a chunk are multiplied by what attention multiplies them by."""
    sketch: int = 48
    """Dimensions that keys are sketched to."""
    ridge: float = 1e-3
    """Added to the sketched Gram matrix's diagonal, in parts of its mean: near-empty directions count for little."""
    window: int = 2048
    """Queries looked at: to be as long as what is read between two cuts."""
    seed: int = 0
    """Of the sketch."""

    def __post_init__(self) -> None:
        for name, value in (("chunk", self.chunk), ("sketch", self.sketch), ("window", self.window)):
            if value < 1:
                raise InvalidRequestError(f"compactor: {name} is {value}: give 1 or more")
        if self.weight < 0:
            raise InvalidRequestError(f"compactor: weight is {self.weight}: give 0 or more")
        if not self.ridge > 0:
            raise InvalidRequestError(f"compactor: ridge is {self.ridge}: give a number above 0")

    @property
    def needs(self) -> Needs:
        return Needs(window=self.window)

    def score(self, heads: Heads) -> Tensor:
        attended = self._attended(heads)
        known = attended > 0
        keys = heads.model.rotate(heads.keys.to(torch.float32), -heads.rotated_at)
        drawn = sketch(keys.shape[-1], self.sketch, self.seed + heads.model.layer, keys.device)
        leverage = leverage_scores(keys, drawn, self.ridge)
        return standard(attended, known) + self.weight * standard(leverage, torch.ones_like(known))

    def _attended(self, heads: Heads) -> Tensor:
        """float32 [H, n]: c, positive, or 0 where it is not known."""
        queries, _ = window_queries(heads, self.window)
        size = heads.positions.shape[-1]
        count = min(queries.shape[2], heads.new, size)
        attended = torch.zeros(heads.positions.shape, device=heads.keys.device)
        stored = heads.state.get(_STATE)
        if stored is not None:
            attended[:, : size - count] = stored[:, : size - count]
        if count:
            latest = slice(size - count, size)
            scale = heads.model.scale if self.scaled else 1.0
            inside = chunk_attention(queries[:, :, -count:], heads.keys[:, latest], scale, self.chunk)
            attended[:, latest] = averaged(inside * heads.values[:, latest].to(torch.float32).norm(dim=-1))
        heads.state[_STATE] = attended
        return attended


def chunk_attention(queries: Tensor, keys: Tensor, scale: float, chunk: int) -> Tensor:
    """Attention that each key gets from all queries of its chunk, before and behind it: float32 [H, w].

    `queries` [H, G, w, D] and `keys` [H, w, D] of the same tokens, cut into chunks from the first on; mean over G.
    """
    heads, group, size, width = queries.shape
    chunk = min(chunk, size)
    missing = -size % chunk
    queries = torch.nn.functional.pad(queries.to(torch.float32), (0, 0, 0, missing))
    keys = torch.nn.functional.pad(keys.to(torch.float32), (0, 0, 0, missing))
    there = (torch.arange(size + missing, device=keys.device) < size).view(-1, chunk)
    logits = queries.view(heads, group, -1, chunk, width) @ keys.view(heads, 1, -1, chunk, width).mT * scale
    attention = logits.masked_fill(~there.unsqueeze(1), -torch.inf).softmax(dim=-1) * there.unsqueeze(-1)
    got: Tensor = attention.sum(dim=3).mean(dim=1).flatten(1)
    return got[:, :size]


def averaged(values: Tensor) -> Tensor:
    """Mean of each entry and its neighbours, of those that are there: float32 [H, n]."""
    pool = torch.nn.functional.avg_pool1d
    smooth: Tensor = pool(values.unsqueeze(1), _POOLED, 1, _POOLED // 2, count_include_pad=False)
    return smooth.squeeze(1)


def standard(values: Tensor, known: Tensor) -> Tensor:
    """`values` [H, n] brought to mean 0 and deviation 1 over the `known` entries of each row; others are 0.

    Deviations below a 10,000th of the mean are taken for that: rounding is not to be made into a score.
    """
    count = known.sum(dim=-1, keepdim=True).clamp(min=1)
    mean = torch.where(known, values, 0.0).sum(dim=-1, keepdim=True) / count
    centred = torch.where(known, values - mean, 0.0)
    deviation = (centred.square().sum(dim=-1, keepdim=True) / count).sqrt()
    return centred / torch.maximum(deviation, 1e-4 * mean.abs()).clamp(min=torch.finfo(torch.float32).tiny)
