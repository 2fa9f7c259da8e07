"""Moving the kept keys and values of a sequence to the front of their rows, on the device they are on."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcdoc.local_engine.pages import PagePool, Pages, to_device

_MOVE_BYTES = 64 << 20


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
    size = pool.page_size
    layer, head, position = keep.nonzero(as_tuple=True)
    rank = (keep.cumsum(-1) - 1)[layer, head, position]
    old, new = (to_device(np.ascontiguousarray(pages), pool.device) for pages in (source, target))
    there = old[layer, head, position // size].long() * size + position % size
    here = new[layer, head, rank // size].long() * size + rank % size
    moved = there != here
    there, here = there[moved], here[moved]
    stretch = max(1, _MOVE_BYTES // (pool.head_dim * pool.dtype.itemsize))
    for store in pool.stores:
        flat = store.view(pool.pages * size, -1)
        for begin in range(0, len(there), stretch):
            part = slice(begin, begin + stretch)
            flat.index_copy_(0, here[part], flat.index_select(0, there[part]))
