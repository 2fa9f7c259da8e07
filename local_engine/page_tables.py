"""Where each sequence's keys and values are: one row of pages for every (sequence, layer, key-value head).

Rows of a sequence may differ in length, because compression keeps more of one head than of another; what a row no
longer needs is free for anybody. Physical lengths are all this file knows: which position a stored token has is the
scheduler's business.

Page numbers, lengths and page counts are arrays over all sequences, layers and heads. A step asks for `append`, which
answers with the place of every new key; nowhere does it go through rows one by one, and in the usual step, when every
row still has room, it looks for no pages at all. Pages are shared between sequences by holding them more than once, and
a page that is held more than once is never written: `append` first copies a shared page that is partly filled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lcdoc.local_engine.compaction import move_kept, survey_kept
from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.page_mirror import PageMirror
from lcdoc.local_engine.pages import PagePool, Pages

Integers = NDArray[np.int64]
Holder = Callable[[], Pages]


@dataclass(frozen=True, slots=True)
class _Growth:
    """What rows need before they can take more tokens: pages behind their last, and copies of shared last pages."""

    missing: NDArray[np.int32]  # [B, L, H] pages
    copied: Integers  # indices into [B, L, H], flat
    shared: Pages  # the page that each of those leaves

    @property
    def pages(self) -> int:
        return int(self.missing.sum()) + len(self.copied)


class PageTables:
    """Page tables of up to `sequences` sequences over one pool.

    `table` [sequences, layers, kv_heads, columns] int32 holds page numbers (0 where none is), `lengths` and `counts`
    [sequences, layers, kv_heads] int32 the tokens and the pages of each row. Read them freely; only this class writes
    them. `columns` starts at `max_pages` and doubles as rows grow, which replaces `table` and `tables()`.
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
        self._reserved = np.zeros(rows, np.int32)  # pages that stay with a row when its tokens go
        self._room = np.zeros(sequences, np.int64)  # tokens until some row needs a page
        self._open = np.zeros(sequences, np.bool_)
        self._dirty = np.zeros(sequences, np.bool_)
        self._used = np.zeros(sequences, np.int64)  # columns
        self._runs: dict[int, list[tuple[int, int]]] = {}
        self._mirror = PageMirror(pool.device, copied=pool.device.type != "cpu")
        self._holders: list[Holder] = []
        self._lay_out()

    # Sequences

    def open(self) -> int:
        """A slot for an empty sequence. Raises EngineError when all are taken."""
        slot = int(self._open.argmin())
        if self._open[slot]:
            raise EngineError(f"all {self.sequences} sequences of the cache are in use: free one first")
        self._open[slot] = True
        self.uniform[slot] = self.whole[slot] = True
        return slot

    def free(self, slot: int) -> None:
        """Ends a sequence; its pages are free unless somebody else holds them."""
        self._check_open(slot)
        self._shorten(slot, np.zeros_like(self.counts[slot]))
        self.lengths[slot] = 0
        self._reserved[slot] = 0
        self._open[slot] = False
        self._settle(slot)

    def fork(self, slot: int) -> int:
        """A new sequence with the same tokens; it shares the pages, and nothing is copied until one of them is written.

        Reserved pages stay with the original. Raises EngineError when no slot is free.
        """
        self._check_open(slot)
        twin = self.open()
        filled = self._pages_of(self.lengths[slot])
        columns = int(filled.max(initial=0))
        inside = np.arange(columns) < filled[..., None]
        shared = np.where(inside, self.table[slot, :, :, :columns], 0)
        self.pool.retain(shared[inside])
        self.table[twin, :, :, :columns] = shared
        self.lengths[twin] = self.lengths[slot]
        self.counts[twin] = filled
        self.whole[twin] = self.whole[slot]
        self._changed(twin)
        return twin

    def adopt(self, slot: int, blocks: Pages, tokens: int) -> None:
        """Begins an empty sequence with pages [layers, kv_heads, n] that others hold too, filled with `tokens` tokens.

        Raises EngineError when the sequence has tokens or pages, or `n` pages are not what `tokens` tokens fill.
        """
        self._check_open(slot)
        layers, heads, count = blocks.shape
        if self.counts[slot].any():
            raise EngineError(f"sequence {slot} has pages already: shared pages go in front of an empty one")
        if (layers, heads) != (self.layers, self.kv_heads) or count != -(-tokens // self.pool.page_size):
            raise EngineError(
                f"pages of shape {blocks.shape} are not {tokens} tokens of {self.layers} layers x {self.kv_heads} heads"
            )
        self.pool.retain(blocks.reshape(-1))
        self._widen(count)
        self.table[slot, :, :, :count] = blocks
        self.counts[slot] = count
        self.lengths[slot] = tokens
        self._changed(slot)

    # Growing

    def pages_for(self, tokens: int) -> int:
        """Pages that `tokens` tokens of one sequence take, in all layers and heads."""
        return self.layers * self.kv_heads * -(-tokens // self.pool.page_size)

    def pages_needed(self, slots: ArrayLike, counts: ArrayLike) -> int:
        """Pages that `append` (or `reserve`) with these arguments would take; 0 if nothing is missing or shared."""
        slots, counts = self._check_batch(slots, counts)
        return self._growth(slots, counts[:, None, None]).pages

    def reserve(self, slot: int, tokens: int | NDArray[np.integer]) -> None:
        """Takes pages for so many more tokens in every row, or in each of [layers, kv_heads].

        Each row's new pages follow one another where the pool has room, and stay with the row, if tokens are taken
        away, until `trim`. An append of as many tokens finds all it needs, unless the sequence is forked in between.
        Raises OutOfPagesError, with nothing changed.
        """
        self._check_open(slot)
        more = np.broadcast_to(np.asarray(tokens, np.int64), (self.layers, self.kv_heads))
        slots = np.array([slot])
        self._grow(slots, self._growth(slots, more[None]))
        self._reserved[slot] = np.maximum(self._reserved[slot], self._pages_of(self.lengths[slot] + more))

    def trim(self, slot: int) -> int:
        """Gives back pages behind the last token of each row, reserved ones too; returns how many."""
        self._check_open(slot)
        before = self.pool.free
        self._reserved[slot] = 0
        self._shorten(slot, self._pages_of(self.lengths[slot]))
        self._settle(slot)
        return self.pool.free - before

    def append(self, slots: ArrayLike, counts: ArrayLike) -> Integers:
        """Makes room for `counts` [B] more tokens in every row of the sequences `slots` [B], which must differ.

        Returns `write` [layers, T, kv_heads] with T = sum(counts), sequence after sequence: where each token's key and
        value go, as an index into pages seen as [pages * page_size, head_dim]. Raises OutOfPagesError, with nothing
        changed.
        """
        slots, counts = self._check_batch(slots, counts)
        starts = self.lengths[slots]  # [B, L, H]
        if (self._room[slots] < counts).any() or self._shares_last(slots, starts):
            self._grow(slots, self._growth(slots, counts[:, None, None]))
        write = self._places(slots, counts, starts)
        self.lengths[slots] = starts + counts[:, None, None].astype(np.int32)
        self._room[slots] -= counts
        return write

    # Shrinking

    def truncate(self, slot: int, tokens: int) -> None:
        """Removes the last `tokens` tokens of every row, and the pages they leave empty unless those are reserved.

        Raises EngineError when a row is shorter.
        """
        self._check_open(slot)
        if tokens:
            self.truncate_rows(slot, self.lengths[slot] - tokens)

    def truncate_rows(self, slot: int, lengths: NDArray[np.integer]) -> None:
        """Cuts each row to its length of `lengths` [layers, kv_heads]. Raises EngineError when a row is shorter."""
        self._check_open(slot)
        old = self.lengths[slot]
        if (lengths < 0).any() or (lengths > old).any():
            raise EngineError(
                f"sequence {slot} has {old.min()} to {old.max()} tokens a row and cannot be cut to "
                f"{lengths.min()} to {lengths.max()}"
            )
        filled = self._pages_of(lengths)
        if (filled != self._pages_of(old)).any():
            self._shorten(slot, self._kept_with_reserve(slot, filled))
        self.lengths[slot] = lengths
        self._settle(slot)
        self.whole[slot] &= self.uniform[slot]

    def drop_front(self, slot: int, layers: NDArray[np.bool_], pages: int) -> None:
        """Forgets the first `pages` pages of all heads in `layers` [layers] (bool), as a sliding window may.

        Raises EngineError when a row there has fewer full pages.
        """
        self._check_open(slot)
        tokens = pages * self.pool.page_size
        if pages <= 0 or not layers.any():
            return
        if self.lengths[slot, layers].min() < tokens:
            raise EngineError(
                f"{pages} pages cannot go from the front of sequence {slot}: a row there has "
                f"{self.lengths[slot, layers].min()} tokens"
            )
        columns = int(self.counts[slot, layers].max())
        rows = self.table[slot, layers, :, :columns]  # a copy
        self.pool.release(rows[..., :pages].ravel())
        rows[..., : columns - pages] = rows[..., pages:].copy()
        rows[..., columns - pages :] = 0
        self.table[slot, layers, :, :columns] = rows
        self.counts[slot, layers] -= pages
        self.lengths[slot, layers] -= tokens
        self._reserved[slot, layers] = np.maximum(self._reserved[slot, layers] - pages, 0)
        self.whole[slot] = False
        self._changed(slot)

    def compact(self, slot: int, keep: Tensor) -> None:
        """Keeps of each row the entries that `keep` [layers, kv_heads, n] (bool, on the pool's device) names, in order.

        `n` is at least the longest row; what lies behind a row's end is ignored. Keys and values move to the front of
        their row and the pages behind are free, reserved ones too. Pages of which all is kept, with nothing dropped
        before, stay where they are and stay shared; instead of writing another shared page, a new one is taken.

        Waits for the device once or twice. Raises OutOfPagesError, with nothing changed.
        """
        self._check_open(slot)
        lengths = self.lengths[slot]
        if keep.shape[:2] != lengths.shape or keep.shape[2] < lengths.max():
            raise EngineError(
                f"a mask of shape {tuple(keep.shape)} does not cover {self.layers} layers x {self.kv_heads} heads x "
                f"{lengths.max()} tokens"
            )
        keep, kept, unmoved = survey_kept(keep, lengths)
        if (kept == lengths).all():
            return
        filled = self._pages_of(kept)
        # The first page of a row that is written: before it all is kept. A row that only loses its end writes none.
        written = np.where(unmoved < kept, unmoved // self.pool.page_size, filled)
        columns = int(filled.max(initial=0))
        column = np.arange(columns)
        target = self.table[slot, :, :, :columns].copy()
        shared = (column >= written[..., None]) & (column < filled[..., None]) & (self.pool.refs[target] > 1)
        target[shared] = self.pool.take_rows(shared.sum(2).ravel())
        move_kept(self.pool, keep, self.table[slot, :, :, : self._used[slot]], target)
        self.pool.release(self.table[slot, :, :, :columns][shared])
        self.table[slot, :, :, :columns] = np.where(shared, target, self.table[slot, :, :, :columns])
        self._reserved[slot] = 0
        self._shorten(slot, filled)
        self.lengths[slot] = kept
        self.whole[slot] = False
        self._changed(slot)

    # Reading

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

    def register_holder(self, holder: Holder) -> None:
        """Names somebody else who holds pages of the pool: `holder()` lists them, as often as they are held."""
        self._holders.append(holder)

    def check_integrity(self) -> None:
        """Raises EngineError naming what is wrong: pages lost, used while free, or held by nobody who is known."""
        self.pool.check_integrity()
        size = self.pool.page_size
        column = np.arange(self.table.shape[3])
        inside = column < self.counts[..., None]
        if self.table[~inside].any():
            raise EngineError("a page table names pages behind the end of a row")
        if (self._pages_of(self.lengths) > self.counts).any() or (self.lengths < 0).any():
            raise EngineError("a row of the cache has more tokens than its pages hold")
        if self.counts[~self._open].any():
            raise EngineError("a sequence that was freed still has pages")
        held = np.bincount(
            np.concatenate([self.table[inside], *(holder() for holder in self._holders)]), minlength=self.pool.pages
        )
        wrong = np.flatnonzero(held != self.pool.refs)
        if len(wrong):
            page = wrong[0]
            raise EngineError(
                f"cache page {page} is held {held[page]} times but counted {self.pool.refs[page]} times, "
                f"and {len(wrong) - 1} others are wrong"
            )
        unfilled = inside & (column >= self._pages_of(self.lengths)[..., None])
        if (self.pool.refs[self.table[unfilled]] > 1).any():
            raise EngineError("a page that is not yet filled is shared")
        flat = self.lengths.reshape(self.sequences, -1)
        if (self.uniform != (flat == flat[:, :1]).all(1)).any():
            raise EngineError("a sequence is marked uniform and is not, or the other way round")
        room = (self.counts.astype(np.int64) * size - self.lengths).reshape(self.sequences, -1).min(1)
        if (self._room != room).any() or (self._used != self.counts.reshape(self.sequences, -1).max(1)).any():
            raise EngineError("the room left in a sequence is counted wrongly")

    # Inside

    def _pages_of(self, lengths: NDArray[np.integer]) -> NDArray[np.int32]:
        pages: NDArray[np.int32] = (-(-lengths // self.pool.page_size)).astype(np.int32)
        return pages

    def _places(self, slots: Integers, counts: Integers, starts: NDArray[np.int32]) -> Integers:
        total = int(counts.sum())
        if total == len(slots) and counts.min(initial=1) == 1:  # decoding
            of_token, ahead = np.arange(total), np.zeros(total, np.int64)
        else:
            of_token = np.repeat(np.arange(len(slots)), counts)
            ahead = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        if self.uniform[slots].all():
            position = (starts[:, 0, 0][of_token] + ahead)[None, :, None]
        else:
            position = starts.transpose(1, 0, 2)[:, of_token] + ahead[None, :, None]  # [L, T, H]
        size = self.pool.page_size
        column = position // size
        row = self._row_offset[:, None, :] + (slots * self._sequence_stride)[of_token][None, :, None]
        write: Integers = self._flat.take(row + column) * np.int64(size)
        write += position - column * size
        return write

    def _shares_last(self, slots: Integers, starts: NDArray[np.int32]) -> bool:
        """Whether some row of these goes on in a page that others hold too."""
        # A row that is full and gets no token has no such page. What is then looked at instead makes no difference: a
        # false alarm is found out when the growth is worked out.
        pages = self._flat.take(self._last_cell(slots, starts), mode="clip")
        return bool((self.pool.refs.take(pages) > 1).any())

    def _last_cell(self, slots: Integers, starts: NDArray[np.int32]) -> Integers:
        """Where in the flat table the page is in which each row [B, L, H] goes on; needs room for a token."""
        cell: Integers = (
            starts // self.pool.page_size + self._row_offset + (slots * self._sequence_stride)[:, None, None]
        )
        return cell

    def _growth(self, slots: Integers, more: Integers) -> _Growth:
        """What rows of `slots` need for `more` [B, 1 or L, 1 or H] tokens."""
        starts = self.lengths[slots]
        missing = np.maximum(self._pages_of(starts + more) - self.counts[slots], 0)
        partly = (starts % self.pool.page_size != 0) & (more > 0)
        cells = self._last_cell(slots, starts)
        pages = self._flat.take(np.where(partly, cells, 0))
        copied = np.flatnonzero(partly & (self.pool.refs[pages] > 1))
        shared = pages.ravel()[copied]
        if len(copied):
            # If everybody who holds a page goes on in it now, the last of them may keep it.
            named, last, times = np.unique(shared[::-1], return_index=True, return_counts=True)
            keepers = len(shared) - 1 - last[times == self.pool.refs[named]]
            copied, shared = np.delete(copied, keepers), np.delete(shared, keepers)
        return _Growth(missing, copied, shared)

    def _grow(self, slots: Integers, growth: _Growth) -> None:
        if not growth.pages:
            return
        missing = growth.missing.ravel()
        taken = self.pool.take_rows(np.append(missing, len(growth.copied)))
        counts = self.counts[slots]
        self._widen(int((counts + growth.missing).max()))
        rows = (self._row_offset + (slots * self._sequence_stride)[:, None, None]).ravel()
        if len(growth.copied):
            fresh = taken[len(taken) - len(growth.copied) :]
            starts = self.lengths[slots].ravel()[growth.copied]
            self.pool.copy(growth.shared, fresh)
            self._flat[rows[growth.copied] + starts // self.pool.page_size] = fresh
            self.pool.release(growth.shared)
        total = int(missing.sum())
        if total:
            first = rows + counts.ravel() - (np.cumsum(missing) - missing)
            self._flat[np.repeat(first, missing) + np.arange(total)] = taken[:total]
            self.counts[slots] = counts + growth.missing
        for slot in slots.tolist():
            self._changed(slot)

    def _kept_with_reserve(self, slot: int, filled: NDArray[np.int32]) -> NDArray[np.int32]:
        """Page counts after a cut to `filled` pages. A reserve is kept, unless others hold pages of it by now."""
        kept: NDArray[np.int32] = np.clip(self._reserved[slot], filled, self.counts[slot])
        columns = int(kept.max(initial=0))
        column = np.arange(columns)
        behind = (column >= filled[..., None]) & (column < kept[..., None])
        if (self.pool.refs[self.table[slot, :, :, :columns][behind]] > 1).any():
            self._reserved[slot] = 0
            return filled
        return kept

    def _shorten(self, slot: int, counts: NDArray[np.int32]) -> None:
        """Releases pages behind the first `counts` [L, H] of each row."""
        old = self.counts[slot]
        first, end = int(counts.min(initial=0)), int(old.max(initial=0))
        column = np.arange(first, end)
        leaving = (column >= counts[..., None]) & (column < old[..., None])
        if not leaving.any():
            return
        cells = self.table[slot, :, :, first:end]
        self.pool.release(cells[leaving])
        cells[leaving] = 0
        self.counts[slot] = counts
        self._changed(slot)

    def _changed(self, slot: int) -> None:
        """Brings what is remembered about a sequence up to date with its pages and lengths."""
        self._dirty[slot] = True
        self._runs.pop(slot, None)
        self._settle(slot)

    def _settle(self, slot: int) -> None:
        """The same, after a change of lengths alone."""
        lengths, counts = self.lengths[slot], self.counts[slot]
        self.uniform[slot] = (lengths == lengths[0, 0]).all()
        self._room[slot] = (counts * np.int64(self.pool.page_size) - lengths).min()
        self._used[slot] = counts.max()

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

    def _check_batch(self, slots: ArrayLike, counts: ArrayLike) -> tuple[Integers, Integers]:
        slots, counts = np.asarray(slots, np.int64), np.asarray(counts, np.int64)
        if slots.shape != counts.shape or slots.ndim != 1:
            raise EngineError(f"{slots.shape} sequences and {counts.shape} token counts do not belong together")
        listed = slots.tolist()
        if len(set(listed)) != len(listed):
            raise EngineError(f"a sequence is named twice in one batch: {listed}")
        if listed and (min(listed) < 0 or max(listed) >= self.sequences or not self._open[slots].all()):
            raise EngineError(f"a sequence of {listed} is not open")
        if counts.min(initial=0) < 0:
            raise EngineError(f"token counts must not be negative: {counts.tolist()}")
        return slots, counts
