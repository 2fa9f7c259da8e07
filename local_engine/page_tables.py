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

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lcdoc.local_engine.compaction import Merging, Turn, survey_kept
from lcdoc.local_engine.compression_kernels import CompressionKernels
from lcdoc.local_engine.compression_kernels_torch import TORCH
from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.page_growth import Growth, Integers, Rows, pages_of, plan_growth
from lcdoc.local_engine.page_rows import Contents, PageRows
from lcdoc.local_engine.pages import PagePool, Pages


class PageTables(PageRows):
    """Page tables of up to `sequences` sequences over one pool. Read its arrays freely; only this class writes them.

    `kernels` computes on the pool's pages, on the device where they are.
    """

    def __init__(  # noqa: PLR0917
        self,
        pool: PagePool,
        sequences: int,
        layers: int,
        kv_heads: int,
        max_pages: int,
        kernels: CompressionKernels = TORCH,
    ) -> None:
        super().__init__(pool, sequences, layers, kv_heads, max_pages)
        self.kernels = kernels
        self._reserved = np.zeros_like(self.counts)  # pages that stay with a row when its tokens go

    # Sequences

    def open(self) -> int:
        """A slot for an empty sequence. Raises EngineError when all are taken."""
        slot = int(self._open.argmin())
        if self._open[slot]:
            raise EngineError(f"all {self.sequences} sequences of the cache are in use: free one first")
        self._open[slot] = True
        self.uniform[slot] = self.whole[slot] = True
        self.biased[slot] = False
        return slot

    def free(self, slot: int) -> None:
        """Ends a sequence; its pages are free unless somebody else holds them."""
        self._check_open(slot)
        self._shorten(slot, np.zeros_like(self.counts[slot]))
        self.lengths[slot] = 0
        self._reserved[slot] = 0
        self._open[slot] = False
        self._settle(np.array([slot]))

    def fork(self, slot: int) -> int:
        """A new sequence with the same tokens; it shares the pages, and nothing is copied until one of them is written.

        Reserved pages stay with the original. Raises EngineError when no slot is free.
        """
        contents = self.contents(slot)
        twin = self.open()
        self.join(twin, contents)
        return twin

    def join(self, slot: int, contents: Contents) -> None:
        """Begins an empty sequence with rows that others hold too. Raises EngineError when it has pages already."""
        self._check_open(slot)
        if self.counts[slot].any():
            raise EngineError(f"sequence {slot} has pages already: shared pages go in front of an empty one")
        self.pool.retain(contents.held)
        columns = contents.table.shape[2]
        self._widen(columns)
        self.table[slot, :, :, :columns] = contents.table
        self.lengths[slot] = contents.lengths
        self.counts[slot] = pages_of(contents.lengths, self.pool.page_size)
        self.whole[slot] = contents.whole
        self.biased[slot] = contents.biased
        self._changed(np.array([slot]))

    def adopt(self, slot: int, blocks: Pages, tokens: int) -> None:
        """Begins an empty sequence with pages [layers, kv_heads, n] that others hold too, filled with `tokens` tokens.

        Raises EngineError when the sequence has tokens or pages, or `n` pages are not what `tokens` tokens fill.
        """
        layers, heads, count = blocks.shape
        if (layers, heads) != (self.layers, self.kv_heads) or count != -(-tokens // self.pool.page_size):
            raise EngineError(
                f"pages of shape {blocks.shape} are not {tokens} tokens of {self.layers} layers x {self.kv_heads} heads"
            )
        lengths = np.full((layers, heads), tokens, np.int32)
        self.join(slot, Contents(blocks, lengths, blocks.reshape(-1), whole=True, biased=False))

    # Growing

    def pages_for(self, tokens: int) -> int:
        """Pages that `tokens` tokens of one sequence take, in all layers and heads."""
        return self.layers * self.kv_heads * -(-tokens // self.pool.page_size)

    def pages_needed(self, slots: ArrayLike, counts: ArrayLike) -> int:
        """Pages that `append` with these arguments takes, copies of shared ones included. `reserve` takes no more."""
        slots, counts = self._check_batch(slots, counts)
        return self._plan_ahead(slots, counts).pages

    def reserve(self, slot: int, tokens: int | NDArray[np.integer]) -> None:
        """Takes pages for so many more tokens in every row, or in each of [layers, kv_heads].

        Each row's new pages follow one another where the pool has room, and stay with the row, if tokens are taken
        away, until `trim`. An append of as many tokens finds all it needs, unless the sequence is forked in between.
        Raises OutOfPagesError, with nothing changed.
        """
        self._check_open(slot)
        more = np.broadcast_to(np.asarray(tokens, np.int64), (self.layers, self.kv_heads))
        slots = np.array([slot])
        self._grow(slots, self._plan(slots, more[None]))
        self._reserved[slot] = np.maximum(
            self._reserved[slot], pages_of(self.lengths[slot] + more, self.pool.page_size)
        )

    def trim(self, slot: int) -> int:
        """Gives back pages behind the last token of each row, reserved ones too; returns how many."""
        self._check_open(slot)
        before = self.pool.free
        self._reserved[slot] = 0
        self._shorten(slot, pages_of(self.lengths[slot], self.pool.page_size))
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
            self._grow(slots, self._plan_ahead(slots, counts))
        write = self._places(slots, counts, starts)
        self.lengths[slots] = starts + counts[:, None, None].astype(np.int32)
        self._room[slots] -= counts
        return write

    def fill(self, slot: int, lengths: NDArray[np.integer]) -> Integers:
        """Begins an empty sequence with so many entries of each row [layers, kv_heads]; where they go, as `entries`.

        Raises EngineError when the sequence has tokens, and OutOfPagesError, with nothing changed.
        """
        self._check_open(slot)
        if self.lengths[slot].any():
            raise EngineError(f"sequence {slot} has tokens already: only an empty one is filled")
        slots = np.array([slot])
        self._grow(slots, self._plan(slots, np.asarray(lengths, np.int64)[None]))
        self.lengths[slot] = lengths
        self.whole[slot] = False
        self._settle(slots)
        return self.entries(slot)

    # Shrinking

    def truncate(self, slot: int, tokens: int) -> None:
        """Removes the last `tokens` tokens of every row, and the pages they leave empty.

        Reserved pages stay with their row until `trim`, and so does one page of each row where rows differ.
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
        filled, was_filled = pages_of(lengths, self.pool.page_size), pages_of(old, self.pool.page_size)
        if (filled != was_filled).any():
            self._shorten(slot, self._kept_after_cut(slot, lengths, filled, was_filled))
        self.lengths[slot] = lengths
        self._settle(np.array([slot]))
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
        self._changed(np.array([slot]))

    def compact(self, slot: int, keep: Tensor, *, merging: Merging | None = None, turn: Turn | None = None) -> None:
        """Keeps of each row the entries that `keep` [layers, kv_heads, n] (bool, on the pool's device) names, in order.

        `n` is at least the longest row; what lies behind a row's end is ignored. Keys and values move to the front of
        their row and the pages behind are free, reserved ones too; a mask that keeps all changes nothing. Pages of
        which all is kept, with nothing dropped before, stay where they are and stay shared; instead of writing another
        shared page, a new one is taken.

        Others are merged into kept entries where `merging` says so, before they move, and keys are turned by `turn`.
        Either is for sequences that share no pages.

        Waits for the device. Raises OutOfPagesError, with nothing changed.
        """
        self._check_open(slot)
        lengths = self.lengths[slot]
        if keep.shape[:2] != lengths.shape or keep.shape[2] < lengths.max():
            raise EngineError(
                f"a mask of shape {tuple(keep.shape)} does not cover {self.layers} layers x {self.kv_heads} heads x "
                f"{lengths.max()} tokens"
            )
        keep, kept, unmoved = survey_kept(keep, lengths)
        if (kept == lengths).all() and turn is None:
            return
        filled = pages_of(kept, self.pool.page_size)
        # The first page of a row that is written: before it all is kept. A row that only loses its end writes none.
        written = np.where(unmoved < kept, unmoved // self.pool.page_size, filled)
        columns = int(filled.max(initial=0))
        column = np.arange(columns)
        target = self.table[slot, :, :, :columns].copy()
        shared = (column >= written[..., None]) & (column < filled[..., None]) & (self.pool.refs[target] > 1)
        target[shared] = self.pool.take_rows(shared.sum(2).ravel())
        source = self.table[slot, :, :, : self._used[slot]]
        self.kernels.move(self.pool, keep, kept, source, target, merging=merging, turn=turn)
        self.pool.release(self.table[slot, :, :, :columns][shared])
        self.table[slot, :, :, :columns] = np.where(shared, target, self.table[slot, :, :, :columns])
        self._reserved[slot] = 0
        self._shorten(slot, filled)
        self.lengths[slot] = kept
        self.whole[slot] = False
        self._changed(np.array([slot]))

    # Inside

    def _shares_last(self, slots: Integers, starts: Rows) -> bool:
        """Whether some row of these goes on in a page that others hold too."""
        # A row that is full and gets no token has no such page. What is then looked at instead makes no difference: a
        # false alarm is found out when the growth is worked out.
        pages = self._flat.take(self._last_cell(slots, starts), mode="clip")
        return bool((self.pool.refs.take(pages) > 1).any())

    def _plan(self, slots: Integers, more: Integers) -> Growth:
        """What the rows of `slots` need for exactly `more` [B, 1 or layers, 1 or kv_heads] tokens."""
        starts = self.lengths[slots]
        last = self._flat.take(self._last_cell(slots, starts), mode="clip")
        return plan_growth(starts, more, self.counts[slots], last, self.pool.refs, page_size=self.pool.page_size)

    def _plan_ahead(self, slots: Integers, counts: Integers) -> Growth:
        """What `append` takes: in a sequence whose rows differ, pages for all rows when one needs some.

        Otherwise some row of such a sequence would need a page in nearly every step. If the pool has too few for that,
        it is what the rows need now.
        """
        growth = self._plan(slots, counts[:, None, None])
        if self.uniform[slots].all() or not growth.missing.any():
            return growth
        ahead = ~self.uniform[slots] & growth.missing.any((1, 2))
        more = np.where(ahead, np.maximum(counts, self.pool.page_size), counts)
        wider = self._plan(slots, more[:, None, None])
        return wider if wider.pages <= self.pool.free else growth

    def _grow(self, slots: Integers, growth: Growth) -> None:
        """Takes what is needed. Raises OutOfPagesError, with nothing changed."""
        copies = len(growth.copied)
        total = growth.pages - copies
        missing = growth.missing.ravel()
        taken = self.pool.take_rows(np.append(missing, copies))
        counts = self.counts[slots]
        self._widen(int((counts + growth.missing).max(initial=0)))
        rows = (self._row_offset + (slots * self._sequence_stride)[:, None, None]).ravel()
        if copies:
            self.pool.copy(growth.shared, taken[total:])
            columns = self.lengths[slots].ravel()[growth.copied] // self.pool.page_size
            self._flat[rows[growth.copied] + columns] = taken[total:]
            self.pool.release(growth.shared)
        if total:
            first = rows + counts.ravel() - (np.cumsum(missing) - missing)
            self._flat[np.repeat(first, missing) + np.arange(total)] = taken[:total]
            self.counts[slots] = counts + growth.missing
        grown: NDArray[np.bool_] = np.any(growth.missing, axis=(1, 2))
        grown[growth.copied // (self.layers * self.kv_heads)] = True
        self._changed(slots[grown])

    def _kept_after_cut(self, slot: int, lengths: NDArray[np.integer], filled: Rows, was_filled: Rows) -> Rows:
        """Page counts after a cut to `lengths` tokens in `filled` pages: no page stays empty that others hold too."""
        kept: Rows = np.maximum(filled, self._reserved[slot])
        if (lengths != lengths[0, 0]).any():
            kept = np.maximum(kept, filled + 1)  # as `append` took them ahead
        kept = np.minimum(kept, self.counts[slot])
        emptied = np.maximum(np.minimum(kept, was_filled) - filled, 0).ravel()
        first = (self._row_offset + slot * self._sequence_stride + filled).ravel()
        cells = np.repeat(first - (np.cumsum(emptied) - emptied), emptied) + np.arange(emptied.sum())
        if (self.pool.refs[self._flat[cells]] > 1).any():
            self._reserved[slot] = 0
            return filled
        return kept

    def _shorten(self, slot: int, counts: Rows) -> None:
        """Releases pages behind the first `counts` [L, H] of each row."""
        old = self.counts[slot]
        if (counts >= old).all():
            return
        first, end = int(counts.min(initial=0)), int(old.max(initial=0))
        column = np.arange(first, end)
        leaving = (column >= counts[..., None]) & (column < old[..., None])
        cells = self.table[slot, :, :, first:end]
        self.pool.release(cells[leaving])
        cells[leaving] = 0
        self.counts[slot] = counts
        self._changed(np.array([slot]))

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
