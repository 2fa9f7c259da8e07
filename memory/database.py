"""One SQLite file, shared by many processes and threads.

Each thread has its own connection. Readers never wait (write-ahead log); writers queue for the one write lock, for at
most `lock_timeout_s`. A transaction that dies with its process leaves nothing behind.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lcdoc.memory.errors import LibraryCorruptError, start_anew, translated, unusable
from lcdoc.memory.migrations import APPLICATION_ID, migrate

_ATTEMPT_S = 1.0
"""How long SQLite itself waits for a lock before the loop here looks at the clock."""


class Database:
    """The library's file with its schema brought up to date. `close()` it, or use it as a context manager.

    Raises LibraryAccessError where the place cannot be written, LibraryCorruptError where the file is something else
    or damaged, LibraryVersionError where a newer lcdoc made it, LibraryBusyError where a lock is not had in time.
    """

    def __init__(self, path: Path, *, lock_timeout_s: float = 30.0) -> None:
        self.path = path
        self.lock_timeout_s = lock_timeout_s
        self._lock = threading.Lock()
        self._reset()
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise unusable(path, f"its folder cannot be made ({error.strerror})") from error
        if path.is_dir():
            raise unusable(path, "is a folder, not a file")
        with self._translated():
            connection = self._connection()
            self._patiently(lambda: self._check_identity(connection))
            # Switching the mode wants the file for itself, and SQLite does not wait for that by itself.
            self._patiently(lambda: connection.execute("PRAGMA journal_mode = WAL"))
            self._patiently(lambda: migrate(connection, path))

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every thread's connection. Using the database afterwards opens anew."""
        with self._lock:
            connections = [connection for _, connection in self._opened]
            owner = self._pid
            self._reset()
        if owner == os.getpid():
            for connection in connections:
                connection.close()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection inside a read transaction: everything read through it is of one moment."""
        with self._translated():
            connection = self._connection()
            if connection.in_transaction:
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A connection inside a write transaction: committed at the end of the block, undone by any exception.

        Not to be nested. Keep the block short: other writers wait for it. Where it need not be `durable`, a power
        failure may undo it after all, until a later one is; the death of the process does not.
        """
        with self._translated():
            connection = self._connection()
            (level,) = connection.execute("PRAGMA synchronous").fetchone()
            if not durable:
                connection.execute("PRAGMA synchronous = NORMAL")
            try:
                self._patiently(lambda: connection.execute("BEGIN IMMEDIATE"))
                yield connection
                self._patiently(lambda: connection.execute("COMMIT"))
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                connection.execute(f"PRAGMA synchronous = {level}")

    def claim(self, connection: sqlite3.Connection, key: str) -> None:
        """Nothing: here every transaction that writes waits for every other. See `lcdoc.memory.store`."""

    def now(self, connection: sqlite3.Connection) -> float:
        """Unix time, by the clock of this machine: a file in SQLite is of one machine."""
        return time.time()

    def vacuum(self) -> None:
        """Give freed space back to the file system. Waits for the write lock like any writer."""
        with self._translated():
            connection = self._connection()
            self._patiently(lambda: connection.execute("VACUUM"))
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._local = threading.local()
        self._opened: list[tuple[weakref.ref[threading.Thread], sqlite3.Connection]] = []

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection, opened at its first use; those of threads that ended are closed then."""
        if self._pid != os.getpid():
            # A connection must not cross a fork, not even to be closed: the child forgets what it inherited, and
            # holds on to it so that the garbage collector does not close it either.
            self._inherited = (self._local, self._opened)
            self._lock = threading.Lock()
            self._reset()
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            return connection
        connection = sqlite3.connect(self.path, timeout=_ATTEMPT_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        self._local.connection = connection
        with self._lock:
            ended = [entry for entry in self._opened if (thread := entry[0]()) is None or not thread.is_alive()]
            self._opened = [entry for entry in self._opened if entry not in ended]
            self._opened.append((weakref.ref(threading.current_thread()), connection))
        for _, abandoned in ended:
            abandoned.close()
        return connection

    def _patiently(self, action: Callable[[], object]) -> None:
        """Do it, again and again while the file is locked, until the lock timeout."""
        deadline = time.monotonic() + self.lock_timeout_s
        pause_s = 0.002
        while True:
            try:
                action()
                return
            except sqlite3.OperationalError as error:
                name = getattr(error, "sqlite_errorname", "")
                if not name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or time.monotonic() > deadline:
                    raise
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.1)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if (said := translated(self.path, error)) is None:
                raise
            raise said from error

    def _check_identity(self, connection: sqlite3.Connection) -> None:
        """Refuse a database that is somebody else's before anything is written into it."""
        with self.read():  # both of one moment: another process may be making the tables just now
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION_ID and (application or tables):
            raise LibraryCorruptError(self.path, "a SQLite database, but not an lcdoc library", start_anew(self.path))
