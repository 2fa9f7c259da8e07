"""A document cut into pieces that one reading takes: whole passages of the library, in order, of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lcdoc.agents.notes import Note
from lcdoc.agents.packing import packed
from lcdoc.agents.reader import Passage
from lcdoc.documents import Document, Span
from lcdoc.retrieval.passages import Chunk


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
    common = chunks[0].heading_path
    for chunk in chunks:
        while chunk.heading_path[: len(common)] != common:
            common = common[:-1]
    return Passage(document, Span(chunks[0].span.start, chunks[-1].span.end), common)


def pieces_found(pieces: Sequence[Passage], note: Note) -> int:
    """In how many of the pieces the quotes of a note stand."""
    return sum(
        any(
            citation.document_id == piece.document.id and piece.span.overlaps(citation.span)
            for citation in note.citations
        )
        for piece in pieces
    )
