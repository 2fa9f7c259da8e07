"""Questions that want a number, and passages that have some to offer.

A question for a ratio or a total seldom shares a word with the table that answers it; the table's digits are the cue.
English words and the signs of percent and currencies; other questions are not touched.
"""

from __future__ import annotations

import re
from typing import Final

_WANTS_NUMBER: Final = re.compile(
    r"\bhow (?:many|much|long|old|far|tall|high|large|big|fast|often|deep|wide|heavy)\b"
    r"|\b(?:ratio|margin|average|percent\w*|amount|rate|total|sum)\b|[%$€£¥]",
    re.IGNORECASE,
)
_FULL_SHARE: Final = 0.1
"""Share of digits among a passage's characters from which it counts as made of numbers; prose of dates has half."""
_NOT_DIGITS: Final = bytes(sorted(set(range(256)) - set(b"0123456789")))


def wants_number(question: str) -> bool:
    """Whether the question asks for an amount, a ratio, a duration or the like."""
    return _WANTS_NUMBER.search(question) is not None


def numeracy(text: str) -> float:
    """How much of `text` is numbers: 0 for none, 1 for a table of figures."""
    digits = len(text.encode("utf-8", "replace").translate(None, _NOT_DIGITS))
    return min(1.0, digits / (_FULL_SHARE * max(1, len(text))))
