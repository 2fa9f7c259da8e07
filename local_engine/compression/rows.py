"""Keys, values and biases of a sequence's rows: read from the pages, and written back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lcdoc.local_engine.pages import PagePool, to_device

if TYPE_CHECKING:
    from lcdoc.local_engine.batch import Batch
    from lcdoc.local_engine.compression_kernels import CompressionKernels
    from lcdoc.local_engine.page_tables import PageTables


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Entries where they are in a cache, and what computes on them there."""

    kernels: CompressionKernels
    pool: PagePool
    where: Tensor
    """int64 [H, n]: in the pool seen as [pages * page_size, ...]"""

    @property
    def pages(self) -> Tensor:
        """The pool's keys as pages of one entry each, [pages * page_size, 1, D]: `where` is their table."""
        return self.pool.keys.view(-1, 1, self.pool.head_dim)

    def keys(self) -> Tensor:
        """[H, n, D], copied."""
        return self.pool.keys.view(-1, self.pool.head_dim)[self.where]

    def values(self) -> Tensor:
        """[H, n, D], copied."""
        return self.pool.values.view(-1, self.pool.head_dim)[self.where]

    def narrowed(self, columns: Tensor) -> Stored:
        """Only some of them: `columns` int64 [m]."""
        return Stored(self.kernels, self.pool, self.where[:, columns])


def places(tables: PageTables, slot: int, layer: int, heads: slice, count: int) -> Tensor:
    """int64 [H, count]: where the first entries of rows are in the pool seen as [pages * page_size, ...].

    Behind a row's end it names entries of any other row: they may be read, and are not to be written.
    """
    size = tables.pool.page_size
    pages = to_device(tables.table[slot, layer, heads, : -(-count // size)].astype("int64"), tables.pool.device)
    inside = torch.arange(size, device=pages.device)
    return (pages[..., None] * size + inside).flatten(1)[:, :count]


def alike_rows(layer: int, batch: Batch, index: int) -> Iterator[tuple[slice, Tensor]]:
    """Heads of a layer with equally long rows, and where these rows are with a piece's own keys: int64 [H, n]."""
    slot, count = int(batch.slots[index]), int(batch.counts[index])
    lengths = (batch.past[index, layer] + count).tolist()
    alike = len(set(lengths)) == 1
    groups = [slice(0, len(lengths))] if alike else [slice(head, head + 1) for head in range(len(lengths))]
    for heads in groups:
        yield heads, places(batch.tables, slot, layer, heads, lengths[heads.start])


def read_rows(tables: PageTables, where: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values at `where` [H, n], copied: [H, n, D] each."""
    dim = tables.pool.head_dim
    return tables.pool.keys.view(-1, dim)[where], tables.pool.values.view(-1, dim)[where]


def read_bias(tables: PageTables, slot: int, where: Tensor) -> Tensor | None:
    """float32 [H, n]: the biases at `where`; None where the sequence has none."""
    if not tables.biased[slot]:
        return None
    return tables.pool.with_bias().view(-1)[where]


def write_rows(store: Tensor, where: Tensor, entries: Tensor, chosen: Tensor) -> None:
    """Write the `chosen` (bool [H, n]) of `entries` [H, n, ...] to the pages `store` [pages, page_size, ...]."""
    flat = store.view(store.shape[0] * store.shape[1], *store.shape[2:])
    flat[where[chosen]] = entries[chosen].to(store.dtype)
