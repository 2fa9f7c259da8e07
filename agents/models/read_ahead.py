"""Pieces of a document that an engine reads while the ones before them are answered.

The workers of a chain are asked one after the other, since each is handed the note of the one before. What does not
wait for the note is the piece itself, and prompts begin with it: so while one answer is written, the engine reads the
pieces that come next, and finds them in its cache when they are asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final

from lcdoc.agents.models.model import ChatModel, Completion, ModelSpec, Request

Read = Callable[[Request], "Future[Any] | None"]
"""Begins to read a prompt; the future is done when it is read, and cancelling it takes it back. None: not now."""

_DEPTH: Final = 2
"""Pieces read ahead. More would push each other out of the cache before they are asked about."""


class ReadAhead:
    """What one run is going to ask, in order. Call `close` at its end."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._requests: Sequence[Request] = ()
        self._beginnings: list[tuple[str, ...]] = []
        self._reading: dict[int, Future[Any]] = {}

    def announce(self, requests: Sequence[Request]) -> None:
        """Tell what is going to be sent, as far as it is known: later requests begin like these, and end alike."""
        self.close()
        self._requests = tuple(requests)
        ends = [request.messages[-1].content for request in requests]
        shared = _shared_end(ends)
        self._beginnings = [
            (*(message.content for message in request.messages[:-1]), end[: len(end) - shared])
            for request, end in zip(requests, ends, strict=True)
        ]

    def sending(self, request: Request) -> None:
        """`request` is sent now: what is still being read of it is taken back, for the request itself reads it on."""
        if (index := self._index(request)) is not None and (reading := self._reading.pop(index, None)) is not None:
            reading.cancel()

    def answering(self, request: Request) -> None:
        """The answer to `request` has begun: the engine has time for what comes next."""
        if (index := self._index(request)) is None:
            return
        for old in [other for other in self._reading if not index < other <= index + _DEPTH]:
            self._reading.pop(old).cancel()
        for after in range(index + 1, min(index + 1 + _DEPTH, len(self._requests))):
            if after not in self._reading and (reading := self._read(self._requests[after])) is not None:
                self._reading[after] = reading

    def close(self) -> None:
        """Take back what is not read yet."""
        for reading in self._reading.values():
            reading.cancel()
        self._reading.clear()
        self._requests, self._beginnings = (), []

    def _index(self, request: Request) -> int | None:
        """Which of those announced a request is."""
        contents = [message.content for message in request.messages]
        for index, (*before, beginning) in enumerate(self._beginnings):
            if contents[:-1] == before and beginning and contents[-1].startswith(beginning):
                return index
        return None


def _shared_end(texts: Sequence[str]) -> int:
    """Characters that all texts end with."""
    backwards = [text[::-1] for text in texts]
    # What the first and the last in order share, all between them share.
    first, last = min(backwards, default=""), max(backwards, default="")
    pairs = enumerate(zip(first, last, strict=False))
    return next((place for place, (one, other) in pairs if one != other), len(first))


class AheadModel:
    """A model whose requests move a run's `ReadAhead` on."""

    def __init__(self, inner: ChatModel, ahead: ReadAhead) -> None:
        self._inner = inner
        self._ahead = ahead

    @property
    def spec(self) -> ModelSpec:
        return self._inner.spec

    def count_tokens(self, text: str) -> int:
        return self._inner.count_tokens(text)

    async def complete(self, request: Request) -> Completion:
        """Answer. Raises what the model below raises."""
        begun = False

        def listen(piece: str) -> None:
            nonlocal begun
            if not begun:
                begun = True
                self._ahead.answering(request)
            if request.on_text is not None:
                request.on_text(piece)

        self._ahead.sending(request)
        return await self._inner.complete(replace(request, on_text=listen))
