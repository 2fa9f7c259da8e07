"""Who works at what: leases on documents and tasks, taken, put off, given back, and taken over from the dead.

A task whose workers died on it again and again is poisonous, and fails. A worker that does sixteen tasks at once takes
fifteen innocent ones with it, so the last attempt a row has is made alone: it is given to a worker that holds nothing
else, which is given nothing else until it ends. The same holds for documents.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lcdoc.memory.job_change import JobChange
from lcdoc.memory.job_records import DocumentWork, Lease, TaskWork, Work
from lcdoc.memory.job_results import End, end_task, fail_document
from lcdoc.memory.job_tables import path_from_text

_TOGETHER = 500
"""How many tokens one statement names."""
_TIME_TO_BEAT_S = 30.0
"""Several beats of any worker."""


@dataclass(frozen=True, slots=True)
class Claimant:
    """A worker that asks for work, and until when it would have it."""

    worker: str
    until: float

    def lease(self) -> Lease:
        return Lease(secrets.token_hex(8), self.worker, self.until)


def claim_tasks(change: JobChange, claimant: Claimant, most: int, prefer: Collection[int]) -> list[TaskWork]:
    """Take up to `most` tasks: see `Jobs.claim`."""
    may_have, holds = _holding(change, claimant.worker)
    if not may_have:
        return []
    taken: list[TaskWork] = []
    for document in sorted(set(prefer)):
        taken += _take(change, claimant, document, most - len(taken))
    for document in _open_documents(change, most - len(taken)):
        taken += _take(change, claimant, document, most - len(taken))
    if not taken and not holds:
        last = change.execute(
            "SELECT document FROM job_tasks WHERE job = ? AND state = 'alone' ORDER BY document, task LIMIT 1",
            change.job,
        ).fetchone()
        if last is not None:
            taken += _take(change, claimant, last[0], 1, "alone")
    return taken


def claim_document(change: JobChange, claimant: Claimant, ahead: int | None) -> DocumentWork | None:
    """Take the next document that waits: see `Jobs.claim_document`."""
    may_have, holds = _holding(change, claimant.worker)
    if not may_have or (ahead is not None and _unbegun(change, ahead) >= ahead):
        return None
    number = _next_document(change, "waiting")
    if number is None and not holds:
        number = _next_document(change, "alone")
    if number is None:
        return None
    path, attempt = change.execute(
        "UPDATE job_documents SET state = 'preparing', worker = ?, attempts = attempts + 1"
        " WHERE job = ? AND number = ? RETURNING path, attempts",
        claimant.worker,
        change.job,
        number,
    ).fetchone()
    change.add(preparing=1)
    lease = claimant.lease()
    _enter_leases(change, number, [(0, attempt, lease)])
    return DocumentWork(change.job, number, path_from_text(path), attempt, lease)


def put_off(change: JobChange, tokens: Sequence[str], until: float) -> set[str]:
    """Extend the leases with these tokens; returns those that still hold."""
    holding: set[str] = set()
    for start in range(0, len(tokens), _TOGETHER):
        some = tokens[start : start + _TOGETHER]
        rows = change.execute(
            "UPDATE job_leases SET until = ?"
            f" WHERE job = ? AND token IN ({', '.join('?' * len(some))}) RETURNING token",
            until,
            change.job,
            *some,
        ).fetchall()
        holding.update(token for (token,) in rows)
    return holding


def end_lease(change: JobChange, token: str) -> bool:
    """End the lease that this token is of; False where it is lost: whoever holds it has no more to say."""
    return bool(change.execute("DELETE FROM job_leases WHERE job = ? AND token = ?", change.job, token).rowcount)


def give_back(change: JobChange, work: Work) -> None:
    """Make it free at once, as if it had not been begun. Nothing happens where the lease is lost."""
    if not end_lease(change, work.lease.token):
        return
    if isinstance(work, TaskWork):
        _free_task(change, work.document, work.task, work.attempt - 1)
    else:
        _free_document(change, work.number, work.attempt - 1)


def give_time(change: JobChange) -> None:
    """Have no lease run out before whoever holds it had time to put it off, where it could not for a while."""
    until = change.now + _TIME_TO_BEAT_S
    change.execute("UPDATE job_leases SET until = ? WHERE job = ? AND until < ?", until, change.job, until)


def take_over(change: JobChange, workers: Collection[str], *, died: bool = True, expired: bool = True) -> None:
    """Make free what is leased to these workers, or to any beyond its time; fail what has no attempt left.

    `died` False: the workers end of their own accord, and what they were at is as if it had not been begun. `expired`
    False: what is beyond its time is left to those who hold it.
    """
    lost = End(f"given up: {change.attempts} times its worker ended, or was not heard of, while at it")
    for token, document, task, attempt, worker in change.execute(
        "SELECT token, document, task, attempt, worker FROM job_leases WHERE job = ? AND until < ? UNION"
        " SELECT token, document, task, attempt, worker FROM job_leases"
        f" WHERE job = ? AND worker IN ({', '.join('?' * len(workers)) or 'NULL'}) ORDER BY 2, 3",
        change.job,
        change.now if expired else 0.0,
        change.job,
        *workers,
    ).fetchall():
        end_lease(change, token)
        counted = attempt if died or worker not in workers else attempt - 1
        if counted < change.attempts:
            if task:
                _free_task(change, document, task, counted)
            else:
                _free_document(change, document, counted)
        elif task:
            end_task(change, document, task, lost)
        else:
            fail_document(change, document, lost)


def _holding(change: JobChange, worker: str) -> tuple[bool, bool]:
    """Whether the worker may have more, and whether it holds anything."""
    held = change.execute("SELECT attempt FROM job_leases WHERE job = ? AND worker = ?", change.job, worker).fetchall()
    return all(attempt < max(2, change.attempts) for (attempt,) in held), bool(held)


def _take(change: JobChange, claimant: Claimant, document: int, most: int, state: str = "waiting") -> list[TaskWork]:
    """Take up to `most` tasks of one document."""
    if most < 1:
        return []
    tasks = change.execute(
        f"SELECT task FROM job_tasks WHERE job = ? AND state = '{state}' AND document = ? ORDER BY task LIMIT ?",
        change.job,
        document,
        most,
    ).fetchall()
    if not tasks:
        return []
    path, document_id = change.execute(
        "UPDATE job_documents SET waiting = waiting - ?, running = running + ? WHERE job = ? AND number = ?"
        " RETURNING path, document_id",
        len(tasks) if state == "waiting" else 0,
        len(tasks),
        change.job,
        document,
    ).fetchone()
    change.add(running=len(tasks))
    attempts = change.execute(
        "UPDATE job_tasks SET state = 'running', worker = ?, attempts = attempts + 1"
        f" WHERE job = ? AND document = ? AND task IN ({', '.join('?' * len(tasks))}) RETURNING task, attempts",
        claimant.worker,
        change.job,
        document,
        *(task for (task,) in tasks),
    ).fetchall()
    taken = [
        TaskWork(change.job, document, path_from_text(path), document_id, task, attempt, claimant.lease())
        for task, attempt in sorted(attempts)
    ]
    _enter_leases(change, document, [(work.task, work.attempt, work.lease) for work in taken])
    return taken


def _enter_leases(change: JobChange, document: int, leases: Sequence[tuple[int, int, Lease]]) -> None:
    """Of tasks and their attempts; 0 is the document itself."""
    change.connection.executemany(
        "INSERT INTO job_leases (job, token, document, task, attempt, worker, until) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (change.job, lease.token, document, task, attempt, lease.worker, lease.until)
            for task, attempt, lease in leases
        ],
    )


def _open_documents(change: JobChange, most: int) -> list[int]:
    """Documents with tasks that wait, those first of which the fewest run."""
    rows = change.execute(
        "SELECT number FROM job_documents WHERE job = ? AND waiting > 0 ORDER BY running, number LIMIT ?",
        change.job,
        max(0, most),
    ).fetchall()
    return [number for (number,) in rows]


def _unbegun(change: JobChange, most: int) -> int:
    """How many documents are ready that nobody works at, counted up to `most`."""
    rows = change.execute(
        "SELECT running FROM job_documents WHERE job = ? AND waiting > 0 ORDER BY running, number LIMIT ?",
        change.job,
        most,
    ).fetchall()
    return sum(not running for (running,) in rows)


def _next_document(change: JobChange, state: str) -> int | None:
    row = change.execute(
        f"SELECT number FROM job_documents WHERE job = ? AND state = '{state}' ORDER BY number LIMIT 1", change.job
    ).fetchone()
    return None if row is None else int(row[0])


def _free_task(change: JobChange, document: int, task: int, attempts: int) -> None:
    state = _free_state(change, attempts)
    change.execute(
        "UPDATE job_tasks SET state = ?, attempts = ? WHERE job = ? AND document = ? AND task = ?",
        state,
        attempts,
        change.job,
        document,
        task,
    )
    change.execute(
        "UPDATE job_documents SET running = running - 1, waiting = waiting + ? WHERE job = ? AND number = ?",
        1 if state == "waiting" else 0,
        change.job,
        document,
    )
    change.add(running=-1)


def _free_document(change: JobChange, number: int, attempts: int) -> None:
    change.execute(
        "UPDATE job_documents SET state = ?, attempts = ? WHERE job = ? AND number = ?",
        _free_state(change, attempts),
        attempts,
        change.job,
        number,
    )
    change.add(preparing=-1)


def _free_state(change: JobChange, attempts: int) -> str:
    return "alone" if attempts >= max(1, change.attempts - 1) else "waiting"
