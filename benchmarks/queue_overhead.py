"""What the store of jobs adds to a task: claim, one beat, and keep, by processes that share a library.

    python benchmarks/queue_overhead.py [--tasks 1000 100000] [--processes 1 2 4] [--each 300] [--folder DIR]

Every process does `--each` tasks, one after another, with a result of 3 kB and no work in between: as many workers as
are named contend all the time, which real ones, who have something to do, never do. The column `task` is the median of
claim + beat + keep. `sync` is the peer, measured just before in the same folder: a transaction with one row into a bare
SQLite file, as durable as `keep` is; it says what the disk costs, and `own` is what is left of `task` without it.
`status` is one look at the whole job.

Budget: 5 ms for a task.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from queue import Queue
from typing import Any

from lcdoc.memory import Library
from lcdoc.memory.usage import ModelUsage

BUDGET_MS = 5.0
_TASKS_EACH = 100
"""To a document."""
_WORDS = " ".join(Path(__file__).read_text(encoding="utf-8").split())
Times = dict[str, list[float]]


@contextmanager
def timed(times: Times, name: str) -> Iterator[None]:
    """Add the milliseconds that the block takes."""
    begun = time.perf_counter()
    yield
    times.setdefault(name, []).append(1000 * (time.perf_counter() - begun))


def prepared_job(library: Library, tasks: int) -> tuple[str, Times]:
    """A job with so many tasks, all waiting, and what that took."""
    times: Times = {}
    documents = max(1, tasks // _TASKS_EACH)
    job = library.jobs.create({"tasks": tasks}, tasks=min(tasks, _TASKS_EACH))
    with timed(times, "add"):
        library.jobs.add_documents(job, (f"folder/{number:07}.pdf" for number in range(documents)))
    while True:
        with timed(times, "claim document"):
            work = library.jobs.claim_document(job, "reader")
        if work is None:
            return job, times
        with timed(times, "ready"):
            library.jobs.ready(
                work, document_id=f"{work.number:032x}", name=work.path, pages=9, characters=27_000, seconds=0.2
            )


def work(path: str, job: str, each: int, start: Barrier, done: Queue[Times]) -> None:
    """One process: so many tasks, one after another."""
    times: Times = {}
    row = {"schema": "lcdoc.result/1", "answer": _WORDS[:1500], "claims": [{"quote": _WORDS[:900]}], "found": True}
    with Library.open(path) as library:
        jobs = library.jobs
        worker = jobs.register(job)
        start.wait()
        for _ in range(each):
            with timed(times, "task"):
                with timed(times, "claim"):
                    (task,) = jobs.claim(job, worker)
                with timed(times, "beat"):
                    lost = jobs.beat(job, worker, [task.lease.token])
                with timed(times, "keep"):
                    kept = jobs.keep(
                        task, row | {"task": task.task}, seconds=0.1, usage=ModelUsage(calls=2, tokens_in=3000)
                    )
            if lost or not kept:
                raise RuntimeError(f"task {task.document}/{task.task} was lost")
        jobs.leave(job, worker)
    done.put(times)


def contended(path: Path, job: str, processes: int, each: int) -> Times:
    """The times of all processes together."""
    spawned = multiprocessing.get_context("spawn")
    start, done = spawned.Barrier(processes), spawned.Queue()
    workers = [spawned.Process(target=work, args=(str(path), job, each, start, done)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    merged: Times = {}
    for _ in workers:
        for name, times in done.get(timeout=600).items():
            merged.setdefault(name, []).extend(times)
    for worker in workers:
        worker.join()
    return merged


def one_sync(folder: Path, rounds: int = 100) -> float:
    """Median milliseconds of a durable transaction with one row, in a SQLite file of its own."""
    times: Times = {}
    connection = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    for statement in (
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "CREATE TABLE IF NOT EXISTS t (row TEXT)",
    ):
        connection.execute(statement)
    for _ in range(rounds):
        with timed(times, "sync"):
            connection.execute("INSERT INTO t VALUES (?)", (_WORDS[:1000],))
    connection.close()
    return statistics.median(times["sync"])


def measured(folder: Path, arguments: Any) -> bool:
    """Print a line for each size and number of processes; returns whether all keep the budget."""
    kept = True
    print(
        f"{'tasks':>8} {'procs':>5} {'task':>7} {'p95':>7} {'sync':>7} {'own':>7} {'claim':>7} {'beat':>7}"
        f" {'keep':>7} {'status':>7}  (ms)"
    )
    for tasks in arguments.tasks:
        path = folder / f"{tasks}.sqlite"
        with Library.open(path) as library:
            job, making = prepared_job(library, tasks)
            for processes in arguments.processes:
                each = min(arguments.each, library.jobs.unfinished(job) // processes)
                sync = one_sync(folder)
                times = contended(path, job, processes, each)
                with timed(times, "status"):
                    library.jobs.status(job)
                median = {name: statistics.median(parts) for name, parts in times.items()}
                p95 = statistics.quantiles(times["task"], n=20)[-1]
                figures = [median["task"], p95, sync, median["task"] - sync]
                figures += [median[name] for name in ("claim", "beat", "keep", "status")]
                print(f"{tasks:>8} {processes:>5} {' '.join(f'{figure:>7.2f}' for figure in figures)}", flush=True)
                kept = kept and median["task"] < BUDGET_MS
            if problems := library.jobs.problems():
                raise RuntimeError(problems[0])
        documents = len(making.get("ready", []))
        print(
            f"{tasks:>8} made: {documents} documents added in {making['add'][0]:.0f} ms; each claimed in"
            f" {statistics.median(making['claim document']):.2f} ms, and made ready with {min(tasks, _TASKS_EACH)}"
            f" tasks in {statistics.median(making['ready']):.2f} ms; {path.stat().st_size / 1e6:.1f} MB"
        )
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--each", type=int, default=200, help="tasks for each process")
    parser.add_argument(
        "--folder", type=Path, help="where the libraries are made, and removed; default: a temporary one"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, SQLite"
            f" {sqlite3.sqlite_version}"
        )
        kept = measured(folder, arguments)
    print(f"budget {BUDGET_MS:.0f} ms: {'kept' if kept else 'MISSED'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
