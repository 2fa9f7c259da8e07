"""Who works at what: leases on documents and tasks, taken, put off, given back, and taken over from the dead.

Each function does its part on a connection inside a writing transaction of the caller's that has claimed the job.

A task whose workers died on it again and again is poisonous, and fails. A worker that does sixteen tasks at once takes
fifteen innocent ones with it, so the last attempt a row has is made alone: it is given to a worker that holds nothing
else, which is given nothing else until it ends. The same holds for documents.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable

from lcdoc.memory.job_records import DocumentWork, Lease, TaskWork, Work
from lcdoc.memory.job_results import End, add_totals, end_task, fail_document
from lcdoc.memory.job_tables import path_from_text
from lcdoc.memory.store import Connection


def claim_tasks(
    connection: Connection,
    job: str,
    limit: int,
    most: int,
    prefer: Collection[int],
    lease: tuple[str, float],
) -> list[TaskWork]:
    """Take up to `most` tasks: see `Jobs.claim`."""
    free, idle = _room(connection, job, lease[0], limit)
    if not free:
        return []
    taken: list[TaskWork] = []

    def take(document: int, state: str = "waiting", at_most: int = most) -> None:
        rows = connection.execute(
            f"SELECT task, attempts FROM job_tasks WHERE job = ? AND document = ? AND state = '{state}'"
            " ORDER BY task LIMIT ?",
            (job, document, at_most),
        ).fetchall()
        taken.extend(_lease_tasks(connection, job, document, rows, state, lease))

    for document in sorted(set(prefer)):
        if len(taken) < most:
            take(document, at_most=most - len(taken))
    if len(taken) < most:
        documents = connection.execute(
            "SELECT number FROM job_documents WHERE job = ? AND waiting > 0 ORDER BY running, number LIMIT ?",
            (job, most - len(taken)),
        ).fetchall()
        for (document,) in documents:
            if len(taken) < most:
                take(document, at_most=most - len(taken))
    if not taken and idle:
        alone = connection.execute(
            "SELECT document FROM job_tasks WHERE job = ? AND state = 'alone' ORDER BY document, task LIMIT 1", (job,)
        ).fetchone()
        if alone is not None:
            take(alone[0], "alone", 1)
    return taken


def claim_document(
    connection: Connection, job: str, limit: int, ahead: int | None, lease: tuple[str, float]
) -> DocumentWork | None:
    """Take the next document that waits: see `Jobs.claim_document`."""
    worker, until = lease
    free, idle = _room(connection, job, worker, limit)
    if not free:
        return None
    if ahead is not None:
        begun = connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM job_documents WHERE job = ? AND waiting > 0 AND running = 0 LIMIT ?) AS o",
            (job, ahead),
        ).fetchone()
        if begun[0] >= ahead:
            return None
    row = None
    for state in ("waiting", "alone") if idle else ("waiting",):
        row = (
            row
            or connection.execute(
                f"SELECT number, path, attempts FROM job_documents WHERE job = ? AND state = '{state}' ORDER BY number LIMIT 1",
                (job,),
            ).fetchone()
        )
    if row is None:
        return None
    number, path, attempts = row
    token = secrets.token_hex(8)
    connection.execute(
        "UPDATE job_documents SET state = 'preparing', token = ?, worker = ?, until = ?, attempts = attempts + 1"
        " WHERE job = ? AND number = ?",
        (token, worker, until, job, number),
    )
    add_totals(connection, job, preparing=1)
    return DocumentWork(job, number, path_from_text(path), attempts + 1, Lease(token, worker, until))


def put_off(connection: Connection, job: str, tokens: Iterable[str], until: float) -> set[str]:
    """Extend the leases with these tokens; returns those that are still theirs who hold them."""
    held: set[str] = set()
    wanted = list(tokens)
    for start in range(0, len(wanted), 500):
        part = wanted[start : start + 500]
        marks = ", ".join("?" * len(part))
        for table, state in (("job_tasks", "running"), ("job_documents", "preparing")):
            rows = connection.execute(
                f"UPDATE {table} SET until = ? WHERE job = ? AND state = '{state}' AND token IN ({marks})"
                " RETURNING token",
                (until, job, *part),
            ).fetchall()
            held.update(token for (token,) in rows)
    return held


def give_back(connection: Connection, work: Work, limit: int) -> None:
    """Make it free at once, as if it had not been begun. Nothing happens where the lease is lost."""
    token, attempts = work.lease.token, work.attempt - 1
    if isinstance(work, TaskWork):
        _free_task(connection, work.job, work.document, work.task, token, attempts, limit)
    else:
        _free_document(connection, work.job, work.number, token, attempts, limit)


def take_over(
    connection: Connection,
    job: str,
    tasks: int,
    limit: int,
    now: float,
    workers: Collection[str],
    *,
    blame: bool = True,
) -> None:
    """Make free what is leased to these workers, or to any beyond its time; fail what has no attempt left.

    `blame` False: the workers ended of their own accord, and what they were at is as if it had not been begun.
    """
    which = "until < ?" + (f" OR worker IN ({', '.join('?' * len(workers))})" if workers else "")
    lost = End(now, f"given up after {limit} attempts: each time its worker ended, or was not heard of, while at it")
    for document, task, token, attempts, worker in connection.execute(
        f"SELECT document, task, token, attempts, worker FROM job_tasks WHERE job = ? AND state = 'running' AND ({which})",
        (job, now, *workers),
    ).fetchall():
        if not blame and worker in workers:
            _free_task(connection, job, document, task, token, attempts - 1, limit)
        elif attempts < limit:
            _free_task(connection, job, document, task, token, attempts, limit)
        else:
            end_task(connection, job, document, task, token, lost)
    for number, token, attempts, worker in connection.execute(
        f"SELECT number, token, attempts, worker FROM job_documents WHERE job = ? AND state = 'preparing' AND ({which})",
        (job, now, *workers),
    ).fetchall():
        if not blame and worker in workers:
            _free_document(connection, job, number, token, attempts - 1, limit)
        elif attempts < limit:
            _free_document(connection, job, number, token, attempts, limit)
        else:
            fail_document(connection, job, number, token, tasks, lost)


def _lease_tasks(
    connection: Connection, job: str, document: int, rows: list[tuple[int, int]], state: str, lease: tuple[str, float]
) -> list[TaskWork]:
    if not rows:
        return []
    worker, until = lease
    path, document_id = connection.execute(
        "SELECT path, document_id FROM job_documents WHERE job = ? AND number = ?", (job, document)
    ).fetchone()
    work = [
        TaskWork(
            job=job,
            document=document,
            path=path_from_text(path),
            document_id=document_id,
            task=task,
            attempt=attempts + 1,
            lease=Lease(secrets.token_hex(8), worker, until),
        )
        for task, attempts in rows
    ]
    connection.executemany(
        "UPDATE job_tasks SET state = 'running', token = ?, worker = ?, until = ?, attempts = ?"
        " WHERE job = ? AND document = ? AND task = ?",
        [(one.lease.token, worker, until, one.attempt, job, document, one.task) for one in work],
    )
    connection.execute(
        "UPDATE job_documents SET waiting = waiting - ?, running = running + ? WHERE job = ? AND number = ?",
        (len(work) if state == "waiting" else 0, len(work), job, document),
    )
    add_totals(connection, job, running=len(work))
    return work


def _free_task(
    connection: Connection, job: str, document: int, task: int, token: str, attempts: int, limit: int
) -> None:
    state = _free_state(attempts, limit)
    changed = connection.execute(
        "UPDATE job_tasks SET state = ?, token = '', until = 0, attempts = ?"
        " WHERE job = ? AND document = ? AND task = ? AND token = ? AND state = 'running'",
        (state, attempts, job, document, task, token),
    ).rowcount
    if changed:
        connection.execute(
            "UPDATE job_documents SET running = running - 1, waiting = waiting + ? WHERE job = ? AND number = ?",
            (int(state == "waiting"), job, document),
        )
        add_totals(connection, job, running=-1)


def _free_document(connection: Connection, job: str, number: int, token: str, attempts: int, limit: int) -> None:
    changed = connection.execute(
        "UPDATE job_documents SET state = ?, token = '', until = 0, attempts = ?"
        " WHERE job = ? AND number = ? AND token = ? AND state = 'preparing'",
        (_free_state(attempts, limit), attempts, job, number, token),
    ).rowcount
    if changed:
        add_totals(connection, job, preparing=-1)


def _free_state(attempts: int, limit: int) -> str:
    return "alone" if attempts >= max(1, limit - 1) else "waiting"


def _room(connection: Connection, job: str, worker: str, limit: int) -> tuple[bool, bool]:
    """Whether the worker may be given more, and whether it holds nothing."""
    held = connection.execute(
        "SELECT attempts FROM job_tasks WHERE job = ? AND state = 'running' AND worker = ? UNION ALL"
        " SELECT attempts FROM job_documents WHERE job = ? AND state = 'preparing' AND worker = ?",
        (job, worker, job, worker),
    ).fetchall()
    return not any(attempts >= max(2, limit) for (attempts,) in held), not held
