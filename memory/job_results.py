"""How tasks end: their rows, the totals that go with them, and reading them again.

Each function does its part inside a transaction of the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from typing import Any

from lcdoc.memory.document_rows import pack, unpack
from lcdoc.memory.job_change import JobChange
from lcdoc.memory.job_records import ResultRow
from lcdoc.memory.job_tables import path_from_text
from lcdoc.memory.store import Connection
from lcdoc.memory.usage import ModelUsage

PAGE = 500
"""How many results are read at once."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a document turned out to be."""

    document_id: str
    name: str
    pages: int
    characters: int
    seconds: float


@dataclass(frozen=True, slots=True)
class End:
    """How a task ended, or a document that could not be prepared."""

    error: str = ""
    """Why it failed; empty when it is done."""
    seconds: float = 0.0
    result: bytes = b""
    """Packed JSON."""
    usage: ModelUsage = field(default_factory=ModelUsage)


def make_ready(change: JobChange, number: int, prepared: Prepared) -> None:
    """A document was prepared: its tasks wait from here on. Its lease has been ended."""
    change.execute(
        "UPDATE job_documents SET state = 'ready', waiting = ?, document_id = ?, name = ?, pages = ?, characters = ?,"
        " seconds = ?, ended_at = ? WHERE job = ? AND number = ?",
        change.tasks,
        *astuple(prepared),
        change.now,
        change.job,
        number,
    )
    change.connection.executemany(
        "INSERT INTO job_tasks (job, document, task, state) VALUES (?, ?, ?, 'waiting')",
        [(change.job, number, task) for task in range(1, change.tasks + 1)],
    )
    change.add(
        preparing=-1,
        ready=1,
        pages=prepared.pages,
        characters=prepared.characters,
        reading_s=prepared.seconds,
    )


def fail_document(change: JobChange, number: int, end: End) -> None:
    """A document cannot be prepared: all its tasks have failed. Its lease has been ended."""
    worker, attempts = change.execute(
        "UPDATE job_documents SET state = 'failed', error = ?, seconds = ?, ended_at = ?"
        " WHERE job = ? AND number = ? RETURNING worker, attempts",
        end.error,
        end.seconds,
        change.now,
        change.job,
        number,
    ).fetchone()
    tasks = range(1, change.tasks + 1)
    change.connection.executemany(
        "INSERT INTO job_tasks (job, document, task, state, worker, attempts, error)"
        " VALUES (?, ?, ?, 'failed', ?, ?, ?)",
        [(change.job, number, task, worker, attempts, end.error) for task in tasks],
    )
    last = change.add(preparing=-1, unreadable=1, failed=change.tasks, sequence=change.tasks, reading_s=end.seconds)
    change.connection.executemany(
        _INSERT, [(change.job, number, task, last - change.tasks + task, change.now, b"") for task in tasks]
    )


def end_task(change: JobChange, document: int, task: int, end: End) -> None:
    """A document's task is done, or has failed. Its lease has been ended."""
    change.execute(
        "UPDATE job_tasks SET state = ?, seconds = ?, error = ? WHERE job = ? AND document = ? AND task = ?",
        "failed" if end.error else "done",
        end.seconds,
        end.error,
        change.job,
        document,
        task,
    )
    change.execute(
        "UPDATE job_documents SET running = running - 1, seconds = seconds + ? WHERE job = ? AND number = ?",
        end.seconds,
        change.job,
        document,
    )
    usage = end.usage
    sequence = change.add(
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
        estimated=1 if usage.estimated else 0,
    )
    change.execute(_INSERT, change.job, document, task, sequence, change.now, end.result)


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
