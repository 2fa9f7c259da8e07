"""Kill the workers of a batch job at moments chosen by chance, and its runner; fill its disk; compare the results.

    python benchmarks/batch_kills.py [--documents 500] [--workers 4] [--kills 24] [--seed 1]

A job of two questions put to each of many small documents, offline, is done twice: left alone, and in a storm. What
must hold: every result is there exactly once, and equals that of the quiet run (who made it, when, and how long it took
aside); the workers of a killed runner end by themselves; workers said that the disk was full.

The disk is a tmpfs of a few megabytes where one may be mounted, filled to the last byte for some seconds. Elsewhere the
workers are forbidden to let any file grow, which fails in the same places.

Exit code 1 if anything does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lcdoc.jobs.job import AskTask, Job
from lcdoc.jobs.runner import run_job
from lcdoc.memory import Library, LibraryError
from lcdoc.memory.job_records import JobStatus

QUESTIONS = ("When was the mill built?", "What does the miller of this mill like?")
_LIKES = ("bread", "rain", "clocks", "geese", "letters from the coast", "walnuts", "old maps")
_FULL_S = 4.0
_DISK_BYTES = 256 << 20
_DEADLINE_S = 60.0
_OF_THE_MAKING = ("job", "run_id", "worker", "seconds", "usage", "finished_at")


def make_documents(folder: Path, count: int) -> list[str]:
    """So many texts of a few lines, each with answers of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"mill-{number:04}.txt" for number in range(1, count + 1)]
    for number, path in enumerate(paths, 1):
        path.write_text(
            f"Mill {number}\n\nThe mill was built in {1500 + number}, on the river Oss, by a guild of weavers.\n\n"
            f"Its {number % 7 + 2} wheels turn from April to October. The miller of this mill likes"
            f" {_LIKES[number % len(_LIKES)]} more than anything.\n\nIn {1700 + number % 90} the roof burned.\n",
            encoding="utf-8",
        )
    return list(map(str, paths))


def begin(library: Path, paths: list[str], *, model: str | None = None) -> str:
    """A job that puts the questions to the documents; returns its id. However often a worker dies, a task is tried."""
    job = Job(tasks=tuple(AskTask(question=question, workflow="retrieve") for question in QUESTIONS), model=model)
    with Library.open(library) as opened:
        job_id = opened.jobs.create(job.settings(), tasks=len(job.tasks), attempts=100)
        opened.jobs.add_documents(job_id, paths)
    return job_id


def results(library: Path, job: str) -> dict[tuple[int, int], dict[str, Any]]:
    """What came of each document and task, without what differs from run to run. Raises ValueError for one twice."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    with Library.open(library) as opened:
        for kept in opened.jobs.results(job):
            if (key := (kept.document, kept.task)) in found:
                raise ValueError(f"the result of document {kept.document}, task {kept.task} is there twice")
            found[key] = {name: value for name, value in (kept.row or {}).items() if name not in _OF_THE_MAKING}
    return found


class Disk(Protocol):
    """Where a library lies, and a way to have no room there."""

    folder: Path

    def fill(self, pids: list[int]) -> None: ...

    def free(self, pids: list[int]) -> None: ...


class SmallDisk:
    """A file system of its own, of a few megabytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, _pids: list[int]) -> None:
        with suppress(OSError), self._ballast.open("wb", buffering=0) as stream:
            while True:
                try:
                    stream.write(bytes(1 << 20))
                except OSError:
                    stream.write(bytes(1 << 12))

    def free(self, _pids: list[int]) -> None:
        self._ballast.unlink()


class ForbiddenGrowth:
    """Any folder; the processes are forbidden to write beyond the first bytes of a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self, pids: list[int]) -> None:
        self._limit(pids, 4096)

    def free(self, pids: list[int]) -> None:
        self._limit(pids, resource.RLIM_INFINITY)

    @staticmethod
    def _limit(pids: list[int], size: int) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@contextmanager
def a_disk(folder: Path) -> Iterator[Disk]:
    """The smallest there is: a tmpfs where it can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield ForbiddenGrowth(folder)
        return
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


@dataclass
class Storm:
    """Does harm to a job while it is done, at moments chosen by chance, and says what it did."""

    library: Path
    job: str
    workers: int
    kills: int
    disk: Disk
    seed: int = 1
    runner_dies: bool = True
    killed: int = 0
    runners: int = 0
    filled: int = 0
    """How often the disk was full while workers were at work."""
    lines: list[str] = field(default_factory=list)
    """What workers said."""
    orphans: int = 0
    """Workers that outlived their runner."""

    def run(self) -> JobStatus:
        """Until the job is finished. Raises TimeoutError where nothing goes on any more."""
        chance = random.Random(self.seed)
        with Library.open(self.library) as opened:
            total = opened.jobs.status(self.job).total
            harms: list[tuple[float, Callable[[JobStatus], bool]]] = [
                (total * (number + chance.random()) / (self.kills + 1), self._kill_one(chance))
                for number in range(self.kills)
            ]
            harms.append((0.3 * total, self._fill))
            if self.runner_dies:
                harms.append((0.6 * total, self._kill_runner))
            harms.sort(key=lambda harm: harm[0])
            self._start_runner()
            try:
                return self._follow(opened, harms)
            finally:
                self._runner.kill()
                self._runner.wait()

    def _follow(self, opened: Library, harms: list[tuple[float, Callable[[JobStatus], bool]]]) -> JobStatus:
        done, since = -1, time.monotonic()
        while True:
            status = self._status(opened)
            if status.job.state != "open" and self._runner.poll() is not None:
                return status
            ended = status.tasks["done"] + status.tasks["failed"]
            if ended != done:
                done, since = ended, time.monotonic()
            if time.monotonic() - since > _DEADLINE_S:
                raise TimeoutError(f"nothing was done for {_DEADLINE_S:.0f} s: {status}\n" + "\n".join(self.lines))
            if harms and ended >= harms[0][0] and status.workers and harms[0][1](status):
                harms.pop(0)
            time.sleep(0.05)

    def _status(self, opened: Library) -> JobStatus:
        while True:
            with suppress(LibraryError):
                return opened.jobs.status(self.job)
            time.sleep(0.1)

    def _kill_one(self, chance: random.Random) -> Callable[[JobStatus], bool]:
        def kill(status: JobStatus) -> bool:
            pids = _alive(status)
            if not pids:
                return False
            time.sleep(0.2 * chance.random())
            with suppress(ProcessLookupError):
                os.kill(chance.choice(pids), signal.SIGKILL)
                self.killed += 1
            return True

        return kill

    def _fill(self, status: JobStatus) -> bool:
        pids = _alive(status)
        self.disk.fill(pids)
        said = len(self.lines)
        time.sleep(_FULL_S)
        self.disk.free(pids)
        self.filled += any("held" in line for line in self.lines[said:])
        return True

    def _kill_runner(self, status: JobStatus) -> bool:
        pids = _alive(status)
        self._runner.kill()
        self._runner.wait()
        deadline = time.monotonic() + _DEADLINE_S
        while any(map(_runs, pids)) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.orphans += sum(map(_runs, pids))
        self._start_runner()
        return True

    def _start_runner(self) -> None:
        command = [sys.executable, "-P", "-m", "lcdoc.benchmarks.batch_kills", "--run", self.library, self.job]
        self._runner = subprocess.Popen(
            [*map(str, command), "--workers", str(self.workers)], stdout=subprocess.PIPE, text=True
        )
        self.runners += 1
        threading.Thread(target=self._listen, args=(self._runner,), daemon=True).start()

    def _listen(self, runner: subprocess.Popen[str]) -> None:
        assert runner.stdout is not None
        with runner.stdout:
            for line in runner.stdout:
                self.lines.append(line.rstrip())


def _alive(status: JobStatus) -> list[int]:
    return [worker.pid for worker in status.workers if _runs(worker.pid)]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def compare(quiet: dict[tuple[int, int], Any], stormy: dict[tuple[int, int], Any], total: int) -> list[str]:
    """What does not hold, a line each."""
    wrong = [f"{len(rows)} of {total} results are there" for rows in (quiet, stormy) if len(rows) != total]
    differing = [key for key in quiet if quiet[key] != stormy.get(key)]
    if differing:
        first = differing[0]
        wrong.append(
            f"{len(differing)} results differ, the first at document {first[0]}, task {first[1]}:\n"
            f"{json.dumps(quiet[first])}\n{json.dumps(stormy.get(first))}"
        )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--run", nargs=2, metavar=("LIBRARY", "JOB"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run_job(*given.run, workers=given.workers, on_line=lambda line: print(line, flush=True), every_s=0.5)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make_documents(folder / "documents", given.documents)
        alone = folder / "alone.sqlite"
        started = time.monotonic()
        job = begin(alone, paths)
        run_job(alone, job, workers=given.workers)
        quiet, quiet_s = results(alone, job), time.monotonic() - started
        with a_disk(folder / "disk") as disk:
            library = disk.folder / "stormy.sqlite"
            started = time.monotonic()
            storm = Storm(library, begin(library, paths), given.workers, given.kills, disk, given.seed)
            storm.run()
            stormy, stormy_s = results(library, storm.job), time.monotonic() - started
            kind = type(disk).__name__
    wrong = compare(quiet, stormy, len(QUESTIONS) * given.documents)
    if storm.orphans:
        wrong.append(f"{storm.orphans} workers outlived their runner")
    if not storm.filled:
        wrong.append("no worker said that the disk was full")
    said = Counter(line.partition(":")[2].partition(";")[0].strip()[:60] for line in storm.lines)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{given.documents} documents x {len(QUESTIONS)} questions, {given.workers} workers, seed {given.seed}")
    print(f"left alone: {len(quiet)} results in {quiet_s:.0f} s")
    print(f"in a storm: {len(stormy)} results in {stormy_s:.0f} s")
    print(f"  {storm.killed} workers and {storm.runners - 1} runners killed, disk full {storm.filled}x ({kind})")
    for line, count in said.most_common(5):
        print(f"  {count:4}x {line}")
    print("\n".join(wrong) if wrong else "every result once, and all equal")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
