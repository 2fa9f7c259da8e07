"""A language model's answer read as an instance of a pydantic model, however it is dressed up.

Models put JSON between fences, after thinking, into prose, into a string or a function call; they draft it, correct it,
and break it. Read is what leaves no doubt; an answer that would have to be guessed at is refused with a problem the
model can be told.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

from lcdoc.agents.models.answer_fitting import Fitted, MisfitError, fit, fit_list, known_keys
from lcdoc.agents.models.json_repairs import repaired
from lcdoc.agents.models.lenient_json import BrokenJSONError, decode, decode_string, storable
from lcdoc.agents.models.model import Finish, Parsed
from lcdoc.agents.models.thinking import THINKING_TAG, closing_tag, split_thinking

MAX_ANSWER_CHARACTERS = 500_000
_MAX_OBJECTS = 200
_REREADING = 40
"""How often a text is gone through at most in search of a beginning."""
_ATTEMPT = 200
"""What an attempt costs by itself, in characters gone through."""

_START = re.compile(rf"[{{\[]|{THINKING_TAG.pattern}", re.IGNORECASE)
_BRACKETS = re.compile(r'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[{}\[\]]', re.DOTALL)
_BETWEEN = re.compile(r"[\s,;]*")
_QUOTED_WHOLE = re.compile(r"\s*+(?:```\w*+\s*+)?+(?=\")")
_AFTER_WHOLE = re.compile(r"\s*+(?:```\s*+)?+")
_GOES_ON = re.compile(r"\s*+[,:\]}\"']")
_KEY_WITHIN = re.compile(r"(?<![\w-])([\w-]++)[\"'”’]?\s*+:")
_BEFORE_LIST = re.compile(r"(?:\A|[:\n>]|```\w*+)[ \t]*\Z")
_AFTER_LIST = re.compile(r"[ \t.]*+(?:\n|```|<|\Z)")


class AnswerError(ValueError):
    """The text holds no answer of the shape wanted. The message is one line, fit to be told to the model."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """JSON found in the text: a value, or what was meant to be one (`broken`)."""

    start: int
    end: int
    value: Any = None
    closed: bool = True
    broken: str = ""
    problem: str = ""

    @property
    def is_object(self) -> bool:
        return isinstance(self.value, dict) or self.broken.startswith("{")


def parse_answer(text: str, schema: type[Parsed], *, finish: Finish = "stop") -> Parsed:
    """The instance of `schema` that `text` holds. Raises AnswerError.

    Of several that differ, the one that names most fields is taken, and of these the last: models draft before they
    answer, and correct themselves after. Several in a row with nothing between them are several answers, and refused.
    Brackets left open and punctuation that is broken are mended only where the model itself ended (`finish` is
    `stop`): of an answer that was cut, half a list would look whole.
    """
    if len(text) > MAX_ANSWER_CHARACTERS:
        raise AnswerError(f"the answer is longer than {MAX_ANSWER_CHARACTERS:,} characters")
    text = storable(text)
    if not text.strip():
        raise AnswerError("the answer is empty")
    for view in _views(text):
        pieces = _pieces(view)
        if any(piece.is_object for piece in pieces):
            return _checked(_from_objects(view, pieces, schema, finish), schema)
        lists = _lone_lists(view, pieces)
        if len(lists) == 1:
            return _checked(_from_list(lists[0], schema), schema)
    if not split_thinking(text)[1].strip():
        raise AnswerError("there is only thinking, and no answer")
    raise AnswerError("the answer was cut off" if finish == "length" else "the answer holds no JSON object")


def _checked(answer: BaseModel, schema: type[Parsed]) -> Parsed:
    if not isinstance(answer, schema):
        raise TypeError(f"{schema.__name__} was made into {type(answer).__name__}")
    return answer


def is_json(text: str) -> bool:
    """Whether `text` as a whole is one JSON object, as it comes from a server that enforces a schema."""
    bare = text.strip()
    if not bare.startswith("{"):
        return False
    try:
        decoded = decode(bare)
    except BrokenJSONError:
        return False
    return decoded.closed and decoded.end == len(bare)


def _views(text: str) -> Iterator[str]:
    """The text; then the JSON inside it, where it is one string of JSON or escaped as if it were."""
    yield text
    if whole := _QUOTED_WHOLE.match(text):
        try:
            string = decode_string(text, whole.end())
        except BrokenJSONError:
            pass
        else:
            rest = _AFTER_WHOLE.match(text, string.end)
            if rest and rest.end() == len(text):
                yield string.value
    if re.search(r'[{\[]\s*\\"', text):
        yield re.sub(r'\\(["\\])', r"\1", text.replace("\\n", "\n"))


def _pieces(text: str) -> list[_Piece]:
    """JSON values in the text, outside of thinking, in their order; each begins after the one before it ends."""
    found: list[_Piece] = []
    tags = [tag.start() for tag in THINKING_TAG.finditer(text)]
    at = 0
    characters = _REREADING * max(len(text), 2_000)
    while characters > 0 and (start := _START.search(text, at)):
        if start["opening"]:
            closing = closing_tag(start["opening"]).search(text, start.end())
            at = closing.end() if closing else len(text)
            continue
        if start["closing"]:
            # The template had opened the thinking: all so far was none of the answer.
            found.clear()
            at = start.end()
            continue
        try:
            decoded = decode(text, start.start())
        except BrokenJSONError as error:
            characters -= error.position - start.start() + _ATTEMPT
            at = start.end()
            if error.began:
                following = bisect_right(tags, start.start())
                at = _broken_end(text, start.start(), tags[following] if following < len(tags) else len(text))
                # Brackets that quotes out of step have hidden: what was cut out is not the whole.
                closed = _GOES_ON.match(text, at) is None
                found.append(_Piece(start.start(), at, None, closed, text[start.start() : at], str(error)))
        else:
            at = decoded.end
            found.append(_Piece(start.start(), at, decoded.value, decoded.closed))
    if characters <= 0:
        raise AnswerError("there are too many brackets that open nothing")
    return found


def _broken_end(text: str, start: int, limit: int) -> int:
    """Where broken JSON ends: at the bracket that matches its first, or at `limit`."""
    depth = 0
    for bracket in _BRACKETS.finditer(text, start, limit):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(bracket[0], 0)
        if depth <= 0:
            return bracket.end()
    return limit


def _from_objects(text: str, pieces: list[_Piece], schema: type[BaseModel], finish: Finish) -> BaseModel:
    objects = [piece for piece in pieces if piece.is_object]
    if len(objects) > _MAX_OBJECTS:
        raise AnswerError(f"there are {len(objects)} JSON objects; one is wanted")
    fitted: list[tuple[_Piece, Fitted]] = []
    failed: list[tuple[_Piece, MisfitError]] = []
    for piece in objects:
        try:
            fitted.append((piece, _read(piece, schema, finish)))
        except MisfitError as error:
            failed.append((piece, error))
    if not fitted:
        raise AnswerError(str(max(failed, key=lambda each: (each[1].known_keys, each[0].start))[1]))
    best, answer = max(fitted, key=lambda each: (each[1].named, each[0].start))
    for piece, misfit in failed:
        last_word = piece.start > best.start and misfit.known_keys >= (1 if finish == "length" else answer.named)
        if last_word or (piece.broken and misfit.known_keys > answer.named):
            raise AnswerError(str(misfit))
    for (one, first), (other, second) in pairwise(fitted):
        between = _BETWEEN.fullmatch(text, one.end, other.start)
        if best in (one, other) and between and first.answer != second.answer:
            raise AnswerError("there are several JSON objects; one is wanted")
    return answer.answer


def _read(piece: _Piece, schema: type[BaseModel], finish: Finish) -> Fitted:
    if piece.broken:
        known = _keys_within(piece.broken, schema)
        # What ends without its bracket may have been cut inside a string.
        whole = finish == "stop" and known > 0 and piece.closed and piece.broken.endswith("}")
        value = repaired(piece.broken) if whole else None
        if value is None:
            raise MisfitError(_cut(finish) or f"the JSON is broken: {piece.problem}", known_keys=known)
        return fit(value, schema)
    answer = fit(piece.value, schema)
    if not piece.closed and (finish != "stop" or answer.named < len(schema.model_fields)):
        raise MisfitError(_cut(finish) or "the JSON ends before its last bracket", known_keys=answer.named)
    return answer


def _cut(finish: Finish) -> str:
    return "the answer was cut off before the JSON was complete" if finish == "length" else ""


def _keys_within(broken: str, schema: type[BaseModel]) -> int:
    return known_keys(dict.fromkeys(_KEY_WITHIN.findall(broken)), schema)


def _lone_lists(text: str, pieces: list[_Piece]) -> list[_Piece]:
    """Complete lists, of objects or by themselves on their lines: `[1]` in a sentence is a reference."""

    def stands_alone(piece: _Piece) -> bool:
        before = text[max(0, piece.start - 80) : piece.start]
        return bool(_BEFORE_LIST.search(before) and _AFTER_LIST.match(text, piece.end))

    lists = [piece for piece in pieces if isinstance(piece.value, list) and piece.closed]
    return [piece for piece in lists if any(isinstance(each, dict) for each in piece.value) or stands_alone(piece)]


def _from_list(piece: _Piece, schema: type[BaseModel]) -> BaseModel:
    try:
        return fit_list(piece.value, schema).answer
    except MisfitError as error:
        raise AnswerError(str(error)) from error
