"""What a model wrote, looked at before it is believed: refusals are no claims, figures must stand in the quotes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from lcdoc.agents.prompts.fence import restored

_LONGEST_REFUSAL = 160
_SUBJECT = (
    r"(?:the\ |this\ |these\ )?(?:given\ |provided\ )?"
    r"(?:passages?|texts?|documents?|contexts?|evidence|notes?|excerpts?|it|they)"
)
_VERB = r"(?:mention|say|state|contain|provide|specify|include|give|address|answer|discuss)"
_INFORMATION = r"(?:any\ |enough\ |sufficient\ |the\ )?(?:relevant\ |such\ |necessary\ )?information"
_ABOUT_IT = r"\ (?:about|on|to\ answer|regarding)\ (?:this|it|that|(?:the|this)\ question)"
_OBJECT = (
    r"(?:this|that|it|so|(?:the|this|that)\ (?:answer|question|information)|(?:an|any)\ answer"
    rf"|(?:anything|{_INFORMATION})(?:{_ABOUT_IT})?)"
)
_REFUSALS = re.compile(
    rf"""
      (?:it\ is\ |this\ is\ |that\ is\ |the\ answer\ is\ |information\ )?
      (?:not|un)\s?-?(?:mentioned|found|stated|specified|provided|given|known|available|answered|answerable|clear|applicable)
      (?:\ (?:in|by)\ {_SUBJECT})?
    | (?:there\ is\ )?no\ (?:relevant\ |such\ |further\ )?(?:information|answer|evidence|mention|data)
      (?:\ (?:was\ |is\ )?(?:found|given|provided|available))?(?:\ (?:in|by)\ {_SUBJECT})?
    | {_SUBJECT}\ (?:does|do|did)(?:\ not|n't)\ {_VERB}(?:\ {_OBJECT})?
    | i\ (?:don't|do\ not)\ know | i\ (?:cannot|can't)\ (?:tell|say|answer(?:\ (?:this|the)\ question)?)
    | none|nothing|n/?a|null|-+
    | nicht\ (?:erwähnt|angegeben|gefunden|bekannt)|keine\ (?:angaben?|informationen?|antwort)|unbekannt
    | (?:non|pas)\ (?:mentionnée?|précisée?|indiquée?|trouvée?)|aucune\ information
    | no\ (?:se\ )?(?:menciona|mencionado|especificado|encontrado|indica)|sin\ información
    """,
    re.VERBOSE,
)

_FIGURE = re.compile(r"\d+(?:[.,’'\u00a0\u2009\u202f ]\d{3})+(?![\d])(?:[.,]\d+)?|\d+(?:[.,]\d+)?")
_UNITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBER_WORDS = {
    **{word: str(10 + index) for index, word in enumerate(_TEENS)},
    **{word: str(20 + 10 * index) for index, word in enumerate(_TENS)},
    **{
        f"{ten}-{unit}": str(20 + 10 * tens + units)
        for tens, ten in enumerate(_TENS)
        for units, unit in enumerate(_UNITS, 1)
    },
}
_NUMBER_WORD = re.compile(r"[a-z]+(?:[-\u2010\u2011][a-z]+)?")


def plain(text: str) -> str:
    """`text` of a model on one line."""
    return " ".join(restored(text).split())


def is_refusal(claim: str) -> bool:
    """Whether the whole of `claim` says only that there is nothing to say; a sentence about something is none."""
    bare = " ".join(claim.casefold().replace("’", "'").split()).strip(" .!?\"'[](){}*_:;")
    return len(bare) <= _LONGEST_REFUSAL and _REFUSALS.fullmatch(bare) is not None


def unquoted_figures(claim: str, sources: Iterable[str]) -> tuple[str, ...]:
    """Numbers of two digits or more in `claim` that none of `sources` (quotes, the question) has, as they stand.

    Thousands separators, decimal commas and leading or trailing zeros make no difference, nor does an English number
    word below 100.
    """
    known: set[str] = set()
    for source in sources:
        for match in _FIGURE.finditer(source):
            known |= _values(match[0])
        known |= {_NUMBER_WORDS[word] for word in _words(source) if word in _NUMBER_WORDS}
    found = (match[0] for match in _FIGURE.finditer(claim))
    return tuple(dict.fromkeys(f for f in found if sum(map(str.isdigit, f)) > 1 and not _values(f) & known))


def _words(text: str) -> list[str]:
    words = [word.replace("\u2010", "-").replace("\u2011", "-") for word in _NUMBER_WORD.findall(text.casefold())]
    return words + [part for word in words if "-" in word and word not in _NUMBER_WORDS for part in word.split("-")]


def _values(figure: str) -> set[str]:
    """What `figure` may mean: `1.250` is 1250 in one country and 1.25 in another, `12 345` one number or two."""
    digits = re.sub(r"\D", "", figure)
    values = {_bare(re.sub(r"[,’'\u00a0\u2009\u202f ]", "", figure)), _bare(figure.replace(",", "."))}
    if re.fullmatch(r"\d+(?:\D\d{3})+", figure):
        values.add(digits.lstrip("0") or "0")
        if " " in figure:
            values |= {_bare(part) for part in figure.split(" ")}
    return values


def _bare(number: str) -> str:
    number = number.lstrip("0") or "0"
    return number.rstrip("0").rstrip(".") if "." in number else number
