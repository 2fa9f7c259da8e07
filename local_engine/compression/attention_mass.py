"""The attention that each entry gets from a pass's queries, without an S x S matrix: a strip of queries at a time.

"H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models", section 4, sums it up over all
queries.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_STRIP_NUMBERS = 1 << 22
"""Logits that are held at once."""


def attention_mass(
    queries: Tensor, keys: Tensor, scale: float, *, window: int | None = None, bias: Tensor | None = None
) -> Tensor:
    """float32 [H, n]: attention weights summed over the queries [C, H, G, D], the mean over the G heads.

    The queries are those of the last C of the n `keys` [H, n, D], rotated: each sees the keys up to its own, the last
    `window` of them where there is one. `bias` float32 [H, n] is added to the logits.
    """
    mass = torch.zeros(keys.shape[:2], device=keys.device)
    for _, logits in _strips(queries, keys, scale, window, bias):
        mass += logits.softmax(-1).sum((1, 2)) / queries.shape[2]
    return mass


def log_mass(queries: Tensor, keys: Tensor, scale: float, *, window: int | None = None) -> Tensor:
    """float32 [C, H, G]: log of the sum of exp(q k scale) over the keys that each query sees, as above."""
    made = torch.empty(queries.shape[:3], device=keys.device)
    for rows, logits in _strips(queries, keys, scale, window, None):
        made[rows] = logits.logsumexp(-1).permute(2, 0, 1)
    return made


def _strips(
    queries: Tensor, keys: Tensor, scale: float, window: int | None, bias: Tensor | None
) -> Iterator[tuple[slice, Tensor]]:
    """Some of the queries, and their logits [H, G, s, n]: -inf for keys they do not see."""
    count, heads, groups, dim = queries.shape
    length = keys.shape[1]
    wide = keys.float()
    column = torch.arange(length, device=keys.device)
    strip = max(1, _STRIP_NUMBERS // (heads * groups * length))
    for first in range(0, count, strip):
        part = queries[first : first + strip].float().permute(1, 2, 0, 3)  # [H, G, s, D]
        rows = part.shape[2]
        last = length - count + first + torch.arange(rows, device=keys.device)[:, None]
        seen = column <= last
        if window is not None:
            seen &= column > last - window
        logits = (part.reshape(heads, groups * rows, dim) @ wide.mT).mul_(scale).view(heads, groups, rows, length)
        if bias is not None:
            logits += bias[:, None, None]
        yield slice(first, first + rows), logits.masked_fill_(~seen, -torch.inf)
