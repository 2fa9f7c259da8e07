"""How tasks end: their rows, the totals that go with them, and reading them again.

Each function does its part on a connection inside a transaction of the caller's; one that writes has claimed the job.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lcdoc.memory.document_rows import pack, unpack
from lcdoc.memory.job_records import ResultRow
from lcdoc.memory.job_tables import path_from_text
from lcdoc.memory.store import Connection
from lcdoc.memory.usage import ModelUsage

PAGE = 500
"""How many results are read at once."""


@dataclass(frozen=True, slots=True)
class End:
    """How a task ended."""

    at: float
    error: str = ""
    """Why it failed; empty when it is done."""
    result: bytes = b""
    """Packed JSON."""
    seconds: float = 0.0
    usage: ModelUsage = ModelUsage()


def add_totals(connection: Connection, job: str, **changes: float) -> int:
    """Add to columns of a job's totals; returns the sequence number it has come to."""
    sets = ", ".join(f"{column} = {column} + ?" for column in changes)
    row = connection.execute(
        f"UPDATE job_totals SET {sets} WHERE job = ? RETURNING sequence", (*changes.values(), job)
    ).fetchone()
    return int(row[0])


def make_ready(
    connection: Connection,
    job: str,
    number: int,
    token: str,
    tasks: int,
    values: tuple[str, str, int, int, float, float],
) -> bool:
    """A document was prepared: its tasks wait from here on. False where the lease was lost.

    `values` are id, name, pages, characters, seconds and when it ended.
    """
    changed = connection.execute(
        "UPDATE job_documents SET state = 'ready', token = '', until = 0, waiting = ?, document_id = ?, name = ?,"
        " pages = ?, characters = ?, seconds = ?, ended_at = ?"
        " WHERE job = ? AND number = ? AND token = ? AND state = 'preparing'",
        (tasks, *values, job, number, token),
    ).rowcount
    if not changed:
        return False
    connection.executemany(
        "INSERT INTO job_tasks (job, document, task, state) VALUES (?, ?, ?, 'waiting')",
        [(job, number, task) for task in range(1, tasks + 1)],
    )
    _, _, pages, characters, seconds, _ = values
    add_totals(connection, job, preparing=-1, ready=1, pages=pages, characters=characters, reading_s=seconds)
    return True


def fail_document(connection: Connection, job: str, number: int, token: str, tasks: int, end: End) -> bool:
    """A document cannot be prepared: all its tasks have failed. False where the lease was lost."""
    row = connection.execute(
        "UPDATE job_documents SET state = 'failed', token = '', until = 0, error = ?, seconds = ?, ended_at = ?"
        " WHERE job = ? AND number = ? AND token = ? AND state = 'preparing' RETURNING worker, attempts",
        (end.error, end.seconds, end.at, job, number, token),
    ).fetchone()
    if row is None:
        return False
    connection.executemany(
        "INSERT INTO job_tasks (job, document, task, state, worker, attempts, error)"
        " VALUES (?, ?, ?, 'failed', ?, ?, ?)",
        [(job, number, task, *row, end.error) for task in range(1, tasks + 1)],
    )
    last = add_totals(connection, job, preparing=-1, unreadable=1, failed=tasks, sequence=tasks, reading_s=end.seconds)
    connection.executemany(
        _INSERT, [(job, number, task, last - tasks + task, end.at, b"") for task in range(1, tasks + 1)]
    )
    return True


def end_task(connection: Connection, job: str, document: int, task: int, token: str, end: End) -> bool:
    """A task is done, or has failed. False where the lease was lost: then nothing is written."""
    changed = connection.execute(
        "UPDATE job_tasks SET state = ?, token = '', until = 0, seconds = ?, error = ?"
        " WHERE job = ? AND document = ? AND task = ? AND token = ? AND state = 'running'",
        ("failed" if end.error else "done", end.seconds, end.error, job, document, task, token),
    ).rowcount
    if not changed:
        return False
    usage = end.usage
    sequence = add_totals(
        connection,
        job,
        running=-1,
        done=0 if end.error else 1,
        failed=1 if end.error else 0,
        sequence=1,
        answering_s=end.seconds,
        calls=usage.calls,
        failed_calls=usage.failed_calls,
        stored_calls=usage.stored_calls,
        tokens_in=usage.tokens_in,
        tokens_cached=usage.tokens_cached,
        tokens_out=usage.tokens_out,
        cost_usd=usage.cost_usd or 0.0,
        unpriced=1 if usage.cost_usd is None else 0,
        calls_s=usage.seconds,
        estimated=int(usage.estimated),
    )
    connection.execute(_INSERT, (job, document, task, sequence, end.at, end.result))
    connection.execute(
        "UPDATE job_documents SET running = running - 1, seconds = seconds + ? WHERE job = ? AND number = ?",
        (end.seconds, job, document),
    )
    return True


def packed_row(row: Any) -> bytes:
    """A row as it is stored. Raises TypeError or ValueError where it is not plain JSON values."""
    # ASCII: names of files may hold what UTF-8 cannot say.
    return pack(json.dumps(dict(row), allow_nan=False))


def results_after(connection: Connection, job: str, sequence: int) -> list[ResultRow]:
    """The next `PAGE` results in order of completion."""
    rows = connection.execute(
        f"{_SELECT} WHERE r.job = ? AND r.sequence > ? ORDER BY r.sequence LIMIT ?", (job, sequence, PAGE)
    ).fetchall()
    return [_result(row) for row in rows]


def results_behind(connection: Connection, job: str, document: int, task: int) -> list[ResultRow]:
    """The next `PAGE` results by document and task."""
    rows = connection.execute(
        f"{_SELECT} WHERE r.job = ? AND (r.document, r.task) > (?, ?) ORDER BY r.document, r.task LIMIT ?",
        (job, document, task, PAGE),
    ).fetchall()
    return [_result(row) for row in rows]


_INSERT = "INSERT INTO job_results (job, document, task, sequence, finished_at, result) VALUES (?, ?, ?, ?, ?, ?)"
_SELECT = """
    SELECT r.sequence, r.document, r.task, d.path, d.document_id, d.name, d.pages, t.state, t.error, r.result,
        t.attempts, t.seconds, t.worker, r.finished_at
    FROM job_results AS r
    JOIN job_tasks AS t ON t.job = r.job AND t.document = r.document AND t.task = r.task
    JOIN job_documents AS d ON d.job = r.job AND d.number = r.document"""


def _result(values: Sequence[Any]) -> ResultRow:
    sequence, document, task, path, document_id, name, pages, state, error, result, *rest = values
    attempts, seconds, worker, finished_at = rest
    return ResultRow(
        sequence=sequence,
        document=document,
        path=path_from_text(path),
        document_id=document_id,
        name=name,
        pages=pages,
        task=task,
        state=state,
        error=error,
        row=json.loads(unpack(bytes(result))) if result else None,
        attempts=attempts,
        seconds=seconds,
        worker=worker,
        finished_at=datetime.fromtimestamp(finished_at, UTC),
    )
