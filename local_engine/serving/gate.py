"""How many answers are under way, and whether there is room for more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from lcdoc.local_engine.serving.problems import Problem, closing

_RETRY_AFTER_S = 2


class Gate:
    """Counts places. A request takes one when it comes, before its body is read, and one for each further answer."""

    def __init__(self, places: int) -> None:
        self.places = places
        self.taken = 0
        self.draining = False
        """Nobody is let in any more."""
        self._empty = asyncio.Event()

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A request's place, until it is answered. Raises Problem when there is none."""
        place = Place(self)
        place.add(1)
        try:
            yield place
        finally:
            self.taken -= place.size
            if not self.taken:
                self._empty.set()

    async def drained(self) -> None:
        """Lets nobody in, and waits until all are out."""
        self.draining = True
        while self.taken:
            self._empty.clear()
            await self._empty.wait()


class Place:
    """What one request takes."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.size = 0

    def add(self, count: int) -> None:
        """Take more places, all or none. Raises Problem."""
        gate = self._gate
        if gate.draining and not self.size:
            raise closing()
        if gate.taken + count > gate.places:
            raise Problem(
                f"The server is busy: {gate.taken} of {gate.places} places for answers are taken. Try again later.",
                status=429,
                code="queue_full",
                headers={"Retry-After": str(_RETRY_AFTER_S)},
            )
        gate.taken += count
        self.size += count
