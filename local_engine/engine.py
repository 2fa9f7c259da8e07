"""The engine's front door: load a model, generate.

    engine = Engine.load("models/Qwen2.5-0.5B-Instruct")
    async for piece in engine.generate([{"role": "user", "content": "Why?"}], Sampling(max_tokens=100)):
        print(piece.text, end="")

One engine serves any number of callers at once, from any thread or event loop: their requests share its passes. A
prompt that begins like an earlier one, document first and question last, is computed only from where it differs.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import aclosing, suppress
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import torch

from lcdoc.local_engine.assembly import SEQUENCES, STEP_TOKENS, KVConfig, cache_pages, choose_device, operations_on
from lcdoc.local_engine.compression.allowance import Allowance
from lcdoc.local_engine.compression.compressor import Compressor
from lcdoc.local_engine.compression.marks import Marks
from lcdoc.local_engine.compression.positions import Capped, SelfExtend
from lcdoc.local_engine.compression.recipe import Recipe, as_recipe
from lcdoc.local_engine.config import ModelConfig, read_config
from lcdoc.local_engine.constraints import Grammar, Grammars
from lcdoc.local_engine.decoder import Decoder
from lcdoc.local_engine.detokenizer import Detokenizer
from lcdoc.local_engine.errors import EngineError, InvalidRequestError, RequestTooLargeError
from lcdoc.local_engine.generation_config import GenerationDefaults, read_generation_defaults
from lcdoc.local_engine.graphed_decoding import GraphedDecoder
from lcdoc.local_engine.hub import Progress as OnFetch
from lcdoc.local_engine.hub import locate
from lcdoc.local_engine.loading import OnProgress, load_weights
from lcdoc.local_engine.loop import Loop
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import PagePool
from lcdoc.local_engine.passing_threads import in_a_passing_thread
from lcdoc.local_engine.precision import choose_dtype
from lcdoc.local_engine.prefix_cache import PrefixCache
from lcdoc.local_engine.quantization import Quantization
from lcdoc.local_engine.records import Output, Stats
from lcdoc.local_engine.requests import Piece, Request, Usage
from lcdoc.local_engine.rope import Rope
from lcdoc.local_engine.sampling import Sampled, Sampling
from lcdoc.local_engine.scheduler import Scheduler
from lcdoc.local_engine.snapshot import ModelIdentity, Snapshot, fingerprint
from lcdoc.local_engine.speculation import PromptLookup
from lcdoc.local_engine.stop_strings import StopStrings
from lcdoc.local_engine.tokenizer import Tokenizer
from lcdoc.local_engine.weights import Checkpoint

Prompt = str | Sequence[int] | Sequence[Mapping[str, Any]]
"""A text to be continued, token ids, or the messages of a chat."""

_MOST_DRAFTS = 8
_TABLE_COLUMNS = 64
_ENDLESS = 1 << 40
"""Tokens: the window of a text that is moved together as it is read."""


class Engine:
    """A loaded model. Made by `Engine.load`; `close` frees its memory. Also a context manager."""

    def __init__(
        self,
        name: str,
        config: ModelConfig,
        decoder: Decoder | GraphedDecoder,
        tokenizer: Tokenizer,
        scheduler: Scheduler,
        *,
        defaults: GenerationDefaults,
        dtype: torch.dtype,
        weight_bytes: int,
        device: torch.device,
        speculate: bool = True,
        recipe: Recipe | None = None,
        fingerprint: str = "",
    ) -> None:
        self.name = name
        self.identity = ModelIdentity(name, fingerprint)
        """Whose snapshots it takes."""
        self.config = config
        self.tokenizer = tokenizer
        self.defaults = defaults
        self.dtype = dtype
        self.device = device
        self.weight_bytes = weight_bytes
        """Bytes of the matrices, as they are held."""
        self._scheduler = scheduler
        self._grammars: Grammars | None = None
        self._compiling = threading.Lock()
        self._speculate = speculate
        self._numbers = itertools.count()
        self.recipe = recipe
        """How the cache is compressed where a request does not say; None: not at all."""
        compressor = Compressor(scheduler.tables, encode=tokenizer.encode, make_room=scheduler.make_room)
        self._compressor = compressor
        self._loop = Loop(decoder, scheduler, device, compressor)

    @classmethod
    def load(
        cls,
        path_or_hub_id: str | Path,
        *,
        dtype: str = "auto",
        quantize: Quantization | None = None,
        device: str = "auto",
        kv: KVConfig | None = None,
        sequences: int | None = None,
        step_tokens: int | None = None,
        speculate: bool = True,
        on_progress: OnProgress | None = None,
        on_fetch: OnFetch | None = None,
    ) -> Self:
        """Load a checkpoint of the Llama family from a folder, or from the hub.

        `dtype` is auto, bfloat16, float16 or float32; `quantize` int8, int4 or None; `device` auto, cpu or cuda[:N].
        `sequences` run at once at most, and a pass computes `step_tokens` tokens at most. Blocks until the model is
        loaded; `on_fetch` is told the bytes that came from the hub, `on_progress` the layers that are loaded. Raises
        EngineError: ModelFilesError, UnsupportedModelError.
        """
        kv = kv or KVConfig()
        recipe = as_recipe(kv.recipe)
        folder = locate(path_or_hub_id, on_fetch)
        config = read_config(folder)
        where = choose_device(device)
        number_type = in_a_passing_thread(lambda: choose_dtype(dtype, where))
        tokenizer = Tokenizer.load(folder, config)
        weights = in_a_passing_thread(
            lambda: load_weights(
                Checkpoint(folder), config, number_type, where, quantize=quantize, on_progress=on_progress
            )
        )
        most = sequences or SEQUENCES[where.type]
        pages = cache_pages(config, kv, number_type, where, most)
        pool = PagePool(pages, kv.page_size, config.head_dim, number_type, where)
        columns = min(_TABLE_COLUMNS, -(-config.context_window // kv.page_size))
        # One more than run: probes of a recipe are read on a fork.
        tables = PageTables(pool, most + 1, config.layers, config.kv_heads, columns)
        rope = Rope(config, where)
        # Keys that depend on a prompt's length are of no use to a prompt of another length.
        keeps = kv.prefix_cache and not rope.depends_on_length
        decoder = Decoder(config, weights, rope, operations_on(config, where))
        runner = GraphedDecoder(decoder) if where.type == "cuda" else decoder
        scheduler = Scheduler(
            tables,
            PrefixCache(tables) if keeps else None,
            sequences=most,
            step_tokens=step_tokens or STEP_TOKENS[where.type],
        )
        defaults = read_generation_defaults(folder)
        name = folder.name if Path(path_or_hub_id).exists() else str(path_or_hub_id)
        return cls(
            name,
            config,
            runner,
            tokenizer,
            scheduler,
            defaults=defaults,
            dtype=number_type,
            weight_bytes=weights.nbytes,
            device=where,
            speculate=speculate,
            recipe=recipe,
            fingerprint=fingerprint(folder, str(number_type), quantize or ""),
        )

    @property
    def context_window(self) -> int:
        """Tokens of prompt and answer together: the model's, or what the cache holds where that is less.

        With a recipe the cache need not hold all of them.
        """
        if self.recipe is not None:
            return self._window(Allowance(self.recipe, 1, self._scheduler.step_tokens))
        tables = self._scheduler.tables
        fits = tables.pool.pages // (tables.layers * tables.kv_heads) * tables.pool.page_size
        return min(self.config.context_window, fits)

    @property
    def closed(self) -> bool:
        """Whether it takes no more requests: it was closed, or its thread has failed."""
        return self._loop.closed

    @property
    def sequences(self) -> int:
        """How many requests run at once at most; further ones wait."""
        return self._scheduler.sequences

    def stats(self) -> Stats:
        """Figures for monitoring. Read without stopping the engine, so they may be of neighbouring moments."""
        pool, prefixes, totals = self._scheduler.tables.pool, self._scheduler.prefixes, self._loop.totals
        return Stats(
            running=self._loop.running,
            waiting=self._loop.waiting,
            pages_used=pool.pages - pool.free,
            pages_cached=prefixes.pages if prefixes is not None else 0,
            pages=pool.pages,
            steps=totals.steps,
            requests=totals.requests,
            failed=totals.failed,
            preemptions=self._scheduler.preemptions,
            prompt_tokens=totals.prompt_tokens,
            cached_tokens=totals.cached_tokens,
            output_tokens=totals.output_tokens,
            drafted_tokens=totals.drafted_tokens,
            accepted_tokens=totals.accepted_tokens,
            cuts=self._compressor.cuts,
            dropped_entries=self._compressor.dropped,
            cache_bytes=(pool.pages - pool.free) * pool.page_bytes,
        )

    def count_tokens(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokenizer.encode(text))

    def encode(self, prompt: Prompt, **variables: Any) -> list[int]:
        """A prompt's token ids; `variables` go to the chat template. Raises InvalidRequestError."""
        if isinstance(prompt, str):
            return [*self.tokenizer.prefix_ids, *self.tokenizer.encode(prompt)]
        messages = [each for each in prompt if isinstance(each, Mapping)]
        if messages and len(messages) == len(prompt):
            return self.tokenizer.encode_chat(messages, **variables)
        ids = [each for each in prompt if not isinstance(each, Mapping)]
        if len(ids) < len(prompt) or not all(isinstance(token, Integral) for token in ids):
            raise InvalidRequestError("a prompt is a text, token ids, or messages, and nothing of two kinds")
        return [int(token) for token in ids]

    def grammar(
        self, schema: Mapping[str, Any] | None = None, regex: str | None = None, *, max_tokens: float = math.inf
    ) -> Grammar | None:
        """What an answer of `max_tokens` may be, compiled, and kept for requests that ask for the same.

        None without schema and regex. `generate` calls it too: calling it before tells whether it can be done. Raises
        InvalidRequestError.
        """
        if schema is None and regex is None:
            return None
        if schema is not None and regex is not None:
            raise InvalidRequestError("an answer follows a schema or a regular expression, not both")
        with self._compiling:
            if self._grammars is None:
                self._grammars = Grammars(self.tokenizer)
        if schema is not None:
            grammar = self._grammars.compile_schema(schema)
        else:
            grammar = self._grammars.compile_regex(regex or "")
        if max_tokens < grammar.least_tokens < math.inf:
            raise InvalidRequestError(
                f"an answer that fits takes {grammar.least_tokens} tokens at least, and max_tokens is {max_tokens}: "
                "raise it, shorten the prompt, or simplify the schema"
            )
        return grammar

    def generate(
        self,
        prompt: Prompt,
        sampling: Sampling | None = None,
        *,
        schema: Mapping[str, Any] | None = None,
        regex: str | None = None,
        variables: Mapping[str, Any] | None = None,
        kv: Recipe | str | None = None,
        marks: Marks | None = None,
        prefix: Snapshot | None = None,
    ) -> AsyncGenerator[Piece]:
        """The answer in pieces, the last with `finish` and `usage`. Closing the iterator early cancels the request.

        With `schema` (a JSON schema) the answer is an instance of it; with `regex` it matches. `kv` is how the cache
        is compressed, by default as the engine was loaded; "full" keeps everything. `marks` tells a recipe what to keep
        of the prompt. The prompt goes on behind `prefix`, a text that was read before; a chat has to begin with it.
        What is read behind it is not compressed. Raises EngineError: InvalidRequestError, RequestTooLargeError,
        SnapshotError, EngineClosedError.
        """
        return self._answer(
            prompt,
            sampling or Sampling(),
            schema=schema,
            regex=regex,
            variables=variables or {},
            kv=kv,
            marks=marks,
            prefix=prefix,
        )

    async def _answer(self, prompt: Prompt, sampling: Sampling, **options: Any) -> AsyncGenerator[Piece]:
        running = asyncio.get_running_loop()
        arrived: asyncio.Queue[Piece | Exception] = asyncio.Queue()
        # A book takes seconds to be cut into tokens, which no other request should wait for.
        request = await asyncio.to_thread(
            self._request,
            prompt,
            sampling,
            lambda piece: running.call_soon_threadsafe(arrived.put_nowait, piece) and None,
            **options,
        )
        self._loop.submit(request)
        ended = False
        try:
            while not ended:
                piece = await arrived.get()
                if isinstance(piece, Exception):
                    ended = True
                    raise piece
                ended = piece.finish is not None
                yield piece
        finally:
            if not ended:
                self._loop.cancel(request)

    async def complete(
        self,
        prompt: Prompt,
        sampling: Sampling | None = None,
        *,
        schema: Mapping[str, Any] | None = None,
        regex: str | None = None,
        variables: Mapping[str, Any] | None = None,
        kv: Recipe | str | None = None,
        marks: Marks | None = None,
        prefix: Snapshot | None = None,
    ) -> Output:
        """The whole answer; see `generate`."""
        text: list[str] = []
        tokens: list[Sampled] = []
        answer = self.generate(
            prompt, sampling, schema=schema, regex=regex, variables=variables, kv=kv, marks=marks, prefix=prefix
        )
        async with aclosing(answer) as pieces:
            async for piece in pieces:
                text.append(piece.text)
                tokens += piece.tokens
                if piece.finish is not None and piece.usage is not None:
                    return Output("".join(text), tuple(tokens), piece.finish, piece.usage)
        raise EngineError("the engine ended an answer without saying how")

    async def prefill(
        self,
        prompt: Prompt,
        *,
        kv: Recipe | str | None = None,
        marks: Marks | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> Snapshot:
        """Read a text, compress it as `kv` says, and give out what is kept, for `prefix` of any number of questions.

        Cancelling it cancels the request. Raises EngineError: InvalidRequestError, RequestTooLargeError,
        EngineClosedError.
        """
        if self.config.rope.kind in {"dynamic", "longrope"}:
            raise InvalidRequestError(
                f"keys of {self.name} are rotated by the length of the whole prompt: read text and question together"
            )
        answer = self._answer(prompt, Sampling(max_tokens=1), kv=kv, marks=marks, variables=variables, captures=True)
        async with aclosing(answer) as pieces:
            async for piece in pieces:
                if piece.snapshot is not None:
                    return piece.snapshot
        raise EngineError("the engine ended a text without a snapshot of it")

    def read_ahead(self, prompt: Prompt) -> Future[Usage]:
        """Compute a prompt into the prefix cache while no request waits, so that one that begins alike starts at once.

        The future is done when it is read; cancelling it takes it back. Raises InvalidRequestError, for an engine with
        a recipe too, since its requests share no beginnings, and RequestTooLargeError.
        """
        if self.recipe is not None:
            raise InvalidRequestError(f"nothing is read ahead with {self.recipe}: its requests share no beginnings")
        read: Future[Usage] = Future()

        def deliver(piece: Piece | Exception) -> None:
            with suppress(InvalidStateError):  # it was cancelled in the meantime
                if isinstance(piece, Exception):
                    read.set_exception(piece)
                elif piece.usage is not None:
                    read.set_result(piece.usage)

        def take_back(done: Future[Usage]) -> None:
            if done.cancelled():
                self._loop.cancel(request)
                done.set_running_or_notify_cancel()  # else `concurrent.futures.wait` would wait on

        request = self._request(prompt, Sampling(max_tokens=1), deliver, ahead=True)
        self._loop.submit(request)
        read.add_done_callback(take_back)
        return read

    def close(self) -> None:
        """End what runs and free the memory."""
        self._loop.close()
        if self._grammars is not None:
            self._grammars.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(
        self,
        prompt: Prompt,
        sampling: Sampling,
        deliver: Any,
        *,
        schema: Mapping[str, Any] | None = None,
        regex: str | None = None,
        variables: Mapping[str, Any] | None = None,
        ahead: bool = False,
        kv: Recipe | str | None = None,
        marks: Marks | None = None,
        captures: bool = False,
        prefix: Snapshot | None = None,
    ) -> Request:
        recipe = as_recipe(kv) if kv is not None or prefix is not None else self.recipe
        if prefix is None:
            ids = self.encode(prompt, **(variables or {}))
        else:
            if recipe is not None:
                raise InvalidRequestError(f"what is read behind a snapshot is kept: leave {recipe} to the snapshot")
            prefix.check(self.identity, self._scheduler.tables)
            ids = self._behind(prefix, prompt, variables or {})
        if len(ids) == (0 if prefix is None else prefix.read):
            raise InvalidRequestError("the prompt is empty: give at least one token")
        if not 0 <= min(ids) <= max(ids) < self.config.vocab_size:
            raise InvalidRequestError(
                f"the prompt has token {max(ids) if min(ids) >= 0 else min(ids)}, and the model knows 0 to "
                f"{self.config.vocab_size - 1}: check that tokenizer.json is its own"
            )
        allowance = None
        window = self.context_window
        if recipe is not None:
            allowance = Allowance(recipe, len(ids), self._scheduler.step_tokens, self.config.context_window)
            window = self._window(allowance)
            (marks or Marks()).check(len(ids))
        if prefix is not None:
            window = self._window_behind(prefix)
        answers = not ahead and not captures
        if len(ids) + answers > window:
            of_cache = "" if window == self.config.context_window else ", which is what the cache holds"
            raise RequestTooLargeError(
                f"the prompt has {len(ids):,} tokens and the window is {window:,}{of_cache}: shorten the prompt"
            )
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, max(1, window - len(ids)))).seeded()
        grammar = self.grammar(schema, regex, max_tokens=sampling.max_tokens)
        request = Request(
            next(self._numbers),
            tuple(ids),
            sampling,
            deliver,
            Detokenizer(self.tokenizer),
            StopStrings(sampling.stop),
            end_tokens=self.tokenizer.eos_ids,
            matcher=None if grammar is None else grammar.start(),
            lookup=PromptLookup(_MOST_DRAFTS) if self._speculate and answers else None,
            allowance=allowance,
            marks=marks,
            ahead=ahead,
            captures=self.identity if captures else None,
            prefix=prefix,
        )
        self._scheduler.check_fits(request)
        return request

    def _behind(self, prefix: Snapshot, prompt: Prompt, variables: Mapping[str, Any]) -> list[int]:
        """The token ids of a prompt that goes on behind a snapshot, the snapshot's among them."""
        read: list[int] = prefix.tokens.tolist()
        if isinstance(prompt, str):
            return read + self.tokenizer.encode(prompt)
        ids = self.encode(prompt, **variables)
        if not any(isinstance(each, Mapping) for each in prompt):
            return read + ids
        if ids[: len(read)] != read:
            raise InvalidRequestError("the chat does not begin with the snapshot's text: give what follows as a text")
        return ids

    def _window_behind(self, prefix: Snapshot) -> int:
        """Tokens of a snapshot's text, a question and its answer together: the model's window, where the text's entries
        stand, or what the cache holds behind them."""
        pool = self._scheduler.tables.pool
        size = pool.page_size
        row_pages = pool.pages // prefix.lengths.size
        uniform = bool((prefix.lengths == prefix.lengths.flat[0]).all())
        held = int(prefix.lengths.flat[0]) if uniform else math.ceil(prefix.lengths.mean()) + size
        return min(self.config.context_window + prefix.shift, prefix.read + max(0, row_pages * size - held))

    def _window(self, allowance: Allowance) -> int:
        """Tokens of prompt and answer together, where the cache holds only a part of them. Raises RequestTooLargeError,
        InvalidRequestError."""
        recipe, trained = allowance.recipe, self.config.context_window
        if not recipe.moves:
            return trained
        if self.config.rope.kind in {"dynamic", "longrope"}:
            raise InvalidRequestError(
                f"{recipe}: keys of this model are rotated by the text's length and cannot be moved: take "
                "positions=original"
            )
        if recipe.when == "end":
            return trained
        room = trained - allowance.chunk
        if isinstance(recipe.scheme, SelfExtend):
            group, neighbours = recipe.scheme.group, recipe.scheme.neighbours
            return max(0, room - neighbours + neighbours // group) * group
        held = recipe.scheme.reach if isinstance(recipe.scheme, Capped) else allowance.budget(0)
        if held > room:
            raise RequestTooLargeError(
                f"{recipe} holds entries up to {held:,} tokens away, and the model's window of {trained:,} leaves "
                f"{room:,} beside a chunk: keep fewer, or set reach"
            )
        return _ENDLESS
