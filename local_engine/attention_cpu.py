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

from collections.abc import Iterator

import torch
from torch import Tensor

from lcdoc.local_engine.batch import Batch
from lcdoc.local_engine.pages import PagePool

_FEWEST_KEYS_A_THREAD = 512
"""Rows shorter than this for each thread are not split among threads."""

Part = tuple[Tensor, Tensor]
"""Output [H, R, D] and log-sum-exp [H, R] over some of the keys."""


class CpuAttention:
    """Writes a pass's keys and values into the cache and attends to it. Shapes: T tokens, H key-value heads of D."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None, batch: Batch) -> Tensor:
        """q [T, H * G, D], k and v [T, H, D], rotated; returns [T, H * G, D]."""
        tokens, heads, dim = k.shape
        pool = batch.tables.pool
        where = batch.write[layer].view(-1)
        pool.keys.view(-1, dim).index_copy_(0, where, k.reshape(-1, dim))
        pool.values.view(-1, dim).index_copy_(0, where, v.reshape(-1, dim))
        out = q.new_empty(q.shape)
        for index, slot in enumerate(batch.slots.tolist()):
            start, end = int(batch.starts[index]), int(batch.starts[index + 1])
            past = batch.past[index, layer]
            if window is not None and int(past.max()) + end - start > window:
                self._attend_window(out, q, k, v, (start, end), slot, layer, window, batch)
            elif (past == past[0]).all():
                self._attend_heads(out, q, k, v, (start, end), slot, layer, slice(0, heads), int(past[0]), batch)
            else:
                for head in range(heads):
                    one = slice(head, head + 1)
                    self._attend_heads(out, q, k, v, (start, end), slot, layer, one, int(past[head]), batch)
        return out

    def _attend_heads(
        self,
        out: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        span: tuple[int, int],
        slot: int,
        layer: int,
        heads: slice,
        past: int,
        batch: Batch,
    ) -> None:
        """Attend for some heads of one sequence, whose rows all have `past` entries before the piece at `span`."""
        start, end = span
        count, groups = end - start, q.shape[1] // k.shape[1]
        dim, among = q.shape[2], heads.stop - heads.start
        mine = q[start:end].view(count, -1, groups, dim)[:, heads].permute(1, 2, 0, 3)
        rows = mine.reshape(among, groups * count, dim)
        parts: list[Part] = []
        if count == 1:
            # A single query sees its own key as well: it was just written, and lies behind the past.
            past += 1
        for keys, values in _views(batch.tables.pool, batch, slot, layer, heads, 0, past):
            parts += self._all_keys(rows, keys, values)
        if count > 1:
            parts.append(self._own_keys(mine, k[start:end, heads], v[start:end, heads]))
        result = combine(parts).reshape(among, groups, count, dim).permute(2, 0, 1, 3)
        out[start:end].view(count, -1, groups, dim)[:, heads] = result

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

    def _attend_window(
        self,
        out: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        span: tuple[int, int],
        slot: int,
        layer: int,
        window: int,
        batch: Batch,
    ) -> None:
        """Attend where each query sees only the last `window` keys: a mask over the few keys that any of them sees."""
        start, end = span
        count, groups = end - start, q.shape[1] // k.shape[1]
        index = int((batch.starts[1:] <= start).sum())
        for head in range(k.shape[1]):
            past = int(batch.past[index, layer, head])
            first = max(0, past - window + 1)
            views = list(_views(batch.tables.pool, batch, slot, layer, slice(head, head + 1), first, past))
            keys = torch.cat([*(view[0] for view in views), k[None, start:end, head]], dim=1)
            values = torch.cat([*(view[1] for view in views), v[None, start:end, head]], dim=1)
            seen_to = torch.arange(past, past + count)[:, None]
            positions = torch.arange(first, past + count)[None]
            visible = (positions <= seen_to) & (positions > seen_to - window)
            mask = torch.zeros(visible.shape, dtype=q.dtype).masked_fill_(~visible, float("-inf"))
            queries = q[start:end].view(count, -1, groups, q.shape[2])[:, head].transpose(0, 1)
            output, _ = _flash_op(
                queries[None],
                keys[None].expand(-1, groups, -1, -1),
                values[None].expand(-1, groups, -1, -1),
                attn_mask=mask[None, None],
                scale=self.scale,
            )
            out[start:end].view(count, -1, groups, q.shape[2])[:, head] = output[0].transpose(0, 1)


_flash_op = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def combine(parts: list[Part]) -> Tensor:
    """The output over the keys of all parts, each of which was normalised by itself."""
    if len(parts) == 1:
        return parts[0][0]
    lse = torch.stack([part[1] for part in parts])
    weights = torch.softmax(lse, dim=0)[..., None]
    total = parts[0][0] * weights[0]
    for (output, _), weight in zip(parts[1:], weights[1:], strict=True):
        total.addcmul_(output.float() if total.dtype == torch.float32 else output, weight)
    return total


def _views(
    pool: PagePool, batch: Batch, slot: int, layer: int, heads: slice, first: int, end: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Keys and values [H, n, D] at entries `first` to `end` of a layer's rows, in order, by runs of pages.

    Where a run's pages lie equally far apart for all heads, it is a view; else the pages are copied together.
    """
    if first >= end:
        return
    size = pool.page_size
    table = batch.tables.table[slot, layer, heads]
    for run_first, run_end in batch.tables.runs(slot):
        low, high = max(first, run_first * size), min(end, run_end * size)
        if low >= high:
            continue
        pages = table[:, run_first].tolist()
        steps = {after - before for before, after in zip(pages, pages[1:], strict=False)}
        if len(steps) <= 1:
            step = steps.pop() if steps else 0
            dim = pool.keys.shape[2]
            shape = (len(pages), high - low, dim)
            strides = (step * size * dim, dim, 1)
            offset = (pages[0] * size + low - run_first * size) * dim
            if step >= 0:
                keys, values = (
                    part.as_strided(shape, strides, part.storage_offset() + offset) for part in (pool.keys, pool.values)
                )
                yield keys, values
                continue
        column, last = low // size, -(-high // size)
        ids = torch.from_numpy(table[:, column:last].astype("int64"))
        cut = slice(low - column * size, high - column * size)
        yield (
            pool.keys[ids].flatten(1, 2)[:, cut],
            pool.values[ids].flatten(1, 2)[:, cut],
        )
