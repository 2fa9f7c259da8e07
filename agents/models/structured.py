"""Answers of a shape: asked for as the server can, read, checked, and asked for once more where they do not fit."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

from pydantic import BaseModel

from lcdoc.agents.models.errors import ContextOverflowError, InvalidOutputError, ModelError
from lcdoc.agents.models.json_answers import AnswerError, is_json, parse_answer
from lcdoc.agents.models.json_schema import object_format, response_format, schema_in_words
from lcdoc.agents.models.lenient_json import storable
from lcdoc.agents.models.memos import Memos
from lcdoc.agents.models.model import (
    ChatModel,
    Completion,
    Message,
    ModelSpec,
    OnText,
    Request,
    StructuredMode,
    count_prompt,
)
from lcdoc.agents.models.response_formats import FormatChoice
from lcdoc.agents.models.thinking import ThinkingFilter, split_thinking
from lcdoc.agents.models.wire import FormattedRequest

logger = logging.getLogger(__name__)

MAX_ECHO_CHARACTERS = 4_000
"""Of a misshapen answer, as it is shown to the model again."""
_MIN_ANSWER_TOKENS = 16


class StructuredModel:
    """A ChatModel whose completions of requests with a schema are instances of it.

    `Completion.text` is then the canonical JSON of `parsed`. How `inner`'s server is best asked is found out at the
    first request and remembered in `memos`, by server and model; `choice` shares it with other layers meanwhile. An
    answer that does not fit is asked for once more; usage and seconds are those of both calls. Thinking that the server
    left in the text is moved to `reasoning`, and not given to `on_text`.

    `complete` raises InvalidOutputError, with no usage (the layers below have charged both calls), and what `inner`
    raises.
    """

    def __init__(self, inner: ChatModel, memos: Memos, *, choice: FormatChoice | None = None) -> None:
        self._inner = inner
        self._format = choice or FormatChoice(inner.spec, memos)

    @property
    def spec(self) -> ModelSpec:
        return self._inner.spec

    def count_tokens(self, text: str) -> int:
        return self._inner.count_tokens(text)

    async def complete(self, request: Request) -> Completion:
        """Answer. With a schema `on_text` is given the raw JSON, and an empty piece before a second answer."""
        if request.schema is None:
            completion = await self._send(request)
            if completion.reasoning and not completion.text.strip():
                raise self._only_thinking(completion)
            return completion
        asked = await self._ask(request)
        first = asked.completion
        try:
            answer = self._read(first, request.schema)
        except AnswerError as error:
            return await self._ask_again(asked, request, request.schema, error)
        self._format.worked(asked.mode)
        return _answered(first, answer)

    def _read(self, completion: Completion, schema: type[BaseModel]) -> BaseModel:
        if completion.finish == "content_filter":
            raise InvalidOutputError(
                self.spec.name,
                "the server's content filter stopped the answer",
                "ask in other words, leave the passage out, or use another model",
            )
        if completion.reasoning and not completion.text.strip():
            raise AnswerError("there is only thinking, and no answer")
        return parse_answer(completion.text, schema, finish=completion.finish)

    def _only_thinking(self, completion: Completion) -> InvalidOutputError:
        cut = completion.finish == "length"
        return InvalidOutputError(
            self.spec.name,
            f"only thinking came, and no answer{' within max_tokens' if cut else ''}",
            "allow more tokens, or switch its thinking off",
        )

    async def _ask(self, request: Request) -> _Asked:
        """The first answer, in the strongest mode that the server takes."""
        while True:
            over = await self._format.turn()
            mode = self._format.mode
            try:
                sent = self._formatted(request, mode)
                completion = await self._send(sent, begun=partial(self._format.taken, mode))
            except InvalidOutputError as error:
                self._format.taken(mode)
                if sent.max_tokens >= (self.spec.max_output_tokens or sent.max_tokens + 1):
                    raise
                # All of its tokens went to thinking that the server kept apart: cut off, like other answers.
                return _Asked(sent, Completion("", usage=error.usage, finish="length"), mode)
            except ModelError as error:
                if not self._format.refused(mode, error):
                    # What went wrong is something else: no reason to let the others wait, one by one.
                    self._format.taken(mode)
                    raise
            else:
                self._format.taken(mode)
                return _Asked(sent, completion, mode)
            finally:
                if over is not None:
                    over()

    def _formatted(self, request: Request, mode: StructuredMode) -> FormattedRequest:
        if request.schema is None:
            raise TypeError("a request without a schema has no format")
        formatted = FormattedRequest(**{each.name: getattr(request, each.name) for each in fields(Request)})
        if mode == "json_schema":
            return replace(formatted, response_format=response_format(request.schema))
        # OpenAI refuses json_object unless the prompt says JSON, which these words do.
        formatted = replace(formatted, messages=_with_words(request.messages, schema_in_words(request.schema)))
        if mode == "json_object_schema":
            # Who takes the form need not heed the schema in it.
            return replace(formatted, response_format=object_format(request.schema))
        return replace(formatted, response_format={"type": "json_object"}) if mode == "json_object" else formatted

    async def _send(self, request: Request, *, begun: Callable[[], object] | None = None) -> Completion:
        """One call of the inner model, the thinking taken out of its text. `begun` is called at the first text."""
        shown = ThinkingFilter(request.on_text) if request.on_text else None
        on_text: OnText | None = None
        if shown or begun:

            def on_text(piece: str) -> None:
                if begun and piece:
                    begun()
                if shown:
                    shown.feed(piece)

        completion = await self._inner.complete(replace(request, on_text=on_text))
        if shown:
            shown.finish()
        reasoning, text = split_thinking(storable(completion.text))
        reasoning = "\n".join(filter(None, [storable(completion.reasoning), reasoning]))
        return replace(completion, text=text, reasoning=reasoning)

    async def _ask_again(
        self, asked: _Asked, request: Request, schema: type[BaseModel], problem: AnswerError
    ) -> Completion:
        first = asked.completion
        again = self._second_request(asked, schema, problem)
        logger.info("model %s is asked once more for %s: %s", self.spec.name, schema.__name__, problem)
        if request.on_text:
            request.on_text("")
        try:
            second = await self._send(again)
            answer = self._read(second, schema)
        except AnswerError as error:
            raise InvalidOutputError(
                self.spec.name,
                f"its answer does not fit {schema.__name__}, nor does a second one: {error}",
                "use a larger model" if second.finish != "length" else "allow more tokens, or use shorter passages",
            ) from error
        except ContextOverflowError as error:
            raise InvalidOutputError(
                self.spec.name,
                f"its answer does not fit {schema.__name__} ({problem}), and asking again does not fit its window",
                "use shorter passages",
            ) from error
        if first.finish == "stop" and not is_json(first.text):
            self._format.ignored(asked.mode)
        return _answered(
            replace(second, usage=first.usage + second.usage, seconds=first.seconds + second.seconds), answer
        )

    def _second_request(self, asked: _Asked, schema: type[BaseModel], problem: AnswerError) -> Request:
        """The conversation continued with what was wrong; without the answer where that was cut, empty or too long."""
        sent, first = asked.request, asked.completion
        cut = first.finish == "length"
        if cut:
            demand = f"Your answer was cut off after {sent.max_tokens} tokens. Answer again, as briefly as you can."
        else:
            demand = f"That answer cannot be used: {problem}. Answer again, with the corrected JSON object alone."
        if asked.mode == "json_schema":
            demand = f"{demand}\n{schema_in_words(schema)}"
        echo = first.text.strip()[:MAX_ECHO_CHARACTERS]
        conversations = [_with_words(sent.messages, demand)]
        if echo and not cut and sent.messages[-1:] and sent.messages[-1].role != "assistant":
            conversations.insert(0, (*sent.messages, Message("assistant", echo), Message("user", demand)))
        wanted = min(2 * sent.max_tokens, self.spec.max_output_tokens or 2**31) if cut else sent.max_tokens
        # Servers show the schema to the model.
        window = self.spec.context_window - self.count_tokens(json.dumps(sent.response_format or ""))
        for messages in conversations:
            again = replace(sent, messages=messages, max_tokens=wanted)
            room = window - count_prompt(self, again)
            if room >= wanted or not self.spec.context_window_known:
                return again
        if room < _MIN_ANSWER_TOKENS:
            raise InvalidOutputError(
                self.spec.name,
                f"its answer does not fit {schema.__name__} ({problem}), and its window has no room to ask again",
                "use shorter passages",
            )
        return replace(again, max_tokens=room)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request as it was sent, and the first answer to it."""

    request: FormattedRequest
    completion: Completion
    mode: StructuredMode


def _answered(completion: Completion, answer: BaseModel) -> Completion:
    return replace(completion, text=answer.model_dump_json(by_alias=True, round_trip=True), parsed=answer)


def _with_words(messages: tuple[Message, ...], words: str) -> tuple[Message, ...]:
    """`words` at the end of the last user message: what comes before it stays a prefix the server may have cached."""
    for i in range(len(messages) - 1, -1, -1):
        if messages[i].role == "user":
            said = Message("user", f"{messages[i].content}\n\n{words}")
            return (*messages[:i], said, *messages[i + 1 :])
    return (*messages, Message("user", words))
