"""Large pages for weights on a CPU.

Decoding reads every weight for every token, and in pages of 4 KiB much of that time goes into looking up where they are
(measured on packed weights, two threads: 28 GB/s against 23).

Linux gives large pages by itself only where it is set to "always"; elsewhere they have to be asked for. The weights lie
in memory that oneDNN allocates, so what is asked for is whatever memory was mapped meanwhile.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

_HUGE = 2 << 20
_MAPS = Path("/proc/self/maps")
_HAS_MAPS = sys.platform == "linux" and _MAPS.exists()
_MADV_HUGEPAGE = 14
_MADV_COLLAPSE = 25
"""Gather pages that are in use already; Linux 6.1 and later. Older kernels do it in the background, in time."""

Ranges = list[tuple[int, int]]


class HugePages:
    """Lays memory that is allocated inside `with`, and still in use at its end, in large pages where Linux has them.

    Not for memory that is to be filled only in part later: large pages are in use as a whole. Gathering a gigabyte
    takes a second or two, so a thread of its own does it; `wait` waits for that.
    """

    def __init__(self) -> None:
        self._before: Ranges = []
        self._gathering: threading.Thread | None = None

    def __enter__(self) -> Self:
        if _HAS_MAPS:
            self._before = _anonymous()
        return self

    def __exit__(self, *_: object) -> None:
        if _HAS_MAPS:
            ranges = [*_outside(_anonymous(), self._before)]
            self._gathering = threading.Thread(target=_gather, args=(ranges,), name="lcdoc-huge-pages", daemon=True)
            self._gathering.start()

    def wait(self) -> None:
        """Return when all is gathered that can be."""
        if self._gathering is not None:
            self._gathering.join()


def _gather(ranges: Ranges) -> None:
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, end in ranges:
        # One at a time: the first that cannot be had would end a longer call. Advice that the kernel does not know or
        # cannot follow changes nothing.
        for place in range(-(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE, _HUGE):
            advise(place, _HUGE, _MADV_HUGEPAGE)
            advise(place, _HUGE, _MADV_COLLAPSE)


def _anonymous() -> Ranges:
    """Where this process has memory that is no file's, in order."""
    ranges: Ranges = []
    for line in _MAPS.read_text(encoding="ascii", errors="replace").splitlines():
        place, access, *rest = line.split(maxsplit=5)
        if access == "rw-p" and (len(rest) < 4 or rest[3] == "[heap]"):
            start, end = (int(number, 16) for number in place.split("-"))
            ranges.append((start, end))
    return ranges


def _outside(ranges: Ranges, known: Ranges) -> Iterator[tuple[int, int]]:
    """The parts of `ranges` that are in none of `known`; both are in order."""
    for start, end in ranges:
        for low, high in known:
            if high > start and low < end:
                if low > start:
                    yield start, low
                start = max(start, high)  # noqa: PLW2901
        if start < end:
            yield start, end
