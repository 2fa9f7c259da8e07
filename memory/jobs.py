"""Jobs: many tasks put to many documents by many workers, none lost and none done twice, whatever dies.

Workers take leases on documents and tasks, put them off with beats, and keep what came of each. What a worker held that
is gone, or was not heard of, is free again at once. Every lease has a token, and what is given with a token that is no
longer the row's is refused: a worker that was thought dead cannot write over the one that took its place.

A job is rows in a `Store`: in the library's file, or on a server where many machines reach it.
"""

from __future__ import annotations

import json
import secrets
from builtins import list as List  # noqa: N812 - a method is called list
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

from lcdoc.memory import job_claims, job_results, job_status, job_upkeep
from lcdoc.memory.job_records import (
    DocumentWork,
    JobRecord,
    JobState,
    JobStatus,
    ResultRow,
    TaskWork,
    UnknownJobError,
    Work,
)
from lcdoc.memory.job_results import End
from lcdoc.memory.job_tables import path_to_text, plain
from lcdoc.memory.journal import Owner
from lcdoc.memory.store import Connection, Store
from lcdoc.memory.usage import ModelUsage

LEASE_S = 60.0
"""How long a lease holds after its worker last gave a sign of life."""
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TOGETHER = 1000
"""How many documents are added in one transaction."""


class _Open(NamedTuple):
    """A writing transaction that has claimed a job."""

    connection: Connection
    now: float
    state: str
    tasks: int
    attempts: int


class Jobs:
    """The jobs in a store. Safe for threads and processes; every method blocks, for a few milliseconds as a rule.

    Methods that take a job raise UnknownJobError where it is not there (any more). All may raise LibraryErrors:
    LibraryAccessError where the disk is full, and then nothing of the call was written.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    # Jobs

    def create(
        self, settings: Mapping[str, Any], *, tasks: int, attempts: int = 3, name: str = "", out: str = ""
    ) -> str:
        """A new job without documents; returns its id, of 8 characters.

        `tasks` are put to each document; a task, or the preparing of a document, fails when `attempts` workers have
        died on it. `settings` are plain JSON values; `settings["same"]` tells, for `same`, which jobs do the same (all
        of the settings where there is no such key). Raises ValueError for no tasks, or no attempts.
        """
        if tasks < 1 or attempts < 1:
            raise ValueError(f"a job has at least 1 task and 1 attempt, not {tasks} and {attempts}")
        job = "".join(secrets.choice(_ALPHABET) for _ in range(8))
        with self._store.write() as connection:
            now = self._store.now(connection)
            connection.execute(
                "INSERT INTO jobs (id, name, same, settings, tasks, attempts, state, reason, out, created_at, changed_at)"
                " VALUES (?, ?, ?, ?, ?, ?, 'open', '', ?, ?, ?)",
                (job, plain(name), _same(settings), _packed(settings), tasks, attempts, path_to_text(out), now, now),
            )
            connection.execute("INSERT INTO job_totals (job) VALUES (?)", (job,))
        return job

    def change(
        self,
        job: str,
        settings: Mapping[str, Any],
        *,
        attempts: int | None = None,
        name: str | None = None,
        out: str | None = None,
    ) -> None:
        """Put other settings in the place of a job's: other caps, say. Its tasks stay as many as they are."""
        with self._change(job) as opened:
            opened.connection.execute(
                "UPDATE jobs SET settings = ?, same = ?, attempts = coalesce(?, attempts), name = coalesce(?, name),"
                " out = coalesce(?, out), changed_at = ? WHERE id = ?",
                (
                    _packed(settings),
                    _same(settings),
                    attempts,
                    None if name is None else plain(name),
                    None if out is None else path_to_text(out),
                    opened.now,
                    job,
                ),
            )

    def add_documents(self, job: str, paths: Iterable[str]) -> int:
        """Add documents, in this order, also while the job runs; returns how many. One already there is not added again.

        They are added by the thousand: where it is interrupted, those before are there, and adding all again is right.
        """
        added = 0
        remaining = iter(paths)
        while batch := list(dict.fromkeys(map(path_to_text, islice(remaining, _TOGETHER)))):
            with self._change(job) as opened:
                added += self._add(opened, job, batch)
        return added

    def get(self, job: str) -> JobRecord:
        """A job by its whole id."""
        with self._store.read() as connection:
            found = job_status.records(connection, "j.id = ?", (job,))
        if not found:
            raise self._unknown(f"no job {job!r}")
        return found[0]

    def find(self, name: str) -> JobRecord:
        """The one job of this id or name, or whose id begins so. Raises UnknownJobError."""
        with self._store.read() as connection:
            for which, value in (("j.id = ?", name), ("j.name = ?", plain(name)), ("substr(j.id, 1, ?) = ?", None)):
                values = (max(len(name), 1), plain(name).lower()) if value is None else (value,)
                found = job_status.records(connection, which, values)
                if len(found) == 1:
                    return found[0]
                if found:
                    raise self._unknown(f"{name!r} may be any of {', '.join(record.id for record in found)}")
        raise self._unknown(f"no job {name!r}")

    def list(self) -> List[JobRecord]:
        """All jobs, the latest first."""
        with self._store.read() as connection:
            return job_status.records(connection, "1 = 1", ())

    def same(self, settings: Mapping[str, Any]) -> JobRecord | None:
        """The latest job that does the same: see `create`."""
        with self._store.read() as connection:
            found = job_status.records(connection, "j.same = ?", (_same(settings),))
        return found[0] if found else None

    def remove(self, job: str) -> None:
        """Forget a job with its results. Workers that are at it lose their leases."""
        with self._change(job) as opened:
            opened.connection.execute("UPDATE jobs SET state = 'removed' WHERE id = ?", (job,))
        job_upkeep.remove(self._store, job)

    def pause(self, job: str, reason: str = "") -> bool:
        """Give out no more work; what runs may end. False where the job was not open: the first reason stands."""
        return self._turn(job, "paused", plain(reason), ("open",))

    def resume(self, job: str) -> bool:
        """Give out work again, also of a cancelled job. False where the job was open."""
        return self._turn(job, "open", "", ("paused", "cancelled"))

    def cancel(self, job: str, reason: str = "") -> bool:
        """Give out no more work; workers are told to drop what they are at. False where it was cancelled before."""
        return self._turn(job, "cancelled", plain(reason), ("open", "paused"))

    def retry_failed(self, job: str) -> int:
        """Have every failed task wait again, those of documents that failed included; returns how many.

        Their results are forgotten; what they cost stays in the totals. The job's state stays, a finished one opens.
        """
        with self._change(job) as opened:
            return job_upkeep.retry_failed(opened.connection, job, opened.tasks, opened.now)

    # Work

    def claim(
        self, job: str, worker: str, *, most: int = 1, prefer: Collection[int] = (), lease_s: float = LEASE_S
    ) -> List[TaskWork]:
        """Take up to `most` tasks of documents that are ready: the next of an ordered choice.

        First of the documents in `prefer` (those the worker has at hand), then of documents nobody works at, then of
        any. Leases that ran out, and those of workers that are surely gone, come free in the same transaction. A task
        on its last attempt is given by itself, to a worker that holds nothing, and that worker is given nothing else.
        Nothing is given of a paused or cancelled job. Empty: there is nothing now; see `unfinished`.
        """
        gone = self._gone(job)
        with self._change(job) as opened:
            job_claims.take_over(opened.connection, job, opened.tasks, opened.attempts, opened.now, gone)
            if opened.state != "open":
                return []
            lease = worker, opened.now + lease_s
            return job_claims.claim_tasks(opened.connection, job, opened.attempts, most, prefer, lease)

    def claim_document(
        self, job: str, worker: str, *, ahead: int | None = None, lease_s: float = LEASE_S
    ) -> DocumentWork | None:
        """Take the next document to be prepared; None where there is none now, as for `claim`.

        `ahead`: none either while so many documents are ready of which no task was begun.
        """
        gone = self._gone(job)
        with self._change(job) as opened:
            job_claims.take_over(opened.connection, job, opened.tasks, opened.attempts, opened.now, gone)
            if opened.state != "open":
                return None
            lease = worker, opened.now + lease_s
            return job_claims.claim_document(opened.connection, job, opened.attempts, ahead, lease)

    def beat(
        self, job: str, worker: str, tokens: Iterable[str], *, doing: str | None = None, lease_s: float = LEASE_S
    ) -> set[str]:
        """Give a sign of life: put off these leases, and return the tokens that are lost: drop that work.

        All of them when the job was cancelled (give the work back then). `doing` is what the worker is at, for people.
        """
        wanted = set(tokens)
        with self._change(job) as opened:
            opened.connection.execute(
                "UPDATE job_workers SET beat_at = ?, doing = coalesce(?, doing) WHERE job = ? AND id = ?",
                (opened.now, None if doing is None else plain(doing), job, worker),
            )
            if opened.state == "cancelled":
                return wanted
            return wanted - job_claims.put_off(opened.connection, job, wanted, opened.now + lease_s)

    def ready(
        self, work: DocumentWork, *, document_id: str, name: str, pages: int, characters: int, seconds: float
    ) -> bool:
        """The document was prepared, in `seconds`: its tasks can be done. False: the lease was lost, nothing was written."""
        with self._change(work.job) as opened:
            values = document_id, plain(name), pages, characters, seconds, opened.now
            return job_results.make_ready(
                opened.connection, work.job, work.number, work.lease.token, opened.tasks, values
            )

    def document_failed(self, work: DocumentWork, error: str, seconds: float) -> bool:
        """The document cannot be prepared: its tasks fail with this reason. False: the lease was lost."""
        with self._change(work.job) as opened:
            end = End(opened.now, plain(error) or "failed", seconds=seconds)
            return job_results.fail_document(
                opened.connection, work.job, work.number, work.lease.token, opened.tasks, end
            )

    def keep(
        self,
        work: TaskWork,
        row: Mapping[str, Any],
        *,
        error: str = "",
        seconds: float,
        usage: ModelUsage = ModelUsage(),  # noqa: B008 - frozen
    ) -> bool:
        """Keep what came of a task: done, or failed with an `error`. False: the lease was lost, nothing was written.

        `row` is plain JSON values: TypeError or ValueError where it is not. When this returns it is kept, through the
        death of the process and a power failure. The job may be paused or cancelled by now: what was done is kept.
        """
        packed = job_results.packed_row(row)
        with self._change(work.job) as opened:
            end = End(opened.now, plain(error), packed, seconds, usage)
            return job_results.end_task(opened.connection, work.job, work.document, work.task, work.lease.token, end)

    def give_back(self, works: Iterable[Work]) -> None:
        """Make work free for others at once, as if it had not been begun. Nothing happens to what was lost."""
        for job, held in _by_job(works).items():
            with self._change(job) as opened:
                for work in held:
                    job_claims.give_back(opened.connection, work, opened.attempts)

    def unfinished(self, job: str) -> int:
        """How many tasks are neither done nor failed, those of documents not yet read included."""
        with self._store.read() as connection:
            row = connection.execute(
                "SELECT documents * tasks - done - failed FROM jobs JOIN job_totals ON job = id"
                " WHERE id = ? AND state <> 'removed'",
                (job,),
            ).fetchone()
        if row is None:
            raise self._unknown(f"no job {job!r}")
        return int(row[0])

    # Workers

    def register(self, job: str, *, worker: str = "", doing: str = "") -> str:
        """This process works at the job from here on; returns the worker's id: `worker`, or a new one.

        Should the process end without `leave`, its leases come free at once where that can be told: on its machine.
        """
        worker = worker or secrets.token_hex(4)
        with self._change(job) as opened:
            job_status.register(opened.connection, job, worker, str(Owner.here()), opened.now, plain(doing))
        return worker

    def leave(self, job: str, worker: str) -> None:
        """The worker ends of its own accord: what it holds comes free, as if it had not been begun."""
        self._end_worker(job, worker, blame=False)

    def abandon(self, job: str, worker: str) -> None:
        """The worker has died, as whoever calls knows: what it holds comes free, its attempts counted."""
        self._end_worker(job, worker, blame=True)

    # Reading

    def status(self, job: str) -> JobStatus:
        """How far the job is. Cheap, however large it is."""
        with self._store.read() as connection:
            found = job_status.status(connection, job, self._store.now(connection))
        if found is None:
            raise self._unknown(f"no job {job!r}")
        return found

    def results(self, job: str, *, after: int = 0) -> Iterator[ResultRow]:
        """What ended after that sequence number, in the order in which it did.

        Going on with `after` at the last row's number misses nothing and gives nothing twice, while workers work. A
        failed task that was tried again comes again.
        """
        while True:
            with self._store.read() as connection:
                rows = job_results.results_after(connection, job, after)
            yield from rows
            if len(rows) < job_results.PAGE:
                return
            after = rows[-1].sequence

    def ordered(self, job: str) -> Iterator[ResultRow]:
        """What has ended, by document and task."""
        document = task = 0
        while True:
            with self._store.read() as connection:
                rows = job_results.results_behind(connection, job, document, task)
            yield from rows
            if len(rows) < job_results.PAGE:
                return
            document, task = rows[-1].document, rows[-1].task

    def problems(self) -> List[str]:
        """What is wrong with the jobs kept, a line each."""
        with self._store.read() as connection:
            return [f"{self._store.path}: {problem}" for problem in job_upkeep.problems(connection)]

    @contextmanager
    def _change(self, job: str) -> Iterator[_Open]:
        with self._store.write() as connection:
            self._store.claim(connection, job)
            row = connection.execute(
                "SELECT state, tasks, attempts FROM jobs WHERE id = ? AND state <> 'removed'", (job,)
            ).fetchone()
            if row is None:
                raise self._unknown(f"no job {job!r}")
            yield _Open(connection, self._store.now(connection), *row)

    def _turn(self, job: str, to: JobState, reason: str, from_: tuple[str, ...]) -> bool:
        with self._change(job) as opened:
            if opened.state not in from_:
                return False
            opened.connection.execute(
                "UPDATE jobs SET state = ?, reason = ?, changed_at = ? WHERE id = ?", (to, reason, opened.now, job)
            )
            return True

    def _add(self, opened: _Open, job: str, paths: List[str]) -> int:
        connection = opened.connection
        marks = ", ".join("?" * len(paths))
        there = {
            path
            for (path,) in connection.execute(
                f"SELECT path FROM job_documents WHERE job = ? AND path IN ({marks})", (job, *paths)
            )
        }
        (last,) = connection.execute("SELECT documents FROM job_totals WHERE job = ?", (job,)).fetchone()
        new = [path for path in paths if path not in there]
        connection.executemany(
            "INSERT INTO job_documents (job, number, path) VALUES (?, ?, ?)",
            [(job, number, path) for number, path in enumerate(new, last + 1)],
        )
        job_results.add_totals(connection, job, documents=len(new))
        if new:
            connection.execute("UPDATE jobs SET changed_at = ? WHERE id = ?", (opened.now, job))
        return len(new)

    def _gone(self, job: str) -> List[str]:
        """Workers whose process has surely ended. They stay so: no transaction is needed to act on it."""
        with self._store.read() as connection:
            workers = connection.execute("SELECT id, owner FROM job_workers WHERE job = ?", (job,)).fetchall()
        return [worker for worker, owner in workers if Owner.from_text(owner).is_gone()]

    def _end_worker(self, job: str, worker: str, *, blame: bool) -> None:
        with self._change(job) as opened:
            job_claims.take_over(
                opened.connection, job, opened.tasks, opened.attempts, opened.now, [worker], blame=blame
            )
            opened.connection.execute("DELETE FROM job_workers WHERE job = ? AND id = ?", (job, worker))

    def _unknown(self, problem: str) -> UnknownJobError:
        return UnknownJobError(self._store.path, problem, "`lcdoc batch list` shows what is there")


def _packed(settings: Mapping[str, Any]) -> str:
    return json.dumps(dict(settings), sort_keys=True)


def _same(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings.get("same", dict(settings)), sort_keys=True)


def _by_job(works: Iterable[Work]) -> dict[str, List[Work]]:
    jobs: dict[str, List[Work]] = {}
    for work in works:
        jobs.setdefault(work.job, []).append(work)
    return jobs
