"""Running headers and footers of plain text with form feeds (RFCs, printed listings)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from lcdoc.documents.document import MarkKind

_MIN_PAGES: Final = 3
_LONGEST: Final = 120
_NUMBER: Final = re.compile(r"\d+|\b[ivxlc]+\b", re.IGNORECASE)

Paragraph = tuple[list[str], int]
"""Lines, and the number of blank lines before them."""


def running_paragraphs(pages: Sequence[Sequence[Paragraph]]) -> list[dict[int, MarkKind]]:
    """For each page, which of its paragraphs are a header or footer: single lines at its edge that recur elsewhere.

    A line recurs when it is the same but for its numbers.
    """
    found: list[dict[int, MarkKind]] = [{} for _ in pages]
    kinds: tuple[tuple[MarkKind, int], ...] = (("header", 0), ("footer", -1))
    for kind, edge in kinds:
        patterns = [_pattern(page, edge) for page in pages]
        times = Counter(pattern for pattern in patterns if pattern)
        for marked, page, pattern in zip(found, pages, patterns, strict=True):
            if pattern and times[pattern] >= _MIN_PAGES:
                marked[edge % len(page)] = kind
    return found


def _pattern(page: Sequence[Paragraph], edge: int) -> str:
    if len(page) < 2 or len(page[edge][0]) > 1:
        return ""
    line = page[edge][0][0]
    return " ".join(_NUMBER.sub("#", line.lower()).split()) if len(line) <= _LONGEST else ""
