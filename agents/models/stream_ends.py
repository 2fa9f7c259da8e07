"""What the end of a stream means: a whole answer, a torn one, none at all.

Most servers give a finish reason before they say `[DONE]`; some never do. Others, such as llama-cpp-python, say
`[DONE]` without one when they break an answer off because another request has come. The two are told apart by what the
server did before, and by whether anything else was asked of it meanwhile.
"""

from __future__ import annotations

import json
from typing import Final

from lcdoc.agents.models.error_bodies import clean
from lcdoc.agents.models.errors import (
    CutStreamError,
    InvalidOutputError,
    ModelError,
    ModelTimeoutError,
    RefusedRequestError,
    ServerError,
    UnknownModelError,
)
from lcdoc.agents.models.model import TokenUsage
from lcdoc.agents.models.streaming import Answer, EventReader
from lcdoc.agents.models.timeouts import Timeouts

BARE_ENDINGS: Final = 2
"""Answers without a finish reason, asked for with nothing else under way, after which a server that never gave one is
taken to give none."""


class EmptyStreamError(ServerError):
    """200, and not a byte: some servers refuse a streamed request so, and say why only where it is not streamed."""


class StreamEnds:
    """Judges the ends of one server's streams, and remembers how it ends them."""

    def __init__(self, model: str, url: str) -> None:
        self._model = model
        self._url = url
        self._gives_reasons = False
        self._bare = 0
        self._answered = False

    def torn(self, answer: Answer, *, alone: bool, is_json: bool) -> ModelError | None:
        """The error that an answer said to be done is, if the server broke it off; None for a whole one.

        `alone`: no other request of ours was under way meanwhile. `is_json`: it was asked for as a JSON object.
        """
        if answer.finish is not None:
            self._gives_reasons = self._gives_reasons or not answer.overlong
            return None
        if (is_json and _is_object(answer.text)) or not answer.choices:
            return None
        if not self._gives_reasons:
            if answer.usage is not None:
                # Only what was written to its end is summed up.
                return None
            self._bare += alone
            if self._bare >= BARE_ENDINGS:
                return None
        return CutStreamError(
            self._model,
            f"the server ended the answer after {answer.text_bytes} bytes without a reason",
            "some do when another request comes: fewer at once may do",
            interrupted=True,
        )

    def answered(self) -> None:
        """A proper answer has come."""
        self._answered = True

    def unfinished(self, answer: Answer, reader: EventReader) -> ModelError:
        """What is wrong with an answer whose stream ended and that is not complete."""
        name = self._model
        if answer.broken:
            return ServerError(name, f"the server broke the answer off ({answer.broken})")
        if reader.events:
            return CutStreamError(name, f"the answer ended in the middle, after {answer.text_bytes} bytes")
        if not reader.other:
            return EmptyStreamError(name, "the answer is empty")
        if reader.other.lstrip()[:1] == b"<":
            if self._answered:
                # The address is right: somebody in between has put a page of its own before the server.
                return ServerError(name, f"{self._url} answered with a web page this time")
            return UnknownModelError(
                name, f"{self._url} answered with a web page", "is it an API's? the address usually ends in /v1"
            )
        said = clean(reader.other.decode("utf-8", "replace"), 100)
        return ServerError(name, f"the server sent what is not an answer: {said}")

    def without_text(self, answer: Answer, usage: TokenUsage) -> ModelError:
        """What is wrong with an answer that came to its end and has no text."""
        name = self._model
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

    def too_late(self, answer: Answer, seconds: float, waits: Timeouts, *, connected: bool) -> ModelTimeoutError:
        """The error for an answer that was not waited for any longer."""
        if waits.total_s is not None and seconds >= waits.total_s:
            return ModelTimeoutError(self._model, f"no complete answer within {waits.total_s:g} s")
        if answer.size:
            return ModelTimeoutError(
                self._model, f"nothing more came for {waits.idle_s:g} s in the middle of the answer"
            )
        return ModelTimeoutError(
            self._model,
            f"no token came within {seconds:.0f} s" + (", though the server had begun to answer" if connected else ""),
            "a busy or slow server may need a shorter prompt, or more time",
        )


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
