"""The rows of pages as their readers see them: page numbers, lengths, the device's copy, the runs they can be read in.

`page_tables.py` changes them. What is remembered beside the arrays, because a step asks for it, is brought up to date
by whoever changes a sequence.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.page_checks import check_rows
from lcdoc.local_engine.page_growth import Integers, Rows, pages_of
from lcdoc.local_engine.page_mirror import PageMirror
from lcdoc.local_engine.pages import PagePool, Pages

Holder = Callable[[], Pages]


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """The rows of a sequence as they were at some moment, for others to begin with."""

    table: Pages
    """[layers, kv_heads, columns]: page numbers, 0 behind a row's end"""
    lengths: Rows
    """[layers, kv_heads]"""
    held: Pages
    """The pages of all rows, [sum of theirs]"""
    whole: bool
    biased: bool


class PageRows:
    """One row of pages for each (sequence, layer, key-value head).

    `table` [sequences, layers, kv_heads, columns] int32 holds page numbers (0 where none is), `lengths` and `counts`
    [sequences, layers, kv_heads] int32 the tokens and the pages of each row. `columns` starts at `max_pages` and
    doubles as rows grow, which replaces `table` and `tables()`.
    """

    def __init__(self, pool: PagePool, sequences: int, layers: int, kv_heads: int, max_pages: int) -> None:
        if min(sequences, layers, kv_heads, max_pages) < 1:
            raise EngineError(
                "page tables need at least one sequence, layer, head and page: "
                f"got {sequences}, {layers}, {kv_heads}, {max_pages}"
            )
        self.pool = pool
        self.sequences = sequences
        self.layers = layers
        self.kv_heads = kv_heads
        rows = (sequences, layers, kv_heads)
        self.table = np.zeros((*rows, max_pages), np.int32)
        self.lengths = np.zeros(rows, np.int32)
        self.counts = np.zeros(rows, np.int32)
        self.uniform = np.ones(sequences, np.bool_)
        """[S] whether all rows of a sequence have the same length."""
        self.whole = np.ones(sequences, np.bool_)
        """[S] whether every row still holds its first tokens with none left out, so that prefixes can be shared."""
        self.biased = np.zeros(sequences, np.bool_)
        """[S] whether the pool's biases count for a sequence."""
        self._room = np.zeros(sequences, np.int64)  # tokens until some row needs a page
        self._open = np.zeros(sequences, np.bool_)
        self._dirty = np.zeros(sequences, np.bool_)
        self._used = np.zeros(sequences, np.int64)  # columns
        self._runs: dict[int, list[tuple[int, int]]] = {}
        self._mirror = PageMirror(pool.device, copied=pool.device.type != "cpu")
        self._holders: list[Holder] = []
        self._lay_out()

    def tables(self) -> Tensor:
        """`table` as an int32 tensor on the pool's device, up to date. Ask anew in every step: growing replaces it."""
        return self._mirror.update(self.table, self._dirty, self._used)

    def runs(self, slot: int) -> list[tuple[int, int]]:
        """Ranges (first, end) of page columns in which the pages of every row follow one another, as long as can be.

        Together they cover all columns, reserved ones too; a row that ends inside a range is a run up to its end.
        """
        self._check_open(slot)
        cached = self._runs.get(slot)
        if cached is None:
            columns = int(self._used[slot])
            pages = self.table[slot, :, :, :columns]
            broken = pages[..., 1:] != pages[..., :-1] + 1
            if self.counts[slot].min() < columns:
                broken &= np.arange(1, columns) < self.counts[slot][..., None]
            ends = [*(np.flatnonzero(broken.any((0, 1))) + 1).tolist(), *([columns] if columns else [])]
            cached = list(zip([0, *ends[:-1]], ends, strict=True)) if ends else []
            self._runs[slot] = cached
        return cached

    def entries(self, slot: int) -> Integers:
        """Where all entries of a sequence are, as an index into pages seen as [pages * page_size, ...]: row after row,
        [sum of its lengths]."""
        self._check_open(slot)
        size, lengths = self.pool.page_size, self.lengths[slot]
        columns = np.arange(-(-int(lengths.max()) // size)) * size
        left = np.minimum(lengths[..., None] - columns, size)  # entries of each page
        pages = self.table[slot, :, :, : len(columns)][left > 0].astype(np.int64)
        inside = np.arange(size)
        where: Integers = (pages[:, None] * size + inside)[inside < left[left > 0][:, None]]
        return where

    def contents(self, slot: int) -> Contents:
        """What a sequence holds now, but for reserved pages. Whoever keeps it has the pool retain its pages."""
        self._check_open(slot)
        filled = pages_of(self.lengths[slot], self.pool.page_size)
        columns = int(filled.max(initial=0))
        inside = np.arange(columns) < filled[..., None]
        table = np.where(inside, self.table[slot, :, :, :columns], 0)
        return Contents(
            table, self.lengths[slot].copy(), table[inside], bool(self.whole[slot]), bool(self.biased[slot])
        )

    def register_holder(self, holder: Holder) -> None:
        """Names somebody else who holds pages of the pool: `holder()` lists them, as often as they are held."""
        self._holders.append(holder)

    def check_integrity(self) -> None:
        """Raises EngineError naming what is wrong: pages lost, used while free, or held by nobody who is known."""
        check_rows(self.pool, self.table, self.lengths, self.counts, [holder() for holder in self._holders])
        if self.counts[~self._open].any():
            raise EngineError("a sequence that was freed still has pages")
        for name, remembered, now in zip(
            ("shape", "room", "width"), (self.uniform, self._room, self._used), self._summary(slice(None)), strict=True
        ):
            if (remembered != now).any():
                raise EngineError(f"the {name} of sequence {(remembered != now).argmax()} is remembered wrongly")

    # For those who change rows

    def _places(self, slots: Integers, counts: Integers, starts: Rows) -> Integers:
        """Where `counts` [B] more tokens of rows with `starts` [B, L, H] tokens are: [L, sum(counts), H]."""
        size = self.pool.page_size
        uniform = bool(self.uniform[slots].all())
        # From here on rows are [L, B, H], or [1, B, 1] where all are alike.
        rows = (starts[:, :1, :1] if uniform else starts).transpose(1, 0, 2)
        first = rows // size
        inside = rows - first * size
        cell = self._row_offset[:, None, :] + (slots * self._sequence_stride)[:, None] + first
        if len(counts) and counts.min() == counts.max() == 1:  # decoding
            decoded: Integers = self._flat.take(cell) * np.int64(size) + inside
            return decoded
        # Numbers are looked up once for a page, and then read as if each row's pages were one after another.
        pages = (-(-(inside + counts[:, None]) // size)).max((0, 2))
        before = np.cumsum(pages) - pages
        of_page = np.repeat(np.arange(len(slots)), pages)
        cell = cell[:, of_page] + (np.arange(len(of_page)) - before[of_page])[:, None]
        number = self._flat.take(cell, mode="clip")  # a row that begins late in its page may need one page less
        places = (number[:, :, None] * np.int64(size) + np.arange(size)[:, None]).reshape(
            self.layers, -1, self.kv_heads
        )
        of_token = np.repeat(np.arange(len(slots)), counts)
        ahead = np.arange(len(of_token)) - np.repeat(np.cumsum(counts) - counts, counts)
        begin = inside + (before * size)[:, None]
        write: Integers
        if uniform:
            write = places.take(begin[0, :, 0][of_token] + ahead, axis=1)
            return write
        begin = begin * self.kv_heads + np.arange(self.kv_heads)
        begin += (np.arange(self.layers) * places[0].size)[:, None, None]
        write = places.take(begin[:, of_token] + (ahead * self.kv_heads)[:, None])
        return write

    def _last_cell(self, slots: Integers, starts: NDArray[np.int32]) -> Integers:
        """Where in the flat table the page is in which each row [B, L, H] goes on; needs room for a token."""
        cell: Integers = (
            starts // self.pool.page_size + self._row_offset + (slots * self._sequence_stride)[:, None, None]
        )
        return cell

    def _changed(self, slots: Integers) -> None:
        """Brings what is remembered about sequences up to date with their pages and lengths."""
        self._dirty[slots] = True
        for slot in slots.tolist():
            self._runs.pop(slot, None)
        self._settle(slots)

    def _settle(self, slots: Integers) -> None:
        """The same, after a change of lengths alone."""
        self.uniform[slots], self._room[slots], self._used[slots] = self._summary(slots)

    def _summary(self, slots: Integers | slice) -> tuple[NDArray[np.bool_], Integers, Rows]:
        lengths = self.lengths[slots].reshape(-1, self.layers * self.kv_heads)
        counts = self.counts[slots].reshape(-1, self.layers * self.kv_heads)
        room = (counts * np.int64(self.pool.page_size) - lengths).min(1)
        return (lengths == lengths[:, :1]).all(1), room, counts.max(1)

    def _widen(self, columns: int) -> None:
        if columns <= self.table.shape[3]:
            return
        old = self.table
        self.table = np.zeros((*old.shape[:3], max(columns, 2 * old.shape[3])), np.int32)
        opened = np.flatnonzero(self._open)
        used = int(self._used.max(initial=0))
        self.table[opened, :, :, :used] = old[opened, :, :, :used]
        self._lay_out()

    def _lay_out(self) -> None:
        self._flat = self.table.reshape(-1)
        columns = self.table.shape[3]
        self._sequence_stride = self.layers * self.kv_heads * columns
        self._row_offset = np.arange(0, self._sequence_stride, columns).reshape(self.layers, self.kv_heads)

    def _check_open(self, slot: int) -> None:
        if not 0 <= slot < self.sequences or not self._open[slot]:
            raise EngineError(f"sequence {slot} of the cache is not open")


def stretches(where: Integers) -> Iterator[tuple[int, int, int]]:
    """(first, end, place) of parts of `where` that count up one by one from `place`, which can be copied as a whole."""
    borders = [0, *(np.flatnonzero(np.diff(where) != 1) + 1).tolist(), len(where)]
    for first, end in itertools.pairwise(borders):
        if end > first:
            yield first, end, int(where[first])
