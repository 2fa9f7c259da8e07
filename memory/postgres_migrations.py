"""How the shared tables came to be on a server: numbered steps, each taken once, as in `lcdoc.memory.migrations`.

To change the schema, append a step to `STEPS`; never edit one that has been released.
"""

from __future__ import annotations

from lcdoc.memory.errors import LibraryVersionError
from lcdoc.memory.job_tables import JOBS
from lcdoc.memory.migrations import CALLS_AND_RUNS, NOTES_AND_EVENTS, RUNS_BY_DOCUMENTS
from lcdoc.memory.postgres_session import SCHEMA
from lcdoc.memory.purse_tables import PURSES
from lcdoc.memory.store import Connection

_META = "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)"

STEPS: tuple[tuple[str, ...], ...] = ((_META, *CALLS_AND_RUNS, *NOTES_AND_EVENTS, RUNS_BY_DOCUMENTS, *JOBS, *PURSES),)


def is_current(connection: Connection, path: str) -> bool:
    """Whether all steps were taken. Raises LibraryVersionError where there were more than are known here."""
    return _version(connection, path) == len(STEPS)


def migrate(connection: Connection, path: str) -> None:
    """Take the steps not taken yet, in one transaction, which has claimed the schema. Raises LibraryVersionError."""
    version = _version(connection, path)
    if not version:
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    for step in STEPS[version:]:
        for statement in step:
            connection.execute(statement)
    connection.execute(
        "INSERT INTO meta (key, value) VALUES ('schema', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (str(len(STEPS)),),
    )


def _version(connection: Connection, path: str) -> int:
    # Not `to_regclass`: in a transaction that waited for another's to make it, that may still say there is none.
    there = "SELECT 1 FROM pg_tables WHERE schemaname = ? AND tablename = 'meta'"
    if connection.execute(there, (SCHEMA,)).fetchone() is None:
        return 0
    version = int(connection.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()[0])
    if version > len(STEPS):
        problem = f"made by a newer lcdoc (schema {version}; this one knows {len(STEPS)})"
        raise LibraryVersionError(path, problem, "upgrade lcdoc on this machine")
    return version
