"""What a reader fills while it walks through a file: text, pages, headings, warnings.

A reader sees the file once, in order, and appends. Everything it adds is normalised on the way in, so every offset it
gets back is final.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from lcdoc.documents.document import Document, Mark, Page, Section, Source, Span
from lcdoc.documents.errors import EmptyDocumentError, LimitError
from lcdoc.documents.limits import Limits
from lcdoc.documents.text import normalise

Progress = Callable[[int, int], None]
"""Called with (pages or parts done, total)."""


def ignore_progress(_done: int, _total: int) -> None:
    """The progress callback for callers that show none."""


@dataclass
class Job:
    """What a reader is asked to read: the bytes, a name for messages, the password if any, the limits."""

    name: str
    data: bytes
    media_type: str = ""
    password: str | None = None
    limits: Limits = field(default_factory=Limits)
    progress: Progress = ignore_progress


_SPACE = re.compile(r"\s+")


class DocumentBuilder:
    """Collects a document's text and layout in reading order."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._parts: list[str] = []
        self._length = 0
        self._tail = ""
        self._pages: list[tuple[str, int]] = []
        self._headings: list[tuple[str, int, int]] = []
        self._marks: list[Mark] = []
        self.title = ""
        self.warnings: list[str] = []

    @property
    def length(self) -> int:
        """Characters so far: the offset the next addition will have."""
        return self._length

    def add(self, text: str) -> Span:
        """Append `text`, normalised, and return where it stands. A whole paragraph at a time keeps NFC across calls."""
        text = normalise(text)
        start = self._length
        if text:
            self._length += len(text)
            if self._length > self._job.limits.max_characters:
                raise LimitError(
                    self._job.name,
                    f"more than {self._job.limits.max_characters:,} characters of text",
                    "raise Limits.max_characters, or split the file",
                )
            self._parts.append(text)
            self._tail = (self._tail + text)[-2:]
        return Span(start, self._length)

    def end_paragraph(self) -> None:
        """Make the text so far end with a blank line, unless nothing is there yet."""
        if self._length and self._tail != "\n\n":
            self.add("\n" if self._tail.endswith("\n") else "\n\n")

    def paragraph(self, text: str) -> Span:
        """Append `text`, stripped, as a paragraph of its own and return where it stands. Blank text adds nothing."""
        text = text.strip()
        if not text:
            return Span(self._length, self._length)
        self.end_paragraph()
        return self.add(text)

    def page(self, label: str = "") -> None:
        """Begin a page. Formats without pages never call this and get one page."""
        if len(self._pages) >= self._job.limits.max_pages:
            raise LimitError(
                self._job.name,
                f"more than {self._job.limits.max_pages:,} pages",
                "raise Limits.max_pages, or split the file",
            )
        self._pages.append((label, self._length))

    def page_start(self, index: int) -> int:
        """Where the page with this index (from 0) begins."""
        return self._pages[index][1]

    def heading(self, title: str, level: int, start: int | None = None) -> None:
        """A section begins at `start` (default: here) and runs to the next heading of its level or above."""
        title = _SPACE.sub(" ", normalise(title)).strip()
        if title:
            self._headings.append((title, max(1, level), self._length if start is None else start))

    def mark(self, mark: Mark) -> None:
        """Record a running header or footer."""
        self._marks.append(mark)

    def warn(self, message: str) -> None:
        """Something the user should see next to an answer; one line."""
        message = _SPACE.sub(" ", message).strip()
        if message not in self.warnings:
            self.warnings.append(message)

    def build(self, *, reader: str, reader_version: str, digest: str) -> Document:
        """The finished document. Raises EmptyDocumentError when there is no text at all."""
        text = "".join(self._parts)
        if not text.strip():
            raise EmptyDocumentError(self._job.name, "there is no text in it", "check that it is the right file")
        starts = [start for _, start in self._pages] or [0]
        starts[0] = 0
        labels = [label for label, _ in self._pages] or [""]
        pages = tuple(
            Page(number, label or str(number), start, end)
            for number, (label, start, end) in enumerate(zip(labels, starts, [*starts[1:], len(text)], strict=True), 1)
        )
        source = Source(
            path=self._job.name,
            media_type=self._job.media_type,
            size=len(self._job.data),
            title=_SPACE.sub(" ", normalise(self.title)).strip()[:300],
            reader=reader,
            reader_version=reader_version,
            digest=digest,
            warnings=tuple(self.warnings),
        )
        marks = tuple(sorted(self._marks, key=lambda mark: mark.start))
        return Document.create(text, pages, sections_from(self._headings, len(text)), source, marks)


def sections_from(headings: list[tuple[str, int, int]], length: int) -> tuple[Section, ...]:
    """Headings (title, level, start) to sections: each ends where the next of its level or above begins."""
    ordered = sorted(headings, key=lambda heading: heading[2])
    ends = [length] * len(ordered)
    open_sections: list[int] = []
    for index, (_, level, start) in enumerate(ordered):
        while open_sections and ordered[open_sections[-1]][1] >= level:
            ends[open_sections.pop()] = start
        open_sections.append(index)
    return tuple(Section(title, level, start, end) for (title, level, start), end in zip(ordered, ends, strict=True))
