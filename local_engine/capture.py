"""Snapshots of what a sequence holds: its entries copied out of the pages, with all that is known of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lcdoc.local_engine.compression.entries import Entries
from lcdoc.local_engine.compression.recipe import FULL
from lcdoc.local_engine.model_identity import ModelIdentity
from lcdoc.local_engine.page_growth import pages_of
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import to_device
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
    where = to_device(tables.entries(slot), pool.device)
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
    keys, values = (Rows(store.view(-1, pool.head_dim)[where].cpu()) for store in (pool.keys, pool.values))
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
        bias=pool.with_bias().view(-1)[where].cpu() if tables.biased[slot] else None,
        cache_bytes=int(pages_of(lengths, pool.page_size).sum()) * pool.page_bytes,
        first=first,
        figures=figures,
        spans=caption.spans,
        meta=dict(caption.meta or {}),
    )
