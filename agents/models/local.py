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
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from lcdoc.agents.models.errors import (
    ContextOverflowError,
    EngineFailedError,
    ModelError,
    ModelNameError,
    RefusedRequestError,
)
from lcdoc.agents.models.kept_settings import KeptCaches
from lcdoc.agents.models.local_caches import AUTO, FULL, LocalCaches, Read, serves_any_question
from lcdoc.agents.models.local_engines import EngineKey, LocalOptions, engines, in_thread
from lcdoc.agents.models.local_facts import device_of, rotation_of, tokenizer_of
from lcdoc.agents.models.local_files import found_models, identity_of
from lcdoc.agents.models.local_marks import marks_of
from lcdoc.agents.models.local_requests import Encoded, constraint_of, encoded, logprobs_of, sampling_of
from lcdoc.agents.models.memos import ForgetfulMemos, Memos
from lcdoc.agents.models.model import Completion, ModelSpec, Request, TokenUsage
from lcdoc.agents.models.queue_time import in_queue
from lcdoc.memory.caches import Caches, KeptCache

if TYPE_CHECKING:
    from lcdoc.local_engine import Engine, Sampled
    from lcdoc.local_engine.tokenizer import Tokenizer

_log = logging.getLogger(__name__)

OnProgress = Callable[[Literal["fetching", "loading"], int, int], None]
"""Is told what is done (`fetching`, in MB, or `loading`, in parts), how much of it, and how much there is."""

_NAMED_IN_ERRORS: Final = 5
_PRECISION_TTL_S: Final = 90 * 86_400.0


@dataclass(frozen=True, slots=True)
class LocalSource:
    """Where a local model comes from."""

    target: str
    """What stands behind `local/` in its name: a path, or a name of the hub."""
    folder: Path | None
    """None: the hub has it, and this machine does not."""
    options: LocalOptions = field(default_factory=LocalOptions)


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

    `on_progress` is told of the loading, in the event loop of the request that began it. What it reads of documents is
    kept in `caches` as `kept` says, and what is there is not read again. `memos` remember in which precision it runs
    where that is left open, since caches of two precisions are not to be mixed.
    """

    def __init__(
        self,
        spec: ModelSpec,
        source: LocalSource,
        on_progress: OnProgress | None = None,
        *,
        caches: Caches | None = None,
        kept: KeptCaches | None = None,
        memos: Memos | None = None,
    ) -> None:
        if source.folder is None:
            raise ModelNameError(spec.name, "it is not on this machine yet", "fetch it first")
        self._spec = spec
        self._folder = source.folder
        self._key = EngineKey(source.folder.resolve(), source.options, spec.limits.concurrency, spec.identity)
        self._on_progress = on_progress
        own = None if source.options.kv == AUTO else source.options.kv
        self._recipe = own if own is not None and serves_any_question(own) else None
        """By which pieces of documents are read apart from what is asked about them; None: by none."""
        self._goes_by_question = own is not None and self._recipe is None
        identity = f"{identity_of(source.folder)} {source.options.loading}"
        self._caches = LocalCaches(caches, kept or KeptCaches(), model=identity, name=spec.name)
        self._memos = ForgetfulMemos() if memos is None else memos

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
        prompt = Encoded()
        try:
            prompt = await asyncio.to_thread(encoded, engine.tokenizer, request)
            self._check_fits(engine, len(prompt.ids), request)
            text: list[str] = []
            read = await self._read(engine, prompt.piece, request)
            cut = read is None and self._key.options.kv not in (None, FULL)
            pieces = engine.generate(
                prompt.ids if read is None else prompt.rest,
                sampling_of(engine, request),
                schema=constraint_of(request.schema),
                marks=await asyncio.to_thread(marks_of, engine.tokenizer, prompt.ids) if cut else None,
                prefix=None if read is None else read.snapshot,
            )
            async with aclosing(pieces):
                async for piece in pieces:
                    text.append(piece.text)
                    tokens += piece.tokens
                    if piece.text and request.on_text is not None:
                        request.on_text(piece.text)
                    if piece.finish is not None and piece.usage is not None:
                        usage = piece.usage
                        _log.info("%s: a row keeps %d entries of %d tokens", engine.name, usage.kept, usage.prompt)
                        # What was read for this answer was not there before it.
                        cached = 0 if read is not None and read.fresh else usage.cached
                        return Completion(
                            text="".join(text),
                            usage=TokenUsage(usage.prompt, cached, usage.output),
                            finish=piece.finish,
                            logprobs=logprobs_of(engine, tokens) if request.logprobs else None,
                            model=engine.name,
                            seconds=time.monotonic() - start,
                        )
        except EngineError as error:
            raise self._translated(error, engine, TokenUsage(len(prompt.ids), 0, len(tokens))) from error
        raise EngineFailedError(self._spec.name, "the engine ended an answer without saying how")

    def read_ahead(self, request: Request) -> Future[Any] | None:
        """Have a prompt read into the cache while nothing else waits; None while no engine is loaded, or where it does
        not fit."""
        from lcdoc.local_engine import EngineError

        engine = engines.loaded(self._key)
        if engine is None or self._recipe is not None or engine.recipe is not None:
            return None
        try:
            prompt = encoded(engine.tokenizer, request)
            if prompt.piece and self._caches.held(prompt.piece) is not None:
                return None
            return engine.read_ahead(prompt.ids)
        except EngineError as error:
            _log.info("%s: not read ahead: %s", self._spec.name, error)
            return None

    async def through(self, request: Request) -> Request:
        """`request`, saying by `kv` how the cache is held that its piece is read through, where that changes the
        answer."""
        if request.piece is None or request.kv or self._goes_by_question or not self._reads_apart():
            return request
        if self._recipe is not None:
            kv: str | None = self._caches.spelled(self._recipe)
        elif not self._caches.has_any():
            return request
        else:
            prompt = await asyncio.to_thread(encoded, self._tokenizer(), request)
            kv = self._caches.held(prompt.piece) if prompt.piece else None
        return request if kv in (None, FULL) else replace(request, kv=kv)

    async def keep(self, request: Request, recipe: str) -> Read:
        """Read the piece of a request, and keep it as `recipe` (in its canonical spelling) says, for all that will be
        asked about it; at once where that was done before.

        Raises EngineFailedError, ContextOverflowError; RefusedRequestError for a model or a prompt that has no such
        piece.
        """
        from lcdoc.local_engine import EngineError

        with in_queue():
            engine = await self._loaded()
        prompt = await asyncio.to_thread(encoded, engine.tokenizer, request)
        if request.piece is None or not prompt.piece or not self._reads_apart():
            raise RefusedRequestError(self._spec.name, "what it reads of a document cannot be told from what is asked")
        kv = self._caches.spelled(recipe)
        try:
            read = await self._caches.read(engine, prompt.piece, kv, request.piece.document_ids, keep=True)
        except EngineError as error:
            raise self._translated(error, engine, TokenUsage(len(prompt.piece))) from error
        self._caches.prepare(read)
        return read

    def piece_tokens(self, request: Request) -> int:
        """Tokens of a request's piece, with the instructions before it. Loads nothing."""
        return len(encoded(self._tokenizer(), request).piece)

    def kept(self, request: Request, recipe: str) -> KeptCache | None:
        """The file that is kept of a request's piece by `recipe`. Loads nothing."""
        return self._caches.of(encoded(self._tokenizer(), request).piece, self._caches.spelled(recipe))

    @property
    def settings(self) -> KeptCaches:
        """What is kept of what it reads."""
        return self._caches.settings

    @property
    def options(self) -> LocalOptions:
        """How it is loaded."""
        return self._key.options

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self._folder

    @property
    def identity(self) -> str:
        """What its kept caches are known by: its files, and how they are loaded."""
        return self._caches.model

    async def _read(self, engine: Engine, piece: Sequence[int], request: Request) -> Read | None:
        """The cache that a request is answered behind; None: all of it is read together."""
        if request.piece is None or not piece or self._goes_by_question or not self._reads_apart():
            return None
        named = self._recipe is not None
        kv = request.kv or (self._caches.spelled(self._recipe) if self._recipe is not None else FULL)
        if kv == FULL and not named and self._caches.of(piece, FULL) is None:
            return None
        keep = named and self._caches.settings.write == "always"
        return await self._caches.read(engine, piece, kv, request.piece.document_ids, keep=keep)

    def _reads_apart(self) -> bool:
        """Whether text can be read before what follows is known: not where keys are rotated by the prompt's length."""
        return rotation_of(self._spec.name, self._folder, self._key.options.rope) not in {"dynamic", "longrope"}

    async def aclose(self) -> None:
        """Nothing to close: the engine is the process's."""

    def _tokenizer(self) -> Tokenizer:
        engine = engines.loaded(self._key)
        return tokenizer_of(self._spec.name, self._folder) if engine is None else engine.tokenizer

    async def _loaded(self) -> Engine:
        from lcdoc.local_engine import EngineError

        loop, told = asyncio.get_running_loop(), self._on_progress
        memo = f"dtype/1 {device_of(self.options.device)} {self.identity}"

        def progress(done: int, total: int) -> None:
            if told is not None and not loop.is_closed():
                loop.call_soon_threadsafe(told, "loading", done, total)

        try:
            # Shielded: who waits here may be cancelled, and others wait for the same engine.
            loading = engines.load(self._key, progress, dtype=self._memos.get(memo))
            engine = await asyncio.shield(asyncio.wrap_future(loading))
        except EngineError as error:
            raise EngineFailedError(self._spec.name, str(error)) from error
        if self._key.options.dtype == "auto" and self._memos.get(memo) is None:
            self._memos.set(memo, str(engine.dtype).removeprefix("torch."), ttl_s=_PRECISION_TTL_S)
        return engine

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
