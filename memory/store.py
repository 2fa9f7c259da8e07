"""What tables that machines may share ask of a database: to lie in a library's SQLite file, or on a PostgreSQL server.

SQL here is what both understand: `?` for values, `ON CONFLICT`, `RETURNING`, truth values as integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol


class Cursor(Protocol):
    """The rows of a statement."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """A connection inside a transaction."""

    def execute(self, sql: str, parameters: Sequence[Any] = ..., /) -> Cursor: ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Cursor: ...


class Store(Protocol):
    """A database with transactions. Its errors are LibraryErrors."""

    @property
    def path(self) -> Path | str:
        """What errors call it: a file, or the address of a server without its password."""

    def read(self) -> AbstractContextManager[Connection]:
        """A transaction that reads: everything is of one moment."""

    def write(self, *, durable: bool = True) -> AbstractContextManager[Connection]:
        """A transaction that writes. What it wrote outlives the process once the block has ended.

        `durable`: a power failure too. Where it need not be, it costs less.
        """

    def claim(self, connection: Any, key: str) -> None:
        """Wait until no other transaction that claimed `key` is under way; until this one ends, others wait.

        The first thing a writing transaction does. Transactions with one key follow each other and see each other's
        work. Those that claim several, as a journal's do, may come to wait for each other: one is undone then, with
        LibraryLostError, and is to be done again.
        """

    def now(self, connection: Any) -> float:
        """Unix time, by the one clock that all who use the database go by."""
