"""Jobs: many tasks put to many documents by many workers, none lost and none done twice, whatever dies.

Workers take leases on documents and tasks, put them off with beats, and keep what came of each. What a worker held that
is gone, or was not heard of, is free again at once. Every lease has a token, and what is given with a token that is no
longer the row's is refused: a worker that was thought dead cannot write over the one that took its place.

A job is rows in a `Store`: in the library's file, or on a server that many machines reach.
"""

from __future__ import annotations

import json
import secrets
from builtins import list as List  # noqa: N812 - a method is called list
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

from lcdoc.memory import job_claims, job_results, job_status, job_upkeep
from lcdoc.memory.job_change import JobChange
from lcdoc.memory.job_claims import Claimant
from lcdoc.memory.job_reading import JobReading, what_is_done
from lcdoc.memory.job_records import DocumentWork, JobState, TaskWork, Work
from lcdoc.memory.job_results import End, Prepared
from lcdoc.memory.job_tables import path_to_text, plain
from lcdoc.memory.owner import Owner
from lcdoc.memory.usage import ModelUsage

LEASE_S = 60.0
"""How long a lease holds after its worker last gave a sign of life."""
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TOGETHER = 1000
"""How many documents are added in one transaction."""
_NOTHING_USED = ModelUsage()


class Jobs(JobReading):
    """The jobs in a store. Safe for threads and processes; every method blocks, for a few milliseconds as a rule.

    Methods that take a job raise UnknownJobError where it is not there (any more). All may raise LibraryErrors:
    LibraryAccessError where the disk is full, and then nothing of the call was written, and it may be made again.
    """

    def create(
        self, settings: Mapping[str, Any], *, tasks: int, attempts: int = 3, name: str = "", out: str = ""
    ) -> str:
        """A new job without documents; returns its id, of 8 characters.

        `tasks` are put to each document; a task, or the preparing of a document, fails when `attempts` workers have
        died on it. `settings` are plain JSON values. Raises ValueError for no tasks, or no attempts.
        """
        if tasks < 1 or attempts < 1:
            raise ValueError(f"a job has at least 1 task and 1 attempt, not {tasks} and {attempts}")
        job = "".join(secrets.choice(_ALPHABET) for _ in range(8))
        said = plain(name), what_is_done(settings), _packed(settings)
        with self._store.write() as connection:
            now = self._store.now(connection)
            connection.execute(
                "INSERT INTO jobs (id, name, same, settings, tasks, attempts, state, reason, out, created_at,"
                " changed_at) VALUES (?, ?, ?, ?, ?, ?, 'open', '', ?, ?, ?)",
                (job, *said, tasks, attempts, path_to_text(out), now, now),
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
        if attempts is not None and attempts < 1:
            raise ValueError(f"a job has at least 1 attempt, not {attempts}")
        with self._change(job) as change:
            change.execute(
                "UPDATE jobs SET settings = ?, same = ?, attempts = coalesce(?, attempts), name = coalesce(?, name),"
                " out = coalesce(?, out), changed_at = ? WHERE id = ?",
                _packed(settings),
                what_is_done(settings),
                attempts,
                None if name is None else plain(name),
                None if out is None else path_to_text(out),
                change.now,
                job,
            )

    def add_documents(self, job: str, paths: Iterable[str]) -> int:
        """Add documents in this order, also while the job runs; returns how many. One that is there is not added again.

        They are added by the thousand: after an interruption some are there, and adding all of them again is right.
        """
        added = 0
        remaining = iter(paths)
        while batch := list(dict.fromkeys(map(path_to_text, islice(remaining, _TOGETHER)))):
            with self._change(job) as change:
                added += _add_documents(change, batch)
        return added

    def pause(self, job: str, reason: str = "") -> bool:
        """Give out no more work; what runs may end. False where the job was not open: the first reason stands."""
        return self._turn(job, ("open",), "paused", reason)

    def resume(self, job: str) -> bool:
        """Give out work again, also of a cancelled job. False where the job was open."""
        return self._turn(job, ("paused", "cancelled"), "open")

    def cancel(self, job: str, reason: str = "") -> bool:
        """Give out no more work; workers are told to drop what they are at. False where it was cancelled before."""
        return self._turn(job, ("open", "paused"), "cancelled", reason)

    def retry_failed(self, job: str) -> int:
        """Have every failed task wait again, those of documents that failed included; returns how many.

        Their results are forgotten; what they cost stays in the totals. A finished job is open again; a paused or
        cancelled one stays so.
        """
        with self._change(job) as change:
            return job_upkeep.retry_failed(change)

    def remove(self, job: str) -> None:
        """Forget a job with its results. Workers that are at it find it unknown."""
        with self._change(job) as change:
            change.execute("UPDATE jobs SET state = 'removed' WHERE id = ?", job)
        job_upkeep.remove(self._store, job)

    def prune(self) -> None:
        """Bring to an end what removals left that were cut off."""
        with self._store.read() as connection:
            removed = job_upkeep.removed(connection)
        for job in removed:
            job_upkeep.remove(self._store, job)
        with self._store.write() as connection:
            job_upkeep.remove_strays(connection)

    def claim(
        self, job: str, worker: str, *, most: int = 1, prefer: Collection[int] = (), lease_s: float = LEASE_S
    ) -> List[TaskWork]:
        """Take up to `most` tasks of documents that are ready. Empty: there is nothing now; see `unfinished`.

        First of the documents in `prefer` (those the worker has at hand), then of documents nobody works at, then of
        any. Leases that ran out, and those of workers that are surely gone, come free in the same transaction; the
        former not at once where nobody could put any off for a while: the store was away, or the machine asleep. A task
        on its last attempt is given by itself, to a worker that holds nothing, and that worker is given nothing else
        meanwhile. Nothing is given of a paused or cancelled job.
        """
        with self._claiming(job, worker) as change:
            if change.state != "open":
                return []
            return job_claims.claim_tasks(change, Claimant(worker, change.now + lease_s), most, prefer)

    def claim_document(
        self, job: str, worker: str, *, ahead: int | None = None, lease_s: float = LEASE_S
    ) -> DocumentWork | None:
        """Take the next document to be prepared; None where there is none now, as for `claim`.

        `ahead`: none either while so many documents are ready of which no task runs.
        """
        with self._claiming(job, worker) as change:
            if change.state != "open":
                return None
            return job_claims.claim_document(change, Claimant(worker, change.now + lease_s), ahead)

    def beat(
        self, job: str, worker: str, tokens: Iterable[str], *, doing: str | None = None, lease_s: float = LEASE_S
    ) -> set[str]:
        """Give a sign of life: put off these leases, and return the tokens that are lost: drop that work.

        All of them when the job was cancelled (give the work back then). `doing` is what the worker is at, for people.
        """
        wanted = set(tokens)
        with self._change(job, durable=False) as change:
            _break_silence(change)
            job_status.heard(change, worker, None if doing is None else plain(doing))
            if change.state == "cancelled":
                return wanted
            return wanted - job_claims.put_off(change, sorted(wanted), change.now + lease_s)

    def ready(
        self, work: DocumentWork, *, document_id: str, name: str, pages: int, characters: int, seconds: float
    ) -> bool:
        """The document was prepared, in `seconds`: its tasks wait. False: the lease was lost, nothing was written."""
        prepared = Prepared(document_id, plain(name), pages, characters, seconds)
        with self._change(work.job) as change:
            if held := job_claims.end_lease(change, work.lease.token):
                job_results.make_ready(change, work.number, prepared)
        return held

    def document_failed(self, work: DocumentWork, error: str, seconds: float) -> bool:
        """The document cannot be prepared: its tasks fail with this reason. False: the lease was lost."""
        end = End(plain(error) or "failed", seconds)
        with self._change(work.job) as change:
            if held := job_claims.end_lease(change, work.lease.token):
                job_results.fail_document(change, work.number, end)
        return held

    def keep(
        self,
        work: TaskWork,
        row: Mapping[str, Any],
        *,
        error: str = "",
        seconds: float,
        usage: ModelUsage = _NOTHING_USED,
    ) -> bool:
        """Keep what came of a task: done, or failed with an `error`. False: the lease was lost, nothing was written.

        `row` is plain JSON values: TypeError or ValueError where it is not. When this returns it is kept, through the
        death of the process and a power failure. The job may be paused or cancelled by now: what was done is kept.
        """
        end = End(plain(error), seconds, job_results.packed_row(row), usage)
        with self._change(work.job) as change:
            if held := job_claims.end_lease(change, work.lease.token):
                job_results.end_task(change, work.document, work.task, end)
        return held

    def give_back(self, works: Iterable[Work]) -> None:
        """Make work free for others at once, as if it had not been begun. Nothing happens to what was lost."""
        by_job: dict[str, List[Work]] = {}
        for work in works:
            by_job.setdefault(work.job, []).append(work)
        for job, held in by_job.items():
            with self._change(job) as change:
                for work in held:
                    job_claims.give_back(change, work)

    def register(self, job: str, *, worker: str = "", doing: str = "") -> str:
        """This process works at the job from here on; returns the worker's id: `worker`, or a new one.

        Should the process end without `leave`, its leases come free at once where that can be told: on its machine.
        """
        worker = worker or secrets.token_hex(4)
        with self._change(job) as change:
            _break_silence(change)
            job_status.register(change, worker, str(Owner.here()), plain(doing))
        return worker

    def leave(self, job: str, worker: str) -> None:
        """The worker ends of its own accord: what it holds comes free, as if it had not been begun."""
        self._end_worker(job, worker, died=False)

    def abandon(self, job: str, worker: str) -> None:
        """The worker has died, as whoever calls knows: what it holds comes free, its attempts counted."""
        self._end_worker(job, worker, died=True)

    @contextmanager
    def _change(self, job: str, *, durable: bool = True) -> Iterator[JobChange]:
        with self._store.write(durable=durable) as connection:
            self._store.claim(connection, job)
            row = connection.execute(
                "SELECT state, tasks, attempts FROM jobs WHERE id = ? AND state <> 'removed'", (job,)
            ).fetchone()
            if row is None:
                raise self.unknown(job)
            yield JobChange(connection, self._store.now(connection), job, *row)

    @contextmanager
    def _claiming(self, job: str, worker: str) -> Iterator[JobChange]:
        """As `_change`, with what the dead hold made free.

        After a silence of all, leases say nothing of who is dead: the first sign of life gives everybody time.
        """
        with self._store.read() as connection:
            # Looking for processes is not for a transaction that others wait for: who is gone stays so.
            gone = job_status.gone_workers(connection, job)
        # A claim that a power failure undoes has not been made: nobody is left who made it.
        with self._change(job, durable=False) as change:
            waits = job_status.silence(change) and job_status.is_registered(change, worker)
            job_claims.take_over(change, job_status.forget(change, gone), expired=not waits)
            yield change

    def _turn(self, job: str, before: Collection[str], state: JobState, reason: str = "") -> bool:
        with self._change(job) as change:
            if change.state not in before:
                return False
            change.execute(
                "UPDATE jobs SET state = ?, reason = ?, changed_at = ? WHERE id = ?",
                state,
                plain(reason),
                change.now,
                job,
            )
            return True

    def _end_worker(self, job: str, worker: str, *, died: bool) -> None:
        with self._change(job) as change:
            job_claims.take_over(change, [worker], died=died)
            change.execute("DELETE FROM job_workers WHERE job = ? AND id = ?", job, worker)


def _break_silence(change: JobChange) -> None:
    """Before a sign of life: where it is the first for long, all have time to give one."""
    if job_status.silence(change):
        job_claims.give_time(change)


def _add_documents(change: JobChange, paths: List[str]) -> int:
    there = {
        path
        for (path,) in change.execute(
            f"SELECT path FROM job_documents WHERE job = ? AND path IN ({', '.join('?' * len(paths))})",
            change.job,
            *paths,
        )
    }
    new = [path for path in paths if path not in there]
    if not new:
        return 0
    (last,) = change.execute("SELECT documents FROM job_totals WHERE job = ?", change.job).fetchone()
    change.connection.executemany(
        "INSERT INTO job_documents (job, number, path) VALUES (?, ?, ?)",
        [(change.job, number, path) for number, path in enumerate(new, last + 1)],
    )
    change.add(documents=len(new))
    change.execute("UPDATE jobs SET changed_at = ? WHERE id = ?", change.now, change.job)
    return len(new)


def _packed(settings: Mapping[str, Any]) -> str:
    return json.dumps(dict(settings), allow_nan=False)
