"""A stream of server-sent events, as clients of OpenAI's API read it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import Send

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # Proxies would collect the events.
    (b"x-accel-buffering", b"no"),
]

_BEAT_S = 15.0


class EventStream:
    """Sends events one after the other. Nothing is sent before the first."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self._ended = False
        self._count = 0

    async def begin(self) -> None:
        """Say that an answer comes. From here on an error can only be an event."""
        self.begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})

    async def event(self, data: Mapping[str, Any]) -> None:
        await self._write(f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n")

    @asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Send a comment, which clients pass over, when nothing else comes: proxies end connections that are still."""

        async def beat() -> None:
            while True:
                before = self._count
                await asyncio.sleep(_BEAT_S)
                if before == self._count:
                    await self._write(": still at work\n\n")

        beating = asyncio.create_task(beat())
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def done(self) -> None:
        """The end of a whole answer."""
        await self._write("data: [DONE]\n\n", more=False)

    async def failed(self, error: Mapping[str, Any]) -> None:
        """The end of an answer that is not whole."""
        if not self._ended:
            await self._write(f"data: {json.dumps(error)}\n\n", more=False)

    async def _write(self, text: str, *, more: bool = True) -> None:
        self._ended = not more
        self._count += 1
        await self._send({"type": "http.response.body", "body": text.encode(), "more_body": more})
