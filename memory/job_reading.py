"""Jobs as they can be looked at: which there are, how far each is, and what came of it. Nothing here changes them."""

from __future__ import annotations

import json
from builtins import list as List  # noqa: N812 - a method is called list
from collections.abc import Iterator, Mapping
from typing import Any

from lcdoc.memory import job_results, job_status, job_upkeep
from lcdoc.memory.job_records import JobRecord, JobStatus, ResultRow, UnknownJobError
from lcdoc.memory.job_tables import plain
from lcdoc.memory.store import Store


class JobReading:
    """The jobs in a store. Methods that take a job raise UnknownJobError where it is not there (any more)."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, job: str) -> JobRecord:
        """A job by its whole id."""
        with self._store.read() as connection:
            found = job_status.records(connection, "j.id = ?", (job,))
        if not found:
            raise self.unknown(job)
        return found[0]

    def find(self, name: str) -> JobRecord:
        """The one job of this id or name, or whose id begins so. Raises UnknownJobError."""
        name = plain(name)
        ways: tuple[tuple[str, tuple[Any, ...]], ...] = (
            ("j.id = ?", (name,)),
            ("j.name = ?", (name,)),
            ("substr(j.id, 1, ?) = ?", (max(len(name), 1), name.lower())),
        )
        with self._store.read() as connection:
            for which, values in ways:
                found = job_status.records(connection, which, values)
                if len(found) > 1:
                    problem = f"{name!r} may be any of the jobs {', '.join(record.id for record in found)}"
                    raise UnknownJobError(self._store.path, problem, "name it by its id")
                if found:
                    return found[0]
        raise self.unknown(name)

    def list(self) -> List[JobRecord]:
        """All jobs, the latest first."""
        with self._store.read() as connection:
            return job_status.records(connection, "1 = 1", ())

    def same(self, settings: Mapping[str, Any]) -> JobRecord | None:
        """The latest job that does the same: whose `settings["same"]` are equal, or, without it, all settings."""
        with self._store.read() as connection:
            found = job_status.records(connection, "j.same = ?", (what_is_done(settings),))
        return found[0] if found else None

    def unfinished(self, job: str) -> int:
        """How many tasks are neither done nor failed, those of documents not yet read included."""
        with self._store.read() as connection:
            row = connection.execute(
                "SELECT documents * tasks - done - failed FROM jobs AS j JOIN job_totals AS total ON total.job = j.id"
                " WHERE j.id = ? AND j.state <> 'removed'",
                (job,),
            ).fetchone()
        if row is None:
            raise self.unknown(job)
        return int(row[0])

    def status(self, job: str) -> JobStatus:
        """How far the job is. Cheap, however large it is."""
        with self._store.read() as connection:
            found = job_status.status(connection, job, self._store.now(connection))
        if found is None:
            raise self.unknown(job)
        return found

    def results(self, job: str, *, after: int = 0) -> Iterator[ResultRow]:
        """What ended after that sequence number, in the order in which it did.

        Going on with `after` at the last row's number misses nothing and gives nothing twice, while workers work. A
        failed task that was tried again comes again.
        """
        while True:
            with self._store.read() as connection:
                rows = job_results.results_after(connection, job, after)
            if not rows:
                self.get(job)
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
            if not rows:
                self.get(job)
            yield from rows
            if len(rows) < job_results.PAGE:
                return
            document, task = rows[-1].document, rows[-1].task

    def documents_wanted(self) -> set[str]:
        """Ids of documents that are ready and have tasks to be done, in jobs that were not cancelled."""
        with self._store.read() as connection:
            rows = connection.execute(
                "SELECT DISTINCT d.document_id FROM jobs AS j JOIN job_tasks AS t ON t.job = j.id"
                " JOIN job_documents AS d ON d.job = t.job AND d.number = t.document"
                " WHERE j.state IN ('open', 'paused') AND t.state IN ('waiting', 'alone', 'running')"
            ).fetchall()
        return {document_id for (document_id,) in rows}

    def problems(self) -> List[str]:
        """What is wrong with the jobs kept, a line each."""
        with self._store.read() as connection:
            return [f"{self._store.path}: {problem}" for problem in job_upkeep.problems(connection)]

    def unknown(self, job: str) -> UnknownJobError:
        """The error that says so."""
        return UnknownJobError(self._store.path, f"no job {job!r}", "`lcdoc batch list` shows what is there")


def what_is_done(settings: Mapping[str, Any]) -> str:
    """The part of settings that is equal when two jobs do the same."""
    return json.dumps(settings.get("same", dict(settings)), sort_keys=True)
