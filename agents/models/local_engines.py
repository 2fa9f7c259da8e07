"""The engines of this process: one for each model and recipe, whoever asks it."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

if TYPE_CHECKING:
    from lcdoc.local_engine import Engine

Quantize = Literal["int8", "int4"]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class LocalOptions:
    """How a model is loaded; see `lcdoc.local_engine.Engine.load`."""

    dtype: str = "auto"
    quantize: Quantize | None = None
    device: str = "auto"
    max_memory: float | None = None
    """Bytes for the cache, or a share of the free memory up to 1."""
    kv: str | None = None
    """How its cache is compressed; see `lcdoc.local_engine.compression.recipe`."""
    rope: str | None = None
    """How its window is stretched; see `lcdoc.local_engine.compression.stretched_rope`."""

    @property
    def loading(self) -> str:
        """What of it changes the model itself."""
        return " ".join(filter(None, (self.dtype, self.quantize, self.rope)))

    @property
    def recipe(self) -> str:
        """What of it changes the answers."""
        return " ".join(filter(None, (self.loading, self.kv)))


@dataclass(frozen=True, slots=True)
class EngineKey:
    """What tells engines apart."""

    folder: Path
    options: LocalOptions
    sequences: int
    identity: str


class Engines:
    """The engines of this process. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._engines: dict[EngineKey, Future[Engine]] = {}
        self._closing = threading.Event()

    def load(
        self, key: EngineKey, on_progress: Callable[[int, int], None], *, dtype: str | None = None
    ) -> Future[Engine]:
        """The engine, loaded by a thread of its own if it is not yet. A load that failed is tried again.

        `dtype` is taken where the options leave it open.
        """
        with self._lock:
            known = self._engines.get(key)
            if known is None or (known.done() and known.exception() is not None):
                known = self._engines[key] = in_thread(lambda: self._load(key, on_progress, dtype), "lcdoc-load")
            return known

    def loaded(self, key: EngineKey) -> Engine | None:
        """The engine, if it is loaded."""
        known = self._engines.get(key)
        return known.result() if known is not None and known.done() and known.exception() is None else None

    def close(self) -> None:
        """End what runs and free the memory. Engines may be loaded again afterwards."""
        with self._lock:
            engines, self._engines = [*self._engines.values()], {}
        self._closing.set()
        try:
            for loading in engines:
                if loading.exception() is None:
                    loading.result().close()
        finally:
            self._closing.clear()

    def _load(self, key: EngineKey, on_progress: Callable[[int, int], None], dtype: str | None) -> Engine:
        from lcdoc.local_engine import Engine, EngineError, KVConfig

        def progress(done: int, total: int) -> None:
            if self._closing.is_set():
                raise EngineError("the process ends before the model is loaded")
            on_progress(done, total)

        options = key.options
        return Engine.load(
            str(key.folder),
            dtype=dtype if dtype is not None and options.dtype == "auto" else options.dtype,
            quantize=options.quantize,
            device=options.device,
            kv=KVConfig(max_memory=options.max_memory, recipe=options.kv),
            sequences=key.sequences,
            rope=options.rope,
            on_progress=progress,
        )


engines: Final = Engines()
"""Shared by everything in the process."""
atexit.register(engines.close)


def in_thread(function: Callable[[], Result], name: str) -> Future[Result]:
    """Call `function` in a daemon thread: gigabytes are read meanwhile, and Ctrl-C need not wait for them."""
    future: Future[Result] = Future()

    def call() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
            future.set_exception(error)
        else:
            future.set_result(result)

    future.set_running_or_notify_cancel()
    threading.Thread(target=call, name=name, daemon=True).start()
    return future
