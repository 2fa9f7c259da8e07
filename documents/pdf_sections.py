"""Sections of a PDF: from its outline, or, where it has none, from how its headings are set."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lcdoc.documents.builder import DocumentBuilder
from lcdoc.documents.pdf_layout import PlacedLine

_MAX_ENTRIES = 20_000
_MAX_HEADING_CHARACTERS = 150
_NOT_ALNUM = re.compile(r"[\W_]+")
_BULLETS = "\u2022\u25aa\u25cf\u25e6\u2023\u00b7\u2013\u2014-*"
_LETTERS = re.compile(r"[^\W\d_]")


@dataclass(frozen=True, slots=True)
class OutlineEntry:
    """A bookmark: where it points, as a page index and, if it says so, a height on that page in points."""

    title: str
    level: int
    page: int
    y: float | None


def read_outline(pdf: Any) -> list[OutlineEntry]:
    """The bookmarks of a pypdfium2 document that point into it. Cycles, depth and number are bounded."""
    import pypdfium2.raw as pdfium

    entries: list[OutlineEntry] = []
    for count, bookmark in enumerate(pdf.get_toc(max_depth=10)):
        if count >= _MAX_ENTRIES:
            break
        destination = bookmark.get_dest()
        page = destination.get_index() if destination is not None else None
        if page is None or not 0 <= page < len(pdf):
            continue
        mode, position = destination.get_view()
        y = None
        if mode == pdfium.PDFDEST_VIEW_XYZ and len(position) > 1:
            y = position[1]
        elif mode in (pdfium.PDFDEST_VIEW_FITH, pdfium.PDFDEST_VIEW_FITBH) and position:
            y = position[0]
        entries.append(OutlineEntry(bookmark.get_title(), bookmark.level + 1, page, y))
    return entries


def _squash(text: str) -> str:
    return _NOT_ALNUM.sub("", text.casefold())


def _find_heading(entry: OutlineEntry, lines: Sequence[PlacedLine]) -> PlacedLine | None:
    """The line on the entry's page where its title begins; of several, the one nearest to the height it points to."""
    title = _squash(entry.title)
    if not title:
        return None
    matches: list[tuple[float, int, PlacedLine]] = []
    for index, placed in enumerate(lines):
        text = ""
        for following in lines[index : index + 4]:
            text += _squash(following.line.text)
            if len(text) >= len(title):
                break
        # The page may number the heading where the outline does not, and the other way round.
        at = text.find(title, 0, len(title) + 8)
        if at < 0 and not (len(text) >= 4 and title.endswith(text)):
            continue
        distance = abs(placed.line.y - entry.y) if entry.y is not None else 0.0
        matches.append((distance + 20 * max(at, 0), index, placed))
    return min(matches)[2] if matches else None


def sections_from_outline(
    entries: Sequence[OutlineEntry], lines: Sequence[PlacedLine], builder: DocumentBuilder
) -> None:
    """Begin a section where each entry's heading stands, or at the height or page it points to."""
    by_page: dict[int, list[PlacedLine]] = defaultdict(list)
    for placed in lines:
        by_page[placed.page].append(placed)
    for entry in entries:
        on_page = by_page[entry.page]
        found = _find_heading(entry, on_page)
        if found is None and entry.y is not None:
            below = [placed for placed in on_page if placed.line.y <= entry.y]
            found = below[0] if below else None
        start = found.span.start if found else builder.page_start(entry.page)
        builder.heading(entry.title, entry.level, start)


def _mostly_letters(text: str) -> bool:
    letters = len(_LETTERS.findall(text))
    return letters >= 3 and letters > 0.5 * len(text.replace(" ", ""))


def sections_from_type(lines: Sequence[PlacedLine], builder: DocumentBuilder) -> None:
    """Headings by type alone: short paragraphs set larger or bolder than the body.

    Levels follow the sizes in use, largest first. Nothing is recorded when so many lines qualify that the measure says
    nothing about this document.
    """
    upright = [placed for placed in lines if placed.line.upright]
    if not upright:
        return
    weights: Counter[tuple[int, int]] = Counter()
    for placed in upright:
        weights[round(placed.line.size * 2), placed.line.weight] += len(placed.line.text)
    (body_size, body_weight), _ = weights.most_common(1)[0]
    headings: list[tuple[float, bool, PlacedLine]] = []
    for placed in upright:
        line = placed.line
        text = line.text
        larger = line.size * 2 > 1.12 * body_size
        bolder = line.weight > 1.15 * body_weight > 0 and line.size * 2 > 0.9 * body_size
        if (
            placed.alone
            and (larger or bolder)
            and len(text) <= _MAX_HEADING_CHARACTERS
            and _mostly_letters(text)
            and not text.endswith((",", ";"))
            and text[0] not in _BULLETS
            and not (text[0] == "(" and text[-1] == ")")
            and not text[0].islower()
        ):
            headings.append((round(line.size), bolder, placed))
    if len(headings) > max(3, 0.15 * len(upright)):
        return
    ranks = sorted({(size, bold) for size, bold, _ in headings}, reverse=True)
    for size, bold, placed in headings:
        level = min(ranks.index((size, bold)) + 1, 4)
        builder.heading(placed.line.text, level, placed.span.start)
