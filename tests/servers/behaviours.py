"""What a chat server does with one request: answer, refuse, dawdle, break off.

Each behaviour is plain data with one method, `play`, that acts through an `Exchange`. A client that leaves cancels
`play`. Bodies follow OpenAI's chat completions, streamed when the request says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal, Protocol

from lcdoc.tests.servers.schema_instances import instance_of

AUTO: Literal["auto"] = "auto"
"""Usage as a server would count it: a token for every four characters."""
_CREATED = 1_767_225_600


@dataclass(slots=True, eq=False)
class Recorded:
    """A request as it came, and what became of it."""

    path: str
    headers: dict[str, str]
    """Names in lower case."""
    body: Any
    """Parsed JSON; None where the request had no body."""
    at: float
    """`time.monotonic()` when its last byte had come."""
    finished: bool = False
    """The behaviour was played to its end (a `Cut` too); set before the last byte leaves."""
    aborted: bool = False
    """The client went away before that."""
    behaviour: Behaviour | None = None
    usage: Mapping[str, Any] | None = None
    """What the answer was said to take; also where a stream did not ask to be told."""

    @property
    def key(self) -> str:
        """The first line of the first user message: names a request through all its attempts."""
        for message in (self.body or {}).get("messages", ()):
            if message["role"] == "user":
                return str(message["content"]).partition("\n")[0]
        return ""


class Exchange(Protocol):
    """One request and the socket its answer goes to."""

    recorded: Recorded

    def answer(self, status: int, payload: object, headers: Mapping[str, str] = ...) -> None:
        """A whole answer: `payload` as JSON, or as it is when it is text or bytes."""

    def open_stream(self) -> None:
        """Status line and headers of a stream of events."""

    def events(self, *data: object, last: bool = False) -> None:
        """Send events in one write: text as it is, anything else as JSON. `last` ends the body."""

    def raw(self, data: bytes) -> None:
        """These bytes, whatever they are."""

    def close(self, *, reset: bool = False) -> None:
        """End the connection: after what was sent, or with a reset that may overtake it."""


class Behaviour:
    """Base of them all."""

    is_answer: ClassVar[bool] = False
    """Whether a client that gets all of it has what it asked for, and should not ask again."""

    async def play(self, exchange: Exchange) -> None:
        """Do it."""
        raise NotImplementedError


Chooser = Callable[[Recorded], Behaviour]


def error_body(message: str, *, kind: str = "invalid_request_error", code: object = None, param: object = None) -> Any:
    """An error as OpenAI writes it."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _cut(text: str, pieces: tuple[str, ...] | list[str] | int | None) -> tuple[str, ...]:
    if isinstance(pieces, tuple | list):
        return tuple(pieces)
    size = 24 if pieces is None else max(1, -(-len(text) // pieces))
    return tuple(text[start : start + size] for start in range(0, len(text), size))


def _chunk(model: str, delta: Mapping[str, object], *, finish: str | None = None, logprobs: object = None) -> Any:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": _CREATED,
        "model": model,
        "choices": [choice],
    }


def _logprobs(tokens: tuple[str, ...]) -> Any:
    """Log-probabilities for pieces that are taken for tokens: -0.25 for the first, -0.5 for the second and so on."""
    return {
        "content": [
            {"token": token, "logprob": -0.25 * (number + 1), "bytes": list(token.encode()), "top_logprobs": []}
            for number, token in enumerate(tokens)
        ]
    }


def automatic_usage(body: Any, text: str) -> dict[str, Any]:
    """Plausible usage of an answer `text` to the request `body`."""
    prompt = sum(len(str(message["content"])) // 4 + 4 for message in body["messages"])
    completion = len(text) // 4 + 1
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


@dataclass(frozen=True)
class Reply(Behaviour):
    """The answer `text`."""

    text: str
    usage: Mapping[str, Any] | Literal["auto"] | None = field(default=AUTO, hash=False)
    """As the server reports it; streamed only where `stream_options.include_usage` asks for it."""
    finish: str | None = "stop"
    pieces: tuple[str, ...] | list[str] | int | None = None
    """The pieces it is streamed in, or how many; None: of 24 characters."""
    first_s: float = 0.0
    """Before the first byte."""
    drip_s: float = 0.0
    """Between two pieces."""
    reasoning: str = ""
    """The thinking before it, apart from the text in `reasoning_field`."""
    logprobs: bool = False
    """Whether the server gives log-probabilities (one for each piece) to requests that ask for them."""
    comments: int = 0
    """Keep-alive lines, each an SSE comment, before the first piece, `drip_s` apart."""
    reasoning_field: str = "reasoning_content"

    is_answer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.pieces, list):
            object.__setattr__(self, "pieces", tuple(self.pieces))

    async def play(self, exchange: Exchange) -> None:
        body = exchange.recorded.body
        if self.first_s:
            await asyncio.sleep(self.first_s)
        exchange.recorded.usage = self.usage_of(body)
        if not body.get("stream"):
            exchange.answer(200, self._whole(body))
            return
        wants_logprobs = bool(self.logprobs and body.get("logprobs"))
        *frames, end = _frames(self, str(body.get("model", "")), wants_logprobs=wants_logprobs)
        tail = [end, *self._usage_events(body), "[DONE]"]
        exchange.open_stream()
        for _ in range(self.comments):
            exchange.raw(_http_chunk(b": keep-alive\n\n"))
            await asyncio.sleep(self.drip_s)
        if self.drip_s:
            for frame in frames:
                exchange.events(frame)
                await asyncio.sleep(self.drip_s)
            exchange.events(*tail, last=True)
        else:
            exchange.events(*frames, *tail, last=True)

    def usage_of(self, body: Any) -> Mapping[str, Any] | None:
        """What is reported for the request `body`."""
        return automatic_usage(body, self.reasoning + self.text) if isinstance(self.usage, str) else self.usage

    def _usage_events(self, body: Any) -> list[Any]:
        usage = self.usage_of(body)
        if usage is None or not (body.get("stream_options") or {}).get("include_usage"):
            return []
        return [{**_chunk(str(body.get("model", "")), {}), "choices": [], "usage": usage}]

    def _whole(self, body: Any) -> Any:
        message = {"role": "assistant", "content": self.text}
        if self.reasoning:
            message[self.reasoning_field] = self.reasoning
        logprobs = _logprobs(_cut(self.text, self.pieces)) if self.logprobs and body.get("logprobs") else None
        whole = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": _CREATED,
            "model": str(body.get("model", "")),
            "choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": self.finish}],
        }
        usage = self.usage_of(body)
        return whole if usage is None else {**whole, "usage": usage}


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@lru_cache(maxsize=1024)
def _frames(reply: Reply, model: str, *, wants_logprobs: bool) -> tuple[str, ...]:
    """The events of an answer up to the one with its finish reason, as JSON."""

    def events() -> Iterator[Any]:
        yield _chunk(model, {"role": "assistant", "content": ""})
        for piece in _cut(reply.reasoning, None):
            yield _chunk(model, {reply.reasoning_field: piece})
        pieces = _cut(reply.text, reply.pieces)
        tokens = _logprobs(pieces)["content"]
        for piece, token in zip(pieces, tokens, strict=True):
            yield _chunk(model, {"content": piece}, logprobs={"content": [token]} if wants_logprobs else None)
        yield _chunk(model, {}, finish=reply.finish)

    return tuple(json.dumps(event, ensure_ascii=False, separators=(",", ":")) for event in events())


@dataclass(frozen=True)
class Nonsense(Reply):
    """A whole answer that is not what was asked for."""

    is_answer: ClassVar[bool] = False


@dataclass(frozen=True)
class Echo(Behaviour):
    """An answer made of the request: `{key}` in the template stands for `Recorded.key`, escaped for JSON."""

    template: str = "{key}"
    first_s: float = 0.0
    is_answer: ClassVar[bool] = True

    async def play(self, exchange: Exchange) -> None:
        key = json.dumps(exchange.recorded.key, ensure_ascii=False)[1:-1]
        await Reply(self.template.replace("{key}", key), first_s=self.first_s).play(exchange)


@dataclass(frozen=True)
class Fill(Behaviour):
    """A small valid instance of the schema in `response_format`; `{}` where there is none."""

    first_s: float = 0.0
    is_answer: ClassVar[bool] = True

    async def play(self, exchange: Exchange) -> None:
        form = exchange.recorded.body.get("response_format") or {}
        schema = form.get("json_schema", {}).get("schema", {"type": "object"})
        await Reply(json.dumps(instance_of(schema), ensure_ascii=False), first_s=self.first_s).play(exchange)


@dataclass(frozen=True)
class Status(Behaviour):
    """An error answer. `body`: JSON, or text such as a proxy's HTML page; None: an error as OpenAI writes it."""

    code: int
    body: Any = None
    retry_after: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    async def play(self, exchange: Exchange) -> None:
        headers = dict(self.headers)
        if self.retry_after is not None:
            headers["retry-after"] = self.retry_after
        body = error_body(f"the server says {self.code}", kind="error") if self.body is None else self.body
        exchange.answer(self.code, body, headers)


@dataclass(frozen=True)
class Hang(Behaviour):
    """Nothing at all, until the client goes away. With `comments_s`: keep-alive lines, so far apart, and no answer."""

    comments_s: float | None = None

    async def play(self, exchange: Exchange) -> None:
        if self.comments_s is not None:
            exchange.open_stream()
            while True:
                exchange.raw(_http_chunk(b": keep-alive\n\n"))
                await asyncio.sleep(self.comments_s)
        await _forever()


@dataclass(frozen=True)
class HangMid(Behaviour):
    """Some pieces, then silence until the client goes away."""

    text: str

    async def play(self, exchange: Exchange) -> None:
        _begin(exchange, self.text)
        await _forever()


@dataclass(frozen=True)
class Cut(Behaviour):
    """Some pieces, then the connection closes; with `reset`, by a reset.

    With `clean` the body ends as it should, but the answer has no finish reason, no usage and no `[DONE]`.
    """

    text: str
    clean: bool = False
    reset: bool = False

    async def play(self, exchange: Exchange) -> None:
        if self.clean and exchange.recorded.body.get("stream"):
            exchange.open_stream()
            exchange.events(*_beginning(exchange, self.text), last=True)
        elif self.clean:
            await Reply(self.text, usage=None, finish=None).play(exchange)
        else:
            _begin(exchange, self.text)
            if self.reset:
                await asyncio.sleep(0.05)  # a reset overtakes what has not been read
            exchange.close(reset=self.reset)


@dataclass(frozen=True)
class ErrorEvent(Behaviour):
    """Some pieces, then an event that is an error, as vLLM and OpenRouter send it in a stream that goes wrong."""

    text: str = ""
    body: Any = field(default_factory=lambda: error_body("the engine died", kind="server_error", code=500))

    async def play(self, exchange: Exchange) -> None:
        exchange.open_stream()
        exchange.events(*_beginning(exchange, self.text), self.body, "[DONE]", last=True)


@dataclass(frozen=True)
class EmptyChoices(Behaviour):
    """A well-formed answer with no choices in it."""

    async def play(self, exchange: Exchange) -> None:
        body = exchange.recorded.body
        model = str(body.get("model", ""))
        if body.get("stream"):
            exchange.open_stream()
            exchange.events({**_chunk(model, {}), "choices": []}, "[DONE]", last=True)
        else:
            exchange.answer(
                200,
                {"id": "1", "object": "chat.completion", "created": _CREATED, "model": model, "choices": []},
            )


@dataclass(frozen=True)
class Garbage(Behaviour):
    """200 with a body that is not the protocol. None as `content_type`: what the request makes one expect."""

    body: bytes = b"<html>It works!</html>"
    content_type: str | None = None

    async def play(self, exchange: Exchange) -> None:
        expected = "text/event-stream" if exchange.recorded.body.get("stream") else "application/json"
        exchange.answer(200, self.body, {"content-type": self.content_type or expected})


@dataclass(frozen=True)
class Refuse(Behaviour):
    """The connection is reset before the first byte of an answer."""

    async def play(self, exchange: Exchange) -> None:
        exchange.close(reset=True)


async def _forever() -> None:
    await asyncio.get_running_loop().create_future()


def _beginning(exchange: Exchange, text: str) -> list[Any]:
    model = str(exchange.recorded.body.get("model", ""))
    return [
        _chunk(model, {"role": "assistant", "content": ""}),
        *(_chunk(model, {"content": piece}) for piece in _cut(text, None)),
    ]


def _begin(exchange: Exchange, text: str) -> None:
    """The first part of an answer that will not be finished."""
    if exchange.recorded.body.get("stream"):
        exchange.open_stream()
        exchange.events(*_beginning(exchange, text))
    else:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n"
        exchange.raw(head + json.dumps({"id": "chatcmpl-1", "choices": [{"message": {"content": text}}]}).encode()[:-4])
