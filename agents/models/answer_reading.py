"""An answer read off its connection, no longer than each piece of it may take."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lcdoc.agents.models.error_translation import stream_refusal
from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.models.model import OnText
from lcdoc.agents.models.streaming import Answer, EventReader

if TYPE_CHECKING:
    import httpx2

_TAIL_S: Final = 10.0
"""For the usage, once the answer has its finish reason."""
_DRAIN_S: Final = 0.25
"""For the end of the body after `[DONE]`: a connection is used again only when it was read to its end."""


@dataclass(slots=True)
class Exchange:
    """What came of one request."""

    answer: Answer
    reader: EventReader = field(default_factory=EventReader)
    failure: ModelError | None = None
    connected: bool = False
    """The server had begun to answer."""
    late: bool = False
    """It was not waited for any longer."""
    seconds: float = 0.0


async def read_answer(
    response: httpx2.Response, done: Exchange, *, on_text: OnText | None, idle_s: float, wait: Callable[[float], None]
) -> None:
    """Read the answer to its end, or as far as it is let run; `wait` says how long the next piece may take."""
    answer = done.answer
    clock = asyncio.get_running_loop().time
    next_wait = 0.0
    ending = ""
    async for events in _events(response, done.reader):
        for event in events:
            if event is None or answer.done:
                answer.done = True
                continue
            if event.get("error") and not answer.complete:
                raise stream_refusal(event)
            before = answer.size
            piece = answer.add(event)
            if piece and on_text is not None:
                on_text(piece)
            if answer.size > before and clock() >= next_wait:
                # Not for every piece: setting an alarm costs as much as reading one.
                next_wait = clock() + idle_s / 20
                wait(idle_s * 1.05)
        if answer.overlong:
            return
        if answer.complete and ending != (end := "done" if answer.done else "finish"):
            ending = end
            wait(_DRAIN_S if answer.done else _TAIL_S)


async def _events(response: httpx2.Response, reader: EventReader) -> AsyncIterator[list[dict[str, Any] | None]]:
    """The events of a stream as they come; a whole answer as JSON is one event and the end."""
    async with contextlib.aclosing(response.aiter_bytes()) as parts:
        async for part in parts:
            if events := reader.feed(part):
                yield events
    if events := reader.finish():
        yield events
    if not reader.events and reader.other.lstrip()[:1] == b"{":
        try:
            whole = json.loads(reader.other)
        except ValueError:
            return
        if isinstance(whole, dict) and (whole.get("choices") or whole.get("error")):
            reader.events += 1
            yield [whole]
