"""How the library's tables came to be: an ordered list of steps, each run once, each in a transaction of its own.

To change the schema, append a function to `MIGRATIONS`; never edit one that has been released. The number of steps
taken is SQLite's `user_version`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from lcdoc.memory.errors import LibraryVersionError
from lcdoc.memory.job_tables import JOBS
from lcdoc.memory.purse_tables import PURSES

APPLICATION_ID = 0x6C63646F  # "lcdo", in the file's header: tells a library from any other SQLite database


def _documents_and_passages(connection: sqlite3.Connection) -> None:
    for statement in (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        # `layout` and `text` come last: a row is read only as far as the last column asked for.
        """
        CREATE TABLE documents (
            number INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            pages INTEGER NOT NULL,
            characters INTEGER NOT NULL,
            recipe TEXT NOT NULL,
            first_chunk INTEGER NOT NULL,
            chunks INTEGER NOT NULL,
            added_at REAL NOT NULL,
            used_at REAL NOT NULL,
            layout BLOB NOT NULL,
            text BLOB NOT NULL
        )""",
        # Several files may hold the same text; one file read by another reader may give another.
        """
        CREATE TABLE sources (
            digest TEXT NOT NULL,
            reader TEXT NOT NULL,
            document INTEGER NOT NULL REFERENCES documents (number) ON DELETE CASCADE,
            source TEXT NOT NULL,
            PRIMARY KEY (digest, reader)
        ) WITHOUT ROWID""",
        "CREATE INDEX sources_by_document ON sources (document)",
        """
        CREATE TABLE paths (
            path TEXT PRIMARY KEY,
            digest TEXT NOT NULL,
            size INTEGER NOT NULL,
            modified_at REAL NOT NULL,
            seen_at REAL NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX paths_by_digest ON paths (digest)",
        # The ids of one document's chunks are consecutive, and no id is ever given twice.
        """
        CREATE TABLE chunks (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            document INTEGER NOT NULL REFERENCES documents (number) ON DELETE CASCADE,
            ordinal INTEGER NOT NULL,
            start INTEGER NOT NULL,
            end INTEGER NOT NULL,
            heading TEXT NOT NULL,
            UNIQUE (document, ordinal)
        )""",
        # Holds no text; row ids are chunk ids; written by `lcdoc.retrieval.lexical`.
        """
        CREATE VIRTUAL TABLE passages USING fts5(
            text, heading, content='',
            tokenize="porter unicode61 remove_diacritics 2 categories 'L* N* Co Mc Mn'"
        )""",
        "INSERT INTO meta (key, value) VALUES ('analysis', '1')",
    ):
        connection.execute(statement)


# What several machines may share is a tuple of statements: `lcdoc.memory.postgres_migrations` takes the same steps.
CALLS_AND_RUNS: tuple[str, ...] = (
    # `answer` is packed JSON: text, reasoning, logprobs. What was asked is in the key only.
    """
    CREATE TABLE calls (
        key TEXT PRIMARY KEY,
        model TEXT NOT NULL,
        base_url TEXT NOT NULL,
        prompt TEXT NOT NULL,
        created_at REAL NOT NULL,
        used_at REAL NOT NULL,
        tokens_in INTEGER NOT NULL,
        tokens_cached INTEGER NOT NULL,
        tokens_out INTEGER NOT NULL,
        estimated INTEGER NOT NULL,
        finish TEXT NOT NULL,
        served_by TEXT NOT NULL,
        answer BLOB NOT NULL
    )""",
    "CREATE INDEX calls_by_use ON calls (used_at)",
    # Calls that some process is making just now.
    "CREATE TABLE leases (key TEXT PRIMARY KEY, owner TEXT NOT NULL, expires_at REAL NOT NULL) WITHOUT ROWID",
    # `budget`, `documents` and `answer` are JSON, the latter packed.
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        question TEXT NOT NULL,
        workflow TEXT NOT NULL,
        model TEXT NOT NULL,
        documents TEXT NOT NULL,
        budget TEXT NOT NULL,
        owner TEXT NOT NULL,
        status TEXT NOT NULL,
        started_at REAL NOT NULL,
        finished_at REAL,
        error TEXT NOT NULL,
        answer BLOB
    )""",
    "CREATE INDEX runs_by_start ON runs (started_at)",
    """
    CREATE TABLE run_usage (
        run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        model TEXT NOT NULL,
        calls INTEGER NOT NULL,
        failed_calls INTEGER NOT NULL,
        stored_calls INTEGER NOT NULL,
        tokens_in INTEGER NOT NULL,
        tokens_cached INTEGER NOT NULL,
        tokens_out INTEGER NOT NULL,
        cost_usd REAL,
        seconds REAL NOT NULL,
        estimated INTEGER NOT NULL,
        PRIMARY KEY (run, model)
    ) WITHOUT ROWID""",
)
NOTES_AND_EVENTS: tuple[str, ...] = (
    # Notes and fields are packed JSON. `name` is the run's own: `read/0017`.
    """
    CREATE TABLE notes (
        run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        note BLOB NOT NULL,
        PRIMARY KEY (run, name)
    ) WITHOUT ROWID""",
    """
    CREATE TABLE events (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
        at REAL NOT NULL,
        kind TEXT NOT NULL,
        fields BLOB NOT NULL
    )""",
    "CREATE INDEX events_by_run ON events (run)",
)
# A run is looked for by its documents; the names of many would be longer than an entry of an index may be.
RUNS_BY_DOCUMENTS = "CREATE INDEX runs_by_documents ON runs (substr(documents, 1, 100))"


def _calls_and_runs(connection: sqlite3.Connection) -> None:
    for statement in (
        *CALLS_AND_RUNS,
        "CREATE TABLE memos (key TEXT PRIMARY KEY, value TEXT NOT NULL, expires_at REAL NOT NULL) WITHOUT ROWID",
    ):
        connection.execute(statement)


def _notes_and_events(connection: sqlite3.Connection) -> None:
    for statement in (
        *NOTES_AND_EVENTS,
        # Trees of summaries over documents, built once: one node a row, `node` packed JSON.
        """
        CREATE TABLE trees (
            document TEXT NOT NULL,
            recipe TEXT NOT NULL,
            name TEXT NOT NULL,
            node BLOB NOT NULL,
            PRIMARY KEY (document, recipe, name)
        ) WITHOUT ROWID""",
    ):
        connection.execute(statement)


def _kept_caches(connection: sqlite3.Connection) -> None:
    for statement in (
        # What models of this machine have read, each in a file beside the library.
        """
        CREATE TABLE caches (
            key TEXT PRIMARY KEY,
            text TEXT NOT NULL,
            model TEXT NOT NULL,
            name TEXT NOT NULL,
            recipe TEXT NOT NULL,
            file TEXT NOT NULL,
            digest TEXT NOT NULL,
            bytes INTEGER NOT NULL,
            tokens INTEGER NOT NULL,
            entries INTEGER NOT NULL,
            seconds REAL NOT NULL,
            made_at REAL NOT NULL,
            used_at REAL NOT NULL,
            prepared INTEGER NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX caches_by_text ON caches (text)",
        "CREATE INDEX caches_by_model ON caches (model)",
        # A document need not be there any more: its name alone is known.
        """
        CREATE TABLE cache_documents (
            cache TEXT NOT NULL REFERENCES caches (key) ON DELETE CASCADE,
            document TEXT NOT NULL,
            PRIMARY KEY (cache, document)
        ) WITHOUT ROWID""",
        "CREATE INDEX cache_documents_by_document ON cache_documents (document)",
    ):
        connection.execute(statement)


def _evaluations(connection: sqlite3.Connection) -> None:
    for statement in (
        # `settings` is JSON with sorted keys, `item` packed JSON. `finished_at` is null until every question was asked.
        """
        CREATE TABLE evaluations (
            id TEXT PRIMARY KEY,
            settings TEXT NOT NULL,
            questions INTEGER NOT NULL,
            owner TEXT NOT NULL,
            started_at REAL NOT NULL,
            finished_at REAL
        )""",
        "CREATE INDEX evaluations_by_settings ON evaluations (settings)",
        """
        CREATE TABLE evaluation_items (
            evaluation TEXT NOT NULL REFERENCES evaluations (id) ON DELETE CASCADE,
            name TEXT NOT NULL,
            item BLOB NOT NULL,
            PRIMARY KEY (evaluation, name)
        )""",
    ):
        connection.execute(statement)


def _jobs(connection: sqlite3.Connection) -> None:
    for statement in JOBS:
        connection.execute(statement)


def _runs_by_documents(connection: sqlite3.Connection) -> None:
    connection.execute(RUNS_BY_DOCUMENTS)


def _purses(connection: sqlite3.Connection) -> None:
    for statement in PURSES:
        connection.execute(statement)


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    _documents_and_passages,
    _calls_and_runs,
    _notes_and_events,
    _kept_caches,
    _evaluations,
    _jobs,
    _runs_by_documents,
    _purses,
)


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Take the steps the file at `path` has not taken yet. Safe when several processes do it at once.

    Raises LibraryVersionError for a file that has taken steps this lcdoc does not know.
    """
    while (version := _version(connection)) != len(MIGRATIONS):
        if version > len(MIGRATIONS):
            raise LibraryVersionError(
                path,
                f"made by a newer lcdoc (schema {version}; this one knows {len(MIGRATIONS)})",
                "upgrade lcdoc, or name another library with --library PATH",
            )
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have taken the step while this one waited for the lock.
            if _version(connection) == version:
                MIGRATIONS[version](connection)
                connection.execute(f"PRAGMA user_version = {version + 1}")
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version
