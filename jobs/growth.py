"""How much memory this process holds, and whether that is more than what it does should take."""

from __future__ import annotations

import os
from pathlib import Path

_SETTLED = 20
"""Documents after which everything is loaded that ever will be: models, tables, caches."""
MOST_GROWTH_BYTES = 1 << 30


class Growth:
    """Called after each document; True when the process holds much more than when it had settled."""

    def __init__(self, *, most_bytes: int = MOST_GROWTH_BYTES, settled: int = _SETTLED) -> None:
        self._most_bytes = most_bytes
        self._settled = settled
        self._documents = 0
        self._at_first = 0

    def __call__(self) -> bool:
        self._documents += 1
        if self._documents <= self._settled:
            self._at_first = max(self._at_first, resident_bytes())
            return False
        return resident_bytes() - self._at_first > self._most_bytes


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not tell."""
    try:
        fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
