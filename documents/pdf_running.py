"""Running headers and footers: lines that stand at the same height on page after page, but for their numbers.

They are found by peeling each page from its edges inwards: a line counts only if every line between it and the edge
counts too, so that a repeated table heading in the middle of a page is never taken for a header.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import takewhile

from lcdoc.documents.document import MarkKind
from lcdoc.documents.pdf_lines import Line, PageLines

_NUMBER = re.compile(r"\d+|\b[ivxlc]+\b")
_SPACE = re.compile(r"\s+")
_MAX_LINES = 4
_NEAR_PAGES = 12
"""Headers change with the chapter: a line must recur this close by."""
_MIN_RECURRENCES = 3
"""On other pages; a table's heading repeated where the table goes on for a page or two stays below it."""
_SHORT_DOCUMENT = 8
"""Pages up to which two recurrences are enough."""
_SAME_HEIGHT = 4.0
_MIN_BAND_PAGES = 6
_MAX_CHARACTERS = 200

_PAGE_NUMBER = re.compile(r"(?:page\s*)?\W*(?:[a-z]\W?)?(\d{1,5})\W*(?:of\s*\d+)?\W*")

_Edge = tuple[MarkKind, str]


def _pattern(text: str) -> str:
    return _SPACE.sub(" ", _NUMBER.sub("#", text.lower())).strip()


def _key(kind: MarkKind, line: Line, page: int) -> _Edge:
    """What must recur. For a bare page number that is its distance from the page's index, wherever it stands.

    Filings print it below the last line of the text, at another height on each page.
    """
    number = _PAGE_NUMBER.fullmatch(line.text.lower())
    return (kind, f"#{int(number.group(1)) - page}") if number else (kind, _pattern(line.text))


def _from_edge(page: PageLines, kind: MarkKind) -> list[tuple[Line, float]]:
    """The outermost upright lines with their distance from the page's edge, nearest first."""
    lines = [line for line in page.lines if line.upright and 0 <= line.y <= page.height]
    lines.sort(key=lambda line: line.y, reverse=kind == "header")
    return [(line, page.height - line.y if kind == "header" else line.y) for line in lines[:_MAX_LINES]]


def _nearby(places: list[tuple[int, float]], page: int) -> list[tuple[int, float]]:
    """The entries of `places`, which are in page order, within `_NEAR_PAGES` of `page`."""
    first = bisect_left(places, (page - _NEAR_PAGES, 0.0))
    last = bisect_left(places, (page + _NEAR_PAGES + 1, 0.0))
    return places[first:last]


def _recurring(
    kind: MarkKind, by_page: Sequence[Sequence[tuple[Line, float]]], needed: int
) -> list[list[tuple[Line, float]]]:
    """For each page, its outermost lines that recur on at least `needed` pages nearby."""
    seen: dict[_Edge, list[tuple[int, float]]] = defaultdict(list)
    keys: dict[int, _Edge] = {}
    for number, lines in enumerate(by_page):
        for line, distance in lines:
            if len(line.text) <= _MAX_CHARACTERS:
                keys[id(line)] = key = _key(kind, line, number)
                seen[key].append((number, distance))
    found: list[list[tuple[Line, float]]] = []
    for number, lines in enumerate(by_page):
        found.append([])
        for line, distance in lines:
            if id(line) not in keys:
                break
            key = keys[id(line)]
            numbered = key[1].startswith("#") and key[1] != "#"
            recurrences = sum(
                other != number and (numbered or abs(other_distance - distance) <= _SAME_HEIGHT)
                for other, other_distance in _nearby(seen[key], number)
            )
            if recurrences < needed:
                break
            found[-1].append((line, distance))
    return found


def _in_bands(
    by_page: Sequence[Sequence[tuple[Line, float]]], recurring: Sequence[Sequence[tuple[Line, float]]]
) -> list[list[tuple[Line, float]]]:
    """For each page, the outermost lines at a height and in a size where lines recur on many other pages.

    A header that names the chapter recurs too seldom to be known by its words; it is known by the place it shares with
    the book's title on the facing page.
    """
    count: Counter[tuple[int, int]] = Counter()
    for lines in recurring:
        count.update({(round(distance), round(2 * line.size)) for line, distance in lines})
    bands = {band for band, pages in count.items() if pages >= max(_MIN_BAND_PAGES, 0.15 * len(by_page))}
    return [
        list(takewhile(lambda item: (round(item[1]), round(2 * item[0].size)) in bands, lines)) for lines in by_page
    ]


def running_lines(pages: Sequence[PageLines]) -> list[dict[int, MarkKind]]:
    """For each page, which of its lines (by `id`) are running headers or footers."""
    needed = _MIN_RECURRENCES if len(pages) > _SHORT_DOCUMENT else 2
    found: list[dict[int, MarkKind]] = [{} for _ in pages]
    kinds: tuple[MarkKind, ...] = ("header", "footer")
    for kind in kinds:
        by_page = [_from_edge(page, kind) for page in pages]
        recurring = _recurring(kind, by_page, needed)
        for marked, by_words, by_place in zip(found, recurring, _in_bands(by_page, recurring), strict=True):
            for line, _ in max(by_words, by_place, key=len):
                marked[id(line)] = kind
    whole = sum(bool(page.lines) and len(marked) == len(page.lines) for page, marked in zip(pages, found, strict=True))
    if whole > 0.5 * sum(bool(page.lines) for page in pages):
        # Hardly anything is left: the pages are forms or cards that repeat, not text under a header.
        return [{} for _ in pages]
    return found
