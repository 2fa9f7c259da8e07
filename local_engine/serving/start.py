"""From an address to a server that has ended: what `lcdoc serve` does once its options are read."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable

from lcdoc.local_engine.engine import Engine
from lcdoc.local_engine.serving.server import Server
from lcdoc.local_engine.serving.settings import Settings


def serve_engine(
    load: Callable[[], Engine], settings: Settings, made: socket.socket, on_ready: Callable[[Engine, str], None]
) -> signal.Signals | None:
    """Load an engine and serve it on a socket of `listening.bound` until a signal comes; the signal.

    `on_ready` is told the engine and the API's address. Raises EngineError.
    """
    with load() as engine:
        server = Server(engine, settings, made)
        return asyncio.run(server.run(lambda: on_ready(engine, server.url)))
