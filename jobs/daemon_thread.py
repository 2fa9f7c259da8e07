"""Awaiting what blocks, in a thread that nobody waits for when the process ends: a parser may hang for minutes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

Given = TypeVar("Given")
Result = TypeVar("Result")


async def in_daemon_thread(function: Callable[[Given], Result], given: Given) -> Result:
    """What `function(given)` returns or raises. Cancelling it leaves the thread to itself."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(settled: Callable[[], None]) -> None:
        if not future.done():
            settled()

    def run() -> None:
        try:
            result = function(given)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            settled: Callable[[], None] = partial(future.set_exception, error)
        else:
            settled = partial(future.set_result, result)
        with suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(settle, settled)

    threading.Thread(target=run, name="lcdoc-prepare", daemon=True).start()
    return await future
