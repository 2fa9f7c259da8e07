"""Moving the kept keys and values of a sequence to the front of their rows, on the device they are on.

On the way others may be merged into them, and keys be turned to new positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcdoc.local_engine.pages import PagePool, Pages, to_device

_MOVE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Merging:
    """What each kept entry becomes: the sum of all entries that go into it, itself among them, each by its share."""

    into: Tensor
    """int64 [L, H, n]: the entry of its row that an entry goes into, a kept one into itself; -1 for none"""
    shares: Tensor
    """float32 [L, H, n]"""
    keys: bool
    """Whether keys are merged, too, or values alone."""

    @classmethod
    def nothing(cls, keep: Tensor, *, keys: bool) -> Self:
        """Of rows as `keep` [L, H, n] has them, to be filled in."""
        return cls(torch.full_like(keep, -1, dtype=torch.int64), torch.zeros_like(keep, dtype=torch.float32), keys)


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """How far the keys of kept entries are turned on."""

    shift: Tensor
    """int64 [L, H, m], in positions; m is the most that a row keeps"""
    rotate: Callable[[int, Tensor, Tensor], Tensor]
    """(layer, x [..., n, D], int64 [..., n]) -> x turned on by so many positions"""
    frequencies: Tensor
    """float32 [R / 2]: by how much the pairs of dimensions i and i + R / 2 turn in one position"""


def survey_kept(keep: Tensor, lengths: NDArray[np.int32]) -> tuple[Tensor, NDArray[np.int32], NDArray[np.int32]]:
    """What of rows of `lengths` [L, H] tokens `keep` [L, H, n] (bool) keeps.

    Returns `keep` without what lies behind the rows' ends, and on the host how many entries of each row are kept and
    how many of them have nothing dropped before them, both [L, H]. Waits for the device once.
    """
    length = to_device(lengths, keep.device)
    column = torch.arange(keep.shape[2], device=keep.device)
    keep = keep & (column < length[..., None])
    unmoved = keep.to(torch.uint8).cumprod(-1, dtype=torch.uint8)
    numbers = torch.stack((keep.sum(-1, dtype=torch.int32), unmoved.sum(-1, dtype=torch.int32))).cpu().numpy()
    return keep, numbers[0], numbers[1]


def move_kept(pool: PagePool, keep: Tensor, source: Pages, target: Pages) -> None:
    """Copies the kept entries of each row, in order, from pages `source` [L, H, *] to the front of pages `target`.

    `target` may name a row's own pages in the same columns: an entry never moves backwards, and what a row still has to
    give is never overwritten, since entries are moved in order and a stretch of them is read before it is written.
    Keys and values already in place are not touched. Waits for the device twice.
    """
    layer, head, position = keep.nonzero(as_tuple=True)
    rank = (keep.cumsum(-1) - 1)[layer, head, position]
    there = _places(_sent(source, pool), pool.page_size, layer, head, position)
    here = _places(_sent(target, pool), pool.page_size, layer, head, rank)
    moved = there != here
    there, here = there[moved], here[moved]
    stretch = max(1, _MOVE_BYTES // (pool.head_dim * pool.dtype.itemsize))
    for store in pool.stores:
        flat = store.view(pool.pages * pool.page_size, -1)
        for begin in range(0, len(there), stretch):
            part = slice(begin, begin + stretch)
            flat.index_copy_(0, here[part], flat.index_select(0, there[part]))


def merge_kept(pool: PagePool, keep: Tensor, source: Pages, merging: Merging) -> None:
    """Merges what goes into the kept entries of rows in the pages `source` [L, H, *], where these entries are.

    An entry that none but itself goes into is left as it is. One layer at a time, in float32.
    """
    pages, size = _sent(source, pool), pool.page_size
    for each in range(len(keep)):
        into, shares, kept = merging.into[each], merging.shares[each], keep[each]
        goes = (into >= 0) & (shares != 0)
        grown = torch.zeros_like(shares).scatter_add_(1, into.clamp(min=0), (goes & ~kept).float()) > 0
        goes &= grown.gather(1, into.clamp(min=0))
        head, entry = goes.nonzero(as_tuple=True)
        there = _places(pages[each], size, head, entry)
        share, to = shares[head, entry, None], head * keep.shape[2] + into[head, entry]
        row, column = (grown & kept).nonzero(as_tuple=True)
        here = _places(pages[each], size, row, column)
        for store in (pool.keys, pool.values) if merging.keys else (pool.values,):
            flat = store.view(-1, pool.head_dim)
            total = torch.zeros(kept.numel(), pool.head_dim, device=pool.device)
            total.index_add_(0, to, flat[there].float() * share)
            flat[here] = total[row * keep.shape[2] + column].to(pool.dtype)


def turn_kept(pool: PagePool, kept: NDArray[np.int32], target: Pages, turn: Turn) -> None:
    """Turns the first `kept` [L, H] keys of rows in the pages `target` [L, H, *]. Those that stay are not touched."""
    counts, pages = to_device(kept, pool.device), _sent(target, pool)
    flat = pool.keys.view(-1, pool.head_dim)
    for each in range(len(kept)):
        shift = turn.shift[each]
        there = torch.arange(shift.shape[1], device=pool.device) < counts[each, :, None]
        head, rank = (there & (shift != 0)).nonzero(as_tuple=True)
        here = _places(pages[each], pool.page_size, head, rank)
        flat[here] = turn.rotate(each, flat[here].float(), shift[head, rank]).to(pool.dtype)


def _sent(pages: Pages, pool: PagePool) -> Tensor:
    return to_device(np.ascontiguousarray(pages), pool.device)


def _places(pages: Tensor, size: int, *where: Tensor) -> Tensor:
    """Where entries of rows in `pages` [..., *] are, in the pool seen as [pages * page_size, ...]; the last of `where`
    tells the entries, those before it their rows."""
    *row, entry = where
    return pages[(*row, entry // size)].long() * size + entry % size
