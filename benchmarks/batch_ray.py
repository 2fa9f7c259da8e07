"""What a job costs more on a Ray cluster of this machine than with the local runner, both in one run.

    python benchmarks/batch_ray.py [--documents 60] [--workers 2] [--large FILE ...]

The same job, two questions put to each of many small documents, offline, is done by the local runner with so many
worker processes, and by a cluster that is started for it, with as many processors. Printed are, for each: the time
until the first result and until the end, the pace in between, and what a task took of a worker's time at that pace, a
document's preparing included. Then what a document is in the object store, for a small one and for the `--large` files,
and how long it takes to pack, to send to another process and to unpack there.

The rows of both must be the same, who made them, when, and how long it took aside. Exit code 1 where they are not.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lcdoc.benchmarks.batch_kills import QUESTIONS, begin, compare, make_documents, results
from lcdoc.jobs.ray.driver import run_job as run_on_ray
from lcdoc.jobs.ray.parcel import pack, unpack
from lcdoc.jobs.runner import run_job
from lcdoc.memory import Library
from lcdoc.memory.job_records import JobStatus
from lcdoc.workflows.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Taken:
    """How long a job took, in seconds."""

    first: float
    """Until the first result, from the command on."""
    whole: float
    pace: float
    """Tasks in a second, from the first result to the last."""


def measured(library: Path, paths: list[str], run: Callable[[Path, str], JobStatus]) -> tuple[str, Taken]:
    """Do the job; its id and how long it took."""
    job = begin(library, paths, model="offline")
    started = time.time()
    run(library, job)
    whole = time.time() - started
    with Library.open(library) as opened:
        ended = sorted(row.finished_at.timestamp() for row in opened.jobs.results(job))
    between = max(ended[-1] - ended[0], 1e-9)
    return job, Taken(ended[0] - started, whole, (len(ended) - 1) / between)


def show(name: str, taken: Taken, workers: int) -> None:
    """One line."""
    print(
        f"{name:14} first result {taken.first:6.1f} s   whole {taken.whole:6.1f} s   {taken.pace:6.2f} tasks/s:"
        f" {1000 * workers / taken.pace:5.0f} ms of a worker for a task"
    )


def sizes(paths: list[str]) -> None:
    """What documents are as parcels."""
    import ray

    @ray.remote(num_cpus=1)
    def received(parcel: object) -> int:
        return len(parcel.chunks)  # type: ignore[attr-defined]

    def again(action: Callable[[], object], times: int = 5) -> float:
        started = time.perf_counter()
        for _ in range(times):
            action()
        return 1000 * (time.perf_counter() - started) / times

    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "library.sqlite")
        with Workspace.open(library, background=False) as workspace:
            for path in paths:
                (document,) = workspace.read([path])
                workspace.fill(document)
                parcel = pack(workspace.library, document.id)
                packing = again(lambda: pack(workspace.library, document.id))  # noqa: B023 - called at once
                stored = ray.put(parcel)
                ray.get(received.remote(stored))
                sending = again(lambda: ray.get(received.remote(stored)))  # noqa: B023 - called at once
                with Library.open(Path(folder, f"{document.id}.sqlite")) as elsewhere:
                    unpacking = again(lambda: unpack(parcel, elsewhere), times=1)  # noqa: B023 - called at once
                size, characters = len(ray.cloudpickle.dumps(parcel)), len(document.text)
                print(
                    f"{Path(path).name[:32]:32} {characters:>10,} characters, {len(parcel.chunks):>6,} passages:"
                    f" {size / 1e6:8.3f} MB in the object store ({size / max(1, characters):.1f} bytes a character);"
                    f" pack {packing:.0f} ms, to a process {sending:.0f} ms, unpack {unpacking:.0f} ms"
                )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--large", nargs="*", default=[], metavar="FILE")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    os.environ.pop("RAY_ADDRESS", None)
    # Workers of both are worth one core each.
    os.environ["OMP_NUM_THREADS"] = "1"
    import ray

    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, Ray {ray.__version__}")
    print(f"{given.documents} documents, {len(QUESTIONS)} questions each, {given.workers} workers, offline")
    with tempfile.TemporaryDirectory() as folder:
        paths = make_documents(Path(folder, "documents"), given.documents)
        here, there = Path(folder, "here.sqlite"), Path(folder, "there.sqlite")
        job_here, taken = measured(here, paths, lambda library, job: run_job(library, job, workers=given.workers))
        show("local runner", taken, given.workers)
        options = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
        started = time.perf_counter()
        ray.init(address="local", num_cpus=given.workers, namespace="lcdoc", **options)
        print(f"{'cluster':14} started in {time.perf_counter() - started:.1f} s")
        job_there, taken = measured(there, paths, run_on_ray)
        show("Ray", taken, given.workers)
        wrong = compare(results(here, job_here), results(there, job_there), given.documents * len(QUESTIONS))
        sizes([paths[0], *given.large])
        ray.shutdown()
    for line in wrong:
        print(line)
    print("the rows are the same" if not wrong else "THE ROWS DIFFER")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
