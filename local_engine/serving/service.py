"""What all addresses of one server share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lcdoc.local_engine.engine import Engine
from lcdoc.local_engine.serving.asked import Served
from lcdoc.local_engine.serving.gate import Gate
from lcdoc.local_engine.serving.metrics import Metrics
from lcdoc.local_engine.serving.settings import Settings

Result = TypeVar("Result")

_THREADS = 4


class Service:
    """An engine with what is needed to let others use it. `close` leaves the engine as it is."""

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        self.settings = settings
        self.served = Served(engine.name, engine.context_window, engine.defaults)
        self.gate = Gate(engine.sequences + settings.max_waiting)
        self.metrics = Metrics(engine)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="lcdoc-serving")

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Do what takes long and is no waiting, while other requests go on."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
