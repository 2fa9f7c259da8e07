"""A small file in which the processes of a machine keep what they share while they live: how much of its limits each
server has left, for one.

It lies in the user's state folder and not beside a library, since a server's limits are the user's whichever library is
open. Nothing in it outlives the machine's run: each run, and each container, has a file of its own, so that all who
share one go by the same monotonic clock and can tell which processes have ended. Losing it loses nothing of value.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final, TypeVar

from lcdoc.memory.owner import Owner

_FORM: Final = 1
"""Of the file: another form has another name."""
_LOCK_S: Final = 5.0
"""A lock is held for microseconds, unless its holder is stopped in the middle."""
_PAUSE_S: Final = 0.001
_ABANDONED_S: Final = 7 * 86_400.0

Changed = TypeVar("Changed")


def machine_path() -> Path:
    """Where this machine's file is."""
    from platformdirs import user_state_path

    here = Owner.here()
    host = re.sub(r"[^\w.-]", "_", here.host)[:60]
    run = blake2b(f"{here.boot} {here.namespace}".encode(), digest_size=6).hexdigest()
    return user_state_path("lcdoc", appauthor=False) / f"limits-{_FORM}-{host}-{run}.sqlite"


class SharedFile:
    """Texts by key, each changed by one process at a time. May be used from any thread; `close()` it.

    Every method raises sqlite3.Error or OSError where the file cannot be had.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] = (0, 0)
        self._pid = 0

    def change(self, key: str, change: Callable[[str | None], tuple[str, Changed]]) -> Changed:
        """Put another text in the place of what was kept (None: nothing), while everybody else waits."""
        deadline = time.monotonic() + _LOCK_S
        with self._lock:
            while True:
                try:
                    # Opening as well: SQLite does not wait by itself where several processes make the file at once.
                    return _changed(self._open(), key, change)
                except sqlite3.OperationalError as error:
                    if not _is_locked(error) or time.monotonic() > deadline:
                        raise
                time.sleep(_PAUSE_S)

    def change_at_once(self, key: str, change: Callable[[str | None], tuple[str, Changed]]) -> Changed | None:
        """The same where nobody has to wait for it; None where the file is not open, or others are at it."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if not self._is_open():
                return None
            return _changed(self._open(), key, change)
        except sqlite3.OperationalError as error:
            if _is_locked(error):
                return None
            raise
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None

    def _is_open(self) -> bool:
        return self._connection is not None and self._pid == os.getpid() and self._file == _identity(self.path)

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._is_open():
            return self._connection
        if self._connection is not None and self._pid == os.getpid():
            self._connection.close()  # somebody removed the file: the others have another by now
        # A connection that was inherited from a parent is not to be closed: the parent's locks would go with it.
        self._inherited, self._connection = self._connection, None
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(self.path, timeout=_LOCK_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("CREATE TABLE IF NOT EXISTS shared (key TEXT PRIMARY KEY, state TEXT NOT NULL)")
            connection.execute("PRAGMA busy_timeout = 0")
        except BaseException:
            connection.close()
            raise
        self._connection, self._file, self._pid = connection, _identity(self.path), os.getpid()
        _tidy_up(self.path)
        return connection


def _changed(connection: sqlite3.Connection, key: str, change: Callable[[str | None], tuple[str, Changed]]) -> Changed:
    connection.execute("BEGIN IMMEDIATE")
    try:
        row = connection.execute("SELECT state FROM shared WHERE key = ?", (key,)).fetchone()
        state, result = change(None if row is None else row[0])
        connection.execute(
            "INSERT INTO shared (key, state) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET state = excluded.state",
            (key, state),
        )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def _is_locked(error: sqlite3.OperationalError) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_dev, found.st_ino


def _tidy_up(path: Path) -> None:
    """Remove files of earlier runs of machines that nobody has used for long."""
    with suppress(OSError):
        for other in path.parent.glob("limits-*.sqlite"):
            if other != path and time.time() - _last_used(other) > _ABANDONED_S:
                for name in (other.name, f"{other.name}-wal", f"{other.name}-shm"):
                    other.with_name(name).unlink(missing_ok=True)


def _last_used(path: Path) -> float:
    beside = path.with_name(f"{path.name}-wal")
    return max(path.stat().st_mtime, beside.stat().st_mtime if beside.exists() else 0.0)
