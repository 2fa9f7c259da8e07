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
    if len(taken) < most:
        others = change.execute(
            "SELECT number FROM job_documents WHERE job = ? AND waiting > 0 ORDER BY running, number LIMIT ?",
            change.job,
            most - len(taken),
        ).fetchall()
        for (document,) in others:
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
    row = _next_document(change, "waiting") or (None if holds else _next_document(change, "alone"))
    if row is None:
        return None
    number, path, attempts = row
    lease = claimant.lease()
    change.execute(
        "UPDATE job_documents SET state = 'preparing', token = ?, worker = ?, until = ?, attempts = ?"
        " WHERE job = ? AND number = ?",
        lease.token,
        lease.worker,
        lease.until,
        attempts + 1,
        change.job,
        number,
    )
    change.add(preparing=1)
    return DocumentWork(change.job, number, path_from_text(path), attempts + 1, lease)


def put_off(change: JobChange, tokens: Sequence[str], until: float) -> set[str]:
    """Extend the leases with these tokens; returns those that still hold."""
    holding: set[str] = set()
    for start in range(0, len(tokens), _TOGETHER):
        some = tokens[start : start + _TOGETHER]
        for table, state in (("job_tasks", "running"), ("job_documents", "preparing")):
            rows = change.execute(
                f"UPDATE {table} SET until = ? WHERE job = ? AND state = '{state}'"
                f" AND token IN ({', '.join('?' * len(some))}) RETURNING token",
                until,
                change.job,
                *some,
            ).fetchall()
            holding.update(token for (token,) in rows)
    return holding


def give_back(change: JobChange, work: Work) -> None:
    """Make it free at once, as if it had not been begun. Nothing happens where the lease is lost."""
    if isinstance(work, TaskWork):
        _free_task(change, (work.document, work.task), work.lease.token, work.attempt - 1)
    else:
        _free_document(change, work.number, work.lease.token, work.attempt - 1)


def take_over(change: JobChange, workers: Collection[str], *, died: bool = True) -> None:
    """Make free what is leased to these workers, or to any beyond its time; fail what has no attempt left.

    `died` False: the workers end of their own accord, and what they were at is as if it had not been begun.
    """
    which = "until < ?" + (f" OR worker IN ({', '.join('?' * len(workers))})" if workers else "")
    reason = f"given up: {change.attempts} times its worker ended, or was not heard of, while at it"
    lost = End(error=reason)
    for document, task, token, attempts, worker in change.execute(
        "SELECT document, task, token, attempts, worker FROM job_tasks"
        f" WHERE job = ? AND state = 'running' AND ({which})",
        change.job,
        change.now,
        *workers,
    ).fetchall():
        if not died and worker in workers:
            _free_task(change, (document, task), token, attempts - 1)
        elif attempts < change.attempts:
            _free_task(change, (document, task), token, attempts)
        else:
            end_task(change, (document, task), token, lost)
    for number, token, attempts, worker in change.execute(
        "SELECT number, token, attempts, worker FROM job_documents"
        f" WHERE job = ? AND state = 'preparing' AND ({which})",
        change.job,
        change.now,
        *workers,
    ).fetchall():
        if not died and worker in workers:
            _free_document(change, number, token, attempts - 1)
        elif attempts < change.attempts:
            _free_document(change, number, token, attempts)
        else:
            fail_document(change, number, token, lost)


def _holding(change: JobChange, worker: str) -> tuple[bool, bool]:
    """Whether the worker may have more, and whether it holds anything."""
    held = change.execute(
        "SELECT attempts FROM job_tasks WHERE job = ? AND state = 'running' AND worker = ? UNION ALL"
        " SELECT attempts FROM job_documents WHERE job = ? AND state = 'preparing' AND worker = ?",
        change.job,
        worker,
        change.job,
        worker,
    ).fetchall()
    return all(attempts < max(2, change.attempts) for (attempts,) in held), bool(held)


def _take(change: JobChange, claimant: Claimant, document: int, most: int, state: str = "waiting") -> list[TaskWork]:
    """Take up to `most` tasks of one document."""
    rows = change.execute(
        f"SELECT task, attempts FROM job_tasks WHERE job = ? AND document = ? AND state = '{state}'"
        " ORDER BY task LIMIT ?",
        change.job,
        document,
        max(0, most),
    ).fetchall()
    if not rows:
        return []
    path, document_id = change.execute(
        "UPDATE job_documents SET waiting = waiting - ?, running = running + ? WHERE job = ? AND number = ?"
        " RETURNING path, document_id",
        len(rows) if state == "waiting" else 0,
        len(rows),
        change.job,
        document,
    ).fetchone()
    change.add(running=len(rows))
    taken = [
        TaskWork(
            job=change.job,
            document=document,
            path=path_from_text(path),
            document_id=document_id,
            task=task,
            attempt=attempts + 1,
            lease=claimant.lease(),
        )
        for task, attempts in rows
    ]
    change.connection.executemany(
        "UPDATE job_tasks SET state = 'running', token = ?, worker = ?, until = ?, attempts = ?"
        " WHERE job = ? AND document = ? AND task = ?",
        [
            (work.lease.token, work.lease.worker, work.lease.until, work.attempt, change.job, document, work.task)
            for work in taken
        ],
    )
    return taken


def _next_document(change: JobChange, state: str) -> tuple[int, str, int] | None:
    row: tuple[int, str, int] | None = change.execute(
        f"SELECT number, path, attempts FROM job_documents WHERE job = ? AND state = '{state}' ORDER BY number LIMIT 1",
        change.job,
    ).fetchone()
    return row


def _unbegun(change: JobChange, most: int) -> int:
    """How many documents are ready that nobody works at, counted up to `most`."""
    (number,) = change.execute(
        "SELECT count(*) FROM"
        " (SELECT number FROM job_documents WHERE job = ? AND waiting > 0 AND running = 0 LIMIT ?) AS unbegun",
        change.job,
        most,
    ).fetchone()
    return int(number)


def _free_task(change: JobChange, which: tuple[int, int], token: str, attempts: int) -> None:
    state = _free_state(change, attempts)
    changed = change.execute(
        "UPDATE job_tasks SET state = ?, token = '', until = 0, attempts = ?"
        " WHERE job = ? AND document = ? AND task = ? AND token = ? AND state = 'running'",
        state,
        attempts,
        change.job,
        *which,
        token,
    ).rowcount
    if changed:
        change.execute(
            "UPDATE job_documents SET running = running - 1, waiting = waiting + ? WHERE job = ? AND number = ?",
            1 if state == "waiting" else 0,
            change.job,
            which[0],
        )
        change.add(running=-1)


def _free_document(change: JobChange, number: int, token: str, attempts: int) -> None:
    changed = change.execute(
        "UPDATE job_documents SET state = ?, token = '', until = 0, attempts = ?"
        " WHERE job = ? AND number = ? AND token = ? AND state = 'preparing'",
        _free_state(change, attempts),
        attempts,
        change.job,
        number,
        token,
    ).rowcount
    if changed:
        change.add(preparing=-1)


def _free_state(change: JobChange, attempts: int) -> str:
    return "alone" if attempts >= max(1, change.attempts - 1) else "waiting"
