"""How a worker ends."""

from __future__ import annotations

from enum import IntEnum


class Ending(IntEnum):
    """How a worker ended; the number is its exit status."""

    FINISHED = 0
    """Nothing is left to do."""
    STOPPED = 3
    """The job is paused or cancelled; its record says why."""
    GROWN = 4
    """It holds more memory than it should: another is to take its place."""
    INTERRUPTED = 130
