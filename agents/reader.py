"""A reader: the skills that workflows are made of, whatever stands behind them (a language model, or none)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lcdoc.agents.notes import Choice, Draft, Note, Summary
from lcdoc.documents import Document, Span
from lcdoc.retrieval.passages import Chunk, Hit


@dataclass(frozen=True, slots=True)
class Passage:
    """A span of a document, handed to a reader with the titles of the sections it lies in (outermost first).

    `cosine` is its similarity to the question, where a search computed it.
    """

    document: Document
    span: Span
    heading_path: tuple[str, ...] = ()
    cosine: float | None = None

    @property
    def text(self) -> str:
        """The passage, running headers and footers blanked; character i is at offset `span.start + i` of the text."""
        return self.span.of(self.document.body)

    @classmethod
    def of_chunk(cls, document: Document, chunk: Chunk) -> Passage:
        """The passage a chunk of `document` stands for. Raises ValueError for a chunk of another document."""
        if chunk.document_id != document.id:
            raise ValueError(f"the chunk is of document {chunk.document_id}, not of {document.id} ({document.name})")
        return cls(document, chunk.span, chunk.heading_path)

    @classmethod
    def of_hit(cls, document: Document, hit: Hit) -> Passage:
        """The passage a search found in `document`. Raises ValueError for a hit in another document."""
        passage = cls.of_chunk(document, hit.chunk)
        return cls(document, passage.span, passage.heading_path, hit.cosine)


class Reader(Protocol):
    """Reads passages for a question, merges what it noted, answers, summarises, chooses where to look next."""

    async def read(self, passage: Passage, question: str, carried: Note | None = None) -> Note:
        """What `passage` adds to the question. With nothing to add, `carried` comes back with `unchanged` set."""
        ...

    async def merge(self, notes: Sequence[Note], question: str) -> Note:
        """One note that keeps what matters of `notes`."""
        ...

    async def answer(self, question: str, notes: Sequence[Note]) -> Draft:
        """The answer that the notes support; `found` is false when they support none."""
        ...

    async def summarize(self, passages: Sequence[Passage], *, words: int) -> Summary:
        """What the passages say, in at most about `words` words."""
        ...

    async def choose(self, question: str, options: Sequence[str], trail: Sequence[str]) -> Choice:
        """Which of `options` (summaries, titles, names) to open next; `trail` is what was read on the way here."""
        ...
