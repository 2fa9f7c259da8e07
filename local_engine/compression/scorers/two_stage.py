"""One ranking that holds the answers of a two-stage choice for every budget.

The choice: of k entries, floor(k / 2) are the best by a first score, the rest the best of what remains by a second.
A scorer does not know k, which other parts choose. But the sets for k = 0, 1, 2 ... each hold the one before, so there
is one order whose first k entries are the set for k.

With ranks a and b by the two scores, an entry is in the set for k = 2m if a < m, or if its b is at most t(m), the
m-th smallest b of entries with a >= m. All t(m) are found at once, by a wavelet matrix (Claude and Navarro, "The
Wavelet Matrix"): one pass for each bit of n.

Where heads compete, how many entries each keeps is for the first score to say. So what an entry is given is no place,
which would be alike in all heads, but the score that stands at its place in the first ranking.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LEAST = 1e-30
"""What a score below it counts as: far enough above 0 that the numbers next to it are still exact."""


def two_stage_order(first: Tensor, second: Tensor) -> Tensor:
    """Places, int64 [H, n], 0 the best: the entries with places below k are the two-stage choice of k, for every k.

    `first` and `second` are float32 [H, n]; of equal scores the earlier entry counts as the higher.
    """
    size = first.shape[-1]
    by_first, by_second = _places(first), _places(second)
    ordered = torch.empty_like(by_second).scatter_(-1, by_first, by_second)
    limits = _limits(ordered, size // 2)
    entered = torch.searchsorted(limits, by_second)
    # The pair (one of each stage) with which an entry comes in; of a pair, the second stage's comes first, for odd k.
    pair = torch.minimum(by_first, entered)
    return _places(-(pair * size + by_second))


def dealt(scores: Tensor, places: Tensor) -> Tensor:
    """The scores of each row in another order, float32 [H, n]: the entry with place k gets the k-th highest.

    `scores` float32 [H, n], not negative or -inf; `places` int64 [H, n] as `two_stage_order` gives them. Of equal
    scores each is the next number below the one before, so that the order is that of the places.
    """
    ordered = scores.sort(dim=-1, descending=True).values.clamp(min=_LEAST)
    # Positive numbers are in the order of their bits, and one less is the next number below.
    bits = ordered.view(torch.int32).to(torch.int64)
    index = torch.arange(bits.shape[-1], device=bits.device)
    apart = (bits + index).cummin(dim=-1).values - index
    return apart.to(torch.int32).view(torch.float32).gather(-1, places)


def _places(scores: Tensor) -> Tensor:
    """int64 [H, n]: how many entries of its row come before each."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return torch.empty_like(order).scatter_(
        -1, order, torch.arange(order.shape[-1], device=order.device).expand_as(order)
    )


def _limits(places: Tensor, pairs: int) -> Tensor:
    """int64 [H, pairs], rising: for m = 1 .. pairs, the m-th smallest of `places` [H, n] from index m on."""
    rows, size = places.shape
    device = places.device
    start = torch.arange(1, pairs + 1, device=device).repeat(rows, 1)
    end = torch.full_like(start, size)
    rank = start - 1
    found = torch.zeros_like(start)
    index = torch.arange(size, device=device)
    for bit in reversed(range(max(1, (size - 1).bit_length()))):
        ones = (places >> bit) & 1
        zeros_before = torch.nn.functional.pad((1 - ones).cumsum(dim=-1), (1, 0))
        zeros = zeros_before[:, -1:]
        low, high = zeros_before.gather(1, start), zeros_before.gather(1, end)
        among_zeros = rank < high - low
        found = torch.where(among_zeros, found, found | (1 << bit))
        rank = torch.where(among_zeros, rank, rank - (high - low))
        start = torch.where(among_zeros, low, zeros + start - low)
        end = torch.where(among_zeros, high, zeros + end - high)
        moved = torch.where(ones == 0, zeros_before[:, :-1], zeros + index - zeros_before[:, :-1])
        places = torch.empty_like(places).scatter_(1, moved, places)
    return found.cummax(dim=-1).values if pairs else found
