"""Attention over the paged cache on a CPU.

PyTorch's flash attention for CPUs does the arithmetic, a tile at a time, and gives the log-sum-exp with its result, so
that parts of a row can be attended to one after the other and combined. Pages that follow each other in the pool are
read as one view, without copying; a sequence that was admitted to an unfragmented pool is a single view.

The query heads that share a key-value head are the rows of one matrix: keys and values are read once for all of them.
Only a chunk's own keys, where each query sees a different number, are attended to head by head.

Sources: "FlashAttention-2: Faster Attention with Better Parallelism and Work Partitioning"; "Flash-Decoding for
long-context inference" (parts combined by their log-sum-exp).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from lcdoc.local_engine.attention_far import RowKeys, near_and_far
from lcdoc.local_engine.batch import Batch
from lcdoc.local_engine.far_keys import FarKeys

_FEWEST_KEYS_A_THREAD = 512
"""Rows shorter than this for each thread are not split among threads."""

Part = tuple[Tensor, Tensor]
"""Output [H, R, D] and log-sum-exp [H, R] over some of the keys."""


@dataclass(frozen=True, slots=True)
class _Pass:
    """One sequence's part in one layer of a pass: C tokens, H key-value heads, G query heads for each."""

    q: Tensor
    """[C, H, G, D]"""
    k: Tensor
    """[C, H, D]"""
    v: Tensor
    out: Tensor
    """[C, H, G, D], to be written"""
    places: Tensor
    """int64 [C]: what its queries are rotated to"""
    batch: Batch
    slot: int
    layer: int

    @property
    def count(self) -> int:
        return len(self.k)


class CpuAttention:
    """Writes a pass's keys and values into the cache and attends to it. Shapes: T tokens, H key-value heads of D."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, layer: int, qkv: tuple[Tensor, Tensor, Tensor], window: int | None, batch: Batch) -> Tensor:
        """q [T, H * G, D], k and v [T, H, D], rotated; returns [T, H * G, D]."""
        q, k, v = qkv
        tokens, heads, dim = k.shape
        pool = batch.tables.pool
        where = batch.write[layer].view(-1)
        pool.keys.view(-1, dim).index_copy_(0, where, k.reshape(-1, dim))
        pool.values.view(-1, dim).index_copy_(0, where, v.reshape(-1, dim))
        out = q.new_empty(q.shape)
        grouped, given = q.view(tokens, heads, -1, dim), out.view(tokens, heads, -1, dim)
        for index, slot in enumerate(batch.slots.tolist()):
            part = slice(int(batch.starts[index]), int(batch.starts[index + 1]))
            each = _Pass(grouped[part], k[part], v[part], given[part], batch.positions[part], batch, slot, layer)
            past = batch.past[index, layer]
            far = batch.far[index]
            if far is not None and far.rotates[layer]:
                for head in range(heads):
                    self._attend_far(each, head, int(past[head]), window, far)
            elif (past == past[0]).all():
                self._attend(each, slice(0, heads), int(past[0]), window)
            else:
                for head in range(heads):
                    self._attend(each, slice(head, head + 1), int(past[head]), window)
        return out

    def _attend(self, each: _Pass, heads: slice, past: int, window: int | None) -> None:
        """Attend for some heads, whose rows all have `past` entries before this pass."""
        if each.count > 1 and window is not None and past + each.count > window:
            self._attend_window(each, heads, past, window)
            return
        first = 0
        if each.count == 1:
            # A single query sees its own key as well, which was just written and lies behind the past.
            past += 1
            first = 0 if window is None else max(0, past - window)
        mine = each.q[:, heads].permute(1, 2, 0, 3)
        kv_heads, groups, count, dim = mine.shape
        rows = mine.reshape(kv_heads, groups * count, dim)
        parts: list[Part] = []
        if each.batch.tables.biased[each.slot]:
            if past > first:
                parts.append(self._biased_keys(each, rows, heads, (first, past)))
        else:
            for keys, values in _views(each, heads, first, past):
                parts += self._all_keys(rows, keys, values)
        if count > 1:
            parts.append(self._own_keys(mine, each.k[:, heads], each.v[:, heads]))
        each.out[:, heads] = combine(parts).reshape(kv_heads, groups, count, dim).permute(2, 0, 1, 3)

    def _all_keys(self, rows: Tensor, keys: Tensor, values: Tensor) -> list[Part]:
        """Rows [H, R, D] over keys and values [H, n, D], all of which every row sees."""
        heads, count = keys.shape[:2]
        splits = 1
        if rows.shape[1] <= 64:
            # Few queries leave threads idle where there are fewer heads than threads: split the keys.
            splits = min(-(-torch.get_num_threads() // heads), count // _FEWEST_KEYS_A_THREAD)
        if splits <= 1:
            return [self._flash(rows[None], keys[None], values[None])]
        each = count // splits
        shape = (heads, splits, each, keys.shape[2])
        cut = [
            part.as_strided(shape, (part.stride(0), each * part.stride(1), part.stride(1), 1), part.storage_offset())
            for part in (keys, values)
        ]
        output, lse = _flash_op(rows[:, None].expand(-1, splits, -1, -1), *cut, scale=self.scale)
        parts = [(output[:, index], lse[:, index]) for index in range(splits)]
        if splits * each < count:
            parts.append(self._flash(rows[None], keys[None, :, splits * each :], values[None, :, splits * each :]))
        return parts

    def _biased_keys(self, each: _Pass, rows: Tensor, heads: slice, part: tuple[int, int]) -> Part:
        """Rows [H, R, D] over the entries of `part`, all of which every row sees, with what is added to each."""
        bias = entry_bias(each, heads, *part)[:, None].expand(-1, rows.shape[1], -1)
        views = list(_views(each, heads, *part))
        keys, values = (torch.cat([view[index] for view in views], dim=1) for index in range(2))
        output, lse = _flash_op(rows[None], keys[None], values[None], attn_mask=bias[None], scale=self.scale)
        return output[0], lse[0]

    def _own_keys(self, mine: Tensor, k: Tensor, v: Tensor) -> Part:
        """Queries [H, G, C, D] over the keys of their own piece, [C, H, D]: each sees those up to its own."""
        heads, groups, count, dim = mine.shape
        queries = mine.reshape(1, heads * groups, count, dim)
        keys, values = (
            part.permute(1, 0, 2)[:, None].expand(-1, groups, -1, -1).reshape(1, heads * groups, count, dim)
            for part in (k, v)
        )
        output, lse = _flash_op(queries, keys, values, is_causal=True, scale=self.scale)
        return output.reshape(heads, groups * count, dim), lse.reshape(heads, groups * count)

    def _flash(self, rows: Tensor, keys: Tensor, values: Tensor) -> Part:
        output, lse = _flash_op(rows, keys, values, scale=self.scale)
        return output[0], lse[0]

    def _attend_far(self, each: _Pass, head: int, past: int, window: int | None, far: FarKeys) -> None:
        """Attend for a head whose far keys look nearer than they are."""
        one = slice(head, head + 1)
        views = list(_views(each, one, 0, past))
        keys = torch.cat([*(view[0][0] for view in views), each.k[:, head]])
        values = torch.cat([*(view[1][0] for view in views), each.v[:, head]])
        bias = None
        if each.batch.tables.biased[each.slot]:
            bias = F.pad(entry_bias(each, one, 0, past)[0], (0, each.count))
        parts = near_and_far(
            far,
            each.q[:, head].transpose(0, 1),
            RowKeys(keys, values, bias),
            layer=each.layer,
            head=head,
            places=each.places,
            window=window,
            scale=self.scale,
        )
        each.out[:, head] = combine(parts).transpose(0, 1)

    def _attend_window(self, each: _Pass, heads: slice, past: int, window: int) -> None:
        """Attend where each query sees only the last `window` keys: a mask over the keys that any of them sees."""
        count, groups = each.count, each.q.shape[2]
        first = max(0, past - window + 1)
        views = list(_views(each, heads, first, past))
        keys = torch.cat([*(view[0] for view in views), each.k[:, heads].transpose(0, 1)], dim=1)
        values = torch.cat([*(view[1] for view in views), each.v[:, heads].transpose(0, 1)], dim=1)
        last = torch.arange(past, past + count)[:, None]
        place = torch.arange(first, past + count)
        visible = (place <= last) & (place > last - window)
        mask = torch.zeros(visible.shape, dtype=torch.float32).masked_fill_(~visible, float("-inf"))[None, None]
        if each.batch.tables.biased[each.slot]:
            added = F.pad(entry_bias(each, heads, first, past), (0, count))
            mask = (mask + added[:, None, None]).expand(-1, groups, -1, -1)
        output, _ = _flash_op(
            each.q[:, heads].permute(1, 2, 0, 3),
            keys[:, None].expand(-1, groups, -1, -1),
            values[:, None].expand(-1, groups, -1, -1),
            attn_mask=mask,
            scale=self.scale,
        )
        each.out[:, heads] = output.permute(2, 0, 1, 3)


_flash_op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def combine(parts: list[Part]) -> Tensor:
    """The output over the keys of all parts, each of which was normalised by itself."""
    if len(parts) == 1:
        return parts[0][0]
    lse = torch.stack([part[1] for part in parts])
    weights = torch.softmax(lse, dim=0)[..., None]
    return sum((output * weight for (output, _), weight in zip(parts, weights, strict=True)), torch.zeros(()))


def entry_bias(each: _Pass, heads: slice, first: int, end: int) -> Tensor:
    """What is added to the logits of entries `first` to `end` of a sequence's rows: float32 [H, n]."""
    tables = each.batch.tables
    size, store = tables.pool.page_size, tables.pool.with_bias()
    if first >= end:
        return store.new_zeros(len(range(*heads.indices(tables.kv_heads))), 0)
    column = first // size
    ids = torch.from_numpy(tables.table[each.slot, each.layer, heads, column : -(-end // size)].astype("int64"))
    return store[ids].flatten(1)[:, first - column * size : end - column * size]


def _views(each: _Pass, heads: slice, first: int, end: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Keys and values [H, n, D] at entries `first` to `end` of a sequence's rows, in order, by runs of pages.

    Where a run's pages lie equally far apart for all heads, it is a view; else the pages are copied together.
    """
    if first >= end:
        return
    tables = each.batch.tables
    pool, table = tables.pool, tables.table[each.slot, each.layer, heads]
    size, dim = pool.page_size, pool.head_dim
    runs = tables.runs(each.slot)
    if not tables.uniform[each.slot]:
        # Rows that differ leave the pages they share at columns of their own: each has fewer runs than all together.
        runs = _runs(table[:, : -(-end // size)])
    for run_first, run_end in runs:
        low, high = max(first, run_first * size), min(end, run_end * size)
        if low >= high:
            continue
        pages = table[:, run_first].tolist()
        steps = {after - before for before, after in itertools.pairwise(pages)} or {0}
        if len(steps) == 1 and min(steps) >= 0:
            shape, strides = (len(pages), high - low, dim), (steps.pop() * size * dim, dim, 1)
            offset = (pages[0] * size + low - run_first * size) * dim
            keys, values = (
                part.as_strided(shape, strides, part.storage_offset() + offset) for part in (pool.keys, pool.values)
            )
            yield keys, values
        else:
            column = low // size
            ids = torch.from_numpy(table[:, column : -(-high // size)].astype("int64"))
            cut = slice(low - column * size, high - column * size)
            yield pool.keys[ids].flatten(1, 2)[:, cut], pool.values[ids].flatten(1, 2)[:, cut]


def _runs(pages: NDArray[np.int32]) -> list[tuple[int, int]]:
    """Ranges (first, end) of columns in which the pages [H, columns] of every row follow one another."""
    ends = [*(np.flatnonzero((pages[:, 1:] != pages[:, :-1] + 1).any(0)) + 1).tolist(), pages.shape[1]]
    return list(zip([0, *ends[:-1]], ends, strict=True))
