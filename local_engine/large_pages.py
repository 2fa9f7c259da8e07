"""Memory in large pages, for weights on a CPU.

Decoding reads every weight for every token, and in pages of 4 KiB a tenth to a third of that time goes into looking up
where they are. Linux gives large pages by itself only where it is set to "always"; elsewhere they have to be asked for,
before the memory is first written.
"""

from __future__ import annotations

import mmap
from contextlib import suppress

import torch
from torch import Tensor

_LARGE = 2 << 20
_BLOCK = 32 * _LARGE
_ALIGNMENT = 64
_ADVICE = getattr(mmap, "MADV_HUGEPAGE", None)
_PRIVATE = {"flags": mmap.MAP_PRIVATE} if hasattr(mmap, "MAP_PRIVATE") else {}


class LargePages:
    """Hands out memory from blocks of 64 MiB, which are given back when nothing in them is used any more.

    What is not written takes no memory, but for the last large page of each block.
    """

    def __init__(self) -> None:
        self._block = memoryview(b"")
        self._used = 0

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeros, so far."""
        count = torch.Size(shape).numel()
        if not count:
            return torch.empty(shape, dtype=dtype)
        start, end = self._used, self._used + count * dtype.itemsize
        if end > len(self._block):
            self._block = _mapped(end - start)
            start, end = 0, end - start
        self._used = -(-end // _ALIGNMENT) * _ALIGNMENT
        return torch.frombuffer(self._block, dtype=dtype, count=count, offset=start).view(shape)

    def hold(self, tensor: Tensor) -> Tensor:
        """A copy of `tensor` here."""
        return self.empty(tuple(tensor.shape), tensor.dtype).copy_(tensor)


def _mapped(least: int) -> memoryview:
    """New memory that begins at a large page's border."""
    size = max(_BLOCK, -(-least // _LARGE) * _LARGE)
    mapped = mmap.mmap(-1, size + _LARGE, **_PRIVATE)
    if _ADVICE is not None:
        with suppress(OSError):  # a kernel without them
            mapped.madvise(_ADVICE)
    skip = -torch.frombuffer(mapped, dtype=torch.uint8).data_ptr() % _LARGE
    return memoryview(mapped)[skip : skip + size]
