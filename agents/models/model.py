"""What a model is to everything else: a thing that completes prompts.

A model is a stack of layers, each of which is itself a `ChatModel` around the next one. Outermost first: the call store
(an answer that is known is not asked for again), structured output (parse, check, ask once more), retry, budget,
limiter, client.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar

from pydantic import BaseModel

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "content_filter", "other"]
Profile = Literal["small", "large"]
"""How a model is spoken to: `small` ones get shorter prompts, fewer fields and no reasoning before the answer."""
StructuredMode = Literal["json_schema", "json_object_schema", "json_object", "prompt"]
"""How a server is asked for JSON of a shape: by a schema it enforces, in OpenAI's form or in llama.cpp's (`json_object`
with a `schema`); as some JSON; or in words only."""
OnText = Callable[[str], None]
MESSAGE_OVERHEAD_TOKENS = 8
"""What a chat template puts around each message, at most, where it is not known."""

Parsed = TypeVar("Parsed", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of documents that the first user message begins with: what comes behind it is another with each question.

    A model that runs here keeps what it has read of it.
    """

    end: int
    """Characters of the message."""
    document_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What a model is asked. Equal requests may be answered from the call store."""

    messages: tuple[Message, ...]
    schema: type[BaseModel] | None = None
    """The shape of the answer; `Completion.parsed` is then an instance of it."""
    max_tokens: int = 1024
    """The longest answer, in tokens of the model; with `schema`, more than the longest valid one needs."""
    temperature: float = 0.0
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    prompt: str = ""
    """Name and version of the prompt, such as `read/1`; for the call store's key and the log."""
    piece: Piece | None = field(default=None, compare=False)
    """What of it may have been read before. Not part of the call store's key."""
    kv: str = ""
    """How the cache that the piece is read through is held, such as "kvzip@0.25"; empty: as the model reads everything.
    Answers differ by it."""
    on_text: OnText | None = field(default=None, compare=False)
    """Is given the text piece by piece as it arrives: raw, before it is parsed. A failed attempt that is made again
    begins anew, announced by an empty piece."""

    def with_messages(self, *messages: Message) -> Request:
        """The same request, continued with these messages."""
        return replace(self, messages=(*self.messages, *messages))


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one or several calls. `tokens_in` includes `tokens_cached`, the part the server had cached."""

    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    estimated: bool = False
    """The server gave no believable figures, so they were counted here."""

    def __add__(self, other: TokenUsage) -> TokenUsage:
        return TokenUsage(
            self.tokens_in + other.tokens_in,
            self.tokens_cached + other.tokens_cached,
            self.tokens_out + other.tokens_out,
            self.estimated or other.estimated,
        )

    @property
    def tokens(self) -> int:
        return self.tokens_in + self.tokens_out


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of the answer and the natural logarithm of its probability."""

    token: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model answered."""

    text: str
    """Without the model's thinking, where the server gave that apart."""
    usage: TokenUsage = TokenUsage()
    finish: Finish = "stop"
    parsed: BaseModel | None = None
    """An instance of the request's schema; None where it had none."""
    stored: bool = False
    """True when it came from the call store: nothing was sent, nothing is charged."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    model: str = ""
    """The model's name as the server gave it."""
    seconds: float = 0.0
    """From sending to the last token, waiting in our own queues not included."""
    reasoning: str = ""
    """The model's thinking, where the server gave it apart from the text."""

    def parsed_as(self, schema: type[Parsed]) -> Parsed:
        """`parsed`, known to be of `schema`. Raises TypeError when it is not."""
        if not isinstance(self.parsed, schema):
            raise TypeError(f"the completion holds {type(self.parsed).__name__}, not {schema.__name__}")
        return self.parsed


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars per million tokens. A cached input price that is not known is the input price."""

    input: float
    output: float
    cached_input: float | None = None

    def cost_usd(self, usage: TokenUsage) -> float:
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = usage.tokens_in - usage.tokens_cached
        return (fresh * self.input + usage.tokens_cached * cached + usage.tokens_out * self.output) / 1e6


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What a server admits. None: not known, so only its refusals slow us down."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int = 8
    """Requests at once, at most; fewer while the server refuses some."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where and how requests are sent. The key is not part of it, so that it can be shown and hashed."""

    base_url: str
    """Up to and with the version, without a slash at the end: `https://api.openai.com/v1`."""
    model: str
    """The model's name as the server knows it."""
    structured: StructuredMode | None = None
    """How to ask for JSON, where the user knows; None: found out at the first request and remembered."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    sends_temperature: bool = True
    """False for models that refuse a temperature."""
    headers: tuple[tuple[str, str], ...] = ()
    extra_body: tuple[tuple[str, Any], ...] = ()
    """Further fields of the request body, for servers with options of their own."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What is known of a model before it is asked anything."""

    name: str
    """As the user names it: `openai/gpt-4.1-mini`, `http://127.0.0.1:8080/v1#qwen`, `local/qwen`, a name of the
    configuration."""
    context_window: int
    """Tokens of prompt and answer together."""
    server: Server | None = None
    """None for models that run inside lcdoc."""
    context_window_known: bool = True
    """False when `context_window` is a cautious assumption."""
    max_output_tokens: int | None = None
    prices: Prices | None = None
    """None: not known. Never taken for free."""
    limits: RateLimits = RateLimits()
    profile: Profile = "large"
    message_tokens: int = MESSAGE_OVERHEAD_TOKENS
    """What a chat template puts around each message, at most."""
    identity: str = ""
    """Of models that run inside lcdoc: what their answers depend on beside the request, their files and how they are
    loaded. Answers are kept under it, since another model may come to have the same name."""

    def cost_usd(self, usage: TokenUsage) -> float | None:
        """What `usage` costs; None where the prices are not known, unless nothing was used."""
        if self.prices is None:
            return None if usage.tokens else 0.0
        return self.prices.cost_usd(usage)


class ChatModel(Protocol):
    """Completes prompts. Every layer of the stack is one, and so is the whole."""

    @property
    def spec(self) -> ModelSpec: ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` for this model: exact where its tokenizer is at hand, else an estimate that errs high."""
        ...

    async def complete(self, request: Request) -> Completion:
        """Answer. Raises ModelError: see `lcdoc.agents.models.errors`."""
        ...


def count_prompt(model: ChatModel, request: Request) -> int:
    """Tokens of the request's messages with what a chat template adds; errs high as `count_tokens` does."""
    return sum(model.count_tokens(message.content) + model.spec.message_tokens for message in request.messages)
