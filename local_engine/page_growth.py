"""What rows of pages need before they can take more tokens. Pure functions over all rows of a batch at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lcdoc.local_engine.pages import Pages

Integers = NDArray[np.int64]
Rows = NDArray[np.int32]
"""A number for every row: [sequences of the batch, layers, kv_heads], or [layers, kv_heads] of one sequence."""


@dataclass(frozen=True, slots=True)
class Growth:
    """Pages to be taken: `missing` behind each row's last, and one for each shared last page that must be copied."""

    missing: Rows
    copied: Integers  # flat indices of rows
    shared: Pages  # the page that each of those leaves

    @property
    def pages(self) -> int:
        """How many in all."""
        return int(self.missing.sum()) + len(self.copied)


def pages_of(tokens: NDArray[np.integer], page_size: int) -> Rows:
    """How many pages so many tokens fill, the last one partly."""
    pages: Rows = (-(-tokens // page_size)).astype(np.int32)
    return pages


def plan_growth(starts: Rows, more: Integers, held: Rows, last: Pages, refs: Pages, *, page_size: int) -> Growth:
    """What rows with `starts` tokens in `held` pages need for `more` tokens (broadcast to the rows).

    `last` names the page in which each row goes on, and anything where it goes on in a new one. `refs` are the pool's.
    If all who hold a page go on in it now, the last of them may keep it and the others copy it.
    """
    missing: Rows = np.maximum(pages_of(starts + more, page_size) - held, 0)
    goes_on = (starts % page_size != 0) & (more > 0)
    copied = np.flatnonzero(goes_on & (refs[last] > 1))
    shared = last.ravel()[copied]
    if len(copied):
        pages, first, times = np.unique(shared[::-1], return_index=True, return_counts=True)
        keepers = len(shared) - 1 - first[times == refs[pages]]
        copied, shared = np.delete(copied, keepers), np.delete(shared, keepers)
    return Growth(missing, copied, shared)
