"""Models that run inside lcdoc: a checkpoint's folder, or one of the hub, through the engine of `local_engine`.

This module and those named after it know the engine, and import it when a local model is named: nothing else pays for
torch. A process has one engine for each model and recipe, whoever asks it: workflows, readers, workspaces and event
loops share its cache and its passes. It is loaded at the first request that no kept answer meets, and closed when the
process ends.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from lcdoc.agents.models.errors import (
    ContextOverflowError,
    EngineFailedError,
    ModelConfigError,
    ModelError,
    ModelNameError,
    RefusedRequestError,
)
from lcdoc.agents.models.local_engines import EngineKey, LocalOptions, engines, in_thread
from lcdoc.agents.models.local_files import Sizes, found_models, sizes_of
from lcdoc.agents.models.local_memory import Fit, Weights, fit
from lcdoc.agents.models.local_requests import constraint_of, encoded, logprobs_of, sampling_of
from lcdoc.agents.models.model import Completion, Message, ModelSpec, Request, TokenUsage
from lcdoc.agents.models.queue_time import in_queue

if TYPE_CHECKING:
    from lcdoc.local_engine import Engine, Sampled
    from lcdoc.local_engine.tokenizer import Tokenizer

_log = logging.getLogger(__name__)

OnProgress = Callable[[Literal["fetching", "loading"], int, int], None]
"""Is told what is done (`fetching`, in MB, or `loading`, in parts), how much of it, and how much there is."""

SEQUENCES: Final[Mapping[str, int]] = {"cpu": 16, "cuda": 64}
"""Requests that one engine answers at once."""
_NAMED_IN_ERRORS: Final = 5


@dataclass(frozen=True, slots=True)
class LocalSource:
    """Where a local model comes from."""

    target: str
    """What stands behind `local/` in its name: a path, or a name of the hub."""
    folder: Path | None
    """None: the hub has it, and this machine does not."""
    options: LocalOptions = field(default_factory=LocalOptions)


@dataclass(frozen=True, slots=True)
class LocalFacts:
    """What a checkpoint's configuration and headers tell, before its weights are loaded."""

    window: int
    sizes: Sizes | None
    cache_numbers_per_token: int
    stored: Weights
    device: str

    def fits(self, weights: Weights | None = None) -> Fit | None:
        """How it fits this machine's free memory, as it is stored or with other `weights`; None: sizes not known."""
        if self.sizes is None:
            return None
        return fit(
            self.sizes,
            weights or self.stored,
            window=self.window,
            cache_numbers_per_token=self.cache_numbers_per_token,
            free_bytes=free_bytes(self.device),
            on_gpu=self.device == "cuda",
        )


def facts_of(name: str, folder: Path, device: str = "auto") -> LocalFacts:
    """What is known of the model in a folder. Raises ModelNameError for one that the engine does not run."""
    from lcdoc.local_engine.config import read_config
    from lcdoc.local_engine.errors import EngineError
    from lcdoc.local_engine.weights import Checkpoint

    try:
        config = read_config(folder)
        Checkpoint(folder)
    except EngineError as error:
        raise _unusable(name, error) from error
    if not (folder / "tokenizer.json").is_file():
        raise ModelNameError(name, f"{folder} has no tokenizer.json", "download the rest of the model")
    return LocalFacts(
        window=config.context_window,
        sizes=sizes_of(folder),
        cache_numbers_per_token=2 * config.layers * config.kv_heads * config.head_dim,
        stored="float32" if config.dtype.itemsize > 2 else "bfloat16",
        device=device_of(device),
    )


def checked_recipe(name: str, kv: str) -> str:
    """A recipe of the cache in its canonical spelling. Raises ModelConfigError for one that is none."""
    from lcdoc.local_engine.compression.recipe import Recipe
    from lcdoc.local_engine.errors import EngineError

    try:
        return str(Recipe.parse(kv))
    except EngineError as error:
        raise ModelConfigError(name, f"kv: {error}", "`lcdoc kv list` shows the parts") from error


def outlives_window(kv: str) -> bool:
    """Whether a text may be longer than what the cache holds: it is cut while it is read."""
    from lcdoc.local_engine.compression.recipe import Recipe

    return Recipe.parse(kv).when == "during"


def message_tokens(name: str, folder: Path) -> int:
    """What the model's chat template puts around a message, at most. Raises ModelNameError."""
    from lcdoc.local_engine.errors import EngineError

    texts = (Message("system", "a"), Message("user", "b"))
    try:
        tokenizer = _tokenizer(name, folder)
        # A little more, since words may part otherwise beside the template's own.
        return (len(encoded(tokenizer, Request(texts))) + 1) // len(texts) + 2
    except EngineError as error:
        raise _unusable(name, error) from error


def device_of(wanted: str) -> str:
    """The kind of device that `wanted` means here: cpu or cuda."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted.partition(":")[0]


@lru_cache(maxsize=4)
def free_bytes(device: str) -> int:
    """Bytes that are free on a device, when it is asked for the first time."""
    import torch

    from lcdoc.local_engine.memory import available_bytes

    return available_bytes(torch.device(device))


def no_such_model(name: str, target: str) -> ModelNameError:
    """The error for a name that leads to no folder, with the models that there are."""
    problem = f"no such folder: {Path(target).expanduser().absolute()}"
    return ModelNameError(name, problem, _found() or "no models were found here; `lcdoc models` says where it looks")


def _found() -> str:
    found = [model.name for model in found_models()]
    listed = ", ".join(found[:_NAMED_IN_ERRORS]) + (" ..." if len(found) > _NAMED_IN_ERRORS else "")
    return f"found here: {listed}" if found else ""


async def fetched(name: str, source: LocalSource, on_progress: OnProgress) -> Path:
    """The folder of a model that the hub has, downloaded now. Raises ModelNameError where it cannot be had."""
    from lcdoc.local_engine.errors import EngineError
    from lcdoc.local_engine.hub import locate

    abandoned, loop = threading.Event(), asyncio.get_running_loop()

    def progress(done: int, total: int) -> None:
        if abandoned.is_set():
            raise EngineError("nobody waits for the download any more")
        loop.call_soon_threadsafe(on_progress, "fetching", done >> 20, total >> 20)

    fetching = in_thread(lambda: locate(source.target, progress), "lcdoc-fetch")
    try:
        return await asyncio.wrap_future(fetching)
    except EngineError as error:
        raise ModelNameError(name, str(error), _found()) from error
    finally:
        abandoned.set()


class LocalModel:
    """A ChatModel that runs here. Nothing is loaded before the first request; tokens are counted by its tokenizer.

    `on_progress` is told of the loading, in the event loop of the request that began it.
    """

    def __init__(self, spec: ModelSpec, source: LocalSource, on_progress: OnProgress | None = None) -> None:
        if source.folder is None:
            raise ModelNameError(spec.name, "it is not on this machine yet", "fetch it first")
        self._spec = spec
        self._folder = source.folder
        self._key = EngineKey(source.folder.resolve(), source.options, spec.limits.concurrency, spec.identity)
        self._on_progress = on_progress

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`. Raises ModelNameError for a tokenizer that cannot be read."""
        return len(self._tokenizer().encode(text.encode("utf-8", "replace").decode()))

    async def complete(self, request: Request) -> Completion:
        """Answer. With a schema, the answer is an instance of it by construction.

        Raises ContextOverflowError, RefusedRequestError; EngineFailedError when the model cannot be loaded or fails.
        """
        from lcdoc.local_engine import EngineError

        with in_queue():
            engine = await self._loaded()
        start = time.monotonic()
        tokens: list[Sampled] = []
        prompt: list[int] = []
        try:
            prompt = await asyncio.to_thread(encoded, engine.tokenizer, request)
            self._check_fits(engine, len(prompt), request)
            text: list[str] = []
            pieces = engine.generate(prompt, sampling_of(engine, request), schema=constraint_of(request.schema))
            async with aclosing(pieces):
                async for piece in pieces:
                    text.append(piece.text)
                    tokens += piece.tokens
                    if piece.text and request.on_text is not None:
                        request.on_text(piece.text)
                    if piece.finish is not None and piece.usage is not None:
                        usage = piece.usage
                        return Completion(
                            text="".join(text),
                            usage=TokenUsage(usage.prompt, usage.cached, usage.output),
                            finish=piece.finish,
                            logprobs=logprobs_of(engine, tokens) if request.logprobs else None,
                            model=engine.name,
                            seconds=time.monotonic() - start,
                        )
        except EngineError as error:
            raise self._translated(error, engine, TokenUsage(len(prompt), 0, len(tokens))) from error
        raise EngineFailedError(self._spec.name, "the engine ended an answer without saying how")

    def read_ahead(self, request: Request) -> Future[Any] | None:
        """Have a prompt read into the cache while nothing else waits; None while no engine is loaded, or where it does
        not fit."""
        from lcdoc.local_engine import EngineError

        engine = engines.loaded(self._key)
        if engine is None or engine.recipe is not None:
            return None
        try:
            return engine.read_ahead(encoded(engine.tokenizer, request))
        except EngineError as error:
            _log.info("%s: not read ahead: %s", self._spec.name, error)
            return None

    async def aclose(self) -> None:
        """Nothing to close: the engine is the process's."""

    def _tokenizer(self) -> Tokenizer:
        engine = engines.loaded(self._key)
        return _tokenizer(self._spec.name, self._folder) if engine is None else engine.tokenizer

    async def _loaded(self) -> Engine:
        from lcdoc.local_engine import EngineError

        loop, told = asyncio.get_running_loop(), self._on_progress

        def progress(done: int, total: int) -> None:
            if told is not None and not loop.is_closed():
                loop.call_soon_threadsafe(told, "loading", done, total)

        try:
            # Shielded: who waits here may be cancelled, and others wait for the same engine.
            return await asyncio.shield(asyncio.wrap_future(engines.load(self._key, progress)))
        except EngineError as error:
            raise EngineFailedError(self._spec.name, str(error)) from error

    def _check_fits(self, engine: Engine, prompt_tokens: int, request: Request) -> None:
        window = min(engine.context_window, self._spec.context_window)
        if prompt_tokens + request.max_tokens > window:
            raise ContextOverflowError(
                self._spec.name,
                f"the prompt has {prompt_tokens:,} tokens, its answer may have {request.max_tokens:,}, and the window "
                f"is {window:,}",
                "use shorter passages"
                if window == self._spec.context_window
                else "the cache holds no more: raise max_memory, or load with quantize",
                context_window=window,
            )

    def _translated(self, error: Exception, engine: Engine, usage: TokenUsage) -> ModelError:
        from lcdoc.local_engine.errors import InvalidRequestError, RequestTooLargeError

        if isinstance(error, RequestTooLargeError):
            return ContextOverflowError(self._spec.name, str(error), context_window=engine.context_window)
        if isinstance(error, InvalidRequestError):
            return RefusedRequestError(self._spec.name, str(error))
        return EngineFailedError(self._spec.name, str(error), usage=usage)


@lru_cache(maxsize=4)
def _tokenizer(name: str, folder: Path) -> Tokenizer:
    from lcdoc.local_engine.config import read_config
    from lcdoc.local_engine.errors import EngineError
    from lcdoc.local_engine.tokenizer import Tokenizer

    try:
        return Tokenizer.load(folder, read_config(folder))
    except EngineError as error:
        raise _unusable(name, error) from error


def _unusable(name: str, error: Exception) -> ModelNameError:
    """The engine's word on a checkpoint: its messages say what to do behind a colon."""
    return ModelNameError(name, str(error))
