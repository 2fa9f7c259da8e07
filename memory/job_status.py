"""What a job looks like from outside: its record, its workers, how far it is. Nothing here counts a job's rows.

Each function does its part inside a transaction of the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from lcdoc.memory.job_change import JobChange
from lcdoc.memory.job_records import DocumentCost, JobRecord, JobState, JobStatus, JobWorker
from lcdoc.memory.job_tables import path_from_text
from lcdoc.memory.owner import Owner
from lcdoc.memory.store import Connection
from lcdoc.memory.usage import ModelUsage

RECENT_S = 300.0
"""What the rates are of: the last five minutes."""
_COUNTED = 1000
"""Or the last so many, where more ended in them."""
_SLOWEST = 5
_ALIVE_S = 90.0
"""How long a worker of which nothing is heard counts as alive."""
_SILENT_S = 45.0
"""Several beats of any worker, and less than a lease."""
_FORGOTTEN_S = 86_400.0


def records(connection: Connection, which: str, values: Sequence[Any]) -> list[JobRecord]:
    """The jobs (`j`) that this condition holds for, the latest first."""
    rows = connection.execute(
        "SELECT j.id, j.name, j.settings, j.tasks, j.attempts, j.state, j.reason, j.out, j.created_at, j.changed_at,"
        " total.documents * j.tasks - total.done - total.failed"
        " FROM jobs AS j JOIN job_totals AS total ON total.job = j.id"
        f" WHERE j.state <> 'removed' AND {which} ORDER BY j.created_at DESC, j.id",
        values,
    ).fetchall()
    return [_record(row) for row in rows]


def register(change: JobChange, worker: str, owner: str, doing: str) -> None:
    """Enter a worker, and forget those of which nothing was heard for a day."""
    change.execute("DELETE FROM job_workers WHERE job = ? AND beat_at < ?", change.job, change.now - _FORGOTTEN_S)
    change.execute(
        "INSERT INTO job_workers (job, id, owner, started_at, beat_at, doing) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (job, id) DO UPDATE SET owner = excluded.owner, started_at = excluded.started_at,"
        " beat_at = excluded.beat_at, doing = excluded.doing",
        change.job,
        worker,
        owner,
        change.now,
        change.now,
        doing,
    )


def heard(change: JobChange, worker: str, doing: str | None) -> None:
    """A worker gave a sign of life."""
    change.execute(
        "UPDATE job_workers SET beat_at = ?, doing = coalesce(?, doing) WHERE job = ? AND id = ?",
        change.now,
        doing,
        change.job,
        worker,
    )


def silence(change: JobChange) -> bool:
    """Whether nothing was heard of anybody for long: the store was away, its disk full, or the machine asleep."""
    (heard_at,) = change.execute("SELECT max(beat_at) FROM job_workers WHERE job = ?", change.job).fetchone()
    return heard_at is not None and change.now - heard_at > _SILENT_S


def is_registered(change: JobChange, worker: str) -> bool:
    """Whether the worker is on the list: then it beats."""
    there = "SELECT 1 FROM job_workers WHERE job = ? AND id = ?"
    return change.execute(there, change.job, worker).fetchone() is not None


def gone_workers(connection: Connection, job: str) -> list[tuple[str, str]]:
    """Workers whose process has surely ended, each with its owner."""
    workers = connection.execute("SELECT id, owner FROM job_workers WHERE job = ?", (job,)).fetchall()
    return [(worker, owner) for worker, owner in workers if _living(owner) is None]


def forget(change: JobChange, workers: Iterable[tuple[str, str]]) -> list[str]:
    """Strike these workers off; returns those that were still on the list, under the same owner."""
    struck = "DELETE FROM job_workers WHERE job = ? AND id = ? AND owner = ?"
    return [worker for worker, owner in workers if change.execute(struck, change.job, worker, owner).rowcount]


def status(connection: Connection, job: str, now: float) -> JobStatus | None:
    """How far a job is; None where it is not there."""
    found = records(connection, "j.id = ?", (job,))
    if not found:
        return None
    record = found[0]
    total = _totals(connection, job)
    waiting = total["documents"] * record.tasks - total["running"] - total["done"] - total["failed"]
    cancelled = record.state == "cancelled"
    workers = _workers(connection, job, now)
    begun = min((worker.started_at for worker in workers), default=record.created_at).timestamp()
    return JobStatus(
        job=record,
        documents={
            "waiting": total["documents"] - total["preparing"] - total["ready"] - total["unreadable"],
            "preparing": total["preparing"],
            "ready": total["ready"],
            "failed": total["unreadable"],
        },
        tasks={
            "waiting": 0 if cancelled else waiting,
            "running": total["running"],
            "done": total["done"],
            "failed": total["failed"],
            "cancelled": waiting if cancelled else 0,
        },
        pages=total["pages"],
        characters=total["characters"],
        usage=ModelUsage(
            calls=total["calls"],
            failed_calls=total["failed_calls"],
            stored_calls=total["stored_calls"],
            tokens_in=total["tokens_in"],
            tokens_cached=total["tokens_cached"],
            tokens_out=total["tokens_out"],
            cost_usd=None if total["unpriced"] else total["cost_usd"],
            seconds=total["calls_s"],
            estimated=total["estimated"] > 0,
        ),
        known_usd=total["cost_usd"],
        reading_s=total["reading_s"],
        answering_s=total["answering_s"],
        documents_per_minute=_rate(_moments(connection, _DOCUMENTS_ENDED, job), now, begun),
        tasks_per_minute=_rate(_moments(connection, _TASKS_ENDED, job), now, begun),
        slowest=_slowest(connection, job),
        workers=workers,
    )


_TOTALS = (
    "documents, preparing, ready, unreadable, running, done, failed, pages, characters, reading_s, answering_s, calls,"
    " failed_calls, stored_calls, tokens_in, tokens_cached, tokens_out, cost_usd, unpriced, calls_s, estimated"
)
_DOCUMENTS_ENDED = "SELECT ended_at FROM job_documents WHERE job = ? AND ended_at > 0 ORDER BY ended_at DESC LIMIT ?"
_TASKS_ENDED = "SELECT finished_at FROM job_results WHERE job = ? ORDER BY sequence DESC LIMIT ?"


def _totals(connection: Connection, job: str) -> dict[str, Any]:
    row = connection.execute(f"SELECT {_TOTALS} FROM job_totals WHERE job = ?", (job,)).fetchone()
    return dict(zip(_TOTALS.split(", "), row, strict=True))


def _record(row: Sequence[Any]) -> JobRecord:
    job, name, settings, tasks, attempts, state, reason, out, created_at, changed_at, unfinished = row
    shown: JobState = "finished" if state == "open" and not unfinished else state
    return JobRecord(
        id=job,
        name=name,
        settings=json.loads(settings),
        tasks=tasks,
        attempts=attempts,
        state=shown,
        reason=reason,
        out=path_from_text(out),
        created_at=datetime.fromtimestamp(created_at, UTC),
        changed_at=datetime.fromtimestamp(changed_at, UTC),
    )


def _moments(connection: Connection, latest: str, job: str) -> list[float]:
    return [moment for (moment,) in connection.execute(latest, (job, _COUNTED))]


def _rate(moments: list[float], now: float, begun: float) -> float:
    """How many a minute, of the moments at which things ended, the latest first, where work has `begun`."""
    since = max(begun, now - RECENT_S, moments[-1] if len(moments) == _COUNTED else 0.0)
    return 60 * sum(moment >= since for moment in moments) / max(now - since, 1.0)


def _slowest(connection: Connection, job: str) -> tuple[DocumentCost, ...]:
    rows = connection.execute(
        "SELECT number, path, pages, seconds FROM job_documents WHERE job = ? AND seconds > 0"
        " ORDER BY seconds DESC LIMIT ?",
        (job, _SLOWEST),
    )
    return tuple(DocumentCost(number, path_from_text(path), pages, seconds) for number, path, pages, seconds in rows)


def _workers(connection: Connection, job: str, now: float) -> tuple[JobWorker, ...]:
    workers = []
    for worker, text, started_at, beat_at, doing in connection.execute(
        "SELECT id, owner, started_at, beat_at, doing FROM job_workers WHERE job = ? AND beat_at > ?"
        " ORDER BY started_at, id",
        (job, now - _ALIVE_S),
    ):
        owner = _living(text)
        if owner is not None:
            workers.append(
                JobWorker(
                    id=worker,
                    host=owner.host,
                    pid=owner.pid,
                    started_at=datetime.fromtimestamp(started_at, UTC),
                    beat_at=datetime.fromtimestamp(beat_at, UTC),
                    doing=doing,
                )
            )
    return tuple(workers)


def _living(text: str) -> Owner | None:
    """The process that this names; None where it has surely ended, or nothing is named."""
    try:
        owner = Owner.from_text(text)
    except ValueError:
        return None
    return None if owner.is_gone() else owner
