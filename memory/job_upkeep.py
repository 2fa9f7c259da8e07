"""Looking after jobs: failed work tried again, whole jobs removed, and what is there checked."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from lcdoc.memory.document_rows import unpack
from lcdoc.memory.job_change import JobChange
from lcdoc.memory.owner import Owner
from lcdoc.memory.store import Connection, Store

_TOGETHER = 500
"""How many documents are removed in one transaction: others wait for it."""
_PURSES = ("purses", "purse_owners", "work_clocks")


def retry_failed(change: JobChange) -> int:
    """Have every failed task wait again; returns how many."""
    # Whatever their number, in few statements: others wait.
    job = change.job
    unreadable = "SELECT number FROM job_documents WHERE job = ? AND state = 'failed'"
    for table in ("job_results", "job_tasks"):
        change.execute(f"DELETE FROM {table} WHERE job = ? AND document IN ({unreadable})", job, job)
    documents = change.execute(
        "UPDATE job_documents SET state = 'waiting', attempts = 0, error = '', seconds = 0, ended_at = 0"
        " WHERE job = ? AND state = 'failed'",
        job,
    ).rowcount
    failed = "FROM job_tasks AS t WHERE t.job = ? AND t.state = 'failed'"
    change.execute(
        f"DELETE FROM job_results WHERE job = ? AND (document, task) IN (SELECT t.document, t.task {failed})", job, job
    )
    change.execute(
        f"UPDATE job_documents SET waiting = waiting + (SELECT count(*) {failed} AND t.document = number)"
        f" WHERE job = ? AND number IN (SELECT t.document {failed})",
        job,
        job,
        job,
    )
    tasks = change.execute(
        "UPDATE job_tasks SET state = 'waiting', attempts = 0, error = '' WHERE job = ? AND state = 'failed'", job
    ).rowcount
    number = tasks + change.tasks * documents
    change.add(unreadable=-documents, failed=-number)
    change.execute("UPDATE jobs SET changed_at = ? WHERE id = ?", change.now, job)
    return number


def remove(store: Store, job: str) -> None:
    """Delete the rows of a job that is marked as removed, little by little."""
    last = None
    while last is None or last > 0:
        with store.write() as connection:
            store.claim(connection, job)
            (last,) = connection.execute(
                "SELECT coalesce(max(number), 0) FROM job_documents WHERE job = ?", (job,)
            ).fetchone()
            for table, column in (("job_results", "document"), ("job_tasks", "document"), ("job_documents", "number")):
                connection.execute(f"DELETE FROM {table} WHERE job = ? AND {column} > ?", (job, last - _TOGETHER))
            if last <= 0:
                for table in (*_PURSES, "job_leases", "job_workers", "job_totals"):
                    connection.execute(f"DELETE FROM {table} WHERE job = ?", (job,))
                connection.execute("DELETE FROM jobs WHERE id = ?", (job,))


def removed(connection: Connection) -> list[str]:
    """Jobs whose removal was cut off."""
    return [job for (job,) in connection.execute("SELECT id FROM jobs WHERE state = 'removed'")]


def remove_strays(connection: Connection) -> None:
    """Delete what processes wrote into the purses of a job that they did not know to be removed."""
    for table in _PURSES:
        connection.execute(f"DELETE FROM {table} WHERE job NOT IN (SELECT id FROM jobs)")


def problems(connection: Connection) -> Iterator[str]:
    """What is wrong with the jobs kept, a line each."""
    for job, settings in connection.execute(
        "SELECT id, settings FROM jobs WHERE state <> 'removed' ORDER BY created_at, id"
    ).fetchall():
        try:
            json.loads(settings)
            for (owner,) in connection.execute("SELECT owner FROM job_workers WHERE job = ?", (job,)):
                Owner.from_text(owner)
            for (result,) in connection.execute("SELECT result FROM job_results WHERE job = ?", (job,)):
                if result:
                    json.loads(unpack(bytes(result)))
        except (sqlite3.DatabaseError, ValueError, TypeError) as damage:
            yield f"job {job} is damaged ({damage})"
        if (told := _told(connection, job)) != (counted := _counted(connection, job)):
            wrong = ", ".join(
                f"{told[name]} {name} where {counted[name]} are" for name in told if told[name] != counted[name]
            )
            yield f"job {job} is damaged: it tells of {wrong}"


_TOLD = ("documents", "preparing", "ready", "unreadable", "running", "done", "failed")


def _told(connection: Connection, job: str) -> dict[str, int]:
    row = connection.execute(f"SELECT {', '.join(_TOLD)} FROM job_totals WHERE job = ?", (job,)).fetchone()
    waiting, running = connection.execute(
        "SELECT coalesce(sum(waiting), 0), coalesce(sum(running), 0) FROM job_documents WHERE job = ?", (job,)
    ).fetchone()
    (leases,) = connection.execute("SELECT count(*) FROM job_leases WHERE job = ?", (job,)).fetchone()
    return dict(zip(_TOLD, row, strict=True)) | {
        "waiting at documents": waiting,
        "running at documents": running,
        "leases": leases,
    }


def _counted(connection: Connection, job: str) -> dict[str, int]:
    documents = _by_state(connection, "job_documents", job)
    tasks = _by_state(connection, "job_tasks", job)
    return {
        "documents": sum(documents.values()),
        "preparing": documents.get("preparing", 0),
        "ready": documents.get("ready", 0),
        "unreadable": documents.get("failed", 0),
        "running": tasks.get("running", 0),
        "done": tasks.get("done", 0),
        "failed": tasks.get("failed", 0),
        "waiting at documents": tasks.get("waiting", 0),
        "running at documents": tasks.get("running", 0),
        "leases": documents.get("preparing", 0) + tasks.get("running", 0),
    }


def _by_state(connection: Connection, table: str, job: str) -> dict[str, int]:
    return dict(connection.execute(f"SELECT state, count(*) FROM {table} WHERE job = ? GROUP BY state", (job,)))
