"""Waiting for what is out of the way by itself: a full disk, a locked file, a server that restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from lcdoc.jobs.faults import fault_of

Result = TypeVar("Result")

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 10.0
SERVER_S = 900.0
"""How long a server that has answered before may be away."""


def outlast(action: Callable[[], Result], say: Callable[[str], None], *, meanwhile: Callable[[], None]) -> Result:
    """What `action` returns, as soon as the place admits it; for those that have no event loop. `meanwhile` is called
    before each pause. Raises what it raises for other faults."""
    pause_s, told = FIRST_PAUSE_S, False
    while True:
        try:
            return action()
        except Exception as error:
            fault = fault_of(error)
            if fault.reach != "place":
                raise
            if not told:
                told = True
                say(f"{fault.reason}; waiting until that is mended")
        meanwhile()
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


class Patience:
    """Does things again, after growing pauses, while the place or the server is at fault. `say` hears of it once.

    Shared by all that a worker does: while the disk is full, it is told once, whoever ran into it.
    """

    def __init__(self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._told = ""
        self.server_has_answered = False

    async def outlast(self, action: Callable[[], Awaitable[Result]]) -> Result:
        """What `action` returns, as soon as it can be done. Raises what it raises for other faults."""
        pause_s, since = FIRST_PAUSE_S, self._clock()
        while True:
            try:
                result = await action()
            except Exception as error:
                fault = fault_of(error)
                if not self._may_pass(fault.reach, since):
                    raise
                if self._told != fault.reason:
                    self._told = fault.reason
                    self._say(f"{fault.reason}; what is done is held, and tried again")
            else:
                if pause_s > FIRST_PAUSE_S and self._told:
                    self._told = ""
                    self._say("going on")
                return result
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _may_pass(self, reach: str, since: float) -> bool:
        if reach == "server":
            # One that never answered is more likely not there, or not where it was said to be.
            return self.server_has_answered and self._clock() - since < SERVER_S
        return reach == "place"
