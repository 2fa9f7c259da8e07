"""An answer in JSON, whole or as the chunks of a stream: what chats and completions have in common."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lcdoc.local_engine.requests import Finish, Piece, Usage
from lcdoc.local_engine.sampling import Sampled
from lcdoc.local_engine.serving.preparation import Choice
from lcdoc.local_engine.tokenizer import Tokenizer

Json = dict[str, Any]


class Api(Protocol):
    """How one of the two APIs writes its answers."""

    prefix: str
    whole: str
    """The name of a whole answer's object."""
    chunk: str

    def opening(self, index: int) -> Json | None:
        """What a stream says of a choice before its first piece."""
        ...

    def pieces(self, index: int, text: str, logprobs: Json | None, finish: Finish | None) -> Iterator[Json]:
        """A piece of a choice, for a stream."""
        ...

    def choice(self, index: int, text: str, logprobs: Json | None, finish: Finish) -> Json:
        """A whole choice."""
        ...

    def logprobs(self, tokenizer: Tokenizer) -> Any:
        """What turns one answer's tokens into its log-probabilities."""
        ...


@dataclass
class _State:
    """One choice so far."""

    logprobs: Any
    text: list[str] = field(default_factory=list)
    tokens: list[Sampled] = field(default_factory=list)
    finish: Finish = "stop"


class Answers:
    """The answers to one request."""

    def __init__(
        self, api: Api, model: str, tokenizer: Tokenizer, choices: Sequence[Choice], *, include_usage: bool
    ) -> None:
        self._api = api
        self._model = model
        self._end_tokens = tokenizer.eos_ids
        self._include_usage = include_usage
        self._id, self._created = f"{api.prefix}-{uuid.uuid4().hex}", int(time.time())
        self._choices = {choice.index: choice for choice in choices}
        self._states = {choice.index: _State(api.logprobs(tokenizer)) for choice in choices}
        self._usages: dict[int, Usage] = {}

    def begin(self) -> list[Json]:
        """The chunks before the first piece."""
        openings = [self._api.opening(index) for index in self._states]
        return [self._chunk([opening]) for opening in openings if opening is not None]

    def stream(self, choice: Choice, piece: Piece) -> list[Json]:
        """The chunks for a piece; none when it brings nothing to be seen."""
        self._note(choice, piece)
        tokens = self._shown(choice, piece)
        logprobs = None
        if choice.sampling.logprobs is not None and tokens:
            logprobs = self._states[choice.index].logprobs.of(tokens)
        if not piece.text and logprobs is None and piece.finish is None:
            return []
        return [self._chunk([each]) for each in self._api.pieces(choice.index, piece.text, logprobs, piece.finish)]

    def end(self) -> list[Json]:
        """The chunks after the last piece."""
        return [{**self._chunk([]), "usage": self.usage}] if self._include_usage else []

    def keep(self, choice: Choice, piece: Piece) -> None:
        """Take a piece of answers that are not streamed."""
        self._note(choice, piece)
        state = self._states[choice.index]
        state.text.append(piece.text)
        state.tokens += self._shown(choice, piece)
        state.finish = piece.finish or state.finish

    def whole(self) -> Json:
        """The answers that were kept."""
        choices = []
        for index, state in self._states.items():
            asked = self._choices[index].sampling.logprobs is not None
            logprobs = state.logprobs.of(state.tokens) if asked else None
            choices.append(self._api.choice(index, "".join(state.text), logprobs, state.finish))
        return {**self._head(self._api.whole), "choices": choices, "usage": self.usage}

    @property
    def usage(self) -> Json:
        """A prompt counts once, however many answers there are to it."""
        prompts = [usage for index, usage in self._usages.items() if self._choices[index].first == index]
        prompt, output = sum(each.prompt for each in prompts), sum(each.output for each in self._usages.values())
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": sum(each.cached for each in prompts)},
        }

    def _note(self, choice: Choice, piece: Piece) -> None:
        if piece.usage is not None:
            self._usages[choice.index] = piece.usage

    def _shown(self, choice: Choice, piece: Piece) -> Sequence[Sampled]:
        """The tokens that are part of the text: an end token is not."""
        tokens = piece.tokens
        ends = piece.finish == "stop" and not choice.sampling.ignore_eos
        return tokens[:-1] if ends and tokens and tokens[-1].token in self._end_tokens else tokens

    def _chunk(self, choices: list[Json]) -> Json:
        usage = {"usage": None} if self._include_usage else {}
        return {**self._head(self._api.chunk), "choices": choices, **usage}

    def _head(self, kind: str) -> Json:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}
