"""Lines of a PDF page with just enough geometry to tell paragraphs, headings and running headers apart.

pdfium gives a page's text in one call, which is fast; a box for each character would cost more than the text. Two
characters of each line, the first and the last, are enough here.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from typing import Any

# What pdfium puts where a word is broken by a hyphen at a line end; the line end itself is swallowed.
HYPHEN_BREAK = "\ufffe"
_BLANK = "".join(map(chr, range(0x21))) + f"\u00a0\u00ad{HYPHEN_BREAK}"
# Codes of glyphs whose font does not say which letters they are.
_UNMAPPED = re.compile(r"[\x01-\x08\x0b\x0e-\x1f\ue000-\uf8ff\ufffd]")
_PIECE = re.compile(f"[^\r\n\f{HYPHEN_BREAK}]+(?:{HYPHEN_BREAK}|)|{HYPHEN_BREAK}")


@dataclass(slots=True)
class Line:
    """One line of a page as pdfium found it. Lengths in points, `y` upwards from the page's lower edge.

    `broken` says that the line ends inside a word whose hyphen has been removed from `text`.
    """

    text: str
    broken: bool
    x0: float
    y: float
    x1: float
    end_y: float
    size: float
    weight: int

    @property
    def upright(self) -> bool:
        """Runs from left to right; geometry of other lines is not compared."""
        return self.size > 0 and abs(self.end_y - self.y) < self.size and self.x1 >= self.x0 - 1


@dataclass(slots=True)
class PageLines:
    """A page's lines in the order of its content stream.

    `has_objects` is false for a page that is really blank, `readable` for one that is damaged; `unmapped` is the share
    of its characters that stand for no known letter.
    """

    label: str
    height: float
    lines: list[Line]
    has_objects: bool
    readable: bool = True
    unmapped: float = 0.0


class LineReader:
    """Reads lines of text pages; holds the buffers that pdfium writes coordinates into."""

    def __init__(self) -> None:
        self._doubles = [ctypes.c_double() for _ in range(4)]

    def read(self, text_page: Any) -> tuple[list[Line], float]:
        """The non-blank lines of a pypdfium2 text page, and the share of its characters that are unmapped."""
        import pypdfium2.raw as pdfium

        text = text_page.get_text_range()
        raw = text_page.raw
        left, right, bottom, top = self._doubles
        lines = []
        for match in _PIECE.finditer(text):
            piece = match.group()
            stripped = piece.strip(_BLANK)
            if not stripped:
                continue
            begin = match.start() + piece.index(stripped)
            first = pdfium.FPDFText_GetCharIndexFromTextIndex(raw, begin)
            last = pdfium.FPDFText_GetCharIndexFromTextIndex(raw, begin + len(stripped) - 1)
            x0 = y = x1 = end_y = size = 0.0
            if pdfium.FPDFText_GetCharOrigin(raw, first, left, bottom):
                x0, y = left.value, bottom.value
                size = _font_height(pdfium, raw, first)
            if pdfium.FPDFText_GetCharOrigin(raw, last, left, bottom):
                end_y = bottom.value
            if pdfium.FPDFText_GetCharBox(raw, last, left, right, bottom, top):
                x1 = right.value
            broken = piece.endswith(HYPHEN_BREAK)
            lines.append(Line(stripped, broken, x0, y, x1, end_y, size, pdfium.FPDFText_GetFontWeight(raw, first)))
        unmapped = len(_UNMAPPED.findall(text)) / max(1, len(text)) if lines else 0.0
        return lines, unmapped


def _font_height(pdfium: Any, raw: Any, index: int) -> float:
    """The font's height on the page. FPDFText_GetFontSize ignores the text matrix, the loose box does not."""
    rect = pdfium.FS_RECTF()
    if pdfium.FPDFText_GetLooseCharBox(raw, index, rect):
        return abs(float(rect.top - rect.bottom))
    return float(pdfium.FPDFText_GetFontSize(raw, index))
