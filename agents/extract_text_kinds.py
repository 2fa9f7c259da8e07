"""What kind of words a text field wants, told by its own words: a name, a place, a code. English.

A schema says "string"; whether that is a person, a file number or a sentence is in the field's title and description.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal

from lcdoc.agents.answer_types import AnswerType, answer_type
from lcdoc.agents.extract_fields import Field

TextKind = Literal["code"] | AnswerType
"""`code`: a number or word that names one thing, such as a file number, a telephone number, a ticker."""

_CODES = re.compile(
    r"\b(?:number|no\.?|id|identifier|code|reference|phone|telephone|fax|isin|iban|sku|serial|licen[cs]e|vat|ein|zip|postcode)\b",
    re.IGNORECASE,
)
_PERSONS = re.compile(
    r"""
    \b(?:names?|who|company|registrant|issuer|part(?:y|ies)|tenant|landlord|less(?:or|ee)|buyer|seller|vendor|purchaser|author
    |owner|employer|employee|customer|client|supplier|contractor|licens(?:or|ee)|director|president|ceo|cfo|officer|manager
    |signatory|publisher|borrower|lender|guarantor|insurer|insured|beneficiary|auditor|editor|inventor|patient|doctor)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_PLACES = re.compile(
    r"\b(?:state|country|city|town|place|jurisdiction|location|county|province|venue|region|governing\s+law)\b", re.I
)
_CODE = re.compile(
    r"""
    \+?\(?\d[\d()]*(?:[\s./-]{1,2}[\d()]+){2,}           # (310) 255-2000   +44 117 9753200
    | (?<![\w-])(?=[\w./-]*\d)[A-Z0-9][\w]*(?:[-./][\w]+)*(?![\w-])  # 1-15839  001-38932  DE123456789
    """,
    re.VERBOSE,
)
_LONGEST_CODE = 40


def text_kind(field: Field) -> TextKind:
    """The kind of words that fill a text field; `other` when nothing tells."""
    asked = answer_type(field.question)
    if field.description.rstrip().endswith("?") and asked != "other":
        return asked
    forms: Final[tuple[tuple[TextKind, re.Pattern[str]], ...]] = (
        ("code", _CODES),
        ("person", _PERSONS),
        ("place", _PLACES),
    )
    for text in (field.label, field.description):
        for kind, form in forms:
            if form.search(text):
                return kind
    return "other" if asked == "definition" else asked


def codes_in(text: str) -> Iterator[tuple[int, int]]:
    """Where codes stand in a text: words with digits, and numbers in groups."""
    for match in _CODE.finditer(text):
        if 1 < len(match[0]) <= _LONGEST_CODE:
            yield match.span()
