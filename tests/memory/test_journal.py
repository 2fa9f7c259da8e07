"""Writes of coroutines, committed together by one thread."""

import asyncio
import sqlite3
from pathlib import Path

from lcdoc.memory import Library


def test_no_cursor_leaves_the_thread_of_its_connection(tmp_path: Path) -> None:
    """A cursor that is collected elsewhere would reset a statement while the thread runs it."""
    cursors: list[sqlite3.Cursor] = []

    def insert(connection: sqlite3.Connection) -> sqlite3.Cursor:
        cursor = connection.execute("INSERT OR REPLACE INTO memos VALUES ('name', 'value', 0)")
        cursors.append(cursor)
        return cursor

    async def write(library: Library) -> object:
        return await library.memos._journal.write(insert)

    with Library.open(tmp_path / "library.sqlite") as library:
        assert asyncio.run(write(library)) is None
    (cursor,) = cursors
    try:
        cursor.fetchone()
    except sqlite3.ProgrammingError as error:
        assert "closed cursor" in str(error)
    else:
        raise AssertionError("the cursor is open")


def test_many_writers_at_once_never_disturb_each_other(tmp_path: Path) -> None:
    rows = [(f"name {number}", "value" * 40, 4e9) for number in range(40)]

    async def go(library: Library) -> None:
        async def write() -> None:
            for _ in range(20):
                await library.memos._journal.write(
                    lambda c: c.executemany("INSERT OR REPLACE INTO memos VALUES (?, ?, ?)", rows)
                )

        await asyncio.gather(*(write() for _ in range(16)))

    with Library.open(tmp_path / "library.sqlite") as library:
        asyncio.run(go(library))
        assert library.memos.get("name 39") == "value" * 40
