"""A document cut into pieces that one reading takes: whole passages of the library, in order, of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lcdoc.agents.listing import listing_room
from lcdoc.agents.notes import Note
from lcdoc.agents.packing import packed
from lcdoc.agents.reader import Passage, Reader
from lcdoc.documents import Document, Span
from lcdoc.memory import Library
from lcdoc.retrieval.passages import Chunk
from lcdoc.workflows.events import Place

MOST_PIECE_TOKENS = 16_000
"""Of a reading that stands by itself, however long the window: a reader takes a handful of quotes from each piece."""
MOST_LISTED_TOKENS = 6_000
"""The same where everything of a kind is listed, which takes an answer as long as there are things."""


def chain_room(reader: Reader, question: str) -> int:
    """Tokens of a piece that is read with the note of those before it. Raises ModelConfigError."""
    room = reader.room(question, carrying=True)
    return min(room, MOST_PIECE_TOKENS) if reader.keeps else room


def map_room(reader: Reader, question: str) -> int:
    """Tokens of a piece that is read by itself: as in a chain, where what is read is kept. Raises ModelConfigError."""
    return chain_room(reader, question) if reader.keeps else min(reader.room(question), MOST_PIECE_TOKENS)


def list_room(reader: Reader, question: str) -> int:
    """Tokens of a piece of which everything of a kind is listed. Raises ModelConfigError."""
    return min(listing_room(reader, question), MOST_LISTED_TOKENS)


def cut(
    library: Library, documents: Sequence[Document], *, room_tokens: int, count: Callable[[str], int]
) -> list[Passage]:
    """All of `documents`, one after the other, in pieces for one reading each: see `pieces_of`."""
    return [
        piece
        for document in documents
        for piece in pieces_of(document, library.chunks(document.id), room_tokens=room_tokens, count=count)
    ]


def pieces_of(
    document: Document, chunks: Sequence[Chunk], *, room_tokens: int, count: Callable[[str], int]
) -> list[Passage]:
    """`chunks`, all of a document in order, joined to the fewest pieces of at most `room_tokens`, evenly filled.

    A piece is one span of the document; together they cover everything but white space. `count` counts the reader's
    tokens. A chunk longer than the room is a piece by itself, which the reader parts.
    """
    if not chunks:
        return []
    ends = [following.span.start for following in chunks[1:]] + [chunks[-1].span.end]
    sizes = [
        min(room_tokens, max(1, count(document.body[chunk.span.start : end])))
        for chunk, end in zip(chunks, ends, strict=True)
    ]
    return [_piece(document, run) for run in packed(chunks, sizes, room_tokens)]


def _piece(document: Document, chunks: Sequence[Chunk]) -> Passage:
    span = Span(chunks[0].span.start, chunks[-1].span.end)
    return Passage(document, span, common_titles(document, (document.id, span.start, span.end)))


def common_titles(document: Document, place: Place) -> tuple[str, ...]:
    """The sections that all of a place lies in, outermost first."""
    _, start, end = place
    first, last = document.sections_at(start), document.sections_at(max(start, end - 1))
    common: list[str] = []
    for one, other in zip(first, last, strict=False):
        if one.title != other.title:
            break
        common.append(one.title)
    return tuple(common)


def pieces_found(pieces: Sequence[Passage], note: Note) -> int:
    """In how many of the pieces the quotes of a note stand."""
    return sum(
        any(
            citation.document_id == piece.document.id and piece.span.overlaps(citation.span)
            for citation in note.citations
        )
        for piece in pieces
    )
