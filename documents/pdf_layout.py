"""From lines with geometry to text with paragraphs: what stands between one line and the next.

Lines keep the order of the content stream, which is the reading order in nearly every PDF, multi-column ones included;
only running headers go to the top of their page and footers to its end, so that what they interrupt stays together.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from lcdoc.documents.builder import DocumentBuilder
from lcdoc.documents.document import Mark, MarkKind, Span
from lcdoc.documents.pdf_lines import Line, PageLines
from lcdoc.documents.pdf_running import running_lines
from lcdoc.documents.text import join_hyphenated, vocabulary

_FIRST_HALF = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*$")
_SECOND_HALF = re.compile(r"[^\W\d_]+")
_HYPHENS = "-\u2010"
_CLOSING = "\"'\u201d\u2019)]"
_TERMINAL = frozenset(".!?:;\u2026\u3002\uff01\uff1f")
_SPACED = 1.35
"""A gap this much larger than the usual line pitch ends a paragraph."""


@dataclass(frozen=True, slots=True)
class PlacedLine:
    """A line and where its text stands in the document; `alone` if it is a paragraph of its own."""

    line: Line
    span: Span
    page: int
    alone: bool = False


@dataclass(slots=True)
class _Measures:
    """What is usual on a page: line pitch for each font size, and the right margin."""

    pitch: dict[int, float]
    right: float

    @classmethod
    def of(cls, lines: Sequence[Line]) -> _Measures:
        pitches: dict[int, list[float]] = defaultdict(list)
        for above, below in itertools.pairwise(lines):
            drop = above.y - below.y
            if 0.45 * below.size < drop < 3 * below.size:
                pitches[round(below.size)].append(drop)
        ends = sorted(line.x1 for line in lines if line.upright)
        return cls(
            {size: median(drops) for size, drops in pitches.items()}, ends[int(len(ends) * 0.9)] if ends else 0.0
        )


def _ended(text: str) -> bool:
    return text.rstrip(_CLOSING)[-1:] in _TERMINAL


def _opens_paragraph(above: Line, below: Line, measures: _Measures) -> bool:
    size = min(above.size, below.size)
    drop = above.y - below.y
    if drop > _SPACED * measures.pitch.get(round(below.size), 1.2 * below.size):
        return True
    if abs(above.size - below.size) > 0.15 * max(above.size, below.size):
        return True
    short = above.x1 < measures.right - 0.25 * (measures.right - above.x0)
    if short and above.weight > 1.2 * below.weight > 0:
        return True
    ended = _ended(above.text)
    if ended and below.x0 - above.x0 > 0.8 * size:
        return True
    return ended and above.x1 < measures.right - 4 * size and abs(below.x0 - above.x0) < 3 * size


def _continues(above: Line, below: Line) -> bool:
    """Whether a sentence seems to run on where geometry cannot tell: to the next column or page."""
    return not _ended(above.text) and not (below.text[:1].isupper() and len(above.text) < 40)


def _between(above: Line, below: Line, measures: _Measures) -> str:
    if not (above.upright and below.upright):
        return "\n"
    drop = above.y - below.y
    size = min(above.size, below.size)
    if abs(drop) < 0.45 * size and below.x0 >= above.x1 - 0.3 * size:
        touching = below.x0 - above.x1 < 0.12 * size and not unicodedata.combining(below.text[0])
        return "" if touching else " "
    if drop <= 0:
        return "\n" if _continues(above, below) else "\n\n"
    return "\n\n" if _opens_paragraph(above, below, measures) else "\n"


def _mark_broken(lines: Sequence[Line]) -> None:
    """Treat a hyphen that ends a line the way pdfium does when it recognises one."""
    for line, following in itertools.pairwise(lines):
        if line.text[-1] in _HYPHENS and line.text[-2:-1].isalpha() and _SECOND_HALF.match(following.text):
            line.broken, line.text = True, line.text[:-1]


def _whole_words(lines: Iterable[Line]) -> Counter[str]:
    """Words of the document, without the halves at either side of a line-end hyphen."""
    texts = []
    after_break = False
    for line in lines:
        text = _SECOND_HALF.sub("", line.text, count=1) if after_break else line.text
        texts.append(_FIRST_HALF.sub("", text) if line.broken else text)
        after_break = line.broken
    return vocabulary(texts)


def _glue(above: str, below: str, words: Counter[str]) -> str:
    first, second = _FIRST_HALF.search(above), _SECOND_HALF.match(below)
    if first is None or second is None:
        return "-"
    return join_hyphenated(first.group(), second.group(), words, otherwise="")


class _Writer:
    """Writes pages into the builder, looking one page ahead for words and sentences that run over."""

    def __init__(self, builder: DocumentBuilder, words: Counter[str]) -> None:
        self._builder = builder
        self._words = words
        self.placed: list[PlacedLine] = []

    def running(self, lines: list[Line], kind: MarkKind) -> None:
        for line in lines:
            span = self._builder.add(line.text + "\n")
            if len(span):
                self._builder.mark(Mark(kind, span.start, span.end))

    def body(self, lines: list[Line], page: int, following: Line | None) -> None:
        """Write a page's body. A word broken over the page's end is completed from `following`, which loses it."""
        measures = _Measures.of(lines)
        opened = True
        for index, line in enumerate(lines):
            below = lines[index + 1] if index + 1 < len(lines) else None
            text = line.text
            if line.broken and below is not None:
                between = _glue(text, below.text, self._words)
            elif line.broken and following is not None:
                tail, _, rest = following.text.partition(" ")
                text += _glue(text, following.text, self._words) + tail
                following.text = rest.lstrip()
                between = "\n"
            elif line.broken:
                text += "-"
                between = "\n\n"
            elif below is not None:
                between = _between(line, below, measures)
            else:
                between = "\n" if following is not None and _continues(line, following) else "\n\n"
            added = self._builder.add(text + between)
            span = Span(added.start, added.end - len(between))
            ends = between == "\n\n"
            self.placed.append(PlacedLine(line, span, page, alone=opened and ends))
            opened = ends


def write_pages(pages: Sequence[PageLines], builder: DocumentBuilder) -> list[PlacedLine]:
    """Write all pages into the builder and return their body lines with their places."""
    running = running_lines(pages)
    bodies = [
        [line for line in page.lines if id(line) not in marked] for page, marked in zip(pages, running, strict=True)
    ]
    everything = [line for body in bodies for line in body]
    _mark_broken(everything)
    words = _whole_words(everything) if any(line.broken for line in everything) else Counter[str]()
    writer = _Writer(builder, words)
    for index, (page, marked, body) in enumerate(zip(pages, running, bodies, strict=True)):
        builder.page(page.label)
        edges = sorted((line for line in page.lines if id(line) in marked), key=lambda line: (-line.y, line.x0))
        writer.running([line for line in edges if marked[id(line)] == "header"], "header")
        following = bodies[index + 1][0] if index + 1 < len(bodies) and bodies[index + 1] else None
        writer.body([line for line in body if line.text], index, following)
        writer.running([line for line in edges if marked[id(line)] == "footer"], "footer")
    return writer.placed
