"""What every workflow returns: claims with checked citations, what was searched, what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict

from lcdoc.agents.notes import Claim
from lcdoc.documents import Document, Span
from lcdoc.memory.usage import ModelUsage

SCHEMA = "lcdoc.answer/1"
"""Names the JSON form; the number changes when a field is renamed or removed (docs/json.md)."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DocumentRef(_Value):
    """A document that was asked, as an answer names it."""

    id: str
    name: str
    path: str
    pages: int
    characters: int

    @classmethod
    def of(cls, document: Document) -> DocumentRef:
        return cls(
            id=document.id,
            name=document.name,
            path=document.source.path,
            pages=len(document.pages),
            characters=len(document.text),
        )


class PagesRead(_Value):
    """Which pages of a document a reader looked at, as ranges of numbers from 1, both ends included."""

    document_id: str
    read: tuple[tuple[int, int], ...]
    unread: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, document: Document, spans: Sequence[Span]) -> PagesRead:
        """The pages that `spans` of the document touch, and the others."""
        read = {page.number for span in spans for page in document.pages_of(span)}
        unread = {page.number for page in document.pages} - read
        return cls(document_id=document.id, read=_ranges(read), unread=_ranges(unread))


def _ranges(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return tuple(ranges)


class Usage(_Value):
    """What an answer cost. An offline answer makes no calls; an unknown price is None, never zero."""

    calls: int = 0
    """Requests sent to models, those that failed or were made again included."""
    failed_calls: int = 0
    stored_calls: int = 0
    """Requests answered from the call store, at no cost."""
    tokens_in: int = 0
    tokens_cached: int = 0
    """Of `tokens_in`, what the server had cached."""
    tokens_out: int = 0
    estimated: bool = False
    """Some token figures were counted by lcdoc, because the server gave none."""
    cost_usd: float | None = 0.0
    seconds: float = 0.0

    @classmethod
    def of(cls, total: ModelUsage, *, seconds: float) -> Usage:
        """`total` of a run that took `seconds` of wall time."""
        return cls(**{**asdict(total), "seconds": round(seconds, 3)})


class Answer(_Value):
    """The answer to a question. `found` false with no claims means: it is not in the documents, as far as searched."""

    question: str
    found: bool
    claims: tuple[Claim, ...] = ()
    partial: bool = False
    """True when a limit ended the work early, so that not everything was read."""
    confidence: float = 0.0
    """From 0 to 5."""
    workflow: str
    model: str
    documents: tuple[DocumentRef, ...] = ()
    passages: int = 0
    """Passages in those documents, all of which were searched."""
    passages_read: int = 0
    """Of those, how many a reader looked at."""
    pages_read: tuple[PagesRead, ...] = ()
    """The same by page, for each document."""
    quotes_dropped: int = 0
    """Quotes a reader gave that are not in the source; they are not shown."""
    kv: tuple[str, ...] = ()
    """Recipes of the compressed caches through which the model read pieces of the documents; empty: all whole."""
    warnings: tuple[str, ...] = ()
    usage: Usage = Usage()
    run_id: str = ""

    @property
    def text(self) -> str:
        """The claims, a line each; empty when nothing was found."""
        return "\n".join(claim.text for claim in self.claims)

    def document(self, document_id: str) -> DocumentRef:
        """The document a citation names. Raises KeyError for one that was not asked."""
        for document in self.documents:
            if document.id == document_id:
                return document
        raise KeyError(document_id)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values in the form that docs/json.md describes."""
        return {"schema": SCHEMA, **self.model_dump(mode="json")}
