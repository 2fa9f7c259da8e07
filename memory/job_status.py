"""What a job looks like from outside: its record, its workers, how far it is. Nothing here counts a job's rows.

Each function does its part inside a transaction of the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from lcdoc.memory.job_change import JobChange
from lcdoc.memory.job_records import DocumentCost, JobRecord, JobState, JobStatus, JobWorker
from lcdoc.memory.job_tables import path_from_text
from lcdoc.memory.journal import Owner
from lcdoc.memory.store import Connection
from lcdoc.memory.usage import ModelUsage

RECENT_S = 300.0
"""What the rates are of: the last five minutes."""
_COUNTED = 1000
"""Or the last so many, where more ended in them."""
_SLOWEST = 5
_ALIVE_S = 90.0
"""How long a worker of which nothing is heard counts as alive."""
_FORGOTTEN_S = 86_400.0


def records(connection: Connection, which: str, values: Sequence[Any]) -> list[JobRecord]:
    """The jobs (`j`) that this condition holds for, the latest first."""
    rows = connection.execute(
        "SELECT j.id, j.name, j.settings, j.tasks, j.attempts, j.state, j.reason, j.out, j.created_at, j.changed_at,"
        " t.documents * j.tasks - t.done - t.failed FROM jobs AS j JOIN job_totals AS t ON t.job = j.id"
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


def gone_workers(connection: Connection, job: str) -> list[str]:
    """Workers whose process has surely ended."""
    workers = connection.execute("SELECT id, owner FROM job_workers WHERE job = ?", (job,)).fetchall()
    return [worker for worker, owner in workers if Owner.from_text(owner).is_gone()]


def status(connection: Connection, job: str, now: float) -> JobStatus | None:
    """How far a job is; None where it is not there."""
    found = records(connection, "j.id = ?", (job,))
    if not found:
        return None
    record = found[0]
    documents, preparing, ready, unreadable, running, done, failed, *sums = connection.execute(
        "SELECT documents, preparing, ready, unreadable, running, done, failed, pages, characters, reading_s,"
        " answering_s, calls, failed_calls, stored_calls, tokens_in, tokens_cached, tokens_out, cost_usd, unpriced,"
        " calls_s, estimated FROM job_totals WHERE job = ?",
        (job,),
    ).fetchone()
    pages, characters, reading_s, answering_s, *usage = sums
    calls, failed_calls, stored_calls, tokens_in, tokens_cached, tokens_out, known_usd, unpriced, *rest = usage
    waiting = documents * record.tasks - running - done - failed
    cancelled = record.state == "cancelled"
    return JobStatus(
        job=record,
        documents={
            "waiting": documents - preparing - ready - unreadable,
            "preparing": preparing,
            "ready": ready,
            "failed": unreadable,
        },
        tasks={
            "waiting": 0 if cancelled else waiting,
            "running": running,
            "done": done,
            "failed": failed,
            "cancelled": waiting if cancelled else 0,
        },
        pages=pages,
        characters=characters,
        usage=ModelUsage(
            calls=calls,
            failed_calls=failed_calls,
            stored_calls=stored_calls,
            tokens_in=tokens_in,
            tokens_cached=tokens_cached,
            tokens_out=tokens_out,
            cost_usd=None if unpriced else known_usd,
            seconds=rest[0],
            estimated=bool(rest[1]),
        ),
        known_usd=known_usd,
        reading_s=reading_s,
        answering_s=answering_s,
        documents_per_minute=_rate(
            connection,
            "SELECT ended_at FROM job_documents WHERE job = ? AND ended_at > 0 ORDER BY ended_at DESC LIMIT ?",
            job,
            now,
        ),
        tasks_per_minute=_rate(
            connection,
            "SELECT finished_at FROM job_results WHERE job = ? ORDER BY sequence DESC LIMIT ?",
            job,
            now,
        ),
        slowest=tuple(
            DocumentCost(number, path_from_text(path), pages_, seconds)
            for number, path, pages_, seconds in connection.execute(
                "SELECT number, path, pages, seconds FROM job_documents WHERE job = ? AND seconds > 0"
                " ORDER BY seconds DESC LIMIT ?",
                (job, _SLOWEST),
            )
        ),
        workers=_workers(connection, job, now),
    )


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


def _rate(connection: Connection, latest: str, job: str, now: float) -> float:
    """How many a minute, of the moments at which things ended, the latest first."""
    moments = [moment for (moment,) in connection.execute(latest, (job, _COUNTED)) if moment > now - RECENT_S]
    if not moments:
        return 0.0
    # Where the work began in between, or all that are counted are younger, the time is shorter.
    begun = moments[-1] if len(moments) in (1, _COUNTED) else now - RECENT_S
    return 60 * len(moments) / max(now - begun, 1.0)


def _workers(connection: Connection, job: str, now: float) -> tuple[JobWorker, ...]:
    workers = []
    for worker, text, started_at, beat_at, doing in connection.execute(
        "SELECT id, owner, started_at, beat_at, doing FROM job_workers WHERE job = ? AND beat_at > ?"
        " ORDER BY started_at, id",
        (job, now - _ALIVE_S),
    ):
        owner = Owner.from_text(text)
        if not owner.is_gone():
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
