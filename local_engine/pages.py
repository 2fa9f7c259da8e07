"""The memory of the cache: pages of keys and values, and how many hold each of them.

A page keeps `page_size` keys and as many values of *one* head in *one* layer; which page belongs where is the business
of `page_tables.py`. Here a page is only a number, free or held so many times. The bookkeeping is arrays on the host: a
device is never asked anything.

Pages are handed out in runs of neighbours as far as the free space allows, because a row whose pages follow one another
can be read as one view. Finding free pages looks at a count per group of pages first, so that a pool of ten million
pages costs no more than one of ten thousand.

Neither the pool nor the tables lock anything: one thread works with them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcdoc.local_engine.errors import EngineError, OutOfPagesError

Pages = NDArray[np.int32]

_GROUP_BITS = 10
_GROUP = 1 << _GROUP_BITS
_ALIGNMENT_BYTES = 64
_FIRST_LOOK = 64 * _GROUP
_ONCE = np.int32(1)
"""In the type of the counts: numpy's `add.at` is a hundred times slower when it has to convert."""


def to_device(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """The array on `device`. To a GPU it goes through pinned memory, and nothing waits for it to arrive."""
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class PagePool:
    """`pages` pages of `page_size` tokens, each `head_dim` numbers wide, for keys and again for values.

    `keys` and `values` are [pages, page_size, head_dim] and begin as zeros; on a CPU the system gives them memory only
    as they are first written. `refs` [pages] says how often each page is held; 0 is free.
    """

    def __init__(
        self, pages: int, page_size: int, head_dim: int, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        if min(pages, page_size, head_dim) < 1:
            raise EngineError(
                f"a page pool needs at least one page, token and number: got {pages} pages of {page_size} x {head_dim}"
            )
        if pages > np.iinfo(np.int32).max:
            raise EngineError(f"a page pool of {pages} pages is more than page numbers of 32 bits reach: larger pages")
        self.pages = pages
        self.page_size = page_size
        self.head_dim = head_dim
        self.dtype = dtype
        self.device = torch.device(device)
        self.keys = _zeros((pages, page_size, head_dim), dtype, self.device)
        self.values = _zeros((pages, page_size, head_dim), dtype, self.device)
        groups = -(-pages // _GROUP)
        self.bias: Tensor | None = None
        """float32 [pages, page_size]: what is added to each entry's attention logits; None while nobody needs it."""
        self._padded = np.zeros(groups * _GROUP, np.int32)
        self._padded[pages:] = 1  # never free
        self.refs: Pages = self._padded[:pages]
        self._free_in_group = np.full(groups, _GROUP, np.int64)
        self._free_in_group[-1] -= len(self._padded) - pages
        self._free = pages

    @property
    def free(self) -> int:
        """How many pages nobody holds."""
        return self._free

    @property
    def page_bytes(self) -> int:
        """Bytes of one page, keys and values."""
        return 2 * self.page_size * self.head_dim * self.dtype.itemsize

    @property
    def stores(self) -> tuple[Tensor, ...]:
        """What a page consists of, each [pages, page_size, ...]."""
        return (self.keys, self.values) if self.bias is None else (self.keys, self.values, self.bias)

    def with_bias(self) -> Tensor:
        """`bias`, zeros where it was not there before."""
        if self.bias is None:
            with torch.inference_mode(False):  # passes of any mode write to it
                self.bias = _zeros((self.pages, self.page_size), torch.float32, self.device)
        return self.bias

    def take(self, count: int, run: int | None = None) -> Pages:
        """`count` free pages, now held once each.

        They come as stretches of `run` neighbours (by default one stretch of all), first fit, as many as the free space
        has; the rest are the lowest free pages there are. With `run=1` all are the lowest, ascending.

        Raises OutOfPagesError, with nothing taken.
        """
        if count > self._free:
            raise OutOfPagesError(needed=count, free=self._free)
        if count <= 0:
            return np.empty(0, np.int32)
        run = count if run is None else run
        taken = self._hold(self._lowest(count) if run <= 1 else self._stretches(count // run, run))
        missing = count - len(taken)
        return np.concatenate((taken, self._hold(self._lowest(missing)))) if missing else taken

    def take_rows(self, needs: NDArray[np.integer]) -> Pages:
        """Pages for rows that need `needs` [rows] each, row after row; a row's pages are neighbours where possible.

        Raises OutOfPagesError, with nothing taken.
        """
        total = int(needs.sum())
        if total > self._free:
            raise OutOfPagesError(needed=total, free=self._free)
        widths = np.unique(needs)[::-1]
        if len(widths) == 1:
            return self.take(total, run=int(widths[0]))
        pages = np.empty(total, np.int32)
        starts = np.cumsum(needs) - needs
        for width in widths.tolist():  # mostly one or two different ones
            rows = np.flatnonzero(needs == width)
            places = starts[rows, None] + np.arange(width)
            pages[places.ravel()] = self.take(places.size, run=width)
        return pages

    def retain(self, pages: Pages) -> None:
        """Hold each of these pages once more. Raises EngineError for one that is free: it belongs to nobody."""
        self._check_range(pages)
        if len(pages) and self.refs[pages].min() < 1:
            page = pages[self.refs[pages] < 1][0]
            raise EngineError(f"cache page {page} is free and cannot be shared: take pages before holding them again")
        np.add.at(self.refs, pages, _ONCE)

    def release(self, pages: Pages) -> None:
        """Hold each of these pages once less, as often as it is named; those that nobody holds any more are free.

        Raises EngineError for a page that is named more often than it is held; then nothing was released.
        """
        self._check_range(pages)
        np.subtract.at(self.refs, pages, _ONCE)
        left = self.refs[pages]
        if len(left) and left.min() < 0:
            np.add.at(self.refs, pages, _ONCE)
            raise EngineError(f"cache page {pages[left < 0][0]} is released more often than it is held")
        freed = pages[left == 0]
        # A page that was named more than once counts once: of those that mark it, one leaves its mark.
        mark = np.arange(len(freed), dtype=np.int32)
        self.refs[freed] = mark
        freed = freed[self.refs[freed] == mark]
        self.refs[freed] = 0
        self._free += len(freed)
        self._free_in_group += np.bincount(freed >> _GROUP_BITS, minlength=len(self._free_in_group))

    def copy(self, source: Pages, target: Pages) -> None:
        """Copy whole pages on the device, `source[i]` to `target[i]`; no page may be in both, or twice in `target`."""
        if not len(source):
            return
        source_index = to_device(source.astype(np.int64), self.device)
        target_index = to_device(target.astype(np.int64), self.device)
        for store in self.stores:
            store.index_copy_(0, target_index, store.index_select(0, source_index))

    def check_integrity(self) -> None:
        """Raises EngineError when the counts contradict each other."""
        negative = np.flatnonzero(self.refs < 0)
        if len(negative):
            raise EngineError(f"cache page {negative[0]} is held {self.refs[negative[0]]} times")
        free = (self._padded == 0).reshape(-1, _GROUP).sum(1)
        if self._free != free.sum() or (free != self._free_in_group).any():
            raise EngineError(f"{free.sum()} cache pages are free, but {self._free} are counted")

    def _hold(self, pages: Pages) -> Pages:
        self.refs[pages] = 1
        self._free -= len(pages)
        self._free_in_group -= np.bincount(pages >> _GROUP_BITS, minlength=len(self._free_in_group))
        return pages

    def _lowest(self, count: int) -> Pages:
        last = int(np.searchsorted(np.cumsum(self._free_in_group), count))
        groups = np.flatnonzero(self._free_in_group[: last + 1])
        found = np.flatnonzero(self._padded.reshape(-1, _GROUP)[groups] == 0)[:count]
        pages: Pages = ((groups[found >> _GROUP_BITS] << _GROUP_BITS) + (found & (_GROUP - 1))).astype(np.int32)
        return pages

    def _stretches(self, count: int, run: int) -> Pages:
        """The first `count` stretches of `run` free pages, or as many as there are; [up to count * run]."""
        begin = int(np.flatnonzero(self._free_in_group)[0]) << _GROUP_BITS
        look = max(_FIRST_LOOK, 2 * count * run)
        while True:
            free = np.zeros(min(look, self.pages - begin) + 2, np.bool_)
            free[1:-1] = self.refs[begin : begin + look] == 0
            borders = np.flatnonzero(free[1:] != free[:-1])
            starts, ends = borders[::2], borders[1::2]
            fits = (ends - starts) // run
            if fits.sum() >= count or begin + look >= self.pages:
                break
            look *= 4
        before = np.cumsum(fits) - fits
        nth = np.arange(min(count, int(fits.sum()))) if len(fits) else np.empty(0, np.int64)
        at = np.searchsorted(before + fits, nth, side="right")
        first = begin + starts[at] + (nth - before[at]) * run
        pages: Pages = (first[:, None] + np.arange(run)).astype(np.int32).ravel()
        return pages

    def _check_range(self, pages: Pages) -> None:
        if len(pages) and (pages.min() < 0 or pages.max() >= self.pages):
            raise EngineError(f"pages {pages.min()} to {pages.max()} are named, but the pool has 0 to {self.pages - 1}")


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # torch.zeros writes its zeros; numpy asks the system for memory that is zero, and gets it when it is touched.
    count = int(np.prod(shape)) * dtype.itemsize
    raw = torch.from_numpy(np.zeros(count + _ALIGNMENT_BYTES, np.uint8))
    skip = -raw.data_ptr() % _ALIGNMENT_BYTES
    return raw[skip : skip + count].view(dtype).view(shape)
