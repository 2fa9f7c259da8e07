"""Stopping, from any thread, what another thread waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StoppedError(RuntimeError):
    """The work was stopped before it was done: its pool was closed, or its `Stop` was set."""


class Stop:
    """Set once, by anyone, at any time; what is under way then, and what begins later, ends with StoppedError."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._actions: list[Callable[[], None]] = []
        self._is_set = False

    def set(self) -> None:
        """Stop the work. Returns at once; doing it again does nothing."""
        with self._lock:
            self._is_set = True
            actions, self._actions = self._actions, []
        for action in actions:
            action()

    @property
    def is_set(self) -> bool:
        """Whether it was set."""
        return self._is_set

    def check(self) -> None:
        """Raise StoppedError if it is set."""
        if self._is_set:
            raise StoppedError("stopped before it was done")

    @contextmanager
    def calls(self, action: Callable[[], None]) -> Iterator[None]:
        """Call `action` when it is set within the block: from the thread that sets it, and maybe a moment later."""
        with self._lock:
            self.check()
            self._actions.append(action)
        try:
            yield
        finally:
            with self._lock:
                if action in self._actions:
                    self._actions.remove(action)
