"""The heart of a worker: a thread that keeps its leases, whatever the worker is busy with.

It stops beating where nothing has moved in the worker for long: others take over what it holds then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection

from lcdoc.memory.errors import LibraryError

_log = logging.getLogger(__name__)

LEASE_S = 60.0
"""How long others wait for a worker that gives no sign of life."""
BEAT_S = 10.0
STUCK_S = 900.0
"""A worker whose event loop has not turned for so long does not come back."""

Beat = Callable[[Collection[str]], set[str]]
"""Puts off the leases with these tokens; returns those that are lost."""


class Heart:
    """Beats every `BEAT_S` seconds inside its `with` block. What it calls is called from its own thread.

    `on_lost` is told of each lease that was lost, once; `on_stuck`, once, that nothing has moved for `STUCK_S`.
    """

    def __init__(
        self,
        beat: Beat,
        *,
        on_lost: Callable[[str], object],
        on_stuck: Callable[[], None] = lambda: None,
        beat_s: float = BEAT_S,
        stuck_s: float = STUCK_S,
    ) -> None:
        self._beat = beat
        self._on_lost = on_lost
        self._on_stuck = on_stuck
        self._beat_s = beat_s
        self._stuck_s = stuck_s
        self._tokens: set[str] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._moved_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="lcdoc-heart", daemon=True)

    def hold(self, token: str) -> None:
        """Keep this lease from now on."""
        with self._lock:
            self._tokens.add(token)

    def drop(self, token: str) -> None:
        """Keep it no longer."""
        with self._lock:
            self._tokens.discard(token)

    def moved(self) -> None:
        """The worker goes on."""
        self._moved_at = time.monotonic()

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        # A beat under way may wait for the disk or for a lock; it changes nothing any more.
        self._thread.join(timeout=1)

    def _run(self) -> None:
        while not self._over.wait(self._beat_s):
            if time.monotonic() - self._moved_at > self._stuck_s:
                self._on_stuck()
                return
            with self._lock:
                tokens = set(self._tokens)
            try:
                lost = self._beat(tokens)
            except LibraryError as error:
                # Leases outlast several beats; and where nobody can write, nobody can take them over.
                _log.info("leases could not be put off: %s", error)
                continue
            for token in lost:
                with self._lock:
                    known = token in self._tokens
                    self._tokens.discard(token)
                if known:
                    self._on_lost(token)
