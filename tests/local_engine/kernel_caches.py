"""A poisoned paged cache for the attention kernels' tests.

Only what a kernel may read holds numbers: the rest of the pool is NaN, and unused columns of the table name pages
that do not exist.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ABSENT_PAGE = 1_000_000_007


@dataclass(frozen=True)
class Cache:
    keys: Tensor
    values: Tensor
    bias: Tensor
    table: Tensor
    slots: Tensor

    def wide(self) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and bias in float64, for the reference."""
        return self.keys.double(), self.values.double(), self.bias.double()


def make_cache(
    lengths: Tensor, page_size: int, head_dim: int, dtype: torch.dtype, *, hidden_before: Tensor | None = None
) -> Cache:
    """Rows of lengths [B, H] in a shuffled pool; the table is a strided view of one layer among three.

    Keys before hidden_before [B, H] of a row are NaN: a window is to keep them from being read into the result.
    """
    sequences, heads = lengths.shape
    counts = (lengths + page_size - 1) // page_size
    pool = int(counts.sum()) + 3
    keys = torch.full((pool, page_size, head_dim), torch.nan, dtype=dtype)
    values, bias = keys.clone(), torch.full((pool, page_size), torch.nan)
    slots = torch.randperm(sequences + 2)[:sequences]
    table = torch.full((sequences + 2, 3, heads, int(counts.max()) + 2), ABSENT_PAGE, dtype=torch.int32)[:, 1]
    free = torch.randperm(pool)
    for sequence in range(sequences):
        for head in range(heads):
            length, count = int(lengths[sequence, head]), int(counts[sequence, head])
            pages, free = free[:count], free[count:]
            table[slots[sequence], head, :count] = pages.int()
            first = 0 if hidden_before is None else int(hidden_before[sequence, head])
            place = torch.arange(first, length)
            page, offset = pages[place // page_size], place % page_size
            keys[page, offset] = torch.randn(len(place), head_dim).to(dtype)
            values[page, offset] = torch.randn(len(place), head_dim).to(dtype)
            bias[page, offset] = torch.randn(len(place))
    return Cache(keys, values, bias, table, slots)
