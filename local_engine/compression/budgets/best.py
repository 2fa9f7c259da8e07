"""The best entries of each row, once it is known how many: what all budgets end with.

Protected entries are taken by their mask, never by a score made large: in bfloat16 the largest score plus one is the
largest score again.
"""

from __future__ import annotations

import torch
from torch import Tensor


def best(values: Tensor, free: Tensor, counts: Tensor) -> Tensor:
    """The `counts` highest `free` entries of each row, bool [..., n]; of equal ones the earliest.

    `values` float32 [..., n], `free` bool [..., n], `counts` int64 [...]; a row with fewer free entries gives them all.
    A score that is no number ranks last. One entry more is the same set and one entry: sets of one row are nested.
    """
    if not values.shape[-1]:
        return torch.zeros_like(free)
    counts = torch.minimum(counts, free.sum(dim=-1)).unsqueeze(-1)
    # Entries that may be taken stay above -inf, which marks the others.
    lowest = torch.finfo(torch.float32).min
    ranked = values.to(torch.float32).nan_to_num(nan=lowest, posinf=float("inf"), neginf=lowest)
    ranked = ranked.masked_fill(~free, -torch.inf)
    highest = ranked.topk(max(1, int(counts.max())), dim=-1).values
    last = highest.gather(-1, (counts - 1).clamp_(min=0))
    above = ranked > last
    level = free & (ranked == last)
    return above | level & (level.cumsum(dim=-1) <= counts - above.sum(dim=-1, keepdim=True))
