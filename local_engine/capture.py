"""Snapshots of what a sequence holds: its entries copied out of the pages, with all that is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcdoc.local_engine.compression.entries import Entries
from lcdoc.local_engine.compression.recipe import FULL
from lcdoc.local_engine.model_identity import ModelIdentity
from lcdoc.local_engine.page_growth import Integers, pages_of
from lcdoc.local_engine.page_rows import stretches
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.snapshot import Snapshot
from lcdoc.local_engine.stored_rows import Rows


@dataclass(frozen=True, slots=True)
class Caption:
    """What a snapshot says of itself that is not in the pages."""

    model: ModelIdentity
    recipe: str = FULL
    spans: NDArray[np.int32] | None = None
    """[read, 2]"""
    meta: Mapping[str, Any] | None = None


def take(tables: PageTables, slot: int, tokens: Sequence[int], caption: Caption, entries: Entries | None) -> Snapshot:
    """What a sequence that has read `tokens` holds, copied; `entries` is what is known of it, None: it kept all."""
    pool, lengths = tables.pool, tables.lengths[slot].astype(np.int64)
    where = tables.entries(slot)
    if entries is None:
        positions = torch.arange(len(tokens), dtype=torch.int32).repeat(lengths.size)
        rotated_at, shift, first = positions, 0, 0
        figures = {}
    else:
        layout = entries.layout()
        positions = layout.positions[layout.valid].to("cpu", torch.int32)
        rotated_at, shift = layout.stands[layout.valid].to("cpu", torch.int32), entries.shift
        first = entries.first
        figures = {name: entries.figure(name)[layout.valid].cpu() for name in entries.figures}
    keys, values = (Rows(_copied(store.view(-1, pool.head_dim), where)) for store in (pool.keys, pool.values))
    return Snapshot(
        model=caption.model,
        recipe=caption.recipe,
        tokens=np.array(tokens, np.int32),
        lengths=lengths,
        place=len(tokens) - shift,
        keys=keys,
        values=values,
        positions=positions,
        rotated_at=rotated_at,
        bias=_copied(pool.with_bias().view(-1), where) if tables.biased[slot] else None,
        cache_bytes=int(pages_of(lengths, pool.page_size).sum()) * pool.page_bytes,
        first=first,
        figures=figures,
        spans=caption.spans,
        meta=dict(caption.meta or {}),
    )


def _copied(store: Tensor, where: Integers) -> Tensor:
    """The entries of a store [entries, ...] at `where`, in memory of their own on the host."""
    made = torch.empty(len(where), *store.shape[1:], dtype=store.dtype)
    for first, end, place in stretches(where):
        made[first:end] = store[place : place + end - first]
    return made
