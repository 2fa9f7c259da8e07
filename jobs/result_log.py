"""`results.jsonl` while a job runs: it grows by whole lines, each on the disk before the next is written.

What the job table has and the file has not is appended when the log is opened, so that a crash between the two loses
nothing. A torn last line is cut off; its row comes from the table again. At the end the file is written anew, by
document and task.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from lcdoc.jobs.atomic_file import replaced, sync_folder, unwritable
from lcdoc.jobs.errors import JobError
from lcdoc.jobs.results import Result

NAME = "results.jsonl"
_LINE_ENDS = {ord(end): json.dumps(end)[1:-1] for end in "\x85\u2028\u2029"}


class ResultLog:
    """The file in `folder` to which the rows of one job are appended, by one process at a time.

    Raises JobError where it cannot be made, holds something else than this job's rows, or another process has it.
    """

    def __init__(self, folder: Path, job: str) -> None:
        self.path = folder / NAME
        self._job = job
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / f".{NAME}.lock")
            self._lock.acquire(timeout=0)
        except Timeout:
            problem = f"another process writes {self.path}"
            raise JobError(problem, f"to be one more worker of the job: lcdoc batch work {job}") from None
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            self._known, self._size = self._mended()
            self._stream = self.path.open("ab", buffering=0)
            sync_folder(folder)
        except OSError as error:
            self._lock.release()
            raise unwritable(self.path, error) from error
        except JobError:
            self._lock.release()
            raise

    def __enter__(self) -> ResultLog:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stream.close()
        self._lock.release()

    def add(self, results: Iterable[Result]) -> int:
        """Append the rows that are not there yet; returns how many. They are on the disk when it returns.

        Raises JobError where they cannot be written; the file is then as it was, and the same can be tried again.
        """
        new = [(key, line_of(result)) for result in results if (key := _key(result)) not in self._known]
        if not new:
            return 0
        lines = b"".join(line for _, line in new)
        try:
            left = memoryview(lines)
            while left:
                left = left[self._stream.write(left) or 0 :]
            os.fsync(self._stream.fileno())
        except OSError as error:
            os.truncate(self.path, self._size)
            raise unwritable(self.path, error) from error
        self._size += len(lines)
        self._known.update(key for key, _ in new)
        return len(new)

    def finish(self, ordered: Iterable[Result]) -> None:
        """Put these rows, in their order, in the place of what was appended. The log is at its end. Raises JobError."""
        with replaced(self.path) as stream:
            for result in ordered:
                stream.write(line_of(result))

    def _mended(self) -> tuple[set[int], int]:
        """The rows that are there, and the bytes they take; anything behind them is cut off."""
        known: set[int] = set()
        size = 0
        try:
            with self.path.open("rb") as stream:
                for number, line in enumerate(stream, 1):
                    if not line.endswith(b"\n"):
                        break
                    known.add(self._row(number, line))
                    size += len(line)
        except FileNotFoundError:
            return known, 0
        os.truncate(self.path, size)
        return known, size

    def _row(self, number: int, line: bytes) -> int:
        try:
            row = json.loads(line)
            job, key = row["job"], _key_of(row["document"]["number"], row["task"]["number"], row["finished_at"])
        except (ValueError, KeyError, TypeError, RecursionError):
            problem = f"{self.path}, line {number} is no row of results"
            raise JobError(problem, "name another folder with --out, or move the file away") from None
        if job != self._job:
            raise _of_another(self.path, job)
        return key


def check_folder(folder: Path, job: str | None) -> None:
    """Raises JobError where the folder has results of another job than this one, None: of any, or is a file."""
    path = folder / NAME
    if folder.exists() and not folder.is_dir():
        raise JobError(f"{folder} is a file", "name a folder with --out")
    try:
        with path.open("rb") as stream:
            first = json.loads(stream.readline() or "{}")
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(first, dict) and first.get("job", job) != job:
        raise _of_another(path, first["job"])


def _of_another(path: Path, job: str) -> JobError:
    problem = f"{path} holds the results of another job, {job}"
    return JobError(problem, "name another folder with --out, or move the file away")


def line_of(result: Result) -> bytes:
    """The row as a line of JSON, and as one only for readers that know other ends of lines."""
    text = json.dumps(result.to_json(), ensure_ascii=False).translate(_LINE_ENDS)
    return text.encode("utf-8", "replace") + b"\n"


def _key(result: Result) -> int:
    finished = result.model_dump(mode="json", include={"finished_at"})["finished_at"]
    return _key_of(result.document.number, result.task.number, finished)


def _key_of(document: int, task: int, finished_at: str) -> int:
    # A number rather than what it stands for, since there may be millions.
    return hash((document, task, finished_at))
