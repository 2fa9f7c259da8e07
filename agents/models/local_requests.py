"""A request of ours in the engine's terms, and its tokens in ours."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from lcdoc.agents.models.json_schema import Schema, input_schema
from lcdoc.agents.models.model import Request, TokenLogprob

if TYPE_CHECKING:
    from lcdoc.local_engine import Engine, Sampled, Sampling
    from lcdoc.local_engine.tokenizer import Tokenizer


_NOW: Final = datetime(2024, 7, 26)
_DATE: Final = "26 Jul 2024"
"""What templates that tell the time or the date are given, the same on all days: Llama 3's own default. Else no prompt
would begin as it did yesterday, and nothing that is kept of documents would be found again."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt's tokens."""

    piece: tuple[int, ...] = ()
    """Up to the end of the request's piece of documents; empty where it has none."""
    rest: tuple[int, ...] = ()

    @property
    def ids(self) -> list[int]:
        return [*self.piece, *self.rest]


def encoded(tokenizer: Tokenizer, request: Request) -> Encoded:
    """The prompt's tokens, parted behind its piece of documents whether that was read before or not, so that they are
    the same. A template that knows no system message gets its text before the user's."""
    from lcdoc.local_engine.errors import InvalidRequestError

    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    variables: dict[str, Any] = {"date_string": _DATE}
    if request.schema is not None:
        # JSON leaves no place to think aloud in, so models that can are told not to.
        variables["enable_thinking"] = False
    border = _border(request)
    try:
        return _parts(tokenizer, messages, border, variables)
    except InvalidRequestError:
        if len(messages) < 2 or [message["role"] for message in messages[:2]] != ["system", "user"]:
            raise
        system, user, *others = messages
        joined = {"role": "user", "content": f"{system['content']}\n\n{user['content']}"}
        return _parts(tokenizer, [joined, *others], border, variables)


def _border(request: Request) -> str:
    user = next((message.content for message in request.messages if message.role == "user"), "")
    return user[: request.piece.end] if request.piece is not None else ""


def _parts(tokenizer: Tokenizer, messages: list[dict[str, str]], border: str, variables: dict[str, Any]) -> Encoded:
    piece, rest = tokenizer.encode_chat_parts(messages, border, now=_NOW, **variables)
    return Encoded(tuple(piece), tuple(rest))


def sampling_of(engine: Engine, request: Request) -> Sampling:
    """Greedy as asked; above that, what the request leaves open is as the model's makers sample."""
    from lcdoc.local_engine import Sampling

    defaults = engine.defaults
    own = request.temperature > 0 and request.top_p is None
    return Sampling(
        temperature=request.temperature,
        top_p=request.top_p or (own and defaults.top_p) or 1.0,
        top_k=(own and defaults.top_k) or 0,
        min_p=(own and defaults.min_p) or 0.0,
        seed=request.seed,
        max_tokens=request.max_tokens,
        stop=request.stop,
        logprobs=0 if request.logprobs else None,
    )


@lru_cache(maxsize=256)
def constraint_of(schema: type[BaseModel] | None) -> Schema | None:
    """The JSON schema of an answer, bounds included. Fields with defaults have to be written, too: what a model may
    leave out, a small one does."""
    return None if schema is None else _demanding(input_schema(schema))


def _demanding(shape: Any) -> Any:
    if isinstance(shape, list):
        return [_demanding(each) for each in shape]
    if not isinstance(shape, dict):
        return shape
    demanding = {key: _demanding(value) for key, value in shape.items()}
    if isinstance(properties := shape.get("properties"), dict):
        demanding["properties"] = {name: _demanding(value) for name, value in properties.items()}
        demanding["required"] = list(properties)
    return demanding


def logprobs_of(engine: Engine, tokens: list[Sampled]) -> tuple[TokenLogprob, ...]:
    """Of the tokens that the model chose; where its grammar chose, there is no probability."""
    tokenizer = engine.tokenizer
    return tuple(
        TokenLogprob(tokenizer.token_bytes(each.token).decode("utf-8", "replace"), each.logprob)
        for each in tokens
        if each.logprob is not None and each.token not in tokenizer.eos_ids
    )
