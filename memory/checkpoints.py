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
    from lcdoc.memory.postgres_checkpoints import PostgresSaver
    from lcdoc.memory.sqlite_checkpoints import SqliteSaver

    Saver = SqliteSaver | PostgresSaver
    """One of LangGraph's, with `forget_cancelled`."""

_LOCK_TIMEOUT_S = 30.0


@asynccontextmanager
async def checkpoints(path: Path) -> AsyncIterator[SqliteSaver]:
    """A saver for graphs, open as long as the block. Raises LibraryError, also for what goes wrong in the block."""
    import aiosqlite

    from lcdoc.memory.sqlite_checkpoints import SqliteSaver

    try:
        connection = await aiosqlite.connect(path, timeout=_LOCK_TIMEOUT_S)
        saver = SqliteSaver(connection)
        try:
            await saver.setup()
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
