"""What a set of questions is made of, whatever format it came in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lcdoc.agents.quotes import check_quote
from lcdoc.documents import Document, Span
from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.evaluation.parts import Part


@dataclass(frozen=True, slots=True)
class Case:
    """A question about one document, with what is known of its answer."""

    id: str
    """Names the question in its set."""
    question: str
    references: tuple[str, ...]
    """Answers that are right, any of them; none: the document does not answer."""
    pages: tuple[int, ...] = ()
    """Numbers, from 1, of the pages that hold the evidence. A paragraph is a page where the format has no pages."""
    quotes: tuple[str, ...] = ()
    """The evidence in words; where they stand in the document, they count before the pages."""
    several: bool = False
    """The references list several things, so that all claims of an answer count, and not only the first."""

    def evidence(self, document: Document) -> tuple[Span, ...]:
        """Where in the document the evidence is; empty where that is not known."""
        found = [citation.span for quote in self.quotes if (citation := check_quote(document, quote)) is not None]
        if found:
            return tuple(found)
        return tuple(page.span for page in document.pages if page.number in self.pages and page.start < page.end)


@dataclass(frozen=True, slots=True)
class Reading:
    """A document and the questions about it. The document is read when it is wanted: a PDF takes seconds."""

    name: str
    cases: tuple[Case, ...]
    document: Callable[[], Document]
    cluster: str = ""
    """Names what is drawn together for intervals, where that is not this document alone."""
    part: Part = "test"
    """Other than test where the packaged span reader has seen it."""

    @property
    def drawn_as(self) -> str:
        return self.cluster or self.name


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """A published set of questions, and how its files are read."""

    name: str
    about: str
    licence: str
    """As its authors state it; `none stated` where they do not."""
    files: tuple[str, ...]
    """What has to lie in the data folder, relative to it; with patterns as `Path.glob` takes them."""
    splits: tuple[str, ...]
    """The parts that can be asked for by name, the one taken by default first."""
    load: Callable[[Path, str], Iterable[Reading]]
    """Reads a split from the data folder. Raises EvaluationError, OSError, ValueError, KeyError for files that are not
    as they should be."""


def document_of(name: str, pages: Sequence[str], *, title: str = "") -> Document:
    """A document of these pages, each a paragraph of text. Raises EmptyDocumentError where there is no text."""
    text = "\f".join(pages)
    builder = DocumentBuilder(Job(name, text.encode("utf-8", "replace"), "text/plain"))
    builder.title = title
    for page in pages:
        builder.page()
        builder.paragraph(page)
    digest = hashlib.blake2b(f"{name}\f{text}".encode("utf-8", "replace"), digest_size=16).hexdigest()
    return builder.build(reader="evaluation", reader_version="1", digest=digest)
