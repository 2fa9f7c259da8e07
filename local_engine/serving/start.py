"""From a model's name to a server that has ended: what `lcdoc serve` does."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from lcdoc.local_engine.engine import Engine
from lcdoc.local_engine.serving.server import Server, bound
from lcdoc.local_engine.serving.settings import Settings


def serve_engine(
    load: Callable[[], Engine], settings: Settings, on_ready: Callable[[Engine, str], None]
) -> signal.Signals | None:
    """Load an engine and serve it until a signal comes; the signal.

    `on_ready` is told the engine and the API's address. The address is taken before the model is loaded, since that
    takes long. Raises EngineError.
    """
    made = bound(settings)
    try:
        engine = load()
        try:
            server = Server(engine, settings, made)
            return asyncio.run(server.run(lambda: on_ready(engine, server.url)))
        finally:
            engine.close()
    finally:
        made.close()
