"""Keys, values and biases of a sequence's rows: read from the pages, and written back."""

from __future__ import annotations

import torch
from torch import Tensor

from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import to_device


def places(tables: PageTables, slot: int, layer: int, heads: slice, count: int) -> Tensor:
    """int64 [H, count]: where the first entries of rows are in the pool seen as [pages * page_size, ...].

    Behind a row's end it names entries of any other row: they may be read, and are not to be written.
    """
    size = tables.pool.page_size
    pages = to_device(tables.table[slot, layer, heads, : -(-count // size)].astype("int64"), tables.pool.device)
    inside = torch.arange(size, device=pages.device)
    return (pages[..., None] * size + inside).flatten(1)[:, :count]


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
