"""See `compression_kernels.CompressionKernels`: in PyTorch's operators, a strip of attention at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cosine_similarity

from lcdoc.local_engine.compaction import Merging, Turn, merge_kept, move_kept, turn_kept
from lcdoc.local_engine.compression.attention_mass import attention_mass, log_mass
from lcdoc.local_engine.compression.rows import Stored, alike_rows, read_bias, read_rows
from lcdoc.local_engine.compression.scorers.window_attention import window_attention
from lcdoc.local_engine.compression_kernels import Over
from lcdoc.local_engine.page_rows import stretches
from lcdoc.local_engine.pages import PagePool, Pages
from lcdoc.local_engine.stored_rows import Rows

if TYPE_CHECKING:
    import numpy as np

    from lcdoc.local_engine.batch import Batch
    from lcdoc.local_engine.compression.parts import Heads

_QUERIES: Final = 128
"""Looked at together: a strip of a whole probe over a long cache would be larger than the cache."""
_AT_ONCE: Final = 1 << 16
"""Entries of a snapshot that are put into pages together."""


class TorchKernels:
    """On any device."""

    def window_scores(
        self,
        heads: Heads,
        queries: Tensor,
        query_positions: Tensor,
        over: Over,
        *,
        beside: Tensor | None = None,
        factors: Tensor | None = None,
    ) -> Tensor:
        keys, bias, scale = heads.keys.to(torch.float32), heads.state.get("bias"), heads.model.scale
        _, groups, count, _ = queries.shape
        made = torch.zeros(keys.shape[:2], device=keys.device)
        # One query head of the group at a time: a strip for all of them would be larger than a long cache.
        for head in range(groups):
            for first in range(0, count, _QUERIES):
                part = (slice(None), slice(head, head + 1), slice(first, first + _QUERIES))
                strip = window_attention(
                    queries[part],
                    keys,
                    query_positions[part[2]],
                    heads.rotated_at,
                    scale,
                    bias=bias,
                    beside=None if beside is None else beside[part],
                )[:, 0]
                if factors is not None:
                    strip *= factors[part[2], None]
                if over == "mean":
                    made += strip.sum(1)
                else:
                    torch.maximum(made, strip.amax(1), out=made)
        return made.div_(groups * count) if over == "mean" else made

    def log_mass(self, stored: Stored, queries: Tensor, scale: float, *, window: int | None = None) -> Tensor:
        return log_mass(queries, stored.keys(), scale, window=window)

    def add_attention_mass(  # noqa: PLR0917
        self,
        mass: Tensor,
        layer: int,
        queries: Tensor,
        lse: Tensor | None,
        batch: Batch,
        index: int,
        scale: float,
        window: int | None,
    ) -> None:
        tables = batch.tables
        for heads, where in alike_rows(layer, batch, index):
            keys, _ = read_rows(tables, where)
            bias = read_bias(tables, int(batch.slots[index]), where)
            mass[heads, : where.shape[1]] += attention_mass(queries[:, heads], keys, scale, window=window, bias=bias)

    def adjacent_similarity(self, heads: Heads) -> Tensor:
        keys = heads.keys.to(torch.float32)
        return cosine_similarity(keys[:, 1:], keys[:, :-1], dim=-1)

    def move(
        self,
        pool: PagePool,
        keep: Tensor,
        kept: NDArray[np.int32],
        source: Pages,
        target: Pages,
        *,
        merging: Merging | None = None,
        turn: Turn | None = None,
    ) -> None:
        if merging is not None:
            merge_kept(pool, keep, source, merging)
        move_kept(pool, keep, source, target)
        if turn is not None:
            turn_kept(pool, kept, target, turn)

    def load(self, pool: PagePool, where: NDArray[np.int64], keys: Rows, values: Rows) -> None:
        for rows, store in ((keys, pool.keys), (values, pool.values)):
            flat = store.view(-1, pool.head_dim)
            for begin, end, place in stretches(where):
                for first in range(begin, end, _AT_ONCE):
                    last = min(first + _AT_ONCE, end)
                    flat[place + first - begin : place + last - begin] = rows.part(first, last)


TORCH: Final = TorchKernels()
