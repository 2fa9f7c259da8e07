"""Working at a job: workers are started and followed, results written, Ctrl-C ends it in order."""

from __future__ import annotations

import logging
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lcdoc.commands.batch_view import BatchView
from lcdoc.commands.guard import INTERRUPTED
from lcdoc.jobs.errors import JobError
from lcdoc.jobs.job import Job
from lcdoc.jobs.results_folder import ResultsFolder, kept_results
from lcdoc.memory import Library, LibraryAwayError
from lcdoc.memory.errors import LibraryBusyError
from lcdoc.screen import money

if TYPE_CHECKING:
    from lcdoc.memory.job_records import JobRecord, JobStatus
    from lcdoc.screen import Screen

_log = logging.getLogger(__name__)

NOT_ALL = 3
"""Exit code: it ended, and some rows are failures, or are missing since it was stopped."""
_REASONS = 5


def work_at(
    screen: Screen,
    library: Library,
    record: JobRecord,
    *,
    workers: int | None = None,
    on: str | None = None,
    csv: bool = False,
) -> None:
    """Have workers do what is left of the job, and show it. Raises typer.Exit with the command's exit code, where that
    is not 0."""
    job = Job.of(record.settings)
    folder = Path(record.out) if record.out else None
    with (
        BatchView(screen, job.caps) as view,
        nullcontext() if folder is None else ResultsFolder(library, record.id, job, folder) as results,
        _stopping(screen, view) as stop,
    ):
        writing = _Writing(screen, results)
        if results is not None:
            # A folder that cannot be written is told before the work.
            results.catch_up()

        def on_status(status: JobStatus) -> None:
            view.update(status)
            writing.catch_up()

        def on_line(line: str) -> None:
            screen.warn(line)

        status = _run(library, record.id, workers, on, on_status, on_line, stop)
        view.stop()
        writing.catch_up()
        if stop.is_set() and status.unfinished:
            raise _interrupted(screen, status, on)
        if not status.unfinished:
            writing.finish(record.id, csv=csv)
    _ended(screen, library, job, status, folder, csv=csv)


def _run(
    library: Library,
    job_id: str,
    workers: int | None,
    on: str | None,
    on_status: Callable[[JobStatus], None],
    on_line: Callable[[str], None],
    stop: threading.Event,
) -> JobStatus:
    if on is not None:
        from lcdoc.jobs.ray.driver import run_job as run_on_ray

        return run_on_ray(library.path, job_id, on=on, on_status=on_status, on_line=on_line, stop=stop)
    from lcdoc.jobs.runner import run_job

    return run_job(library.path, job_id, workers=workers, on_status=on_status, on_line=on_line, stop=stop)


class _Writing:
    """Keeps results.jsonl up; a full disk is told once, and nothing is lost by it."""

    def __init__(self, screen: Screen, results: ResultsFolder | None) -> None:
        self._screen = screen
        self._results = results
        self._told = False

    def catch_up(self) -> None:
        if self._results is None:
            return
        try:
            self._results.catch_up()
            self._told = False
        except JobError as error:
            if not self._told:
                self._screen.warn(f"{error.problem}; the rows are kept in the library, and written when they can be")
            self._told = True
        except (LibraryBusyError, LibraryAwayError) as error:
            _log.info("the next time: %s", error)

    def finish(self, job_id: str, *, csv: bool) -> None:
        if self._results is None:
            return
        try:
            self._results.finish(csv=csv)
        except JobError as error:
            raise JobError(error.problem, f"make room, then: lcdoc batch export {job_id} --out FILE") from error


@contextmanager
def _stopping(screen: Screen, view: BatchView) -> Iterator[threading.Event]:
    """An event that the first Ctrl-C, or SIGTERM, sets; the second one interrupts as ever."""
    stop = threading.Event()
    before: dict[int, Any] = {}

    def handle(_number: int, _frame: object) -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.set()
        # In another thread, since the one that was interrupted may be in the middle of drawing.
        threading.Thread(target=tell).start()

    def tell() -> None:
        view.stop()
        screen.say("stopping: what is under way is given back; Ctrl-C again does not wait for that")

    for one in (signal.SIGINT, signal.SIGTERM):
        before[one] = signal.signal(one, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupted(screen: Screen, status: JobStatus, on: str | None) -> typer.Exit:
    kept = f"{status.total - status.unfinished:,} of {status.total:,} answers are kept"
    how = f"The same command goes on, or: lcdoc batch resume {status.job.id}"
    if on is not None:
        from lcdoc.jobs.ray.cluster import is_own
        from lcdoc.jobs.ray.driver import DETACHED

        how = how if is_own(on) else DETACHED
    screen.fail(f"interrupted; {kept}. {how}")
    return typer.Exit(INTERRUPTED)


def _ended(screen: Screen, library: Library, job: Job, status: JobStatus, folder: Path | None, *, csv: bool) -> None:
    """What came of it, and where it is."""
    record, tasks = status.job, status.tasks
    reasons: Counter[str] = Counter()
    found = 0
    for result in kept_results(library, record.id, job):
        found += result.found
        if result.error:
            reasons[result.error.removeprefix(f"{result.document.path}: ")] += 1
    if status.unfinished:
        why = f": {record.reason}" if record.reason else ""
        missing = f"{status.unfinished:,} of {status.total:,} answers are missing"
        screen.warn(f"job {record.id} is {record.state}{why}; {missing}")
        screen.say(f"to go on: lcdoc batch resume {record.id}")
    answers = f"{tasks['done']:,} answers, {found:,} of them with something found"
    spent = f", {money(status.usage.cost_usd)}" if status.usage.calls else ""
    documents = sum(status.documents.values())
    screen.say(f"job {record.id}: {answers}, from {documents:,} document{'s'[: documents != 1]}{spent}")
    for reason, count in reasons.most_common(_REASONS):
        screen.warn(f"{count:,} answer{'s'[: count != 1]} failed: {reason}")
    if (others := len(reasons) - _REASONS) > 0:
        screen.warn(f"and {others:,} other reasons; see the rows with an error")
    if tasks["failed"]:
        screen.say(f"to try the failed ones again: lcdoc batch resume {record.id} --retry-failed")
    if folder is not None:
        written = ["results.jsonl", *(["results.csv"] if csv and not status.unfinished else [])]
        screen.say(", ".join(str(folder / name) for name in written))
    else:
        screen.say(f"to have the rows: lcdoc batch export {record.id} --out results.jsonl")
    if status.unfinished or tasks["failed"]:
        raise typer.Exit(NOT_ALL)
