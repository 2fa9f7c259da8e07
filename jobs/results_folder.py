"""The folder of a job's results, kept up with the job table while the job runs, and put in order at its end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType

from lcdoc.jobs.export import export
from lcdoc.jobs.job import Job
from lcdoc.jobs.result_log import ResultLog
from lcdoc.jobs.results import Result
from lcdoc.memory import Library

_TOGETHER = 200
"""Rows written before the disk is waited for, where many are there at once."""


def kept_results(library: Library, job_id: str, job: Job) -> Iterator[Result]:
    """The rows of a job so far, by document and task."""
    return (Result.of_kept(kept, job_id, job.tasks) for kept in library.jobs.ordered(job_id))


class ResultsFolder:
    """`results.jsonl` of a job in `folder`, by one process at a time. Use as a context manager. Raises what ResultLog
    raises."""

    def __init__(self, library: Library, job_id: str, job: Job, folder: Path) -> None:
        self.folder = folder
        self._library = library
        self._job_id = job_id
        self._job = job
        self._after = 0
        self._log = ResultLog(folder, job_id)

    def __enter__(self) -> ResultsFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.__exit__(kind, error, trace)

    def catch_up(self) -> None:
        """Append what has come since. Raises JobError where it cannot be written; it is tried again the next time."""
        rows = self._library.jobs.results(self._job_id, after=self._after)
        while some := list(islice(rows, _TOGETHER)):
            self._log.add(Result.of_kept(row, self._job_id, self._job.tasks) for row in some)
            self._after = some[-1].sequence

    def finish(self, *, csv: bool = False) -> None:
        """Write the rows by document and task in the place of what was appended, and `results.csv`. Raises JobError."""
        self._log.finish(kept_results(self._library, self._job_id, self._job))
        if csv:
            rows = kept_results(self._library, self._job_id, self._job)
            export(rows, self.folder / "results.csv", "csv", self._job.tasks)
