"""The innermost layer: one request over HTTP to a server that speaks OpenAI's chat completions.

Always streamed, because only then can a server that thinks be told from one that hangs. The `openai` client builds the
requests and keeps the connections; its retries are off, its environment variables are not heeded for servers other
than OpenAI's, and everything that it or the server raises becomes one of `errors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lcdoc.agents.models.connections import (
    bounded,
    checked_host,
    is_nearby,
    new_client,
    per_request_headers,
    shown_address,
)
from lcdoc.agents.models.counting import high_estimate
from lcdoc.agents.models.error_translation import Refusal, clean, refused_field, stream_refusal, translated
from lcdoc.agents.models.errors import (
    CutStreamError,
    InvalidOutputError,
    ModelConfigError,
    ModelError,
    ModelTimeoutError,
    RefusedRequestError,
    ServerError,
    UnknownModelError,
)
from lcdoc.agents.models.model import Completion, ModelSpec, Request, Server, TokenUsage, count_prompt
from lcdoc.agents.models.secrets import Key
from lcdoc.agents.models.streaming import Answer, EventReader, NotTheProtocolError
from lcdoc.agents.models.transport_errors import broken_off, not_connected
from lcdoc.agents.models.usage_figures import believable_usage
from lcdoc.agents.models.wire import FormattedRequest

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

_log = logging.getLogger(__name__)

MAX_BYTES_PER_TOKEN: Final = 64
MAX_REASONING_TOKENS: Final = 65_536
"""Thinking that is let pass beyond `max_tokens`, which some servers do not count it in."""
SLOW_PREFILL_TOKENS_PER_S: Final = 15
"""A large model on a CPU; what a server nearby is given for its prompt on top of `first_token_s`."""
_TAIL_S: Final = 10.0
"""For the usage, once the answer has its finish reason."""
_DRAIN_S: Final = 0.25
"""For the end of the body after `[DONE]`: a connection is used again only when it was read to its end."""
_CLIPPED_BYTES_PER_TOKEN: Final = 10
"""No tokenizer makes so few tokens of a document: the server has not taken in all of it."""
_MODELS_TIMEOUT_S: Final = 5.0
_MAX_MODELS_BYTES: Final = 4_000_000
_KEY_VARIABLES: Final = {
    "openai.com": "OPENAI_API_KEY",
    "openrouter.ai": "OPENROUTER_API_KEY",
    "anthropic.com": "ANTHROPIC_API_KEY",
    "mistral.ai": "MISTRAL_API_KEY",
    "deepseek.com": "DEEPSEEK_API_KEY",
    "groq.com": "GROQ_API_KEY",
    "together.xyz": "TOGETHER_API_KEY",
    "googleapis.com": "GEMINI_API_KEY",
    "x.ai": "XAI_API_KEY",
    "fireworks.ai": "FIREWORKS_API_KEY",
}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a server may take, in seconds."""

    connect_s: float = 10.0
    first_token_s: float = 300.0
    """From sending to the first token: queue, loading of the model and prompt. Keep-alive lines do not count as tokens.
    Servers on this machine or network get the time of a slow prefill in addition."""
    idle_s: float = 120.0
    """Between two pieces. A busy CPU server reads 2,000 tokens of another prompt between two tokens of this answer."""
    total_s: float | None = None
    """For the whole answer."""


class OpenAIModel:
    """A model on a server: a ChatModel whose every `complete` is one request.

    A field that the server does not know (`stream_options`, `seed`, `logprobs`, a temperature) is left out from then
    on, and `max_tokens` sent under its other name; both are logged. Errors carry in `usage` what the attempt has
    probably cost. Connections belong to the event loop; `aclose` them.
    """

    def __init__(
        self,
        spec: ModelSpec,
        key: Key | None,
        *,
        count: Callable[[str], int] | None = None,
        timeouts: Timeouts = Timeouts(),
    ) -> None:
        if spec.server is None:
            raise ModelConfigError(spec.name, "it has no server", "name the address of one")
        self._spec = spec
        self._server: Server = spec.server
        self._key = key
        self._count = count or high_estimate
        self._timeouts = timeouts
        self._max_tokens_field: str = self._server.max_tokens_field
        self._warned_of_clipping = False
        self._refused: set[str] = set() if self._server.sends_temperature else {"temperature"}
        self._http: AsyncOpenAI | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._models: tuple[str, ...] | None = None
        self._models_lock = asyncio.Lock()
        self._host = checked_host(spec.name, spec.server, key)
        self._url = shown_address(spec.server, self._host)

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
            body = self._body(request)
            try:
                return await self._attempt(request, body)
            except Refusal as refusal:
                if self._learn(refusal, body):
                    continue
                refused = refusal
            raise await self._translated(refused, body) from None

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

    def _body(self, request: Request) -> dict[str, Any]:
        most = self._spec.max_output_tokens
        optional: dict[str, Any] = {
            self._max_tokens_field: request.max_tokens if most is None else min(request.max_tokens, most),
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "stop": list(request.stop) or None,
            "logprobs": True if request.logprobs else None,
            "stream_options": {"include_usage": True},
        }
        body: dict[str, Any] = {
            "model": self._server.model,
            "messages": [{"role": message.role, "content": _sendable(message.content)} for message in request.messages],
        }
        body.update((k, v) for k, v in optional.items() if v is not None and k not in self._refused)
        if isinstance(request, FormattedRequest) and request.response_format is not None:
            body["response_format"] = request.response_format
        body.update(self._server.extra_body)
        body["stream"] = True
        return body

    def _learn(self, refusal: Refusal, body: Mapping[str, Any]) -> bool:
        """Whether another request, without a field that this server does not know, may do."""
        field = refused_field(refusal, body)
        configured = dict(self._server.extra_body)
        if field is None or field == "response_format" or field in configured:
            return False
        said = clean(refusal.body, 120)
        if field in {"max_tokens", "max_completion_tokens"}:
            other = "max_completion_tokens" if field == "max_tokens" else "max_tokens"
            if self._max_tokens_field == other:
                # A request sent at the same time has found out already.
                return True
            if other in self._refused:
                return False
            self._refused.add(field)
            self._max_tokens_field = other
            _log.warning("model %s: the server knows %s as %s (%s)", self._spec.name, field, other, said)
            return True
        if field == "stop":
            return False
        if field not in self._refused:
            self._refused.add(field)
            _log.warning("model %s: the server does not take %s: sent without (%s)", self._spec.name, field, said)
        return True

    async def _attempt(self, request: Request, body: dict[str, Any]) -> Completion:
        import httpx2
        import openai

        client = self._client()
        max_tokens: int = body.get(self._max_tokens_field) or request.max_tokens
        answer = Answer(
            max_bytes=MAX_BYTES_PER_TOKEN * max_tokens + 4_096,
            max_reasoning_bytes=MAX_BYTES_PER_TOKEN * (max_tokens + MAX_REASONING_TOKENS),
        )
        reader = EventReader()
        loop, waits = asyncio.get_running_loop(), self._timeouts
        started = loop.time()
        end = started + waits.total_s if waits.total_s is not None else None
        failure: ModelError | None = None
        connected = late = False

        def wait(seconds: float) -> None:
            when = loop.time() + seconds
            alarm.reschedule(when if end is None else min(when, end))

        try:
            async with asyncio.timeout(None) as alarm:
                wait(self._first_token_s(request))
                async with self._response(client, body) as response:
                    connected = True
                    await self._read(response, reader, answer, request, wait)
        except TimeoutError:
            if not alarm.expired():
                raise
            late = True
        except openai.APIConnectionError as error:
            cause = error.__cause__
            reason = cause if isinstance(cause, Exception) else error
            failure = not_connected(reason, model=self._spec.name, url=self._url)
        except httpx2.HTTPError as error:
            name = self._spec.name
            failure = broken_off(error, model=name) if connected else not_connected(error, model=name, url=self._url)
        except (NotTheProtocolError, openai.OpenAIError) as error:
            failure = ServerError(self._spec.name, f"the server sent what is not an answer: {clean(str(error))}")
        except Refusal as refusal:
            if not answer.size:
                raise
            failure = await self._translated(refusal, body)
        seconds = loop.time() - started
        if not answer.complete:
            if late:
                failure = self._too_late(answer, seconds, connected=connected)
            elif failure is None:
                failure = self._unfinished(answer, reader)
            if failure is not None:
                if (connected or late) and not isinstance(failure, UnknownModelError):
                    # A prompt that was taken in may be billed, answered or not.
                    failure.usage = self._usage(request, body, answer)
                raise failure
        return self._completion(request, body, answer, seconds)

    async def _read(
        self,
        response: httpx2.Response,
        reader: EventReader,
        answer: Answer,
        request: Request,
        wait: Callable[[float], None],
    ) -> None:
        """Read the answer to its end, or as far as it is let run; `wait` says how long the next piece may take."""
        idle_s, clock = self._timeouts.idle_s, asyncio.get_running_loop().time
        next_wait = 0.0
        ending = ""
        async for events in _events(response, reader):
            for event in events:
                if event is None or answer.done:
                    answer.done = True
                    continue
                if event.get("error") and not answer.complete:
                    raise stream_refusal(event)
                before = answer.size
                piece = answer.add(event)
                if piece and request.on_text is not None:
                    request.on_text(piece)
                if answer.size > before and clock() >= next_wait:
                    # Not for every piece: setting an alarm costs as much as reading one.
                    next_wait = clock() + idle_s / 20
                    wait(idle_s * 1.05)
            if answer.overlong:
                return
            if answer.complete and ending != (end := "done" if answer.done else "finish"):
                ending = end
                wait(_DRAIN_S if answer.done else _TAIL_S)

    @contextlib.asynccontextmanager
    async def _response(self, client: AsyncOpenAI, body: dict[str, Any]) -> AsyncIterator[httpx2.Response]:
        import httpx2
        from openai import AsyncStream

        response: Any = await client.post(
            "/chat/completions",
            cast_to=httpx2.Response,
            body=body,
            options={"headers": per_request_headers(self._server, self._key)},
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
            seconds += sum(len(message.content) for message in request.messages) / 4 / SLOW_PREFILL_TOKENS_PER_S
        return seconds

    def _completion(self, request: Request, body: dict[str, Any], answer: Answer, seconds: float) -> Completion:
        usage = self._usage(request, body, answer)
        text = answer.text
        if not text.strip() and (problem := self._empty(answer, usage)) is not None:
            raise problem
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

    def _empty(self, answer: Answer, usage: TokenUsage) -> ModelError | None:
        name = self._spec.name
        if answer.finish == "length":
            return InvalidOutputError(
                name,
                f"all {usage.tokens_out} tokens of the answer went to thinking, none to its text",
                "raise max_tokens, or let the model think less",
                usage=usage,
            )
        if answer.finish == "content_filter":
            return RefusedRequestError(name, "the server's content filter withheld the answer", usage=usage)
        what = "no text, only thinking" if answer.reasoning_bytes else "no text" if answer.choices else "no choices"
        return ServerError(name, f"the answer has {what}", usage=usage)

    def _usage(self, request: Request, body: Mapping[str, Any], answer: Answer) -> TokenUsage:
        prompt_bytes = sum(len(message.content.encode("utf-8", "replace")) for message in request.messages)
        extra = body.get("response_format")
        if extra is not None:
            # Servers show the schema to the model.
            prompt_bytes += len(str(extra))
        max_tokens: int = body.get(self._max_tokens_field) or request.max_tokens
        taken, given = believable_usage(
            answer.usage, prompt_bytes=prompt_bytes, max_tokens=max_tokens, answer_bytes=answer.size
        )
        if taken is not None and prompt_bytes > _CLIPPED_BYTES_PER_TOKEN * max(1_000, taken.tokens_in):
            self._warn_of_clipping(prompt_bytes, taken.tokens_in)
        if taken is not None and given is not None:
            return taken + given
        if taken is None:
            format_tokens = self._count(str(extra)) if extra is not None else 0
            taken = TokenUsage(tokens_in=count_prompt(self, request) + format_tokens, estimated=True)
        if given is None:
            tokens_out = self._count(answer.text) + self._count(answer.reasoning)
            given = TokenUsage(tokens_out=tokens_out, estimated=True)
        return taken + given

    def _warn_of_clipping(self, prompt_bytes: int, tokens_in: int) -> None:
        if not self._warned_of_clipping:
            self._warned_of_clipping = True
            _log.warning(
                "model %s: of a prompt of %d bytes the server took in %d tokens; it may cut long prompts off unasked, "
                "as Ollama does beyond its num_ctx: give it the context window that is assumed here",
                self._spec.name,
                prompt_bytes,
                tokens_in,
            )

    def _unfinished(self, answer: Answer, reader: EventReader) -> ModelError | None:
        """What is wrong with an answer whose stream ended and that is not complete."""
        name = self._spec.name
        if answer.broken:
            return ServerError(name, f"the server broke the answer off ({answer.broken})")
        if reader.events:
            return CutStreamError(name, f"the answer ended in the middle, after {answer.text_bytes} bytes")
        if not reader.other:
            return ServerError(name, "the answer is empty")
        if reader.other.lstrip()[:1] == b"<":
            return UnknownModelError(
                name, f"{self._url} answered with a web page", "is it an API's? the address usually ends in /v1"
            )
        said = clean(reader.other.decode("utf-8", "replace"), 100)
        return ServerError(name, f"the server sent what is not an answer: {said}")

    def _too_late(self, answer: Answer, seconds: float, *, connected: bool) -> ModelError:
        total = self._timeouts.total_s
        if total is not None and seconds >= total:
            return ModelTimeoutError(self._spec.name, f"no complete answer within {total:g} s")
        if answer.size:
            return ModelTimeoutError(
                self._spec.name, f"nothing more came for {self._timeouts.idle_s:g} s in the middle of the answer"
            )
        return ModelTimeoutError(
            self._spec.name,
            f"no token came within {seconds:.0f} s" + (", though the server had begun to answer" if connected else ""),
            "a busy or slow server may need a shorter prompt, or more time",
        )

    async def _translated(self, refusal: Refusal, body: Mapping[str, Any]) -> ModelError:
        error = translated(refusal, model=self._spec.name, url=self._url, key_hint=self._key_hint(), sent=body)
        if isinstance(error, UnknownModelError) and not 300 <= refusal.status < 400:
            models = await self._served_models()
            if models and self._server.model not in models:
                near = difflib.get_close_matches(self._server.model, models, n=8, cutoff=0.3) or models[:8]
                more = f" and {len(models) - len(near)} more" if len(models) > len(near) else ""
                return UnknownModelError(self._spec.name, error.problem, f"the server has {', '.join(near)}{more}")
        return error

    async def _served_models(self) -> tuple[str, ...]:
        """Names of the models that the server has, asked for once; empty where it does not say."""
        async with self._models_lock:
            if self._models is None:
                self._models = ()
                with contextlib.suppress(TimeoutError, Refusal, ModelError):
                    async with asyncio.timeout(_MODELS_TIMEOUT_S):
                        self._models = await self._ask_models()
        return self._models

    async def _ask_models(self) -> tuple[str, ...]:
        import json

        import httpx2
        import openai

        try:
            response: Any = await self._client().get(
                "/models",
                cast_to=httpx2.Response,
                options={"headers": per_request_headers(self._server, self._key)},
                stream=True,
                stream_cls=openai.AsyncStream[object],
            )
            try:
                data = json.loads(await bounded(response, _MAX_MODELS_BYTES))
            finally:
                await response.aclose()
        except (openai.OpenAIError, httpx2.HTTPError, ValueError) as error:
            _log.debug("model %s: the server lists no models (%s)", self._spec.name, type(error).__name__)
            return ()
        entries = data.get("data") if isinstance(data, dict) else None
        names = [entry.get("id") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
        return tuple(clean(name, 80) for name in names if isinstance(name, str) and name)

    def _key_hint(self) -> str:
        variable = next(
            (name for domain, name in _KEY_VARIABLES.items() if f".{self._host}".endswith(f".{domain}")), ""
        )
        if self._key is None:
            return f"set {variable}" if variable else "the server wants a key: name one for it in the configuration"
        source = self._key.source or variable
        return f"check {source}" if source else "check its key"


def _sendable(text: str) -> str:
    """`text` without single surrogates, which UTF-8 does not have."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


async def _events(response: httpx2.Response, reader: EventReader) -> AsyncIterator[list[dict[str, Any] | None]]:
    """The events of a stream as they come; a whole answer as JSON is one event and the end."""
    import json

    async with contextlib.aclosing(response.aiter_bytes()) as parts:
        async for part in parts:
            if events := reader.feed(part):
                yield events
    if events := reader.finish():
        yield events
    if not reader.events and reader.other.lstrip()[:1] == b"{":
        try:
            whole = json.loads(reader.other)
        except ValueError:
            return
        if isinstance(whole, dict) and (whole.get("choices") or whole.get("error")):
            reader.events += 1
            yield [whole]
