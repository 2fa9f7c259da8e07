"""Looking after the library: forgetting what is no longer wanted, and checking what is there."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from lcdoc.documents import Document
from lcdoc.memory.document_rows import chunks_of
from lcdoc.memory.entries import Entry
from lcdoc.memory.errors import LibraryError, start_anew
from lcdoc.memory.library import Library

_DAY_S = 86_400.0


def prune(
    library: Library,
    *,
    missing: bool = False,
    unused_days: float | None = None,
    max_bytes: int | None = None,
    calls_unused_days: float | None = None,
    caches_unused_days: float | None = None,
) -> list[Entry]:
    """Forget documents, stored calls and kept caches, and shrink the files; returns the documents that were removed.

    `missing`: every document none of whose files is there with the size it had (one read from standard input has
    no file to miss). `unused_days`: every document not asked for in so many days. `max_bytes`: then, until the
    SQLite file, the vectors and the kept caches together are no larger, first the caches not read from the longest,
    then the document not asked for the longest; when none is left, the stored calls not used the longest.
    `calls_unused_days`, `caches_unused_days`: every stored call, every kept cache not used in so many days.

    Documents that jobs have still to do with stay, whatever the rule.
    """
    removed: list[Entry] = []
    wanted = library.jobs.documents_wanted()
    oldest = None if unused_days is None else time.time() - unused_days * _DAY_S
    for entry in _others(library, wanted):
        if (missing and _is_gone(library, entry)) or (oldest is not None and entry.used_at.timestamp() < oldest):
            _forget(library, entry, removed)
    _remove_stray_vectors(library)
    library.caches.remove_stray()
    library.jobs.prune()
    if caches_unused_days is not None:
        library.caches.prune(caches_unused_days)
    forgotten = 0 if calls_unused_days is None else library.calls.prune(calls_unused_days)
    if removed or forgotten or max_bytes is not None:
        _shrink(library)
    if max_bytes is not None and (excess := size_bytes(library) - max_bytes) > 0:
        # They can be made again without asking anybody.
        library.caches.trim(max(0, library.caches.bytes() - excess))
    while max_bytes is not None and (excess := size_bytes(library) - max_bytes) > 0:
        entries = _others(library, wanted)
        if not entries:
            # Documents can be read again; answers would have to be paid again. Shared ones take no room here.
            if library.shared is not None or not library.calls.prune_bytes(excess):
                break
            _shrink(library)
            continue
        # What a document takes up in the index is not recorded; its share of all characters is a fair guess, and the
        # loop looks again.
        share = size_bytes(library) / max(1, sum(entry.characters for entry in entries))
        while entries and excess > 0:
            entry = entries.pop()
            excess -= max(1, int(share * entry.characters))
            _forget(library, entry, removed)
        _shrink(library)
    return removed


def size_bytes(library: Library) -> int:
    """What the library takes up on the disk: the SQLite file, its log, the vectors, the kept caches."""
    files = [library.path, library.path.with_name(library.path.name + "-wal")]
    files += [path for path in library.vectors_path.rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files if path.exists()) + library.caches.size_bytes()


def verify(library: Library) -> list[str]:
    """What is wrong with the library, a line each; empty when it is sound. Changes nothing.

    Recomputes every document's id from its text and layout, checks that chunks lie inside the text, in order, has
    SQLite and FTS5 check their structures, and reads every stored call, run, evaluation, result of a job, vector file
    and kept cache.
    """
    problems: list[str] = []
    try:
        with library.database.read() as connection:
            problems += [
                f"{library.path}: {row[0]}" for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"
            ]
            problems += [
                f"{library.path}: a row of {table} refers to something that is not there"
                for table, *_ in connection.execute("PRAGMA foreign_key_check")
            ]
            rows = connection.execute(
                "SELECT number, id, first_chunk, chunks FROM documents ORDER BY number"
            ).fetchall()
            for number, document_id, first_chunk, count in rows:
                chunk_ids = range(first_chunk, first_chunk + count)
                problems += _document_problems(library, connection, number, document_id, chunk_ids)
            indexed = {chunk_id for (chunk_id,) in connection.execute("SELECT id FROM passages_docsize")}
            chunked = {chunk_id for (chunk_id,) in connection.execute("SELECT id FROM chunks")}
        if indexed != chunked:
            problems.append(
                f"{library.path}: {len(indexed ^ chunked)} chunks are in the table or in the index, but not in both"
            )
        problems += library.calls.problems()
        problems += library.runs.problems()
        problems += library.evaluations.problems()
        problems += library.jobs.problems()
        problems += library.caches.problems()
        with library.database.write() as connection:
            connection.execute("INSERT INTO passages (passages) VALUES ('integrity-check')")
    except LibraryError as error:
        problems.append(str(error))
        return problems
    problems += _vector_problems(library, {document_id: count for _, document_id, _, count in rows})
    return problems


def _document_problems(
    library: Library, connection: sqlite3.Connection, number: int, document_id: str, chunk_ids: range
) -> list[str]:
    where = f"{library.path}: document {document_id}"
    try:
        document = library.get(document_id)
        again = Document.create(document.text, document.pages, document.sections, document.source, document.marks)
    except (LibraryError, ValueError, KeyError, TypeError) as error:
        return [f"{where} cannot be restored ({error}); remove it"]
    problems = [] if again.id == document_id else [f"{where} was altered: its text is now {again.id}; remove it"]
    chunks = chunks_of(connection, number, document_id)
    ids = [row[0] for row in connection.execute("SELECT id FROM chunks WHERE document = ? ORDER BY ordinal", (number,))]
    if ids != list(chunk_ids):
        problems.append(f"{where} has chunks other than those it was given; {start_anew(library.path)}")
    end = 0
    for chunk in chunks:
        if not end <= chunk.span.start <= chunk.span.end <= len(document.text):
            problems.append(f"{where}: chunk {chunk.span.start}-{chunk.span.end} is out of order or outside the text")
            break
        end = chunk.span.end
    return problems


def _vector_problems(library: Library, counts: dict[str, int]) -> list[str]:
    if not library.vectors_path.is_dir():
        return []
    from lcdoc.retrieval.vectors import stored_vectors, verify_file

    problems: list[str] = []
    for stored in stored_vectors(library.vectors_path):
        if stored.document_id in counts:
            problems += verify_file(stored.path, counts[stored.document_id])
        else:
            problems.append(f"{stored.path}: vectors of no document in the library; `lcdoc library prune` removes them")
    return problems


def _others(library: Library, wanted: set[str]) -> list[Entry]:
    return [entry for entry in library.list() if entry.id not in wanted]


def _is_gone(library: Library, entry: Entry) -> bool:
    """Whether no file holds the document any more, as far as sizes and times tell."""
    with library.database.read() as connection:
        seen = connection.execute(
            "SELECT path, size FROM paths JOIN sources USING (digest) JOIN documents ON document = number WHERE id = ?",
            (entry.id,),
        ).fetchall()
    if not seen:
        # Never a file, or all its files have other contents by now.
        return entry.paths != ("-",)
    return not any(_is_there(Path(path), size) for path, size in seen)


def _is_there(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _forget(library: Library, entry: Entry, removed: list[Entry]) -> None:
    library.remove(entry.id)
    removed.append(entry)


def _shrink(library: Library) -> None:
    with library.database.write() as connection:
        connection.execute("INSERT INTO passages (passages) VALUES ('optimize')")
    library.database.vacuum()


def _remove_stray_vectors(library: Library) -> None:
    """Vector files whose document is gone: their writer was too late, or died in between."""
    if not library.vectors_path.is_dir():
        return
    from lcdoc.retrieval.vectors import remove_vectors, stored_vectors

    here = {entry.id for entry in library.list()}
    for document_id in {stored.document_id for stored in stored_vectors(library.vectors_path)} - here:
        remove_vectors(library.vectors_path, document_id)
