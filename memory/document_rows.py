"""How a document lies in the library's tables.

Each function does its part on a connection inside a transaction of the caller's. `number` is a document's row.
"""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lcdoc.documents import Document, Source, Span
from lcdoc.retrieval import lexical
from lcdoc.retrieval.passages import Chunk

_PACKING = 6  # zlib level: prose shrinks to a third at 25 MB/s; unpacking a 300-page book takes 4 ms


def reader_key(reader: str, reader_version: str) -> str:
    """Names a reader: another version of it may read the same file differently."""
    return f"{reader} {reader_version}"


PATHS_OF = (
    "SELECT path FROM paths WHERE digest IN (SELECT digest FROM sources WHERE document = ?) ORDER BY seen_at DESC"
)


def pack(text: str) -> bytes:
    """UTF-8, deflated where that makes it smaller; the first byte says which (`z` or `-`)."""
    raw = text.encode()
    packed = zlib.compress(raw, _PACKING)
    return b"z" + packed if len(packed) < len(raw) else b"-" + raw


def unpack(blob: bytes) -> str:
    """The inverse of `pack`. Raises sqlite3.DatabaseError on damaged bytes."""
    try:
        return (zlib.decompress(memoryview(blob)[1:]) if blob[:1] == b"z" else blob[1:]).decode()
    except (zlib.error, UnicodeDecodeError) as error:
        damaged = sqlite3.DatabaseError(f"a stored text cannot be unpacked: {error}")
        damaged.sqlite_errorname = "SQLITE_CORRUPT"
        raise damaged from error


def source_from(row: str) -> Source:
    """A source from its JSON."""
    fields: dict[str, Any] = json.loads(row)
    return Source(**(fields | {"warnings": tuple(fields["warnings"])}))


def latest_source(connection: sqlite3.Connection, number: int) -> str:
    """The JSON of the source that was seen last, of those a document was read from."""
    row = connection.execute(
        "SELECT source FROM sources LEFT JOIN paths USING (digest) WHERE document = ? ORDER BY seen_at DESC LIMIT 1",
        (number,),
    ).fetchone()
    source: str = row[0]
    return source


def load_document(connection: sqlite3.Connection, number: int, source: str | None = None) -> tuple[Document, float]:
    """A document as `source` (default: the source seen last) gave it, and when it was last used."""
    layout, text, used_at = connection.execute(
        "SELECT layout, text, used_at FROM documents WHERE number = ?", (number,)
    ).fetchone()
    document = Document.from_layout(unpack(text), json.loads(unpack(layout)))
    return replace(document, source=source_from(source or latest_source(connection, number))), used_at


def intact_document(connection: sqlite3.Connection, number: int) -> Document | None:
    """The stored document, unless it is damaged or altered."""
    try:
        stored, _ = load_document(connection, number)
        again = Document.create(stored.text, stored.pages, stored.sections, stored.source, stored.marks)
    except (sqlite3.DatabaseError, ValueError, KeyError, TypeError):
        return None
    return stored if again.id == stored.id else None


def chunks_of(connection: sqlite3.Connection, number: int, document_id: str) -> list[Chunk]:
    """The stored chunks of the document with this row number, in order."""
    headings: dict[str, tuple[str, ...]] = {}
    chunks: list[Chunk] = []
    for start, end, heading in connection.execute(
        "SELECT start, end, heading FROM chunks WHERE document = ? ORDER BY ordinal", (number,)
    ):
        if heading not in headings:
            headings[heading] = tuple(json.loads(heading))
        chunks.append(Chunk(document_id, Span(start, end), headings[heading]))
    return chunks


def keep_chunks(
    connection: sqlite3.Connection, number: int, document: Document, chunks: Sequence[Chunk], recipe: str
) -> None:
    """Put a document's chunks into the table and the index, under consecutive ids."""
    (last,) = connection.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'chunks'").fetchone()
    connection.executemany(
        "INSERT INTO chunks (id, document, ordinal, start, end, heading) VALUES (?, ?, ?, ?, ?, ?)",
        (
            (
                last + 1 + ordinal,
                number,
                ordinal,
                chunk.span.start,
                chunk.span.end,
                json.dumps(chunk.heading_path, ensure_ascii=False),
            )
            for ordinal, chunk in enumerate(chunks)
        ),
    )
    lexical.add(connection, last + 1, document, chunks)
    connection.execute(
        "UPDATE documents SET recipe = ?, first_chunk = ?, chunks = ? WHERE number = ?",
        (recipe, last + 1, len(chunks), number),
    )


def drop_chunks(connection: sqlite3.Connection, number: int, document: Document) -> None:
    """Take a document's chunks out of the table and out of the index."""
    chunks = chunks_of(connection, number, document.id)
    if chunks:
        (first,) = connection.execute("SELECT first_chunk FROM documents WHERE number = ?", (number,)).fetchone()
        lexical.remove(connection, first, document, chunks)
        connection.execute("DELETE FROM chunks WHERE document = ?", (number,))


def rebuild_passages(connection: sqlite3.Connection) -> None:
    """Make the whole full-text index anew from what is stored."""
    connection.execute("INSERT INTO passages (passages) VALUES ('delete-all')")
    for number, first_chunk in connection.execute("SELECT number, first_chunk FROM documents").fetchall():
        document = intact_document(connection, number)
        if document is not None:
            lexical.add(connection, first_chunk, document, chunks_of(connection, number, document.id))


def knows_path(connection: sqlite3.Connection, path: str, digest: str) -> bool:
    """Whether the file at `path` was last seen with this digest."""
    row = connection.execute("SELECT digest FROM paths WHERE path = ?", (str(Path(path).absolute()),)).fetchone()
    return row is not None and row[0] == digest


def remember_path(connection: sqlite3.Connection, source: Source) -> None:
    """Note where the file lies, if it is one."""
    path = Path(source.path).absolute()
    try:
        stat = path.stat()
    except (OSError, ValueError):
        return
    connection.execute(
        "INSERT INTO paths (path, digest, size, modified_at, seen_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (path) DO UPDATE SET digest = excluded.digest, size = excluded.size,"
        " modified_at = excluded.modified_at, seen_at = excluded.seen_at",
        (str(path), source.digest, stat.st_size, stat.st_mtime, time.time()),
    )
