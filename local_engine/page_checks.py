"""Whether the books of the cache are in order: every page accounted for, nothing shared that may be written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.page_growth import pages_of
from lcdoc.local_engine.pages import PagePool, Pages


def check_rows(
    pool: PagePool,
    table: NDArray[np.int32],
    lengths: NDArray[np.int32],
    counts: NDArray[np.int32],
    elsewhere: Sequence[Pages],
) -> None:
    """Raises EngineError naming what is wrong with rows [sequences, layers, kv_heads] of pages.

    `elsewhere` lists pages that others hold, as often as they do; together with the rows they must be all that the pool
    counts. Looks at every page: for tests, and for when something is amiss.
    """
    pool.check_integrity()
    column = np.arange(table.shape[3])
    inside = column < counts[..., None]
    if table[~inside].any():
        raise EngineError("a page table names pages behind the end of a row")
    filled = pages_of(lengths, pool.page_size)
    if (filled > counts).any() or (lengths < 0).any():
        raise EngineError("a row of the cache has more tokens than its pages hold")
    named = np.concatenate([table[inside], *elsewhere])
    if len(named) and (named.min() < 0 or named.max() >= pool.pages):
        raise EngineError(f"a page table names page {named.min()} or {named.max()}: the pool has {pool.pages}")
    held = np.bincount(named, minlength=pool.pages)
    wrong = np.flatnonzero(held != pool.refs)
    if len(wrong):
        page = wrong[0]
        raise EngineError(
            f"cache page {page} is held {held[page]} times but counted {pool.refs[page]} times; {len(wrong)} are wrong"
        )
    unfilled = inside & (column >= filled[..., None])
    if (pool.refs[table[unfilled]] > 1).any():
        raise EngineError("a cache page that is not filled yet is shared")
