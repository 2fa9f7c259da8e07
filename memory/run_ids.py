"""Ids of runs: twelve characters that sort by time."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Base 32 in the order of ASCII, without letters that look like digits."""
_EPOCH_S = 1_577_836_800  # 2020-01-01; forty bits of milliseconds last until 2054


class RunIds:
    """Gives out ids: eight characters of time and four by chance. Those made by one object differ in time."""

    def __init__(self) -> None:
        self._last_ms = 0

    def next(self) -> str:
        """A new id."""
        self._last_ms = max(self._last_ms + 1, int((time.time() - _EPOCH_S) * 1000))
        number = (self._last_ms << 20) | secrets.randbits(20)
        return "".join(_ALPHABET[number >> shift & 31] for shift in range(55, -1, -5))
