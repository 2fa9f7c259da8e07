"""An event loop in a thread of its own, for callers that have none or are inside one (a notebook)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
_LOOK_UP_S = 0.5
"""How often the waiting thread looks for Ctrl-C where the system does not interrupt a wait (Windows)."""


class LoopThread:
    """Runs coroutines one after the other in one loop, so that connections and limits outlive a single question."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lcdoc-loop", daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run to the end and return what it returns, or raise what it raises.

        An exception in the waiting thread (Ctrl-C) cancels the coroutine, waits for it to clean up, and goes on.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            while True:
                try:
                    return future.result(_LOOK_UP_S)
                except TimeoutError:
                    if future.done():  # the coroutine's own TimeoutError
                        raise
        except BaseException:
            if not future.done():
                done = threading.Event()
                future.cancel()
                self._loop.call_soon_threadsafe(self._when_idle, done)
                done.wait()
            raise

    def _when_idle(self, done: threading.Event) -> None:
        """Set `done` when no task is left in the loop: a cancelled one has then cleaned up."""
        tasks = asyncio.all_tasks(self._loop)
        if not tasks:
            done.set()
            return
        waiting = self._loop.create_task(asyncio.wait(tasks))
        waiting.add_done_callback(lambda _: done.set())

    def close(self) -> None:
        """Cancel what still runs, end the thread. May be called twice."""
        if self._loop.is_closed():
            return
        with suppress(CancelledError):
            self.run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
    await asyncio.get_running_loop().shutdown_default_executor()
