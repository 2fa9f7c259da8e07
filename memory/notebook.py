"""What runs have noted so far and what happened in them: what a run that was cut off goes on from, and its trace.

A graph's state holds names of notes only; the notes themselves are here, written before the state says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lcdoc.memory.document_rows import pack, unpack
from lcdoc.memory.journal import Journal
from lcdoc.memory.store import Store


@dataclass(frozen=True, slots=True)
class Entry:
    """An event of a run: what kind, when (Unix time), and its fields as plain JSON values."""

    number: int
    at: float
    kind: str
    fields: Mapping[str, Any]


class Notebook:
    """Notes and events of runs, as plain JSON values. Removing a run from the library removes them."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal

    async def keep(self, run_id: str, name: str, note: Mapping[str, Any]) -> None:
        """Keep a note, in the place of an earlier one of this name. It is kept when this returns."""
        text = json.dumps(dict(note), ensure_ascii=False)
        # Packed by the journal's thread: the one that calls has the next question to send.
        await self._journal.write(
            lambda c: c.execute(
                "INSERT INTO notes (run, name, note) VALUES (?, ?, ?)"
                " ON CONFLICT (run, name) DO UPDATE SET note = excluded.note",
                (run_id, name, pack(text)),
            )
        )

    def note(self, run_id: str, name: str) -> dict[str, Any] | None:
        """The note of this name; None if the run has none."""
        with self._store.read() as connection:
            row = connection.execute("SELECT note FROM notes WHERE run = ? AND name = ?", (run_id, name)).fetchone()
        return None if row is None else dict(json.loads(unpack(row[0])))

    def has(self, run_id: str, name: str) -> bool:
        """Whether the run has a note of this name."""
        with self._store.read() as connection:
            query = "SELECT 1 FROM notes WHERE run = ? AND name = ?"
            return connection.execute(query, (run_id, name)).fetchone() is not None

    async def drop(self, run_id: str, names: Sequence[str]) -> None:
        """Remove notes; those that are not there are none."""
        rows = [(run_id, name) for name in names]
        await self._journal.write(lambda c: c.executemany("DELETE FROM notes WHERE run = ? AND name = ?", rows))

    def notes(self, run_id: str, prefix: str = "") -> dict[str, dict[str, Any]]:
        """All notes of a run whose names begin so, by name, in the order of names."""
        with self._store.read() as connection:
            rows = connection.execute(
                "SELECT name, note FROM notes WHERE run = ? AND substr(name, 1, ?) = ? ORDER BY name",
                (run_id, len(prefix), prefix),
            ).fetchall()
        return {name: dict(json.loads(unpack(note))) for name, note in rows}

    def record(self, run_id: str, kind: str, fields: Mapping[str, Any]) -> None:
        """Record an event. Not waited for."""
        at, text = time.time(), json.dumps(dict(fields), ensure_ascii=False)
        self._journal.post(
            lambda c: c.execute(
                "INSERT INTO events (run, at, kind, fields) VALUES (?, ?, ?, ?)", (run_id, at, kind, pack(text))
            )
        )

    def events(self, run_id: str) -> list[Entry]:
        """The events of a run, in order."""
        self._journal.flush()
        with self._store.read() as connection:
            rows = connection.execute(
                "SELECT number, at, kind, fields FROM events WHERE run = ? ORDER BY number", (run_id,)
            ).fetchall()
        return [Entry(number, at, kind, json.loads(unpack(fields))) for number, at, kind, fields in rows]
