"""Whether a sentence has an answer of the wanted kind to offer: a name, a date, an amount, a reason.

Surface forms of English text, without regard to what the sentence is about.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lcdoc.agents.answer_types import MONTH, TIME_UNIT, AnswerType

_NUMBER_WORD: Final = (
    r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
    r"|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundreds?|thousands?|dozens?|millions?"
    r"|billions?|trillions?|half|twice|once|single|pair|couple|several|zero|none)"
)
_NUMBER: Final = rf"(?:(?<![\w.])\(?\d[\d,.]*\)?|\b{_NUMBER_WORD}\b)"


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE | re.VERBOSE)


_DAY: Final = rf"""
    \b(?:1[0-9]|20)\d\ds?\b | \b{MONTH}\.?\s\d{{1,2}}\b | \b\d{{1,2}}(?:st|nd|rd|th)?\s(?:of\s|day\sof\s)?{MONTH}\b
    | \b\d{{1,2}}(?:st|nd|rd|th)\scentury | \b\d{{1,2}}[/.-]\d{{1,2}}[/.-]\d{{2,4}}\b | \b\d+\s(?:bc|ad|bce|ce)\b
"""
_FORMS: Final[dict[AnswerType, re.Pattern[str]]] = {
    "date": _form(_DAY),
    "duration": _form(
        rf"{_NUMBER}(?:\s*\(\d+\))?[\s-]+(?:\w+\s+)?{TIME_UNIT}\b | \b(?:since|until|throughout|forever|perpetual)\b"
    ),
    "percent": _form(
        r"\d\s?% | \bper\s?cent\b | \bpercentage\b | \b(?:half|third|quarter|majority|tenths?|fifths?)\b | \d+/\d+"
    ),
    "money": _form(
        r"""
        [$€£¥]\s?\d | \d[\d,.]*\s?(?:million|billion|dollars|euros|pounds|cents|usd|eur)\b | \(?\d{1,3}(?:,\d{3})+\)?
        """
    ),
    "number": _form(_NUMBER),
    "reason": _form(
        r"""
        \b(?:because|since|due\sto|owing\sto|in\sorder\sto|so\sthat|so\sas\sto|as\sa\sresult|caused?\sby|therefore|thus
        |result(?:s|ed|ing)?\s(?:of|from|in)|hence|reasons?|purpose|led\sto|leads\sto|intended\sto|aim(?:s|ed)?\s(?:to|at)
        |to\s(?:avoid|prevent|ensure|protect|allow|help|make|reduce|increase|provide)|for\sfear|on\saccount\sof
        |thanks\sto|attributed\sto|based\son)\b
        """
    ),
    "manner": _form(
        r"\b(?:by|through|via|using|with|by\smeans\sof)\b(?:\s+(?:the|a|an))?\s+\w+ | \bfirst\b | \bthen\b"
    ),
    "definition": _form(
        r"""
        \b(?:is|are|was|were)\s(?:an?|the|any|one|those|defined|known|called|used)\b | \bmeans?\b | \brefers?\sto\b
        | \b(?:defined|known)\sas\b | \bcalled\b | \bstands?\sfor\b | \bdenotes?\b
        """
    ),
}
_VAGUE_DATE: Final = _form(
    rf"""
    \b(?:century|decade|today|yesterday|tomorrow|midnight|noon|monday|tuesday|wednesday|thursday|friday|saturday|sunday
    |spring|summer|autumn|winter|during|after|before|until|upon|{MONTH})\b
    """
)
_NAME: Final = re.compile(
    r"(?<!\w)[A-Z][\w'’.&-]*(?:\s+(?:(?:of|the|de|von|van|and|&|al|la|le|du|bin)\s+)?[A-Z][\w'’.&-]*)*"
)
_ROLE: Final = _form(
    r"""
    \b(?:king|queen|emperor|president|chair(?:man|woman|person)?|director|officer|ceo|cfo|minister|governor|bishop|pope
    |general|captain|duke|earl|count|prince(?:ss)?|professor|doctor|dr|mr|mrs|ms|sir|lady|author|founder|inventor
    |scientists?|engineers?|teachers?|students?|workers?|employees?|customers?|users?|people|men|women|children|players?
    |members?|judge|company|party|parties|licensee|licensor|contractor|buyer|seller)\b
    """
)
_PLACE: Final = re.compile(
    r"\b(?:in|at|from|to|near|on|into|of|throughout|across|outside|between|around)\s+(?:the\s+)?(?:[\w-]+\s+)?[A-Z]\w+"
)


@dataclass(frozen=True, slots=True)
class Offer:
    """How well a sentence fits, from 0 (it has nothing of the kind) to 1, and where the fitting words stand in it."""

    fits: float
    at: tuple[int, int] | None = None


def offer(kind: AnswerType, sentence: str, known: frozenset[str]) -> Offer:
    """What `sentence` offers to a question of type `kind`.

    `known` are the folded words and numbers of the question: what the question itself says, it does not ask for. For
    `other` every sentence fits half.
    """
    if kind == "other":
        return Offer(0.5)
    if kind == "person":
        return _names(sentence, known)
    if kind == "place":
        place = _first(_PLACE, sentence, known)
        return Offer(1.0, place) if place else Offer(0.6 * _names(sentence, known).fits)
    fitting = _first(_FORMS[kind], sentence, known)
    if fitting:
        return Offer(1.0, fitting)
    second_best = {"date": _VAGUE_DATE, "money": _FORMS["number"], "percent": _FORMS["number"]}.get(kind)
    weak = _first(second_best, sentence, known) if second_best else None
    return Offer(0.5, weak) if weak else Offer(0.0)


def _first(form: re.Pattern[str], sentence: str, known: frozenset[str]) -> tuple[int, int] | None:
    """The first match that says something the question does not."""
    for match in form.finditer(sentence):
        words = re.findall(r"\w+(?:[.,]\d+)*", match[0].casefold())
        if any(word.replace(",", "") not in known for word in words):
            return match.span()
    return None


def _names(sentence: str, known: frozenset[str]) -> Offer:
    """A name that is not in the question, else a role; a capital at the sentence's start is weak evidence of a name."""
    weak: tuple[int, int] | None = None
    for match in _NAME.finditer(sentence):
        words = [word for word in re.findall(r"\w+", match[0].casefold()) if len(word) > 1]
        if not words or all(word in known for word in words):
            continue
        if match.start() > 2 or len(words) > 1:
            return Offer(1.0, match.span())
        weak = weak or match.span()
    role = _first(_ROLE, sentence, known)
    return Offer(0.6, role) if role else Offer(0.4 if weak else 0.0, weak)
