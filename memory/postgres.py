"""The shared part of libraries on several machines: a PostgreSQL database, used as `lcdoc.memory.database` is.

What is slow to make and the same everywhere (documents, chunks, vectors, trees, caches) stays in each machine's own
library; what must be one for all of them lies here: jobs, the answers that were paid for, runs, notes, purses, and the
secret that prompts depend on. All of it is in the schema `lcdoc` of the database.

A server that goes away is waited for between transactions. A commit whose acknowledgement is lost with the connection
is looked up when the server is back, so that nothing is done twice and nothing that was kept is taken for lost.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors as pg

from lcdoc.memory.errors import LibraryAccessError, LibraryError, LibraryLostError
from lcdoc.memory.postgres_address import address
from lcdoc.memory.postgres_dialect import adapted, translated
from lcdoc.memory.postgres_errors import away, refused, translation
from lcdoc.memory.postgres_migrations import is_current, migrate
from lcdoc.memory.postgres_pool import Pool, Raw
from lcdoc.memory.postgres_session import connected

if TYPE_CHECKING:
    from lcdoc.memory.postgres_checkpoints import Checkpoints, PostgresSaver

_OLDEST = 130_000
"""PostgreSQL 13, the first that tells what became of a transaction (`pg_xact_status`) as it is asked here."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_IN_DOUBT_S = 600.0
# The clock is the server's, and the number tells afterwards what became of the transaction. Both come along with BEGIN.
_NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"
_READ = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_NOW}, ''"
_WRITE = f"BEGIN ISOLATION LEVEL READ COMMITTED; {_NOW}, pg_current_xact_id()::text"
_WRITE_SOON = f"{_WRITE}; SET LOCAL synchronous_commit = off"


class Transaction:
    """A connection inside a transaction; what `lcdoc.memory.store.Connection` asks for."""

    def __init__(self, raw: Raw, begin: str) -> None:
        self.raw = raw
        cursor = raw.execute(begin.encode(), prepare=False)  # two statements and their answers, in one round trip
        cursor.nextset()
        self._began_at, self.number = cursor.fetchone() or (0.0, "")
        self._began = time.monotonic()

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> psycopg.Cursor[tuple[Any, ...]]:
        return self.raw.execute(translated(sql).encode(), adapted(parameters))

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> psycopg.Cursor[tuple[Any, ...]]:
        cursor = self.raw.cursor()
        cursor.executemany(translated(sql).encode(), [adapted(values) for values in parameters])
        return cursor

    def now(self) -> float:
        """Unix time, by the server's clock."""
        return float(self._began_at) + time.monotonic() - self._began


class PostgresDatabase:
    """The schema `lcdoc` of a database, its tables brought up to date. `close()` it, or use it as a context manager.

    Safe for threads and forks. `patience_s` is how long a server that was reached before is waited for when it is away.
    Raises LibraryAccessError where the server does not admit us, LibraryAwayError where it cannot be reached,
    LibraryVersionError where a newer lcdoc made the tables. Inside a transaction also LibraryLostError, after which
    the transaction may be done again, and LibraryBusyError.
    """

    def __init__(self, url: str, *, lock_timeout_s: float = 30.0, patience_s: float = 60.0) -> None:
        self._address = address(url)
        self.path = self._address.name
        self._lock_timeout_s = lock_timeout_s
        connect = partial(connected, self._address, lock_timeout_s=lock_timeout_s)
        self._pool = Pool(self._address, connect, timeout_s=lock_timeout_s)
        self._checkpoints: Checkpoints | None = None
        self._local = threading.local()
        self._patience_s = 0.0  # whoever gives a wrong address is told so at once
        try:
            with self.read() as connection:
                self._check(connection.raw)
                current = is_current(connection, self.path)
            if not current:
                with self.write() as connection:
                    self.claim(connection, "schema")
                    migrate(connection, self.path)
        except BaseException:
            self.close()
            raise
        self._patience_s = patience_s

    def __enter__(self) -> PostgresDatabase:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"PostgresDatabase({self.path!r})"

    def close(self) -> None:
        """Close the connections. Using the database afterwards opens anew."""
        self._pool.close()

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A read transaction: everything read through it is of one moment. Inside another, that one."""
        current: Transaction | None = getattr(self._local, "current", None)
        if current is not None:
            yield current
            return
        with self._transaction(_READ) as connection:
            yield connection

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Transaction]:
        """A write transaction: committed at the end of the block, undone by any exception. Not to be nested.

        Other writers go on meanwhile; see `claim`. Where it need not be `durable`, a crash of the server may undo it.
        """
        with self._transaction(_WRITE if durable else _WRITE_SOON) as connection:
            yield connection

    def claim(self, connection: Any, key: str) -> None:
        """Wait until no other transaction that claimed `key` is under way; until this one ends, others wait."""
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(?, 0))", (f"lcdoc/{key}",))

    def now(self, connection: Any) -> float:
        """Unix time, by the server's clock."""
        transaction: Transaction = connection
        return transaction.now()

    def checkpoints(self) -> AbstractAsyncContextManager[PostgresSaver]:
        """A saver for graphs, open as long as the block: see `lcdoc.memory.postgres_checkpoints`."""
        if self._checkpoints is None:
            # Not before a graph runs: it imports LangGraph.
            from lcdoc.memory.postgres_checkpoints import Checkpoints

            self._checkpoints = Checkpoints(self._address, lock_timeout_s=self._lock_timeout_s)
        return self._checkpoints.saver()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Transaction]:
        with self._translated():
            transaction = self._begun(begin)
            self._local.current = transaction
            try:
                yield transaction
                committed = self._commit(transaction)
            except BaseException:
                with suppress(psycopg.Error):
                    transaction.raw.execute(b"ROLLBACK", prepare=False)
                raise
            finally:
                self._local.current = None
                self._pool.give_back(transaction.raw)
        if not committed:
            self._look_up(transaction)

    def _begun(self, begin: str) -> Transaction:
        """A transaction that has begun, on a server that is waited for while it is away."""
        deadline, pause_s = time.monotonic() + self._patience_s, _FIRST_PAUSE_S
        while True:
            broken = False
            try:
                raw = self._pool.take()
                try:
                    return Transaction(raw, begin)
                except BaseException:
                    broken = raw.closed
                    self._pool.give_back(raw)
                    raise
            except psycopg.OperationalError as error:
                if (said := refused(self.path, error)) is not None:
                    raise said from None  # the error itself knows the password
                if time.monotonic() > deadline:
                    raise away(self.path, error) from None
            if not broken:  # a kept connection that is broken says little; a new one is tried at once
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _commit(self, transaction: Transaction) -> bool:
        """True: it is committed. False: the connection was lost before that was told."""
        try:
            cursor = transaction.raw.execute(b"COMMIT", prepare=False)
        except psycopg.OperationalError:
            if transaction.number and transaction.raw.closed:
                return False
            raise
        if cursor.statusmessage != "COMMIT":
            raise RuntimeError("a statement of the transaction failed, and was passed over: nothing of it was kept")
        return True

    def _look_up(self, transaction: Transaction) -> None:
        """Find out what became of a commit. Raises LibraryLostError where it was undone.

        A server that is away is waited for, much longer than before a transaction: what was to be kept is paid for.
        """
        deadline = time.monotonic() + _IN_DOUBT_S
        while True:
            row: tuple[Any, ...] | None = None
            unheard: LibraryError | None = None
            try:
                with self.read() as connection:
                    row = connection.execute("SELECT pg_xact_status(?::xid8)", (transaction.number,)).fetchone()
            except LibraryError as error:  # of the question, not of the commit
                unheard = error
            except pg.InvalidParameterValue:  # a number that was never on the disk: nothing of it was
                row = ("aborted",)
            if row == ("committed",):
                return
            if row == ("aborted",):
                raise LibraryLostError(self.path, "the connection was lost at a commit, which was undone", "try again")
            if time.monotonic() > deadline:
                problem = "the server was lost at a commit, and whether it was kept cannot be told"
                raise LibraryError(self.path, problem, "check the server") from unheard
            time.sleep(_LONGEST_PAUSE_S)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (psycopg.Error, sqlite3.DatabaseError) as error:
            if (said := translation(self.path, error)) is None:
                raise
            raise said from error

    def _check(self, raw: Raw) -> None:
        if (version := raw.info.server_version) < _OLDEST:
            problem = f"the server is PostgreSQL {version // 10_000}"
            raise LibraryAccessError(self.path, problem, "use PostgreSQL 13 or newer")
        if (encoding := raw.info.parameter_status("server_encoding")) != "UTF8":
            problem = f"the database is encoded in {encoding}"
            raise LibraryAccessError(self.path, problem, "make one with CREATE DATABASE ... ENCODING 'UTF8'")
