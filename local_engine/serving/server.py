"""A server's life: it listens, answers, and ends in peace."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from lcdoc.local_engine.engine import Engine
from lcdoc.local_engine.serving.app import create_app
from lcdoc.local_engine.serving.listening import cannot_listen
from lcdoc.local_engine.serving.service import Service
from lcdoc.local_engine.serving.settings import Settings

logger = logging.getLogger(__name__)

_MOST_CONNECTIONS = 1_000
_LEAVING_S = 3
"""For connections to close once all is answered."""


class Server:
    """Answers requests to `engine` on a socket that `listening.bound` has made."""

    def __init__(self, engine: Engine, settings: Settings, bound_to: socket.socket) -> None:
        self._engine = engine
        self._settings = settings
        self._socket = bound_to
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = asyncio.Event()
        self._told_again = asyncio.Event()
        self._signal: signal.Signals | None = None

    @property
    def url(self) -> str:
        """Where clients find the API."""
        host, port = self._socket.getsockname()[:2]
        if host in {"0.0.0.0", "::"}:
            host = socket.gethostname()
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    async def run(self, on_ready: Callable[[], None]) -> signal.Signals | None:
        """Serve until a signal comes or `stop` is called; the signal.

        Then nobody is let in any more, and what runs has `drain_s` to end; a second signal ends it at once. The engine
        is closed in the end. Raises SettingsError when the port is taken after all.
        """
        self._loop = asyncio.get_running_loop()
        service = Service(self._engine, self._settings)
        web = _Uvicorn(
            uvicorn.Config(
                create_app(service),
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_MOST_CONNECTIONS,
                timeout_graceful_shutdown=_LEAVING_S,
            )
        )
        with self._signals():
            serving = asyncio.create_task(web.serve(sockets=[self._socket]))
            told = asyncio.create_task(self._told.wait())
            try:
                while not web.started and not serving.done():
                    await asyncio.sleep(0.01)
                if not serving.done():
                    on_ready()
                    await asyncio.wait({serving, told}, return_when=asyncio.FIRST_COMPLETED)
                    await self._drain(service)
                web.should_exit = True
                await serving
            except OSError as error:
                raise cannot_listen(self._settings, error) from None
            finally:
                told.cancel()
                service.close()
                await asyncio.to_thread(self._engine.close)
        return self._signal

    def stop(self, received: signal.Signals | None = None) -> None:
        """End as after a signal. From any thread, while the server runs."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._tell, received)

    def _tell(self, received: signal.Signals | None) -> None:
        if self._told.is_set():
            self._told_again.set()
        self._signal = self._signal or received
        self._told.set()

    async def _drain(self, service: Service) -> None:
        drained = asyncio.create_task(service.gate.drained())
        again = asyncio.create_task(self._told_again.wait())
        await asyncio.wait({drained, again}, timeout=self._settings.drain_s, return_when=asyncio.FIRST_COMPLETED)
        again.cancel()
        if not drained.done():
            logger.warning("%d answers are cut off", service.gate.taken)
            # Their clients are told, and leave.
            await asyncio.to_thread(self._engine.close)
            await asyncio.wait({drained}, timeout=_LEAVING_S)
            drained.cancel()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM, where this is the process's main thread."""

        def take(number: int, _frame: object) -> None:
            self.stop(signal.Signals(number))

        try:
            before = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:
            # Another thread than the main one gets no signals.
            before = {}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Uvicorn(uvicorn.Server):
    """Uvicorn, which leaves signals to us: it would refuse connections at once, and end by the signal itself."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
