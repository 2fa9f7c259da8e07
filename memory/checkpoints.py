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
        connection = await aiosqlite.connect(path, timeout=_LOCK_TIMEOUT_S)
        saver = AsyncSqliteSaver(connection)
        try:
            await saver.setup()
            await connection.executescript(_SETUP)
            yield saver
        finally:
            # A cancelled step may have left a transaction open, or be about to open one. Closing does not end it while
            # a cursor is alive somewhere, and the file would stay locked for everybody.
            async with saver.lock:
                await connection.rollback()
                await connection.close()
    except sqlite3.Error as error:
        if (said := translated(path, error)) is None:
            raise
        raise said from error


async def forget_cancelled(saver: AsyncSqliteSaver, thread_id: str) -> None:
    """Have the steps done again that were cancelled, or raised.

    LangGraph keeps what such a step had written so far, takes it for done when the thread goes on, and ends early where
    the edge to the next step was not written yet.
    """
    async with saver.lock:
        await saver.conn.execute(
            "DELETE FROM writes WHERE thread_id = ?1 AND (checkpoint_id, task_id) IN"
            " (SELECT checkpoint_id, task_id FROM writes WHERE thread_id = ?1 AND channel = '__error__')",
            (thread_id,),
        )
        await saver.conn.commit()
