"""One score for all entries of a piece of text, so that pieces are kept or dropped whole."""

from __future__ import annotations

import torch
from torch import Tensor


def segment_means(values: Tensor, pieces: Tensor, highest: int | None = None) -> Tensor:
    """For each entry the mean score of its piece, or of the piece's `highest` so many: float32 [H, n].

    `values` float32 [H, n]; `pieces` [H, n] tells a piece's entries, which lie together, by a number of its own.
    """
    rows, size = values.shape
    if not size:
        return values
    starts = torch.ones_like(pieces, dtype=torch.bool)
    starts[:, 1:] = pieces[:, 1:] != pieces[:, :-1]
    piece = starts.cumsum(dim=-1) - 1
    if highest is not None:
        # Sorted by score, then by piece without disturbing that: each piece's entries from the highest on.
        order = values.argsort(dim=-1, descending=True, stable=True)
        order = order.gather(1, piece.gather(1, order).argsort(dim=-1, stable=True))
        index = torch.arange(size, device=values.device)
        first = torch.where(starts, index, 0).cummax(dim=-1).values
        counted = torch.zeros_like(starts).scatter_(1, order, index - first < highest)
    else:
        counted = torch.ones_like(starts)
    empty = torch.zeros(rows, size, device=values.device)
    totals = empty.scatter_add(1, piece, torch.where(counted, values, 0.0))
    numbers = empty.scatter_add(1, piece, counted.to(torch.float32))
    return (totals / numbers.clamp(min=1)).gather(1, piece)
