"""The state of graphs under way on the server that libraries share: a run begun on one machine goes on on another.

LangGraph's saver for PostgreSQL, keeping the latest checkpoint of each thread as `lcdoc.memory.checkpoints` does. What
a step writes is the same however often it is written, so whatever the saver does is done again when the connection was
lost. The state may be behind the notes, never before them: it need not wait for the server's disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from lcdoc.memory.postgres_address import Address
from lcdoc.memory.postgres_errors import away, refused, translation
from lcdoc.memory.postgres_session import agreement, conninfo

Done = TypeVar("Done")

_MOST = 4
"""Connections for the graphs of one event loop, however many run at once."""
_TAKE_S = 10.0
_AGAIN_S = 0.2
_PATIENCE_S = 60.0
_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('lcdoc/checkpoints', 0)) AS locked"
_LATEST = """
CREATE OR REPLACE FUNCTION keep_latest_checkpoint() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    DELETE FROM checkpoint_writes WHERE thread_id = NEW.thread_id AND checkpoint_ns = NEW.checkpoint_ns
        AND checkpoint_id < NEW.checkpoint_id;
    DELETE FROM checkpoints WHERE thread_id = NEW.thread_id AND checkpoint_ns = NEW.checkpoint_ns
        AND checkpoint_id < NEW.checkpoint_id;
    DELETE FROM checkpoint_blobs WHERE thread_id = NEW.thread_id AND checkpoint_ns = NEW.checkpoint_ns
        AND version IS DISTINCT FROM NEW.checkpoint -> 'channel_versions' ->> channel;
    RETURN NULL;
END $$;
DROP TRIGGER IF EXISTS latest_checkpoint ON checkpoints;
CREATE TRIGGER latest_checkpoint AFTER INSERT ON checkpoints
    FOR EACH ROW EXECUTE FUNCTION keep_latest_checkpoint();
"""
_VERSION = f"{len(AsyncPostgresSaver.MIGRATIONS)}/1"
"""Of LangGraph's tables, and of what is added here: one more for each change."""
_RECORDED = "SELECT value FROM meta WHERE key = 'checkpoints'"
_RECORD = (
    "INSERT INTO meta (key, value) VALUES ('checkpoints', %s) ON CONFLICT (key) DO UPDATE SET value = excluded.value"
)

Connections = AsyncConnectionPool[psycopg.AsyncConnection[dict[str, Any]]]


class PostgresSaver(AsyncPostgresSaver):
    """A saver that keeps what is needed to go on, and does again what a lost connection undid."""

    def __init__(self, name: str, connections: Connections) -> None:
        super().__init__(connections)
        self._name = name

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        get = super().aget_tuple
        return await self._until_done(lambda: get(config))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        put = super().aput
        return await self._until_done(lambda: put(config, checkpoint, metadata, new_versions))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        put = super().aput_writes
        await self._until_done(lambda: put(config, writes, task_id, task_path))

    async def adelete_thread(self, thread_id: str) -> None:
        delete = super().adelete_thread
        await self._until_done(lambda: delete(thread_id))

    async def forget_cancelled(self, thread_id: str) -> None:
        """Have the steps done again that were cancelled, or raised: see `SqliteSaver.forget_cancelled`."""

        async def forget() -> None:
            async with self._cursor() as cursor:
                await cursor.execute(
                    "DELETE FROM checkpoint_writes WHERE thread_id = %s AND (checkpoint_id, task_id) IN (SELECT"
                    " checkpoint_id, task_id FROM checkpoint_writes WHERE thread_id = %s AND channel = '__error__')",
                    (thread_id, thread_id),
                )

        await self._until_done(forget)

    async def _until_done(self, action: Callable[[], Awaitable[Done]]) -> Done:
        """Do it, again when the connection is lost. Raises LibraryAwayError when the server does not come back."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return await action()
            except psycopg.OperationalError as error:
                if error.sqlstate is not None and not error.sqlstate.startswith(("08", "40", "57")):
                    raise
                if time.monotonic() > deadline:
                    raise away(self._name, error) from None
            await asyncio.sleep(_AGAIN_S)


class Checkpoints:
    """Savers for the graphs of a process. Those of one event loop share a few connections while any of them is open."""

    def __init__(self, address: Address, *, lock_timeout_s: float) -> None:
        self._address = address
        self._lock_timeout_s = lock_timeout_s
        self._lent: dict[asyncio.AbstractEventLoop, _Lent] = {}
        self._is_set_up = False

    @asynccontextmanager
    async def saver(self) -> AsyncIterator[PostgresSaver]:
        """A saver, open as long as the block. Raises LibraryError, also for what goes wrong in the block."""
        loop = asyncio.get_running_loop()
        lent = self._lent.setdefault(loop, _Lent())
        lent.users += 1
        try:
            async with lent.opening:
                if lent.connections is None:
                    if not self._is_set_up:
                        await self._set_up()
                    lent.connections = await self._opened()
            yield PostgresSaver(self._address.name, lent.connections)
        except psycopg.Error as error:
            if (said := translation(self._address.name, error)) is None:
                raise
            raise said from error
        finally:
            lent.users -= 1
            if not lent.users:
                del self._lent[loop]
                if lent.connections is not None:
                    await lent.connections.close()

    async def _opened(self) -> Connections:
        async def agree(connection: psycopg.AsyncConnection[Any]) -> None:
            await connection.execute(agreement(lock_timeout_s=self._lock_timeout_s, durable=False), prepare=False)

        connections: Connections = AsyncConnectionPool(
            conninfo(self._address),
            kwargs={"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row},
            min_size=1,
            max_size=_MOST,
            timeout=_TAKE_S,
            name="lcdoc checkpoints",
            configure=agree,
            open=False,
        )
        await connections.open()
        return connections

    async def _set_up(self) -> None:
        """Make LangGraph's tables, or bring them up to date: one process at a time."""
        try:
            connection = await psycopg.AsyncConnection.connect(
                conninfo(self._address), autocommit=True, row_factory=dict_row
            )
        except psycopg.OperationalError as error:
            raise refused(self._address.name, error) or away(self._address.name, error) from None
        async with connection:
            await connection.execute(agreement(lock_timeout_s=self._lock_timeout_s))
            recorded = await (await connection.execute(_RECORDED)).fetchone()
            if recorded is None or recorded["value"] != _VERSION:
                # Tried again and again: an index is made CONCURRENTLY, and that would wait for whoever waits for it.
                while not (await (await connection.execute(_LOCK)).fetchone() or {})["locked"]:
                    await asyncio.sleep(_AGAIN_S)
                await AsyncPostgresSaver(connection).setup()
                await connection.execute(_LATEST)
                await connection.execute(_RECORD, (_VERSION,))
        self._is_set_up = True


@dataclass(slots=True)
class _Lent:
    """The connections of one event loop, and how many savers use them."""

    users: int = 0
    connections: Connections | None = None
    opening: asyncio.Lock = field(default_factory=asyncio.Lock)
