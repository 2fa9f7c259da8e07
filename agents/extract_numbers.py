"""Numbers as documents write them: what each may mean, and which of its meanings is taken.

`1.250` is 1250 in one country and 1.25 in another. Every reading that is possible is kept, so that a value can be held
against its quote; which one is meant is told by how the document writes its other numbers.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

MOST_FIGURES = 2_000
"""Numbers looked at in one text."""
_MOST_DIGITS = 40
_SPACES = "\u00a0\u2009\u202f "
_FIGURE = re.compile(
    rf"(?<![\w.,])(?P<sign>[-−–](?=[\s$€£¥]{{0,2}}\d)|\((?=[\s$€£¥A-Z]{{0,5}}\d[\d.,'’{_SPACES}]*\s?%?\)))?"
    r"(?P<before>(?:[$€£¥₹]|(?:USD|EUR|GBP|CHF|US\$|Rs\.?)\s?|[A-Z]{0,3}\$)?\s?\(?)"
    rf"(?P<digits>\d{{1,3}}(?:[{_SPACES}]\d{{3}})+(?![\d])(?:[.,]\d+)?|\d+(?:[.,'’]\d+)*)"
    r"(?P<after>\s?%|\s?(?:per\s?cent|percent|Prozent)\b)?"
)
_SCALES: Final = {
    "hundred": 2,
    "thousand": 3,
    "thousands": 3,
    "tausend": 3,
    "k": 3,
    "million": 6,
    "millions": 6,
    "millionen": 6,
    "mio": 6,
    "mn": 6,
    "mm": 6,
    "m": 6,
    "billion": 9,
    "billions": 9,
    "milliarden": 9,
    "milliarde": 9,
    "milliards": 9,
    "mrd": 9,
    "bn": 9,
    "b": 9,
    "trillion": 12,
    "trillions": 12,
}
_SCALE = re.compile(rf"[{_SPACES}\n-]?({'|'.join(sorted(_SCALES, key=len, reverse=True))})(?![\w])\.?", re.IGNORECASE)
_ONLY_OF_MONEY = frozenset({"m", "mm", "b"})
"""Metres, millimetres and bytes otherwise."""
_CURRENCY = r"(?:USD|US\$|\$|EUR|€|GBP|£|CHF|euros?|dollars?)"
_IN_SCALE = re.compile(
    r"\b(thousands|millions|billions|millionen|milliarden|mio|mrd)\b"
    rf"|\bin\s+(?:{_CURRENCY}\s?)?(thousand|million|billion)\b|{_CURRENCY}\s?(mn|bn|m|k)\b",
    re.IGNORECASE,
)
"""That a field is wanted in millions."""

_ONES = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen
"""
_TENS = """
twenty thirty forty fifty sixty seventy eighty ninety
"""
_WORD_VALUES: Final = {word: value for value, word in enumerate(_ONES.split())} | {
    word: 20 + 10 * index for index, word in enumerate(_TENS.split())
}
_MULTIPLIERS: Final = {"hundred": 100, "thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_NAMED = "|".join([*_WORD_VALUES, *_MULTIPLIERS])
_WORDS = re.compile(rf"\b(?:a\s+)?(?:{_NAMED})(?:[\s-]+(?:and\s+)?(?:{_NAMED}))*\b", re.IGNORECASE)
_AND_A_PART = re.compile(r"\s+and\s+a\s+(half|quarter)\b", re.IGNORECASE)
_PARTS: Final = {"half": Decimal("0.5"), "quarter": Decimal("0.25")}
_FRACTION = re.compile(r"\s?([¼½¾⅛⅜⅝⅞])")
_MINUS = re.compile(r"\bminus\s+$", re.IGNORECASE)
_FROM = re.compile(r"\d[\s%$€£¥]*(?:[^\W\d]{1,9}\.?\s*)?$")
"""What stands before the dash of a range."""
_ENDS_IN_NUMBER = re.compile(rf"\b(?:{_NAMED})\s+$", re.IGNORECASE)

_COMMA_DECIMAL = re.compile(r"(?<![\d.,])(?:\d{1,3}(?:\.\d{3})+,\d{1,2}|\d+,\d{1,2})(?![\d.,])")
_POINT_DECIMAL = re.compile(r"(?<![\d.,])(?:\d{1,3}(?:,\d{3})+\.\d{1,2}|\d+\.\d{1,2}(?=[^\d.,]))(?![\d,])")


@dataclass(frozen=True, slots=True)
class Figure:
    """A number in a text: where it stands, and what it may mean, the likeliest first."""

    start: int
    end: int
    values: tuple[Decimal, ...]
    """Scaled by a word behind it: 1.5 million is 1500000."""
    scale: int = 0
    """Powers of ten of that word; 0 without one."""
    percent: bool = False
    money: bool = False

    @property
    def value(self) -> Decimal:
        return self.values[0]

    def is_of(self, value: Decimal, in_scale: int) -> bool:
        """Whether it may be `value`, which is in units of ten to the power of `in_scale` where a word says such."""
        return (value.scaleb(in_scale) if self.scale else value) in self.values


def figures_in(text: str, *, decimal_comma: bool | None = None) -> list[Figure]:
    """The numbers of a text in order, in figures and in English words.

    `decimal_comma` is how its document writes numbers, where that is known: see `writes_decimal_comma`.
    """
    found: list[Figure] = []
    for match in _FIGURE.finditer(text):
        if len(found) >= MOST_FIGURES:
            break
        values = _values(match["digits"], decimal_comma)
        if not values:
            continue
        money = bool(match["before"].strip(" ("))
        fraction = _FRACTION.match(text, match.end("digits"))
        if fraction:
            values = tuple(value + Decimal(str(unicodedata.numeric(fraction[1]))) for value in values)
        stop = max(match.end(), fraction.end() if fraction else 0)
        scaled = None if match["after"] else _SCALE.match(text, stop)
        if scaled and scaled[1].lower() in _ONLY_OF_MONEY and not money:
            scaled = None
        scale = _SCALES[scaled[1].lower()] if scaled else 0
        values = tuple(value.scaleb(scale) for value in values)
        minus: re.Match[str] | None = None
        before = text[max(0, match.start() - 16) : match.start()]
        negative = tuple(-value for value in values)
        if not match["sign"]:
            minus = _MINUS.search(before)
            values = negative if minus else values
        elif match["sign"] != "(" and text[match.start() + 1].isspace() and _FROM.search(before):
            # "10 - 20 days"; a column of its own may be negative all the same.
            values = (*values, *negative)
        else:
            # "within thirty (30) days" says it twice; a bracket in running text need be no sign.
            repeated = match["sign"] == "(" and _ENDS_IN_NUMBER.search(before)
            values = values if repeated else (*negative, *values) if match["sign"] == "(" else negative
        start = match.start() if match["sign"] else match.start("digits")
        start -= len(before) - minus.start() if minus else 0
        end = scaled.end() if scaled else stop
        found.append(Figure(start, end, values, scale, bool(match["after"]), money))
    for match in _WORDS.finditer(text):
        value = _worded(match[0])
        # "1.5 million" has been read as one number, and the "hundred" of "a hundred" is none by itself.
        if value is not None and not any(one.start < match.end() and match.start() < one.end for one in found):
            part = _AND_A_PART.match(text, match.end())
            value += _PARTS[part[1].lower()] if part else 0
            found.append(Figure(match.start(), part.end() if part else match.end(), (value,)))
    return sorted(found, key=lambda one: one.start)


def number_of(said: str, *, decimal_comma: bool | None = None, in_scale: int = 0) -> Decimal | None:
    """The one number that `said` is, in units of ten to the power of `in_scale`; None where it is none, or several.

    A range or a sum is no number.
    """
    figures = figures_in(said, decimal_comma=decimal_comma)
    if len({figure.value for figure in figures}) != 1:
        return None
    figure = figures[0]
    return figure.value.scaleb(-in_scale) if figure.scale else figure.value


def scale_wanted(text: str) -> int:
    """The power of ten that a field's words want its value in: 6 for "revenue in USD millions"; 0 where none."""
    match = _IN_SCALE.search(text)
    return _SCALES[match[match.lastindex or 1].lower()] if match else 0


def writes_decimal_comma(text: str) -> bool | None:
    """Whether a text writes 1,5 for one and a half; None where it does not show."""
    commas = sum(1 for _ in zip(_COMMA_DECIMAL.finditer(text), range(MOST_FIGURES), strict=False))
    points = sum(1 for _ in zip(_POINT_DECIMAL.finditer(text), range(MOST_FIGURES), strict=False))
    if commas == points:
        return None
    return commas > points


def plain_number(value: Decimal) -> int | float:
    """The number as JSON has it."""
    return int(value) if value == value.to_integral_value() else float(value)


def _values(digits: str, decimal_comma: bool | None) -> tuple[Decimal, ...]:
    """What figures may mean, the likeliest first."""
    if sum(map(str.isdigit, digits)) > _MOST_DIGITS:
        return ()
    bare = re.sub(rf"[{_SPACES}'’]", "", digits)
    points, commas = bare.count("."), bare.count(",")
    readings: list[str] = []
    if points and commas:
        # What comes last parts the decimals; the other parts thousands.
        last, other = (".", ",") if bare.rfind(".") > bare.rfind(",") else (",", ".")
        if bare.count(last) == 1:
            readings = [bare.replace(other, "").replace(last, ".")]
    elif points > 1 or commas > 1:
        mark = "." if points else ","
        groups = bare.split(mark)
        if all(len(group) in (2, 3) for group in groups[1:]) and len(groups[-1]) == 3:
            readings = [bare.replace(mark, "")]
    elif points or commas:
        mark = "." if points else ","
        whole, _, rest = bare.partition(mark)
        as_decimal, as_thousands = f"{whole}.{rest}", whole + rest
        if len(rest) != 3 or len(whole) > 3 or whole.startswith("0"):
            readings = [as_decimal]
        else:
            comma = False if decimal_comma is None else decimal_comma
            decimal_first = comma if mark == "," else not comma
            readings = [as_decimal, as_thousands] if decimal_first else [as_thousands, as_decimal]
    else:
        readings = [bare]
    try:
        return tuple(dict.fromkeys(Decimal(reading) for reading in readings))
    except InvalidOperation:
        return ()


def _worded(words: str) -> Decimal | None:
    """The value of a number in English words; None for what is none."""
    total = current = 0
    said = [word for word in re.split(r"[\s-]+", words.lower()) if word not in ("a", "and")]
    if all(word in _MULTIPLIERS for word in said) and not words.lower().startswith("a "):
        return None
    for word in said:
        if word in _WORD_VALUES:
            current += _WORD_VALUES[word]
        elif word == "hundred":
            current = max(1, current) * 100
        else:
            total += max(1, current) * _MULTIPLIERS[word]
            current = 0
    return Decimal(total + current)
