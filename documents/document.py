"""The document: one immutable text, and everything else a span of it.

Pages, sections, running headers, chunks, quotes: each is a pair of character offsets into `Document.text`. Nothing
copies or re-joins text, so a citation can always be checked by slicing.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

from lcdoc.documents.limits import Limits

MarkKind = Literal["header", "footer"]


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters `start` (inclusive) to `end` (exclusive) of a document's text."""

    start: int
    end: int

    def __len__(self) -> int:
        return self.end - self.start

    def of(self, text: str) -> str:
        """The characters themselves."""
        return text[self.start : self.end]

    def overlaps(self, other: Span) -> bool:
        return self.start < other.end and other.start < self.end

    def covers(self, other: Span) -> bool:
        return self.start <= other.start and other.end <= self.end


@dataclass(frozen=True, slots=True)
class Page:
    """A page. `number` counts from 1; `label` is what is printed on it (`iv`, `12`), the number where none is known."""

    number: int
    label: str
    start: int
    end: int

    @property
    def span(self) -> Span:
        return Span(self.start, self.end)


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and all that belongs to it, sub-sections included. `level` 1 is the outermost."""

    title: str
    level: int
    start: int
    end: int

    @property
    def span(self) -> Span:
        return Span(self.start, self.end)


@dataclass(frozen=True, slots=True)
class Mark:
    """A running header or footer. It stays in the text, so offsets are true, but retrieval and quotes pass over it."""

    kind: MarkKind
    start: int
    end: int

    @property
    def span(self) -> Span:
        return Span(self.start, self.end)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle on a page, in PDF points (1/72 inch), origin at the page's lower left corner."""

    page: int
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class Source:
    """Where a document came from. `digest` is the blake2b of the file's bytes; `path` is `-` for standard input."""

    path: str
    media_type: str
    size: int
    title: str
    reader: str
    reader_version: str
    digest: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """A file as one normalised text with pages, sections and marks as spans of it.

    Text is normalised once (NFC, `\\n` line ends, soft hyphens and end-of-line hyphens resolved, ligatures folded) and
    never edited again. A single `\\n` is a line break inside a paragraph, `\\n\\n` ends one. Pages are ordered,
    disjoint and cover the text; sections are ordered by start and nest by level; marks are ordered and disjoint.
    """

    id: str
    """blake2b of the text and its layout: the same bytes, read by the same reader, give the same id."""
    text: str = field(repr=False)
    pages: tuple[Page, ...] = field(repr=False)
    sections: tuple[Section, ...] = field(repr=False)
    source: Source
    marks: tuple[Mark, ...] = field(default=(), repr=False)

    @classmethod
    def create(
        cls,
        text: str,
        pages: tuple[Page, ...],
        sections: tuple[Section, ...],
        source: Source,
        marks: tuple[Mark, ...] = (),
    ) -> Document:
        """A document with its id computed. Raises ValueError when pages do not cover the text in order."""
        position = 0
        for page in pages:
            if page.start != position or page.end < page.start:
                raise ValueError(f"page {page.number} starts at {page.start}, expected {position}")
            position = page.end
        if position != len(text):
            raise ValueError(f"pages end at {position}, text at {len(text)}")
        layout = [
            [[p.label, p.start, p.end] for p in pages],
            [[s.title, s.level, s.start, s.end] for s in sections],
            [[m.kind, m.start, m.end] for m in marks],
        ]
        digest = hashlib.blake2b(digest_size=16)
        digest.update(text.encode())
        digest.update(json.dumps(layout, ensure_ascii=False, separators=(",", ":")).encode())
        return cls(digest.hexdigest(), text, pages, sections, source, marks)

    @property
    def name(self) -> str:
        """What to call the document in a citation: its title if it has one, else the file's name."""
        return self.source.title or self.source.path.replace("\\", "/").rsplit("/", 1)[-1]

    @cached_property
    def body(self) -> str:
        """The text with running headers and footers overwritten by blanks: same length, same offsets.

        Search, sentence splitting and quote checking look at this, so that a sentence that runs over a page break is
        one sentence, and still find every offset in `text`.
        """
        if not self.marks:
            return self.text
        pieces: list[str] = []
        position = 0
        for mark in self.marks:
            pieces.append(self.text[position : mark.start])
            pieces.append(" " * (mark.end - mark.start))
            position = mark.end
        pieces.append(self.text[position:])
        return "".join(pieces)

    @cached_property
    def _page_starts(self) -> list[int]:
        return [page.start for page in self.pages]

    def page_of(self, offset: int) -> Page:
        """The page on which the character at `offset` stands. Raises IndexError outside the text."""
        if not 0 <= offset < max(len(self.text), 1):
            raise IndexError(f"offset {offset} is outside the text (0 to {len(self.text)})")
        # Empty pages share their start with the next page; bisect_right lands on the last of them, which owns the text.
        return self.pages[bisect_right(self._page_starts, offset) - 1]

    def pages_of(self, span: Span) -> tuple[Page, ...]:
        """The pages a span touches, in order; empty pages in between are included."""
        first = self.page_of(span.start)
        last = self.page_of(max(span.start, span.end - 1))
        return self.pages[first.number - 1 : last.number]

    @cached_property
    def _section_parents(self) -> list[int]:
        """For each section, the index of the section it lies in, or -1."""
        parents: list[int] = []
        for index, section in enumerate(self.sections):
            parent = index - 1
            while parent >= 0 and (
                self.sections[parent].level >= section.level or self.sections[parent].end < section.end
            ):
                parent = parents[parent]
            parents.append(parent)
        return parents

    @cached_property
    def _section_starts(self) -> list[int]:
        return [section.start for section in self.sections]

    def sections_at(self, offset: int) -> tuple[Section, ...]:
        """The sections that contain the character at `offset`, outermost first."""
        index = bisect_right(self._section_starts, offset) - 1
        path: list[Section] = []
        while index >= 0:
            if self.sections[index].start <= offset < self.sections[index].end:
                path.append(self.sections[index])
            index = self._section_parents[index]
        return tuple(reversed(path))

    def boxes(self, span: Span, *, password: str | None = None, limits: Limits | None = None) -> tuple[Box, ...]:
        """Rectangles that enclose the span's characters, one or more for each line it touches.

        Only a PDF has them; other formats give an empty tuple. The file is opened again, in a process of its own.
        Raises SourceChangedError when the file at `source.path` is not the one this document was made from.
        """
        from lcdoc.documents.pdf_boxes import boxes_of

        return boxes_of(self, span, password=password, limits=limits or Limits())

    def layout(self) -> dict[str, Any]:
        """Everything but the text, as plain JSON values; `from_layout` is the inverse."""
        return {
            "id": self.id,
            "pages": [[p.label, p.start, p.end] for p in self.pages],
            "sections": [[s.title, s.level, s.start, s.end] for s in self.sections],
            "marks": [[m.kind, m.start, m.end] for m in self.marks],
            "source": asdict(self.source),
        }

    @classmethod
    def from_layout(cls, text: str, layout: Mapping[str, Any]) -> Document:
        """The document that `layout` described. The id is taken as given; `Document.create` computes it anew."""
        source = dict(layout["source"])
        source["warnings"] = tuple(source["warnings"])
        return cls(
            id=layout["id"],
            text=text,
            pages=tuple(Page(i, label, start, end) for i, (label, start, end) in enumerate(layout["pages"], 1)),
            sections=tuple(Section(*row) for row in layout["sections"]),
            source=Source(**source),
            marks=tuple(Mark(*row) for row in layout["marks"]),
        )
