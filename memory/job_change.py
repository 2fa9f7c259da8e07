"""A job inside a transaction that changes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lcdoc.memory.store import Connection, Cursor


@dataclass(frozen=True, slots=True)
class JobChange:
    """A writing transaction that has claimed a job: no other changes it meanwhile."""

    connection: Connection
    now: float
    """Unix time, by the store's clock."""
    job: str
    state: str
    """As it is stored: a finished job is open."""
    tasks: int
    """For each document."""
    attempts: int
    """How many workers may die at one thing."""

    def execute(self, sql: str, *values: Any) -> Cursor:
        """Execute one statement."""
        return self.connection.execute(sql, values)

    def add(self, **totals: float) -> int:
        """Add to the job's totals, each named as its column; returns the sequence number they have come to."""
        sets = ", ".join(f"{column} = {column} + ?" for column in totals)
        row = self.execute(
            f"UPDATE job_totals SET {sets} WHERE job = ? RETURNING sequence", *totals.values(), self.job
        ).fetchone()
        return int(row[0])
