"""Small facts worth remembering from one run to the next, such as how a server wants to be asked for JSON."""

from __future__ import annotations

import time
from typing import Protocol


class Memos(Protocol):
    """Strings by key, each kept for a while. The library's memos are such, shared by all processes.

    Neither method raises: what a memo says can be found out again.
    """

    def get(self, key: str) -> str | None:
        """What was set under `key` and has not expired."""
        ...

    def set(self, key: str, value: str, *, ttl_s: float) -> None:
        """Remember `value` for `ttl_s` seconds, in place of what was there."""
        ...


class ForgetfulMemos:
    """Memos that last as long as the object."""

    def __init__(self) -> None:
        self._memos: dict[str, tuple[str, float]] = {}

    def get(self, key: str) -> str | None:
        value, expires = self._memos.get(key, ("", 0.0))
        return value if time.monotonic() < expires else None

    def set(self, key: str, value: str, *, ttl_s: float) -> None:
        self._memos[key] = (value, time.monotonic() + ttl_s)
