"""The runner: starts the workers of a job, follows how far it is, and ends when nothing is left.

Everything it knows is in the job table, so a runner that was killed is started again and goes on. Its workers end with
it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator

from lcdoc.jobs.crew import Crew, python
from lcdoc.jobs.job import Job
from lcdoc.jobs.shares import environment_of, suitable_workers
from lcdoc.memory import Library
from lcdoc.memory.errors import (
    LibraryAccessError,
    LibraryAwayError,
    LibraryBusyError,
    LibraryError,
    LibraryLostError,
)
from lcdoc.memory.job_records import JobStatus

_log = logging.getLogger(__name__)

_DEATHS_EACH = 10
"""Of so many for each place, with nothing done in between, no further one would do better."""
_LONGEST_LOOK_S = 0.2


def run_job(
    library: str | os.PathLike[str] | None,
    job: str,
    *,
    workers: int | None = None,
    on_status: Callable[[JobStatus], None] = lambda _status: None,
    on_line: Callable[[str], None] = _log.warning,
    every_s: float = 1.0,
    stop: threading.Event | None = None,
) -> JobStatus:
    """Work at the job (an id, its first characters, or a name) until it is finished, paused or cancelled.

    `workers` processes (default: `suitable_workers`); `on_status` is called every `every_s` seconds and at the end,
    `on_line` with what a user should know, a line each, both from this thread. `stop` ends it, and so does an
    exception such as Ctrl-C: what is under way is given back, and the job stays open. Returns the last status.

    Raises LibraryError, UnknownJobError, JobError, ModelNameError, ModelConfigError.
    """
    stop = stop or threading.Event()
    with Library.open(library) as opened:
        record = opened.jobs.find(job)
        described = Job.of(record.settings)
        size = workers or suitable_workers(described)
        command = ("--library", str(opened.path), "--share", str(size))
        with Crew(
            lambda worker: python("lcdoc.jobs.process", record.id, *command, "--worker", worker),
            [environment_of(place, size, described) for place in range(size)],
            said=on_line,
            died=lambda worker: _abandon(opened, record.id, worker),
        ) as crew:
            for status in _tended(opened, record.id, crew, every_s=every_s, stop=stop):
                on_status(status)
        status = opened.jobs.status(record.id)
        on_status(status)
        return status


def _tended(library: Library, job: str, crew: Crew, *, every_s: float, stop: threading.Event) -> Iterator[JobStatus]:
    """Its status, again and again, until nothing is left to do and nobody does anything."""
    done_before = -1
    while not stop.is_set():
        crew.tend()
        status = status_now(library, job)
        if status is not None:
            yield status
            if (done := _done(status)) != done_before:
                crew.progress()
                done_before = done
            if status.job.state != "open":
                if not crew.working:
                    return
            elif crew.deaths_in_vain > _DEATHS_EACH * crew.size:
                _give_up(library, job, f"workers die one after the other; of the last one, {crew.last_words}")
            else:
                crew.start()
        # In small steps, so that `stop` is seen soon.
        for _ in range(max(1, round(every_s / _LONGEST_LOOK_S))):
            if not stop.is_set():
                crew.wait(min(every_s, _LONGEST_LOOK_S))


def status_now(library: Library, job: str) -> JobStatus | None:
    """How far it is; None where that cannot be told just now."""
    try:
        return library.jobs.status(job)
    except (LibraryAccessError, LibraryAwayError, LibraryBusyError, LibraryLostError) as error:
        _log.info("%s", error)
        return None


def _done(status: JobStatus) -> int:
    documents, tasks = status.documents, status.tasks
    return documents["ready"] + documents["failed"] + tasks["done"] + tasks["failed"]


def _give_up(library: Library, job: str, reason: str) -> None:
    try:
        library.jobs.pause(job, reason)
    except LibraryError as error:
        # Tried again with the next look.
        _log.warning("%s; the job could not be paused: %s", reason, error)


def _abandon(library: Library, job: str, worker: str) -> None:
    try:
        library.jobs.abandon(job, worker)
    except LibraryError as error:
        # Its leases run out, or whoever claims next sees that it is gone.
        _log.info("what worker %s held is not free yet: %s", worker, error)
