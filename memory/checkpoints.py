"""The state of graphs under way, in a SQLite file beside the library's: what a run that was cut off goes on from.

Only the latest checkpoint of a thread is kept. A saver that keeps them all writes the state of a thousand steps a
thousand times, and its file grows with the square of the steps.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lcdoc.memory.errors import translated

if TYPE_CHECKING:
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

_LOCK_TIMEOUT_S = 30.0
_SETUP = """
PRAGMA synchronous = NORMAL;
PRAGMA wal_autocheckpoint = 64;
CREATE TRIGGER IF NOT EXISTS latest_checkpoint AFTER INSERT ON checkpoints BEGIN
    DELETE FROM writes WHERE thread_id = NEW.thread_id AND checkpoint_ns = NEW.checkpoint_ns
        AND checkpoint_id < NEW.checkpoint_id;
    DELETE FROM checkpoints WHERE thread_id = NEW.thread_id AND checkpoint_ns = NEW.checkpoint_ns
        AND checkpoint_id < NEW.checkpoint_id;
END;
"""
# `synchronous` as for the journal: what is committed outlives the process; a power failure may cost the last steps, not
# the file. The log is brought in early, since by default it alone grows to four megabytes.


@asynccontextmanager
async def checkpoints(path: Path) -> AsyncIterator[AsyncSqliteSaver]:
    """A saver for graphs, open as long as the block. Raises LibraryError, also for what goes wrong in the block."""
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    try:
        async with aiosqlite.connect(path, timeout=_LOCK_TIMEOUT_S) as connection:
            saver = AsyncSqliteSaver(connection)
            await saver.setup()
            await connection.executescript(_SETUP)
            yield saver
    except sqlite3.Error as error:
        if (said := translated(path, error)) is None:
            raise
        raise said from error
