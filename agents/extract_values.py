"""What a reader gives for a field, made a value of its kind, and held against the words it quotes.

A number, a date, a name has to stand in the quote, whatever way it is written there; whether something is so (a
boolean), or which of several it is (an enum), may follow from the quote without standing in it, and is worth less.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from threading import Lock
from typing import Final, Literal

from lcdoc.agents.extract_dates import date_of, dates_in, time_of, times_in, writes_day_first
from lcdoc.agents.extract_fields import Field, Kind, Scalar
from lcdoc.agents.extract_numbers import figures_in, number_of, plain_number, scale_wanted, writes_decimal_comma
from lcdoc.agents.folding import fold, fold_with_offsets
from lcdoc.agents.prompts.checks import is_refusal, unquoted_figures
from lcdoc.agents.quotes import display_text
from lcdoc.agents.stems import STOP_WORDS, stem, stems_of, tokens_of
from lcdoc.documents import Document

MAX_TEXT_CHARACTERS = 2_000
"""Of a value."""
INFERRED_CONFIDENCE = 3.0
"""The most that is given to a value that follows from its quote and does not stand in it."""
_SHORT_WORDS = 6
"""Texts of so many words have to stand in the quote with all of them."""
_LONG_SHARE = 0.6
"""Of longer ones, the share of words that has to; and every name and figure."""
_LARGEST = Decimal(10) ** 30
_YES: Final = frozenset({"true", "yes", "y", "ja", "oui", "sí", "si", "sì", "wahr", "vrai"})
_NO: Final = frozenset({"false", "no", "n", "nein", "non", "falsch", "faux"})
_IN_NUMBER = re.compile(r"\d[.,]\d")
_T = re.compile(r"(?<=\d)T(?=\d)")
_EMAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_URI = re.compile(r"(?:https?://|www\.)[^\s<>\"')\]]{3,500}", re.IGNORECASE)
_DENIALS = r"not|never|neither|nor|nicht|nie|niemals|keine?[mnrs]?|non|jamais|sans|without|ohne|cannot|\w+n['’]t"
_DENIAL = re.compile(rf"\b(?:{_DENIALS}|no)\b", re.IGNORECASE)
_DENYING = re.compile(rf"\b(?:{_DENIALS}|no)\s+(?:(?:be|been|being|yet)\s+)*$", re.IGNORECASE)
_NAME = re.compile(r"(?<!^)(?<![.!?:]\s)\b[A-Z][\w'’-]+")

Shown = Literal["stated", "inferred", "no"]


@dataclass(frozen=True, slots=True)
class Habits:
    """How a document writes numbers and dates; None: it does not show."""

    decimal_comma: bool | None = None
    day_first: bool | None = None


_HABITS_KEPT = 64
_habits: OrderedDict[str, Habits] = OrderedDict()
_habits_lock = Lock()


def habits_of(document: Document) -> Habits:
    """The habits of a document; those of the last few are kept."""
    with _habits_lock:
        known = _habits.get(document.id)
    if known is None:
        known = Habits(writes_decimal_comma(document.body), writes_day_first(document.body))
        with _habits_lock:
            _habits[document.id] = known
            while len(_habits) > _HABITS_KEPT:
                _habits.popitem(last=False)
    return known


def coerced(field: Field, said: str, habits: Habits = Habits()) -> Scalar | None:
    """`said` as a value of the field; None where it is none of its kind, or does not keep to its bounds."""
    said = " ".join(said.split())
    if not said or is_refusal(said):
        return None
    value = _one_of(field, said, habits) if field.enum else _of_kind(field, said, habits)
    return value if value is not None and (field.enum or field.bounds.admit(value)) else None


def _of_kind(field: Field, said: str, habits: Habits) -> Scalar | None:
    return _COERCED[field.kind](field, said, habits)


def _text(_field: Field, said: str, _habits: Habits) -> str | None:
    return said if len(said) <= MAX_TEXT_CHARACTERS else None


def _boolean(_field: Field, said: str, _habits: Habits) -> bool | None:
    word = said.casefold().strip(" .!")
    return True if word in _YES else False if word in _NO else None


def _date(_field: Field, said: str, habits: Habits) -> str | None:
    day = date_of(said, day_first=habits.day_first)
    return day.isoformat() if day else None


def _time(_field: Field, said: str, _habits: Habits) -> str | None:
    clock = time_of(said)
    return clock.isoformat() if clock else None


def _date_time(field: Field, said: str, habits: Habits) -> str | None:
    day, clock = _date(field, said, habits), _time(field, _T.sub(" ", said), habits)
    return f"{day}T{clock}" if day and clock else None


def _email(_field: Field, said: str, _habits: Habits) -> str | None:
    match = _EMAIL.search(said)
    return match[0] if match else None


def _uri(_field: Field, said: str, _habits: Habits) -> str | None:
    match = _URI.search(said)
    return match[0].rstrip(".,;:") if match else None


def _number(field: Field, said: str, habits: Habits) -> int | float | None:
    in_scale = scale_wanted(f"{field.label} {field.description}")
    number = number_of(said, decimal_comma=habits.decimal_comma, in_scale=in_scale)
    if number is None or abs(number) > _LARGEST:
        return None
    value = plain_number(number)
    return None if field.kind == "integer" and not isinstance(value, int) else value


_COERCED: Final[dict[Kind, Callable[[Field, str, Habits], Scalar | None]]] = {
    "text": _text,
    "number": _number,
    "integer": _number,
    "boolean": _boolean,
    "date": _date,
    "time": _time,
    "date-time": _date_time,
    "email": _email,
    "uri": _uri,
}


def _one_of(field: Field, said: str, habits: Habits) -> Scalar | None:
    """The value of the enum that is meant: the same but for case and marks, or the same number."""
    folded = fold(said)
    for one in field.enum:
        if folded == fold(str(one)):
            return one
    if field.kind in ("number", "integer"):
        number = number_of(said, decimal_comma=habits.decimal_comma)
        return next((one for one in field.enum if number is not None and number == Decimal(str(one))), None)
    return None


def shown_by(field: Field, value: Scalar, quoted: str, habits: Habits = Habits()) -> Shown:
    """Whether the words of its quotes have the value: stated there, at most to be inferred from them, or not at all."""
    if field.enum or field.kind == "boolean":
        stated = not isinstance(value, bool) and _has_words(str(value), quoted)
        return "stated" if stated else "inferred"
    return "stated" if _stands(field, value, quoted, habits) else "no"


def _stands(field: Field, value: Scalar, quoted: str, habits: Habits) -> bool:
    if field.kind in ("number", "integer"):
        figures = figures_in(quoted, decimal_comma=habits.decimal_comma)
        in_scale = scale_wanted(f"{field.label} {field.description}")
        return any(figure.is_of(Decimal(str(value)), in_scale) for figure in figures)
    text = str(value)
    if field.kind in ("date", "time", "date-time"):
        days = {day.isoformat() for at in dates_in(quoted) for day in at.days}
        clocks = {clock.isoformat() for _, _, clock in times_in(quoted)}
        day, _, clock = text.partition("T")
        return day in (clocks if field.kind == "time" else days) and (not clock or clock in clocks)
    return bool(_places(text, quoted)) if field.kind in ("email", "uri") else _has_words(text, quoted)


def emails_in(text: str) -> list[tuple[int, int]]:
    """Where e-mail addresses stand in a text."""
    return [match.span() for match in _EMAIL.finditer(text)]


def uris_in(text: str) -> list[tuple[int, int]]:
    """Where web addresses stand in a text."""
    return [match.span() for match in _URI.finditer(text)]


def as_it_stands(value: str, quoted: str) -> str:
    """A text as the quote writes it, where it stands there but for case and marks; else as it was given."""
    start, end = next(iter(_places(value, quoted)), (0, 0))
    return display_text(quoted[start:end]) if end else value


def _places(value: str, quoted: str) -> list[tuple[int, int]]:
    """Where a text stands in a quote but for case, spaces and marks: as whole words, not in the middle of others."""
    folded, source = fold(value), fold_with_offsets(quoted)
    found = re.finditer(re.escape(folded), source.text) if folded else ()
    spans = [source.source_span(match.start(), match.end()) for match in found]
    return [(start, end) for start, end in spans if not (_goes_on(quoted, start) or _goes_on(quoted, end))]


def _goes_on(text: str, at: int) -> bool:
    """Whether a word or number goes on over this place. Scripts that put nothing between words have no such places."""
    before, after = text[max(0, at - 1) : at], text[at : at + 1]
    if _IN_NUMBER.match(text, max(0, at - 1)) or (at > 1 and _IN_NUMBER.match(text, at - 2)):
        return True
    return all(one.isdigit() or one.lower() != one.upper() for one in (before, after))


def is_denied(text: str, at: int) -> bool:
    """Whether what begins at `at` is denied by the words before it: "is not", "shall never be"."""
    found = _DENYING.search(text[max(0, at - 40) : at])
    # "No 12 High Street"
    return found is not None and not (found[0].lower().startswith("no ") and text[at : at + 1].isdigit())


def _has_words(value: str, quoted: str) -> bool:
    if places := _places(value, quoted):
        # "permitted" does not stand in "not permitted".
        return not all(is_denied(quoted, start) for start, _ in places)
    words = [stem(token) for token in tokens_of(value) if token not in STOP_WORDS] or tokens_of(value)
    known = {*stems_of(quoted), *map(stem, tokens_of(quoted))}
    if not words or unquoted_figures(value, [quoted]) or _denies_otherwise(value, words, quoted):
        return False
    if len(words) <= _SHORT_WORDS:
        return all(word in known for word in words)
    names = {s for name in _NAME.findall(value) for s in stems_of(name)}
    return names <= known and sum(word in known for word in words) >= _LONG_SHARE * len(words)


def _denies_otherwise(value: str, words: Sequence[str], quoted: str) -> bool:
    """Whether a value in other words than its quote denies what the quote says, or says what it denies."""
    if _DENIAL.search(value):
        return not _DENIAL.search(quoted)
    about = [match for match in re.finditer(r"[\w'’-]+", quoted) if {*map(stem, tokens_of(match[0]))} & set(words)]
    return bool(about) and any(is_denied(quoted, match.start()) for match in about)


def same_value(field: Field, one: Scalar, other: Scalar) -> bool:
    """Whether two values say the same: of texts, the same words, or one the other with more said."""
    if not isinstance(one, str) or not isinstance(other, str) or field.kind != "text" or field.enum:
        return one == other
    words, others = set(_words(one)), set(_words(other))
    return bool(words and others) and (words <= others or others <= words)


def _words(text: str) -> list[str]:
    return stems_of(text) or tokens_of(text) or [fold(text)]
