"""A server in this process, on a free port, for tests that speak to it through real connections."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai

from lcdoc.local_engine.engine import Engine, KVConfig
from lcdoc.local_engine.serving.listening import bound
from lcdoc.local_engine.serving.server import Server
from lcdoc.local_engine.serving.settings import Settings


@dataclass
class Served:
    """A running server."""

    engine: Engine
    server: Server
    key: str | None

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, **{"api_key": self.key or "none", "max_retries": 0, **options})

    def async_client(self, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url, **{"api_key": self.key or "none", "max_retries": 0, **options})

    def post(self, path: str, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", timeout=60, **options)

    def metrics(self) -> dict[str, float]:
        """Every sample by its name and labels, as Prometheus reads them."""
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        lines = httpx.get(f"{self.root}/metrics", headers=headers).raise_for_status().text.splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}


@contextmanager
def served_engine(folder: Path, *, sequences: int | None = None, **settings: Any) -> Iterator[Served]:
    """Load the checkpoint and serve it until the block ends."""
    chosen = Settings(**{"port": 0, "drain_s": 0.0, **settings})
    engine = Engine.load(folder, dtype="float32", kv=KVConfig(page_size=16, max_memory=2**26), sequences=sequences)
    server = Server(engine, chosen, bound(chosen))
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.run(ready.set)))
    thread.start()
    try:
        assert ready.wait(20)
        yield Served(engine, server, chosen.key)
    finally:
        server.stop()
        thread.join(20)
        assert not thread.is_alive()


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether something becomes true in time."""
    end_s = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.02)
    return True
