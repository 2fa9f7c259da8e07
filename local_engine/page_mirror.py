"""The copy of the page tables that kernels read.

On a CPU it is the same memory. On a GPU it is a tensor of its own, and only sequences whose pages changed are sent:
once a step, as one block from pinned memory, with nothing waiting for it. The block is copied out of the tables first,
so that the next step may change them while this one's copy is still under way.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcdoc.local_engine.pages import to_device


class PageMirror:
    """Mirrors a table [sequences, layers, heads, columns] of page numbers on `device`.

    `copied=False` shares the table's memory, which only a CPU can.
    """

    def __init__(self, device: torch.device, *, copied: bool) -> None:
        self._device = device
        self._copied = copied
        self._tensor: Tensor | None = None

    def update(self, table: NDArray[np.int32], dirty: NDArray[np.bool_], used: NDArray[np.integer]) -> Tensor:
        """The mirror, after the `dirty` sequences [S] were brought up to date; clears `dirty`.

        `used` [S] is the number of columns of each sequence that are in use; behind them the mirror may name any page.
        """
        if not self._copied:
            dirty[:] = False
            if self._tensor is None or self._tensor.shape != table.shape:
                self._tensor = torch.from_numpy(table)
            return self._tensor
        if self._tensor is None or self._tensor.shape != table.shape:
            self._tensor = torch.zeros(table.shape, dtype=torch.int32, device=self._device)
            dirty |= used > 0
        slots = np.flatnonzero(dirty)
        columns = int(used[slots].max(initial=0))
        if columns:
            block = to_device(table[slots, ..., :columns], self._device)
            self._tensor[..., :columns].index_copy_(0, to_device(slots, self._device), block)
        dirty[:] = False
        return self._tensor
