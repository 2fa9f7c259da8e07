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

    `broken` says that the line ends inside a word whose hyphen has been removed from `text`; `upright` that it runs
    from left to right: the geometry of other lines is not compared.
    """

    text: str
    broken: bool
    x0: float
    y: float
    x1: float
    size: float
    weight: int
    upright: bool


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
        import pypdfium2.raw as pdfium

        self._doubles = [ctypes.c_double() for _ in range(4)]
        self._rect = pdfium.FS_RECTF()

    def read(self, text_page: Any) -> tuple[list[Line], float]:
        """The non-blank lines of a pypdfium2 text page, and the share of its characters that are unmapped."""
        import pypdfium2.raw as pdfium

        text = text_page.get_text_range()
        raw = text_page.raw
        left, right, bottom, top = self._doubles
        # pdfium's text and its list of characters differ on few pages; only there must indices be translated.
        same_indices = text_page.count_chars() == len(text)
        lines = []
        for match in _PIECE.finditer(text):
            piece = match.group()
            stripped = piece.strip(_BLANK)
            if not stripped:
                continue
            first = match.start() + piece.index(stripped)
            last = first + len(stripped) - 1
            if not same_indices:
                first = pdfium.FPDFText_GetCharIndexFromTextIndex(raw, first)
                last = pdfium.FPDFText_GetCharIndexFromTextIndex(raw, last)
            x0 = y = x1 = size = 0.0
            if pdfium.FPDFText_GetCharOrigin(raw, first, left, bottom):
                x0, y = left.value, bottom.value
                size = self._font_height(raw, first)
            upright = False
            if pdfium.FPDFText_GetCharBox(raw, last, left, right, bottom, top):
                x1 = right.value
                upright = size > 0 and abs(bottom.value - y) < size and x1 >= x0 - 1
            weight = pdfium.FPDFText_GetFontWeight(raw, first)
            lines.append(Line(stripped, piece.endswith(HYPHEN_BREAK), x0, y, x1, size, weight, upright))

        unmapped = len(_UNMAPPED.findall(text)) / max(1, len(text)) if lines else 0.0
        return lines, unmapped

    def _font_height(self, raw: Any, index: int) -> float:
        """The font's height on the page. FPDFText_GetFontSize ignores the text matrix, the loose box does not."""
        import pypdfium2.raw as pdfium

        if pdfium.FPDFText_GetLooseCharBox(raw, index, self._rect):
            return abs(float(self._rect.top - self._rect.bottom))
        return float(pdfium.FPDFText_GetFontSize(raw, index))
