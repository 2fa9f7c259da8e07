"""What retrieval hands around: chunks, which are spans of a document, and hits, which are chunks with their scores."""

from __future__ import annotations

from dataclasses import dataclass, field

from lcdoc.documents import Span


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage: a span of a document and the titles of the sections it lies in, outermost first."""

    document_id: str
    span: Span
    heading_path: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Names the chunk across processes."""
        return f"{self.document_id}:{self.span.start}-{self.span.end}"


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk found for a query. `score` orders hits of one search; it is not comparable between searches.

    `ranks` holds the position, from 1, that each method that found it gave it (`lexical`, `dense`); `cosine` is the
    similarity of query and chunk vectors, None where the chunk has no vector.
    """

    chunk: Chunk
    score: float
    ranks: dict[str, int] = field(default_factory=dict)
    cosine: float | None = None
