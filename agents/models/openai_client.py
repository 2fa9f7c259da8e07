"""The innermost layer: one request over HTTP to a server that speaks OpenAI's chat completions.

Always streamed, because only then can a server that thinks be told from one that hangs. The `openai` client builds the
requests and keeps the connections; its retries are off, its environment variables are not heeded for servers other
than OpenAI's, and everything that it or the server raises becomes one of `errors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import json
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from lcdoc.agents.models.answer_reading import Exchange, read_answer
from lcdoc.agents.models.call_usage import CallUsage
from lcdoc.agents.models.connections import checked_host, is_nearby, new_client, per_request_headers, shown_address
from lcdoc.agents.models.counting import high_estimate
from lcdoc.agents.models.error_bodies import clean
from lcdoc.agents.models.error_translation import Refusal, translated
from lcdoc.agents.models.errors import (
    ConnectionFailedError,
    ContextOverflowError,
    ModelConfigError,
    ModelError,
    ServerError,
    UnknownModelError,
)
from lcdoc.agents.models.key_hints import key_hint
from lcdoc.agents.models.model import Completion, ModelSpec, Request, Server
from lcdoc.agents.models.request_body import RequestBody
from lcdoc.agents.models.secrets import Key, SecretHeaders
from lcdoc.agents.models.served_models import ServedModels
from lcdoc.agents.models.stream_ends import EmptyStreamError, StreamEnds
from lcdoc.agents.models.streaming import Answer, NotTheProtocolError
from lcdoc.agents.models.timeouts import Timeouts, slow_prefill_s
from lcdoc.agents.models.transport_errors import broken_off, not_connected
from lcdoc.agents.models.worst_case import longest_answer

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

_log = logging.getLogger(__name__)

MAX_BYTES_PER_TOKEN: Final = 64
MAX_REASONING_TOKENS: Final = 65_536
"""Thinking that is let pass beyond `max_tokens`, which some servers do not count it in."""
_SILENCES_KEPT: Final = 256
_PROBES: Final = 2


class OpenAIModel:
    """A model on a server: a ChatModel whose every `complete` is one request.

    A field that the server does not know (`stream_options`, `seed`, `logprobs`, a temperature) is left out from then
    on, and `max_tokens` sent under its other name; both are logged. A stream that comes without a byte is asked for
    once more, as one unstreamed token, to hear why. Errors carry in `usage` what the attempt has probably cost.
    Connections belong to the event loop; `aclose` them.
    """

    def __init__(
        self,
        spec: ModelSpec,
        key: Key | None,
        *,
        secret_headers: SecretHeaders = (),
        count: Callable[[str], int] | None = None,
        timeouts: Timeouts | None = None,
    ) -> None:
        if spec.server is None:
            raise ModelConfigError(spec.name, "it has no server", "name the address of one")
        self._spec = spec
        self._server: Server = spec.server
        self._key = key
        self._secret_headers = secret_headers
        self._count = count or high_estimate
        self._timeouts = timeouts or Timeouts()
        self._http: AsyncOpenAI | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._host = checked_host(spec.name, spec.server, key, secret_headers)
        self._url = shown_address(spec.server, self._host)
        self._body = RequestBody(spec, spec.server)
        self._ends = StreamEnds(spec.name, self._url)
        self._usage = CallUsage(self)
        self._models = ServedModels(spec.name, self._client, self._headers)
        self._silences: OrderedDict[bytes, Refusal | None] = OrderedDict()
        """Requests that were answered with nothing, by hash, and what the server said when asked why."""
        self._under_way = self._begun = 0

    @property
    def spec(self) -> ModelSpec:
        return self._spec

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`: exact where the tokenizer is at hand, else an estimate that errs high."""
        return self._count(text)

    async def aclose(self) -> None:
        """Close the connections. The model can be used again, with new ones."""
        http, self._http = self._http, None
        if http is not None and self._loop is asyncio.get_running_loop():
            await http.close()

    async def complete(self, request: Request) -> Completion:
        """Answer. Raises ModelError; what is raised by `request.on_text` passes through."""
        while True:
            body = self._body.of(request)
            try:
                return await self._attempt(request, body)
            except EmptyStreamError as error:
                empty = error
                refused = await self._reason_of_silence(request, body, empty)
            except Refusal as refusal:
                if self._body.learn(refusal, body):
                    continue
                raise await self._translated(refusal, body) from None
            if refused is None:
                raise empty
            raise await self._translated(refused, body) from None

    async def _reason_of_silence(
        self, request: Request, body: Mapping[str, Any], empty: EmptyStreamError
    ) -> Refusal | None:
        """The refusal behind an empty stream, where it is that the prompt is too long. Asked once for each request."""
        known = blake2b(json.dumps(body, default=str).encode(), digest_size=16).digest()
        if known in self._silences:
            self._silences.move_to_end(known)
            return self._silences[known]
        said: Refusal | None = None
        probe = self._body.of_probe(body)
        for _ in range(_PROBES):
            try:
                completion = await self._attempt(replace(request, on_text=None), probe)
                empty.usage += completion.usage
            except ConnectionFailedError:
                # The server may have closed the connection behind its empty answer, and the pool not have noticed.
                continue
            except Refusal as refusal:
                if isinstance(await self._translated(refusal, probe), ContextOverflowError):
                    said = refusal
            except ModelError as error:
                empty.usage += error.usage
            self._silences[known] = said
            break
        _log.info("%s; asked unstreamed, the server %s", empty, "says why" if said else "does not say why either")
        if len(self._silences) > _SILENCES_KEPT:
            self._silences.popitem(last=False)
        return said

    def _headers(self) -> dict[str, Any]:
        return per_request_headers(self._server, self._key, self._secret_headers)

    def _client(self) -> AsyncOpenAI:
        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            # Connections of another loop, which has ended, cannot be closed any more.
            self._loop = loop
            try:
                self._http = new_client(
                    self._server,
                    self._host,
                    self._key,
                    secret_headers=self._secret_headers,
                    connect_s=self._timeouts.connect_s,
                    write_s=self._timeouts.idle_s,
                )
            except (ImportError, ValueError, OSError) as error:
                # A proxy or a certificate file of the environment that does not work.
                raise ModelConfigError(
                    self._spec.name,
                    f"no connection can be set up ({clean(f'{type(error).__name__}: {error}')})",
                    "look at HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE in the environment",
                ) from None
        return self._http

    async def _attempt(self, request: Request, body: dict[str, Any]) -> Completion:
        """One request. Raises ModelError, and Refusal for what the server refuses before it answers."""
        self._under_way += 1
        self._begun += 1
        begun, alone = self._begun, self._under_way == 1
        try:
            done = await self._exchange(request, body)
        finally:
            self._under_way -= 1
        answer, failure = done.answer, done.failure
        if answer.complete:
            alone = alone and self._begun == begun
            failure = self._ends.torn(answer, alone=alone, is_json="response_format" in body)
        elif done.late:
            failure = self._ends.too_late(answer, done.seconds, self._timeouts, connected=done.connected)
        elif failure is None:
            failure = self._ends.unfinished(answer, done.reader)
        if failure is None:
            return self._completion(request, answer, done.seconds)
        if (done.connected or done.late) and not isinstance(failure, UnknownModelError):
            # A prompt that was taken in may be billed, answered or not.
            failure.usage = self._usage.of(request, answer)
        raise failure

    async def _exchange(self, request: Request, body: dict[str, Any]) -> Exchange:
        """Send a request, and read what comes. Raises Refusal."""
        import httpx2
        import openai

        client = self._client()
        max_tokens = longest_answer(self._spec, request)
        answer = Answer(
            max_bytes=MAX_BYTES_PER_TOKEN * max_tokens + 4_096,
            max_reasoning_bytes=MAX_BYTES_PER_TOKEN * (max_tokens + MAX_REASONING_TOKENS),
        )
        done = Exchange(answer)
        name, loop, total_s = self._spec.name, asyncio.get_running_loop(), self._timeouts.total_s
        started = loop.time()
        end = started + total_s if total_s is not None else None

        def wait(seconds: float) -> None:
            when = loop.time() + seconds
            alarm.reschedule(when if end is None else min(when, end))

        try:
            async with asyncio.timeout(None) as alarm:
                wait(self._first_token_s(request))
                async with self._response(client, body) as response:
                    done.connected = True
                    await read_answer(response, done, on_text=request.on_text, idle_s=self._timeouts.idle_s, wait=wait)
        except TimeoutError:
            if not alarm.expired():
                raise
            done.late = True
        except openai.APIConnectionError as error:
            cause = error.__cause__
            reason = cause if isinstance(cause, Exception) else error
            done.failure = not_connected(reason, model=name, url=self._url)
        except httpx2.HTTPError as error:
            broke = done.connected
            done.failure = broken_off(error, model=name) if broke else not_connected(error, model=name, url=self._url)
        except (NotTheProtocolError, openai.OpenAIError) as error:
            done.failure = ServerError(name, f"the server sent what is not an answer: {clean(str(error))}")
        except Refusal as refusal:
            if not answer.size:
                raise
            done.failure = await self._translated(refusal, body)
        done.seconds = loop.time() - started
        return done

    @contextlib.asynccontextmanager
    async def _response(self, client: AsyncOpenAI, body: dict[str, Any]) -> AsyncIterator[httpx2.Response]:
        import httpx2
        from openai import AsyncStream

        response: Any = await client.post(
            "/chat/completions",
            cast_to=httpx2.Response,
            body=body,
            options={"headers": self._headers()},
            stream=True,
            stream_cls=AsyncStream[object],
        )
        try:
            yield response
        finally:
            await response.aclose()

    def _first_token_s(self, request: Request) -> float:
        seconds = self._timeouts.first_token_s
        if is_nearby(self._host):
            seconds += slow_prefill_s(sum(len(message.content) for message in request.messages))
        return seconds

    def _completion(self, request: Request, answer: Answer, seconds: float) -> Completion:
        usage = self._usage.of(request, answer)
        text = answer.text
        if not text.strip():
            raise self._ends.without_text(answer, usage)
        self._ends.answered()
        _log.debug("model %s: %s tokens in %.1f s, %s", self._spec.name, usage.tokens_out, seconds, answer.finish)
        return Completion(
            text=text,
            usage=usage,
            finish=answer.finish or "other",
            logprobs=answer.logprobs,
            model=clean(answer.model, 200),
            seconds=seconds,
            reasoning=answer.reasoning,
        )

    async def _translated(self, refusal: Refusal, body: Mapping[str, Any]) -> ModelError:
        hint = key_hint(self._host, self._key, self._secret_headers)
        error = translated(refusal, model=self._spec.name, url=self._url, key_hint=hint, sent=body)
        if isinstance(error, UnknownModelError) and not 300 <= refusal.status < 400:
            models = await self._models.names()
            if models and self._server.model not in models:
                near = difflib.get_close_matches(self._server.model, models, n=8, cutoff=0.3) or models[:8]
                more = f" and {len(models) - len(near)} more" if len(models) > len(near) else ""
                return UnknownModelError(self._spec.name, error.problem, f"the server has {', '.join(near)}{more}")
        return error
