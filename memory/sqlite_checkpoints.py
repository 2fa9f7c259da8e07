"""LangGraph's saver for SQLite, keeping the latest checkpoint of each thread. See `lcdoc.memory.checkpoints`."""

from __future__ import annotations

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

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


class SqliteSaver(AsyncSqliteSaver):
    """A saver that keeps what is needed to go on."""

    async def setup(self) -> None:
        """Make the tables if there are none."""
        if not self.is_setup:
            await super().setup()
            await self.conn.executescript(_SETUP)

    async def forget_cancelled(self, thread_id: str) -> None:
        """Have the steps done again that were cancelled, or raised.

        LangGraph keeps what such a step had written so far, takes it for done when the thread goes on, and ends early
        where the edge to the next step was not written yet.
        """
        async with self.lock:
            await self.conn.execute(
                "DELETE FROM writes WHERE thread_id = ?1 AND (checkpoint_id, task_id) IN"
                " (SELECT checkpoint_id, task_id FROM writes WHERE thread_id = ?1 AND channel = '__error__')",
                (thread_id,),
            )
            await self.conn.commit()
