"""`lcdoc.batch`: a job from Python, its results one by one as they come."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path

from lcdoc.jobs.begin import Begun, begin
from lcdoc.jobs.errors import JobError
from lcdoc.jobs.job import Job
from lcdoc.jobs.result_log import ResultLog
from lcdoc.jobs.results import Result
from lcdoc.jobs.runner import run_job
from lcdoc.memory import Library
from lcdoc.memory.job_records import JobStatus

_log = logging.getLogger(__name__)

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]

_EVERY_S = 0.5
_PAGE = 100
"""Rows read from the job table at a time."""


class Batch:
    """A job and its results, made by `batch`. `async for result in ...` does what is left and gives each row once.

    Leaving the loop ends the workers, and closing the iterator (`contextlib.aclosing`) waits until they have given back
    what they were at. Iterating again goes on after the last row that was given.
    """

    def __init__(
        self,
        job: Job,
        *,
        library: str | os.PathLike[str] | None,
        workers: int | None,
        out: str | os.PathLike[str] | None,
        on_status: Callable[[JobStatus], None] | None,
    ) -> None:
        self._job = job
        self._library = library
        self._workers = workers
        self._out = None if out is None else Path(out)
        self._on_status = on_status or (lambda _status: None)
        self._given = 0
        self._running: weakref.ref[AsyncGenerator[Result]] | None = None
        self._ended = asyncio.Event()
        self.id = ""
        """The job's, once the iteration has begun."""

    def __aiter__(self) -> AsyncGenerator[Result]:
        own: list[weakref.ref[AsyncGenerator[Result]]] = []
        results = self._results(own)
        own.append(weakref.ref(results))
        return results

    async def _results(self, own: Sequence[weakref.ref[AsyncGenerator[Result]]]) -> AsyncGenerator[Result]:
        while self._running is not None:
            if self._running() is not None:
                raise JobError("this batch is being iterated already", "end that loop first")
            # That loop was left, and its workers are still giving back what they were at.
            await self._ended.wait()
        self._running = own[0]
        self._ended = asyncio.Event()
        try:
            with ExitStack() as stack:
                library, begun, log = await asyncio.to_thread(self._begun, stack)
                self.id = begun.record.id
                working = _Working(library, self.id, self._workers, self._on_status)
                try:
                    while True:
                        over = working.over
                        rows = await asyncio.to_thread(self._next, library, begun, log)
                        for sequence, result in rows:
                            self._given = sequence
                            yield result
                        if not rows and over:
                            break
                        if not rows:
                            await working.something()
                finally:
                    status = await working.end()
                if log is not None:
                    everything = (
                        Result.of_kept(kept, self.id, begun.job.tasks) for kept in library.jobs.ordered(self.id)
                    )
                    await asyncio.to_thread(log.finish, everything)
        finally:
            self._running = None
            self._ended.set()
        if status.job.state in ("paused", "cancelled"):
            problem = status.job.reason or f"it was {status.job.state}"
            raise JobError(f"job {self.id} stopped: {problem}", "iterate again to go on, once that is mended")

    def _begun(self, stack: ExitStack) -> tuple[Library, Begun, ResultLog | None]:
        library = stack.enter_context(Library.open(self._library))
        begun = begin(library, self._job, out="" if self._out is None else str(self._out.absolute()))
        log = None if self._out is None else stack.enter_context(ResultLog(self._out, begun.record.id))
        return library, begun, log

    def _next(self, library: Library, begun: Begun, log: ResultLog | None) -> list[tuple[int, Result]]:
        """The next rows, which are in the file by the time they are given."""
        kept = list(islice(library.jobs.results(self.id, after=self._given), _PAGE))
        rows = [(one.sequence, Result.of_kept(one, self.id, begun.job.tasks)) for one in kept]
        if log is not None:
            log.add(result for _, result in rows)
        return rows


class _Working:
    """The runner, in a thread of its own, and its news for an event loop."""

    def __init__(self, library: Library, job: str, workers: int | None, on_status: Callable[[JobStatus], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._stop = threading.Event()
        self._on_status = on_status
        run = partial(
            run_job, library.path, job, workers=workers, on_status=self._heard, every_s=_EVERY_S, stop=self._stop
        )
        self._status: asyncio.Future[JobStatus] = self._loop.run_in_executor(None, run)
        self._status.add_done_callback(lambda _: self._news.set())

    @property
    def over(self) -> bool:
        return self._status.done()

    async def something(self) -> None:
        """Wait until there may be results, or it is over."""
        await self._news.wait()
        if not self.over:
            self._news.clear()

    async def end(self) -> JobStatus:
        """Have the workers give back what they are at, and wait for them. Raises what the runner raised."""
        self._stop.set()
        return await asyncio.shield(self._status)

    def _heard(self, status: JobStatus) -> None:
        self._loop.call_soon_threadsafe(self._tell, status)

    def _tell(self, status: JobStatus) -> None:
        self._news.set()
        self._on_status(status)


def batch(
    paths: Paths,
    job: Job | str | os.PathLike[str],
    *,
    library: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    out: str | os.PathLike[str] | None = None,
    on_status: Callable[[JobStatus], None] | None = None,
) -> Batch:
    """Put the tasks of `job` (a Job, or the path of its TOML file) to each document in the files and folders `paths`.

        job = lcdoc.Job(tasks=[{"question": "When does the lease end?"}])
        async for result in lcdoc.batch("contracts/", job):
            print(result.document.path, result.answer, result.error)

    `workers` processes do it (default: as many as suit the machine and the model). Everything is kept in `library`: the
    same call again gives the rows that are there and goes on with the rest. A document that cannot be read, and a task
    that fails, is a row whose `error` says why. `out` names a folder for the result files at the end; `on_status` is
    told how far the job is, from the event loop.

    Iterating raises JobError where the job stops for a reason that is every task's: no key, a cap that is reached; and
    DocumentError, ModelError, LibraryError for what is wrong before it begins.
    """
    described = job if isinstance(job, Job) else Job.load(Path(job))
    named = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    documents = (*described.documents, *(os.fspath(path) for path in named))
    return Batch(described.changed(documents=documents), library=library, workers=workers, out=out, on_status=on_status)
