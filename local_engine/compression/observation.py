"""What is seen of a sequence's queries while it is read, as far as a recipe's parts need it.

In a pass the operations tell an `Observer` (see `batch.py`) each layer's queries; with no recipe that needs them there
is none, and a pass costs what it did. Of the queries only a window, or two moments, or the attention they paid stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lcdoc.local_engine.batch import Batch
from lcdoc.local_engine.compression.entries import Entries
from lcdoc.local_engine.compression.parts import Moments, Needs
from lcdoc.local_engine.compression.rows import Stored, alike_rows
from lcdoc.local_engine.config import ModelConfig

MASS: Final = "mass"
SURPRISE: Final = "surprise"
_LOGIT_ROWS = 64


@dataclass(slots=True)
class _Seen:
    """Of one layer."""

    queries: Tensor | None = None
    """[w, H, G, D], rotated"""
    hidden: Tensor | None = None
    """[w, hidden]"""
    beside: Tensor | None = None
    """float32 [w, H, G]"""
    read: int = 0
    count: int = 0
    mean: Tensor | None = None
    """float32 [H, G, D]"""
    scatter: Tensor | None = None
    """float32 [H, G, D, D]: the sum of outer products of what differs from the mean."""


class Sightings:
    """What was seen of one sequence, or of a probe behind it.

    `skipped` first tokens, the sinks, do not count in the moments. Of a probe it is also noted how much attention its
    queries give the probe itself.
    """

    def __init__(
        self, config: ModelConfig, needs: Needs, entries: Entries, *, skipped: int = 0, probe: bool = False
    ) -> None:
        self.needs = needs
        self.entries = entries
        self._config = config
        self._skipped = skipped
        self._probe = probe
        self._layers = [_Seen() for _ in range(config.layers)]
        self.query_positions: Tensor | None = None
        """int64 [w]: what the window's queries are rotated to."""
        self.surprise: list[float] = []
        """-log p of each token that was read since the last cut; 0 of the first of all, which nothing foretold."""
        self._foretold: Tensor | None = None

    def queries(self, layer: int) -> Tensor | None:
        """[H, G, w, D], rotated: the last ones since the last cut."""
        kept = self._layers[layer].queries
        return None if kept is None else kept.permute(1, 2, 0, 3)

    def beside(self, layer: int) -> Tensor | None:
        """float32 [H, G, w]: the log-sum-exp that a probe's own keys give each query; None where this is no probe."""
        kept = self._layers[layer].beside
        return None if kept is None else kept.permute(1, 2, 0)

    def hidden(self, layer: int) -> Tensor | None:
        """[w, hidden]: what the window's queries were made of."""
        return self._layers[layer].hidden

    def moments(self, layer: int) -> Moments | None:
        """Of all queries but the sinks'; None where there were none."""
        seen = self._layers[layer]
        if seen.mean is None or seen.scatter is None:
            return None
        return Moments(seen.mean, seen.scatter / seen.count)

    @classmethod
    def joined(cls, pieces: Sequence[Sightings], most: int) -> Sightings:
        """The windows of several pieces as one of at most `most` queries, evenly taken."""
        made = cls(pieces[0]._config, pieces[0].needs, pieces[0].entries, probe=pieces[0]._probe)
        total = sum(len(piece.query_positions) for piece in pieces if piece.query_positions is not None)
        step = max(1, -(-total // most))

        def every(parts: list[Tensor | None]) -> Tensor | None:
            there = [part for part in parts if part is not None]
            return torch.cat(there)[::step] if there else None

        made.query_positions = every([piece.query_positions for piece in pieces])
        for layer, seen in enumerate(made._layers):
            seen.queries = every([piece._layers[layer].queries for piece in pieces])
            seen.hidden = every([piece._layers[layer].hidden for piece in pieces])
            seen.beside = every([piece._layers[layer].beside for piece in pieces])
        return made

    def forget(self) -> None:
        """A cut was made: the window begins anew."""
        self.query_positions = None
        for seen in self._layers:
            seen.queries = seen.hidden = seen.beside = None

    def took_in(self, layer: int, hidden: Tensor) -> None:
        if self.needs.hidden and self.needs.window:
            seen = self._layers[layer]
            seen.hidden = _last(seen.hidden, hidden, self.needs.window)

    def attended(  # noqa: PLR0917
        self, layer: int, before: Tensor, rotated: Tensor, lse: Tensor | None, batch: Batch, index: int
    ) -> None:
        """Queries [C, H * G, D] of the piece `index`, before and after rotation; see `Observer.attends`."""
        kv_heads = self._config.kv_heads
        count, _, dim = rotated.shape
        grouped = rotated.reshape(count, kv_heads, -1, dim)
        seen = self._layers[layer]
        if self.needs.window:
            seen.queries = _last(seen.queries, grouped, self.needs.window)
            if layer == 0:
                part = slice(int(batch.starts[index]), int(batch.starts[index + 1]))
                self.query_positions = _last(self.query_positions, batch.positions[part], self.needs.window)
            if self._probe:
                beside = self._beside(layer, grouped, batch, index)
                seen.beside = _last(seen.beside, beside, self.needs.window)
        if self.needs.moments:
            self._gather_moments(seen, before.reshape(count, kv_heads, -1, dim))
        if self.needs.mass:
            self._add_mass(layer, grouped, lse, batch, index)
        seen.read += count

    def ended(self, last: Tensor, logits: Callable[[Tensor], Tensor], tokens: Tensor) -> None:
        """The last layer's output [C, hidden] for `tokens` [C]."""
        if not self.needs.surprise:
            return
        first = 0.0 if self._foretold is None else -float(self._foretold[tokens[0]])
        self.surprise.append(first)
        for begin in range(0, len(tokens), _LOGIT_ROWS):
            chances = logits(last[begin : begin + _LOGIT_ROWS]).float().log_softmax(-1)
            following = tokens[begin + 1 : begin + 1 + len(chances)]
            found = chances[torch.arange(len(following), device=following.device), following]
            self.surprise += (-found).tolist()
            self._foretold = chances[-1]

    def _gather_moments(self, seen: _Seen, queries: Tensor) -> None:
        # Means and scatters of two parts are joined as in Chan, Golub and LeVeque, "Updating Formulae and a Pairwise
        # Algorithm for Computing Sample Variances".
        wide = queries[max(0, self._skipped - seen.read) :].float()
        if not len(wide):
            return
        mean = wide.mean(0)
        off = wide - mean
        scatter = torch.einsum("chgd,chge->hgde", off, off)
        if seen.mean is None or seen.scatter is None:
            seen.mean, seen.scatter, seen.count = mean, scatter, len(wide)
            return
        total = seen.count + len(wide)
        apart = mean - seen.mean
        seen.scatter = (
            seen.scatter + scatter + apart[..., None] * apart[..., None, :] * (seen.count * len(wide) / total)
        )
        seen.mean = seen.mean + apart * (len(wide) / total)
        seen.count = total

    def _add_mass(self, layer: int, queries: Tensor, lse: Tensor | None, batch: Batch, index: int) -> None:
        longest = int(batch.past[index].max()) + len(queries)
        figure = self.entries.figure(MASS, longest)[layer]
        scale, window = self._config.head_dim**-0.5, self._config.windows[layer]
        batch.tables.kernels.add_attention_mass(figure, layer, queries, lse, batch, index, scale, window)

    def _beside(self, layer: int, queries: Tensor, batch: Batch, index: int) -> Tensor:
        """float32 [C, H, G]: of the queries [C, H, G, D] over the keys of the probe, which stand last in each row."""
        made = torch.empty(queries.shape[:3], device=queries.device)
        own, tables = self._layers[layer].read + len(queries), batch.tables
        scale, window = self._config.head_dim**-0.5, self._config.windows[layer]
        for heads, where in alike_rows(layer, batch, index):
            stored = Stored(tables.kernels, tables.pool, where[:, -own:])
            made[:, heads] = tables.kernels.log_mass(stored, queries[:, heads], scale, window=window)
        return made


class Watch:
    """An `Observer` of the pieces of a batch that somebody looks at: one `Sightings`, or None, for each piece."""

    def __init__(self, pieces: Sequence[Sightings | None]) -> None:
        self._pieces = [(index, seen) for index, seen in enumerate(pieces) if seen is not None]

    def takes_in(self, layer: int, hidden: Tensor, batch: Batch) -> None:
        for index, seen in self._pieces:
            seen.took_in(layer, hidden[_part(batch, index)])

    def attends(self, layer: int, before: Tensor, rotated: Tensor, lse: Tensor | None, batch: Batch) -> None:
        for index, seen in self._pieces:
            part = _part(batch, index)
            seen.attended(layer, before[part], rotated[part], None if lse is None else lse[part], batch, index)

    def ends(self, last: Tensor, logits: Callable[[Tensor], Tensor], batch: Batch) -> None:
        for index, seen in self._pieces:
            part = _part(batch, index)
            seen.ended(last[part], logits, batch.tokens[part])


def _part(batch: Batch, index: int) -> slice:
    return slice(int(batch.starts[index]), int(batch.starts[index + 1]))


def _last(known: Tensor | None, new: Tensor, count: int) -> Tensor:
    """The last `count` rows of both, as a tensor of its own."""
    if known is None or len(new) >= count:
        return new[-count:].clone()
    return torch.cat((known, new))[-count:]
