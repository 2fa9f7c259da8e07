"""The rows of purses: what each process has spent of a job's caps, and holds back. For `lcdoc.memory.purses`.

Whoever writes has the job's claim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from lcdoc.memory.owner import Owner
from lcdoc.memory.spending import Spending, added
from lcdoc.memory.store import Connection
from lcdoc.memory.work_clock import tick

WHOLE_JOB: Final = 0
"""The number of the account of the job itself; documents are numbered from 1."""
SILENT_S: Final = 90.0
"""A process that gave no sign of life for so long is taken for gone. One of this machine that has ended is known to
be."""
_GONE: Final = ""
"""The owner of the row that adds up processes that have ended."""


@dataclass(frozen=True, slots=True)
class Account:
    """What was spent of a job's caps, or of those of one of its documents."""

    spent: Spending
    """What processes that are gone held back for calls is included: it may have been spent."""
    under_way: Spending
    """The most that calls under way can take."""
    seconds: float
    """At work. Counted only where time is capped."""


@dataclass(frozen=True, slots=True)
class Row:
    """What one process has spent of an account, and holds back for calls under way."""

    owner: str
    spent: Spending
    held: Spending
    working: bool
    beat_at: float

    def is_gone(self, now: float) -> bool:
        """Whether it has ended, or is taken for it: then what it held back is spent, for all that is known."""
        return self.has_ended() or now - self.beat_at > SILENT_S

    def has_ended(self) -> bool:
        """Whether it surely has."""
        return self.owner == _GONE or Owner.from_text(self.owner).is_gone()


def rows_of(connection: Connection, job: str, document: int) -> list[Row]:
    """All parts of one account."""
    rows = connection.execute(
        "SELECT p.owner, p.cost, p.tokens, p.calls, p.held_cost, p.held_tokens, p.held_calls, p.working, o.beat_at"
        " FROM purses p LEFT JOIN purse_owners o ON o.job = p.job AND o.owner = p.owner"
        " WHERE p.job = ? AND p.document = ?",
        (job, document),
    )
    return [_row(*row) for row in rows]


def _row(owner: str, *row: Any) -> Row:
    return Row(owner, Spending(*row[:3]), Spending(*row[3:6]), bool(row[6]), row[7] or 0.0)


def account(connection: Connection, job: str, document: int, now: float) -> Account:
    """What was spent of an account, by all processes."""
    rows = rows_of(connection, job, document)
    clock = connection.execute(
        "SELECT seconds FROM work_clocks WHERE job = ? AND document = ?", (job, document)
    ).fetchone()
    lost = added(row.held for row in rows if row.is_gone(now))
    living = added(row.held for row in rows if not row.is_gone(now))
    return Account(added(row.spent for row in rows) + lost, living, clock[0] if clock else 0.0)


def keep_amounts(connection: Connection, key: tuple[str, int, str], spent: Spending, held: Spending) -> None:
    """What a process has spent so far, and holds back now, in the place of what it said before.

    `key` is the job, the document and the owner.
    """
    connection.execute(
        "INSERT INTO purses (job, document, owner, cost, tokens, calls, held_cost, held_tokens, held_calls)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job, document, owner) DO UPDATE SET"
        " cost = excluded.cost, tokens = excluded.tokens, calls = excluded.calls, held_cost = excluded.held_cost,"
        " held_tokens = excluded.held_tokens, held_calls = excluded.held_calls",
        (*key, spent.cost, spent.tokens, spent.calls, held.cost, held.tokens, held.calls),
    )


def keep_working(connection: Connection, key: tuple[str, int, str], now: float, *, working: bool | None) -> float:
    """Whether a process is at work from `now` on (None: as before); for how long somebody was, so far, in seconds."""
    job, document, owner = key
    at_work = [row for row in rows_of(connection, job, document) if row.working]
    somebody = any(row.owner == owner or not row.is_gone(now) for row in at_work)
    seconds = tick(connection, job, document, now, somebody=somebody)
    if working is not None:
        connection.execute(
            "INSERT INTO purses (job, document, owner, working) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (job, document, owner) DO UPDATE SET working = excluded.working",
            (*key, int(working)),
        )
    return seconds


def sign(connection: Connection, job: str, owner: str, now: float) -> None:
    """A process lives."""
    connection.execute(
        "INSERT INTO purse_owners (job, owner, beat_at) VALUES (?, ?, ?)"
        " ON CONFLICT (job, owner) DO UPDATE SET beat_at = excluded.beat_at",
        (job, owner, now),
    )


def fold(connection: Connection, job: str) -> None:
    """Add up the processes that have ended, so that there are never many rows."""
    owners = [row[0] for row in connection.execute("SELECT owner FROM purse_owners WHERE job = ?", (job,)).fetchall()]
    for owner in owners:
        if not Owner.from_text(owner).is_gone():
            continue
        # What it held back may have been spent.
        connection.execute(
            "INSERT INTO purses (job, document, owner, cost, tokens, calls, held_cost, held_tokens, held_calls)"
            " SELECT job, document, ?, cost, tokens, calls, held_cost, held_tokens, held_calls FROM purses"
            " WHERE job = ? AND owner = ? ON CONFLICT (job, document, owner) DO UPDATE SET"
            " cost = purses.cost + excluded.cost, tokens = purses.tokens + excluded.tokens,"
            " calls = purses.calls + excluded.calls, held_cost = purses.held_cost + excluded.held_cost,"
            " held_tokens = purses.held_tokens + excluded.held_tokens,"
            " held_calls = purses.held_calls + excluded.held_calls",
            (_GONE, job, owner),
        )
        connection.execute("DELETE FROM purses WHERE job = ? AND owner = ?", (job, owner))
        connection.execute("DELETE FROM purse_owners WHERE job = ? AND owner = ?", (job, owner))
