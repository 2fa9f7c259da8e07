"""Temperature, top-k, top-p and min-p as transformers applies them, and the draw from what they leave.

Each row is a (sampling, uniform number) pair. Results are float64 [3, r]: the drawn token, the best score of the row,
and 1 where the token is final.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lcdoc.local_engine.draws import drawn

if TYPE_CHECKING:
    from lcdoc.local_engine.sampling import Sampling

Rows = Sequence[tuple["Sampling", float]]

# How many of the best tokens are looked at first; each wider try is made only for rows whose border lies outside.
_WIDTHS = (256, 4096)


def draw_unranked(scores: Tensor, rows: Rows) -> Tensor:
    """Rows with temperature and min-p alone: nothing has to be ranked."""
    best, temperature = _warmth(scores, rows)
    # The best score is subtracted first, so that no temperature can overflow.
    weights = ((scores - best) / temperature).exp_()
    floors = [sampling.min_p for sampling, _ in rows]
    if any(floors):
        weights.masked_fill_(weights < _column(floors, scores.device).float(), 0.0)
    return _result(drawn(weights, _uniforms(rows, scores.device)), best.squeeze(1), torch.ones_like(best).squeeze(1))


def draw_ranked(scores: Tensor, rows: Rows, width: int = _WIDTHS[0]) -> Tensor:
    """Rows with top-k or top-p, decided on their `width` best tokens.

    A row is final when the worst token it keeps is better than the worst one looked at: then nothing outside, not even
    a tie, could have been kept. With `width` = V every row is final.
    """
    device, tokens = scores.device, scores.shape[1]
    width = min(width, tokens)
    best, temperature = _warmth(scores, rows)
    if width < tokens:
        ids = scores.topk(width, dim=-1).indices.sort(dim=-1).values
        values = scores.gather(1, ids)
    else:
        ids, values = None, scores
    # Stable, and `values` is in the order of ids: equal scores are ranked by id on every device.
    ranked, order = values.sort(dim=-1, descending=True, stable=True)
    weights = ((ranked - best).double() / temperature).exp_()

    counts = [sampling.top_k for sampling, _ in rows]
    kept = weights > 0
    if any(counts):
        last = torch.tensor([min(count or width, width) - 1 for count in counts]).to(device, non_blocking=True)
        kept &= ranked >= ranked.gather(1, last.unsqueeze(1))
    shares = [sampling.top_p for sampling, _ in rows]
    if any(share < 1 for share in shares):
        inside = weights * kept
        total = inside.sum(dim=-1, keepdim=True)
        if width < tokens and not all(counts):
            mass = ((scores - best) / temperature).exp_().sum(dim=-1, keepdim=True, dtype=torch.float64)
            total = torch.where(_column(counts, device) > 0, total, mass)
        share = _column(shares, device)
        kept &= (inside.cumsum(dim=-1) - inside < share * total) | (share >= 1)
    floors = [sampling.min_p for sampling, _ in rows]
    if any(floors):
        kept &= weights >= _column(floors, device)

    worst = torch.where(kept, ranked, math.inf).amin(dim=-1)
    final = torch.ones_like(worst, dtype=torch.bool)
    if width < tokens:
        seen = torch.tensor([count <= width for count in counts]).to(device, non_blocking=True)
        final = (worst > ranked[:, -1]) & seen
    by_id = torch.zeros_like(weights).scatter_(1, order, weights * kept)
    token = drawn(by_id, _uniforms(rows, device))
    if ids is not None:
        token = ids.gather(1, token.unsqueeze(1)).squeeze(1)
    return _result(token, best.squeeze(1), final)


def draw_wider(scores: Tensor, rows: Rows) -> Tensor:
    """Tokens [r] of rows whose border lies outside the first candidates, float64 on the CPU."""
    tokens = torch.empty(len(rows), dtype=torch.float64)
    left = list(range(len(rows)))
    for width in (*_WIDTHS[1:], scores.shape[1]):
        token, _, final = draw_ranked(scores[left], [rows[place] for place in left], width).cpu()
        tokens[left] = token
        left = [place for place, done in zip(left, final.tolist(), strict=True) if not done]
        if not left:
            break
    return tokens


def _result(token: Tensor, best: Tensor, final: Tensor) -> Tensor:
    return torch.stack((token.double(), best.double(), final.double()))


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    """Numbers of the rows as a float64 column [r, 1]."""
    return torch.tensor(values, dtype=torch.float64).to(device, non_blocking=True).unsqueeze(1)


def _warmth(scores: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """Best score and temperature of each row, both [r, 1] float32."""
    temperature = _column([sampling.temperature for sampling, _ in rows], scores.device)
    return scores.amax(dim=-1, keepdim=True), temperature.float()


def _uniforms(rows: Rows, device: torch.device) -> Tensor:
    return _column([number for _, number in rows], device)
