"""See `compression_kernels.CompressionKernels`: by our Triton kernels, on an NVIDIA GPU.

Keys are read in the pages where they are, and nothing as long as the cache is made but a few numbers for each entry.
Where entries are looked at that need not be whole rows, their places are handed over as pages of one entry each.

Some parts compute by PyTorch's operators here, too: keyformer, whose temperature is each head's own; compactor, whose
chunks are small; match, which wants the outputs of attention besides; cam, which spreads an entry over many; and the
search for the most similar kept key, which is a matrix product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcdoc.local_engine.compaction import Merging, Turn
from lcdoc.local_engine.compression.rows import Stored
from lcdoc.local_engine.compression_kernels import Over
from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.kernels.triton_adjacent import adjacent_similarity
from lcdoc.local_engine.kernels.triton_attention_mass import add_attention_mass
from lcdoc.local_engine.kernels.triton_compact import compact, list_kept
from lcdoc.local_engine.kernels.triton_load_pages import load_pages
from lcdoc.local_engine.kernels.triton_window_scores import window_lse, window_scores
from lcdoc.local_engine.pages import PagePool, Pages, to_device
from lcdoc.local_engine.stored_rows import Rows

if TYPE_CHECKING:
    from lcdoc.local_engine.batch import Batch
    from lcdoc.local_engine.compression.parts import Heads

_AT_ONCE: Final = 1 << 18
"""Entries of a snapshot that are sent to the device together."""


class TritonKernels:
    """Without state. Nothing here waits for the GPU."""

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
        pages, where = _in_cache(heads)
        seen = (queries, pages, where, _whole(where), heads.rotated_at, query_positions, heads.model.scale)
        bias = heads.state.get("bias")
        lse = window_lse(*seen, bias=bias)
        if beside is not None:
            lse = torch.logaddexp(lse, beside)
        if factors is not None:
            lse = lse - factors.log()
        if over == "max":
            return window_scores(*seen, lse, "max", "max", bias)
        return window_scores(*seen, lse, "sum", "mean", bias).div_(queries.shape[2])

    def log_mass(self, stored: Stored, queries: Tensor, scale: float, *, window: int | None = None) -> Tensor:
        pages, where = stored.pages, stored.where
        places = torch.arange(where.shape[1], device=where.device)
        lse = window_lse(
            queries.permute(1, 2, 0, 3),
            pages,
            where,
            _whole(where),
            places.expand(len(where), -1),
            places[len(places) - len(queries) :],
            scale,
            window,
        )
        return lse.permute(2, 0, 1)

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
        if lse is None:
            raise EngineError("attention was computed without log-sum-exps: the GPU's kernels go with its operations")
        tables, slot = batch.tables, int(batch.slots[index])
        # A single's row counts its own key.
        before = batch.device_rows[layer, index] - int(index < batch.singles)
        add_attention_mass(
            mass,
            queries.flatten(1, 2),
            lse,
            tables.pool.keys,
            tables.tables()[slot, layer],
            before,
            scale,
            window,
            tables.pool.bias if tables.biased[slot] else None,
        )

    def adjacent_similarity(self, heads: Heads) -> Tensor:
        pages, where = _in_cache(heads)
        return adjacent_similarity(pages, where, _whole(where), max(0, where.shape[1] - 1))

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
        # The rows of all layers at once.
        rows, most = keep.flatten(0, 1), int(kept.max(initial=0))
        listed, counts = list_kept(rows, most)
        destination = shares = None
        if merging is not None:
            into = merging.into.flatten(0, 1)
            rank = (rows.cumsum(1) - 1).gather(1, into.clamp(min=0))
            destination, shares = torch.where(into >= 0, rank, -1), merging.shares.flatten(0, 1)
        compact(
            pool.keys,
            pool.values,
            _sent(source, pool.device),
            listed,
            counts,
            _sent(target, pool.device),
            None if turn is None else turn.shift.flatten(0, 1),
            None if turn is None else turn.frequencies,
            destination,
            shares,
            merging is None or merging.keys,
            pool.bias,
        )

    def load(self, pool: PagePool, where: NDArray[np.int64], keys: Rows, values: Rows) -> None:
        for first in range(0, len(where), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            load_pages(
                _moved(keys.numbers[part], pool.device),
                _moved(values.numbers[part], pool.device),
                pool.keys,
                pool.values,
                to_device(where[part], pool.device),
                None if keys.scale is None else _moved(keys.scale[part], pool.device),
                None if values.scale is None else _moved(values.scale[part], pool.device),
            )


def _in_cache(heads: Heads) -> tuple[Tensor, Tensor]:
    if heads.stored is None:
        raise EngineError("these heads are in no cache: the GPU's kernels read keys in its pages")
    return heads.stored.pages, heads.stored.where


def _whole(where: Tensor) -> Tensor:
    """The length of rows of which all places are given."""
    return torch.full(where.shape[:1], where.shape[1], dtype=torch.int32, device=where.device)


def _sent(pages: Pages, device: torch.device) -> Tensor:
    """Pages [L, H, *] as rows, int32 [L * H, *]."""
    return to_device(np.ascontiguousarray(pages), device).flatten(0, 1)


def _moved(part: Tensor, device: torch.device) -> Tensor:
    """A part of a snapshot on the device. To a GPU it goes through pinned memory, and nothing waits for it."""
    return part.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else part.to(device)
