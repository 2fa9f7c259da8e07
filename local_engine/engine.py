"""The engine's front door: load a model, generate.

    engine = Engine.load("models/Qwen2.5-0.5B-Instruct")
    async for piece in engine.generate([{"role": "user", "content": "Why?"}], Sampling(max_tokens=100)):
        print(piece.text, end="")

One engine serves any number of callers at once, from any thread or event loop: their requests share its passes. A
prompt that begins like an earlier one, document first and question last, is computed only from where it differs.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lcdoc.local_engine.admission import Admission, Ask, Prompt
from lcdoc.local_engine.assembly import Assembly, KVConfig, assemble
from lcdoc.local_engine.compression.compressor import Compressor
from lcdoc.local_engine.compression.marks import Marks
from lcdoc.local_engine.compression.recipe import FULL, Recipe, as_recipe
from lcdoc.local_engine.compression.stretched_rope import Stretching
from lcdoc.local_engine.constraints import Grammar
from lcdoc.local_engine.decoder import Decoder
from lcdoc.local_engine.errors import EngineError, InvalidRequestError
from lcdoc.local_engine.graphed_decoding import GraphedDecoder
from lcdoc.local_engine.hub import Progress as OnFetch
from lcdoc.local_engine.loading import OnProgress
from lcdoc.local_engine.loop import Loop
from lcdoc.local_engine.quantization import Quantization
from lcdoc.local_engine.records import Output, Stats
from lcdoc.local_engine.requests import Piece, Usage
from lcdoc.local_engine.sampling import Sampled, Sampling
from lcdoc.local_engine.snapshot import Snapshot
from lcdoc.local_engine.windows import rotated_by_length


class Engine:
    """A loaded model. Made by `Engine.load`; `close` frees its memory. Also a context manager."""

    def __init__(self, assembly: Assembly, decoder: Decoder | GraphedDecoder, *, speculate: bool = True) -> None:
        self.name = assembly.identity.name
        self.identity = assembly.identity
        """Whose snapshots it takes."""
        self.config = assembly.config
        self.tokenizer = assembly.tokenizer
        self.defaults = assembly.defaults
        self.dtype = assembly.dtype
        self.device = assembly.device
        self.weight_bytes = assembly.weight_bytes
        """Bytes of the matrices, as they are held."""
        self.recipe = assembly.recipe
        """How the cache is compressed where a request does not say; None: not at all, or as fits ("auto")."""
        self._scheduler = scheduler = assembly.scheduler
        self._admission = Admission(assembly, speculate=speculate)
        self._compressor = Compressor(scheduler.tables, encode=assembly.tokenizer.encode, make_room=scheduler.make_room)
        self._loop = Loop(decoder, scheduler, assembly.device, self._compressor)

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
        rope: Stretching | str | None = None,
        on_progress: OnProgress | None = None,
        on_fetch: OnFetch | None = None,
    ) -> Self:
        """Load a checkpoint of the Llama family from a folder, or from the hub.

        `dtype` is auto, bfloat16, float16 or float32; `quantize` int8, int4 or None; `device` auto, cpu or cuda[:N].
        `sequences` run at once at most, and a pass computes `step_tokens` tokens at most. `rope` stretches the window,
        as in "yarn:length=32768" (compression/stretched_rope.py). Blocks until the model is loaded; `on_fetch` is told
        the bytes that came from the hub, `on_progress` the layers that are loaded. Raises EngineError: ModelFilesError,
        UnsupportedModelError, InvalidRequestError for what `kv` or `rope` cannot mean.
        """
        assembly, decoder = assemble(
            path_or_hub_id,
            dtype=dtype,
            quantize=quantize,
            device=device,
            kv=kv or KVConfig(),
            sequences=sequences,
            step_tokens=step_tokens,
            rope=rope,
            on_progress=on_progress,
            on_fetch=on_fetch,
        )
        return cls(assembly, decoder, speculate=speculate)

    @property
    def context_window(self) -> int:
        """Tokens of prompt and answer together: the model's, or what the cache holds where that is less.

        With a recipe the cache need not hold all of them.
        """
        return self._admission.window

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
        return self._loop.stats()

    def count_tokens(self, text: str) -> int:
        """Tokens of a text."""
        return len(self.tokenizer.encode(text))

    def encode(self, prompt: Prompt, **variables: Any) -> list[int]:
        """A prompt's token ids; `variables` go to the chat template. Raises InvalidRequestError."""
        return self._admission.encode(prompt, **variables)

    def spans(self, ids: Sequence[int], text: str) -> NDArray[np.int32] | None:
        """Which characters of `text` each token of a prompt is that holds it, int32 [n, 2]; see `spans_in`.

        None where the tokens do not say the text as it is written.
        """
        return self._admission.spans(ids, text)

    def grammar(
        self, schema: Mapping[str, Any] | None = None, regex: str | None = None, *, max_tokens: float = math.inf
    ) -> Grammar | None:
        """What an answer of `max_tokens` may be, compiled, and kept for requests that ask for the same.

        None without schema and regex. `generate` calls it too: calling it before tells whether it can be done. Raises
        InvalidRequestError.
        """
        return self._admission.grammar(schema, regex, max_tokens=max_tokens)

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
        evict_prefix: bool = False,
    ) -> AsyncGenerator[Piece]:
        """The answer in pieces, the last with `finish` and `usage`. Closing the iterator early cancels the request.

        With `schema` (a JSON schema) the answer is an instance of it; with `regex` it matches. `kv` is how the cache
        is compressed, by default as the engine was loaded; "full" keeps everything, "auto" does where that fits.
        `marks` tells a recipe what to keep of the prompt. The prompt goes on behind `prefix`, a text that was read
        before; a chat has to begin with it. Behind one, nothing is compressed unless `kv` says so here, and then only
        what comes behind it; with `evict_prefix` the recipe is for both together, as for one text. Marks count from its
        beginning. Raises EngineError: InvalidRequestError, RequestTooLargeError, SnapshotError, EngineClosedError.
        """
        return self._answer(
            Ask(
                prompt,
                sampling or Sampling(),
                schema=schema,
                regex=regex,
                variables=variables,
                kv=kv,
                marks=marks,
                prefix=prefix,
                evict_prefix=evict_prefix,
            )
        )

    async def _answer(self, ask: Ask) -> AsyncGenerator[Piece]:
        running = asyncio.get_running_loop()
        arrived: asyncio.Queue[Piece | Exception] = asyncio.Queue()

        def deliver(piece: Piece | Exception) -> None:
            running.call_soon_threadsafe(arrived.put_nowait, piece)

        # A book takes seconds to be cut into tokens, which no other request should wait for.
        request = await asyncio.to_thread(self._admission.request, ask, deliver)
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
        evict_prefix: bool = False,
    ) -> Output:
        """The whole answer; see `generate`."""
        text: list[str] = []
        tokens: list[Sampled] = []
        answer = self.generate(
            prompt,
            sampling,
            schema=schema,
            regex=regex,
            variables=variables,
            kv=kv,
            marks=marks,
            prefix=prefix,
            evict_prefix=evict_prefix,
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
        prefix: Snapshot | None = None,
        evict_prefix: bool = False,
        spans: NDArray[np.integer] | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Snapshot:
        """Read a text, compress it as `kv` says, and give out what is kept, for `prefix` of any number of questions.

        With `prefix` it continues that text; see `generate` for what `kv` and `evict_prefix` then mean. `spans`
        [tokens, 2] say which characters of a document the prompt's tokens are, and are found by themselves for a prompt
        that is a text; `meta`, a small JSON object, stays with the snapshot. Cancelling it cancels the request. Raises
        EngineError: InvalidRequestError, RequestTooLargeError, SnapshotError, EngineClosedError.
        """
        if rotated_by_length(self.config):
            raise InvalidRequestError(
                f"keys of {self.name} are rotated by the length of the whole prompt: read text and question together"
            )
        ask = Ask(
            prompt,
            kv=kv,
            marks=marks,
            variables=variables,
            prefix=prefix,
            evict_prefix=evict_prefix,
            spans=spans,
            meta=meta,
            purpose="snapshot",
        )
        async with aclosing(self._answer(ask)) as pieces:
            async for piece in pieces:
                if piece.snapshot is not None:
                    return piece.snapshot
        raise EngineError("the engine ended a text without a snapshot of it")

    async def prefill_pieces(
        self, pieces: Iterable[Prompt], *, kv: Recipe | str | None = None, meta: Mapping[str, Any] | None = None
    ) -> AsyncGenerator[Snapshot]:
        """A snapshot at the end of each piece of a text, of all that was read up to there; `kv` is for the whole text.

        Questions may be asked behind any of them while the next piece is read, and afterwards: they share its pages and
        change nothing of it. So a reader takes notes in the margins (Russak et al., "Writing in the Margins: Better
        Inference Pattern for Long Context Retrieval"). Raises as `prefill` does.
        """
        recipe = as_recipe(kv) if kv is not None else self.recipe
        at: Snapshot | None = None
        for piece in pieces:
            at = await self.prefill(
                piece, kv=recipe or FULL, prefix=at, evict_prefix=recipe is not None and at is not None, meta=meta
            )
            yield at

    def read_ahead(self, prompt: Prompt) -> Future[Usage]:
        """Compute a prompt into the prefix cache while no request waits, so that one that begins alike starts at once.

        The future is done when it is read; cancelling it takes it back. Raises InvalidRequestError, for an engine with
        a recipe too, since its requests share no beginnings, and RequestTooLargeError.
        """
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

        request = self._admission.request(Ask(prompt, purpose="read ahead"), deliver)
        self._loop.submit(request)
        read.add_done_callback(take_back)
        return read

    def close(self) -> None:
        """End what runs and free the memory."""
        self._loop.close()
        self._admission.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
