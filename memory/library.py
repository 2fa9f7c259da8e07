"""The library: every document that was read, kept so that the same file again costs nothing.

Documents, their chunks and the full-text index lie in one SQLite file; vectors lie beside it in `<library>.vectors`,
what models of this machine have read in `<library>.caches`.
A document enters whole or not at all: text, chunks and index are one transaction.

A `Library` may be shared by threads (each gets its own connection) and its file by processes.
"""

from __future__ import annotations

import builtins
import json
import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lcdoc.documents import Document
from lcdoc.memory.caches import Caches
from lcdoc.memory.calls import Calls
from lcdoc.memory.checkpoints import checkpoints
from lcdoc.memory.database import Database
from lcdoc.memory.document_rows import (
    PATHS_OF,
    chunks_of,
    drop_chunks,
    intact_document,
    keep_chunks,
    knows_path,
    latest_source,
    load_document,
    pack,
    reader_key,
    rebuild_passages,
    remember_path,
    source_from,
)
from lcdoc.memory.entries import Entry
from lcdoc.memory.errors import UnknownDocumentError
from lcdoc.memory.evaluations import Evaluations
from lcdoc.memory.jobs import Jobs
from lcdoc.memory.journal import Journal
from lcdoc.memory.leases import Leases
from lcdoc.memory.memos import Memos
from lcdoc.memory.notebook import Notebook
from lcdoc.memory.places import library_path, shared_database, shared_url
from lcdoc.memory.purses import Purses
from lcdoc.memory.runs import Runs
from lcdoc.memory.secret import secret_of
from lcdoc.memory.store import Store
from lcdoc.memory.trees import Trees
from lcdoc.retrieval.passages import Chunk
from lcdoc.retrieval.shelf import Shelved

if TYPE_CHECKING:
    from lcdoc.memory.checkpoints import Saver
    from lcdoc.memory.postgres import PostgresDatabase

_DAY_S = 86_400.0


class Library:
    """Documents by file digest and by id. Use as a context manager, or `close()` it.

    Beside them: `calls`, the answers of language models, `runs`, what was asked and what it cost, and `memos`, what was
    found out about servers, `notebook`, what runs have noted, `trees`, summaries of documents, `caches`, what
    models of this machine have read, `evaluations`, how readers did on questions whose answers are known, `jobs`, many
    tasks put to many documents, and `purses`, what those may spend.

    Machines may share what is paid for: `calls`, `runs`, `notebook`, `jobs`, `purses`, the secret lie in `shared` then.

    Every method may raise a LibraryError: see `lcdoc.memory.errors`.
    """

    def __init__(self, database: Database, shared: PostgresDatabase | None = None) -> None:
        self.database = database
        self.shared = shared
        self._journal = Journal(database)
        self._store: Store = database if shared is None else shared
        self._store_journal = Journal(shared, durable=True) if shared else self._journal
        leases = Leases(self._store, self._store_journal)
        self.calls = Calls(self._store, self._store_journal, leases, is_far=shared is not None)
        self.runs = Runs(self._store, self._store_journal, leases)
        self.notebook = Notebook(self._store, self._store_journal)
        self.jobs = Jobs(self._store)
        self.purses = Purses(self._store, self._store_journal)
        self.memos = Memos(database, self._journal)
        self.trees = Trees(database, self._journal)
        self.evaluations = Evaluations(database, self._journal)
        self.caches = Caches(database, self._journal, self.path.with_name(self.path.name + ".caches"))
        self._secret: bytes | None = None

    @classmethod
    def open(
        cls, path: str | os.PathLike[str] | None = None, *, shared: str | None = None, lock_timeout_s: float = 30.0
    ) -> Library:
        """The library at `path` (see `library_path`), made there if there is none.

        `shared` is the address of a PostgreSQL database, `postgresql://USER@HOST/DATABASE`, else that in the variable
        LCDOC_SHARED: what machines share is there.
        """
        url = shared_url(shared)
        return cls(
            Database(library_path(path), lock_timeout_s=lock_timeout_s),
            None if url is None else shared_database(url, lock_timeout_s=lock_timeout_s),
        )

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is still to be written, and close the file, and the way to the server."""
        self._journal.close()
        self.database.close()
        if self.shared is not None:
            self._store_journal.close()
            self.shared.close()

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self.database.path

    def checkpoints(self) -> AbstractAsyncContextManager[Saver]:
        """A saver for graphs: see `lcdoc.memory.checkpoints`."""
        return checkpoints(self.checkpoints_path) if self.shared is None else self.shared.checkpoints()

    @property
    def checkpoints_path(self) -> Path:
        """The SQLite file with the state of runs under way, or cut off."""
        return self.path.with_name(self.path.name + ".checkpoints")

    @property
    def vectors_path(self) -> Path:
        """The folder for vector files, made by whoever writes the first one."""
        return self.path.with_name(self.path.name + ".vectors")

    def document_for(self, digest: str, reader: str, reader_version: str, path: str | None = None) -> Document | None:
        """The document that this reader made of the file with this digest; None if it is not here.

        Another version of a reader may read the same file differently, so it does not count. `path`, where the file
        lies now, is remembered, and is the document's `source.path`.
        """
        with self.database.read() as connection:
            row = connection.execute(
                "SELECT document, source FROM sources WHERE digest = ? AND reader = ?",
                (digest, reader_key(reader, reader_version)),
            ).fetchone()
            if row is None:
                return None
            document, used_at = load_document(connection, row[0], row[1])
            known = path is None or knows_path(connection, path, digest)
        if path is not None:
            document = replace(document, source=replace(document.source, path=path))
        if not known or time.time() - used_at > _DAY_S:
            with self.database.write() as connection:
                connection.execute("UPDATE documents SET used_at = ? WHERE number = ?", (time.time(), row[0]))
                remember_path(connection, document.source)
        return document

    def add(self, document: Document, chunks: Sequence[Chunk], *, recipe: str) -> None:
        """Keep a document with its chunks, as one transaction. A document that is already here costs one look-up.

        `recipe` names the chunker and its parameters; a document kept under another recipe is chunked anew. Raises
        ValueError when a chunk is not of this document.
        """
        for chunk in chunks:
            if chunk.document_id != document.id or not 0 <= chunk.span.start <= chunk.span.end <= len(document.text):
                raise ValueError(f"{chunk.key} is not a chunk of document {document.id}")
        packed_text, packed_layout = pack(document.text), pack(json.dumps(document.layout(), ensure_ascii=False))
        with self.database.write() as connection:
            row = connection.execute("SELECT number, recipe FROM documents WHERE id = ?", (document.id,)).fetchone()
            if row is None:
                now = time.time()
                connection.execute(
                    "INSERT INTO documents (id, pages, characters, recipe, first_chunk, chunks, added_at, used_at,"
                    " layout, text) VALUES (?, ?, ?, '', 0, 0, ?, ?, ?, ?)",
                    (document.id, len(document.pages), len(document.text), now, now, packed_layout, packed_text),
                )
                row = connection.execute("SELECT number, recipe FROM documents WHERE id = ?", (document.id,)).fetchone()
            number, kept_recipe = row
            if kept_recipe != recipe:
                drop_chunks(connection, number, document)
                keep_chunks(connection, number, document, chunks, recipe)
            source = document.source
            connection.execute(
                "INSERT INTO sources (digest, reader, document, source) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (digest, reader) DO UPDATE SET document = excluded.document, source = excluded.source",
                (
                    source.digest,
                    reader_key(source.reader, source.reader_version),
                    number,
                    json.dumps(asdict(source), ensure_ascii=False),
                ),
            )
            remember_path(connection, source)
        if kept_recipe not in ("", recipe):
            self._remove_vectors(document.id)

    def get(self, document_id: str) -> Document:
        """A document by its id. Raises UnknownDocumentError."""
        with self.database.read() as connection:
            row = connection.execute("SELECT number FROM documents WHERE id = ?", (document_id,)).fetchone()
            if row is None:
                raise self._unknown(document_id)
            return load_document(connection, row[0])[0]

    def chunks(self, document_id: str) -> list[Chunk]:
        """A document's chunks in order. Raises UnknownDocumentError."""
        with self.database.read() as connection:
            row = connection.execute("SELECT number FROM documents WHERE id = ?", (document_id,)).fetchone()
            if row is None:
                raise self._unknown(document_id)
            return chunks_of(connection, row[0], document_id)

    def shelved(self, document_ids: Sequence[str] | None = None) -> list[Shelved]:
        """Which chunk ids belong to these documents (default: to all), by rising chunk id.

        Raises UnknownDocumentError.
        """
        with self.database.read() as connection:
            rows = connection.execute(
                "SELECT id, first_chunk, chunks, recipe FROM documents"
                + ("" if document_ids is None else " WHERE id IN (SELECT value FROM json_each(?))")
                + " ORDER BY first_chunk",
                () if document_ids is None else (json.dumps(list(document_ids)),),
            ).fetchall()
        found = [Shelved(row[0], range(row[1], row[1] + row[2]), row[3]) for row in rows]
        for document_id in set(document_ids or ()) - {shelved.document_id for shelved in found}:
            raise self._unknown(document_id)
        return found

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """A connection in a read transaction, for searching."""
        return self.database.read()

    def recipe_of(self, document_id: str) -> str | None:
        """The recipe its chunks were cut by; None if the library does not hold the document."""
        with self.database.read() as connection:
            row = connection.execute("SELECT recipe FROM documents WHERE id = ?", (document_id,)).fetchone()
        return None if row is None else row[0]

    def list(self) -> list[Entry]:
        """All documents, the one used last first."""
        with self.database.read() as connection:
            rows = connection.execute(
                "SELECT number, id, pages, characters, chunks, added_at, used_at FROM documents"
                " ORDER BY used_at DESC, number DESC"
            ).fetchall()
            return [
                Entry(
                    id=document_id,
                    title=source.title,
                    media_type=source.media_type,
                    paths=tuple(path for (path,) in connection.execute(PATHS_OF, (number,))) or (source.path,),
                    pages=pages,
                    characters=characters,
                    chunks=chunks,
                    added_at=datetime.fromtimestamp(added_at, UTC),
                    used_at=datetime.fromtimestamp(used_at, UTC),
                )
                for number, document_id, pages, characters, chunks, added_at, used_at in rows
                for source in [source_from(latest_source(connection, number))]
            ]

    def find(self, name: str) -> str:
        """The id of the one document meant by `name`: an id, the first characters of one, or the path of its file.

        Raises UnknownDocumentError when there is none, or more than one.
        """
        path = str(Path(name).expanduser().absolute())
        with self.database.read() as connection:
            rows = connection.execute(
                "SELECT id FROM documents WHERE substr(id, 1, ?) = ? UNION"
                " SELECT id FROM documents JOIN sources ON document = number JOIN paths USING (digest)"
                " WHERE path IN (?, ?)",
                (max(len(name), 4), name.lower(), path, name),
            ).fetchall()
        if len(rows) != 1:
            raise self._unknown(name, len(rows))
        found: str = rows[0][0]
        return found

    def remove(self, document_id: str) -> None:
        """Forget a document: text, chunks, index, vectors and kept caches. Raises UnknownDocumentError."""
        with self.database.write() as connection:
            row = connection.execute("SELECT number FROM documents WHERE id = ?", (document_id,)).fetchone()
            if row is None:
                raise self._unknown(document_id)
            document = intact_document(connection, row[0])
            if document is not None:
                drop_chunks(connection, row[0], document)
            connection.execute("DELETE FROM documents WHERE number = ?", row)
            connection.execute("DELETE FROM trees WHERE document = ?", (document_id,))
            connection.execute("DELETE FROM paths WHERE digest NOT IN (SELECT digest FROM sources)")
            if document is None:
                # Only the text itself can tell the index what to remove; without it, the index is made anew.
                rebuild_passages(connection)
        self._remove_vectors(document_id)
        self.caches.forget(document_id)

    def prune(
        self,
        *,
        missing: bool = False,
        unused_days: float | None = None,
        max_bytes: int | None = None,
        calls_unused_days: float | None = None,
        caches_unused_days: float | None = None,
    ) -> builtins.list[Entry]:
        """Forget documents, stored calls and kept caches by rule, and give their space back; returns the documents.

        See `lcdoc.memory.upkeep`.
        """
        from lcdoc.memory.upkeep import prune

        return prune(
            self,
            missing=missing,
            unused_days=unused_days,
            max_bytes=max_bytes,
            calls_unused_days=calls_unused_days,
            caches_unused_days=caches_unused_days,
        )

    def verify(self) -> builtins.list[str]:
        """What is wrong with the library, a line each; empty when it is sound. Changes nothing."""
        from lcdoc.memory.upkeep import verify

        return verify(self)

    def secret(self) -> bytes:
        """32 random bytes that are this library's own, made at their first use. Not to be shown or logged.

        Prompts depend on them: libraries that share stored calls share them too.
        """
        if self._secret is None:
            self._secret = secret_of(self._store)
        return self._secret

    def _remove_vectors(self, document_id: str) -> None:
        if self.vectors_path.is_dir():
            from lcdoc.retrieval.vectors import remove_vectors

            remove_vectors(self.vectors_path, document_id)

    def _unknown(self, name: str, found: int = 0) -> UnknownDocumentError:
        problem = f"{found} documents are meant by {name!r}" if found else f"no document {name!r}"
        return UnknownDocumentError(self.path, problem, "`lcdoc library list` shows what is there")
