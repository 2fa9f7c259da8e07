"""What can go wrong in the engine, one class for each kind of remedy.

Every message is one line that says what happened, to which file or number, and what to do about it.
"""

from __future__ import annotations


class EngineError(Exception):
    """The root of this package's errors."""


class ModelFilesError(EngineError):
    """A file of the checkpoint is missing, damaged, or of a kind that is not read."""


class UnsupportedModelError(EngineError):
    """The checkpoint is whole, but the engine does not run models of its kind."""


class InvalidRequestError(EngineError):
    """A request asks for something that no state of the engine could give."""


class RequestTooLargeError(InvalidRequestError):
    """A request does not fit the model's window, or the memory of an idle engine."""


class SnapshotError(EngineError):
    """A snapshot's file is missing or damaged, or the snapshot is of another model or version."""


class OutOfPagesError(EngineError):
    """The page pool holds fewer free pages than were asked for; none of them was taken."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(
            f"{needed} cache pages are needed and {free} are free: end or evict sequences, or give the cache more room"
        )
        self.needed = needed
        self.free = free

    def __reduce__(self) -> tuple[type[OutOfPagesError], tuple[int, int]]:
        return type(self), (self.needed, self.free)


class EngineClosedError(EngineError):
    """The engine was closed, so that it takes no more requests."""
