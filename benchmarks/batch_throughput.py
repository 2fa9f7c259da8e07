"""A batch job over books and filings, offline: documents per hour, and what a second worker adds.

    python benchmarks/batch_throughput.py [FILES ...] [--workers 1 2] [--runs 1]

Without files: the filings of `financebench`, and the books in `books` with fewer than 600,000 characters, of
`../shared/data` or $LCDOC_DATA. Three questions are put to each document. Every run begins with an empty library, and
is measured from the start of the runner to its end, the start of its workers included.

A worker has one core here (OMP_NUM_THREADS=1), also where it is alone. What the machine itself gains by a second core
is measured beside it: the same matrix products in one process and in two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lcdoc.jobs.job import AskTask, Job
from lcdoc.jobs.runner import run_job
from lcdoc.memory import Library
from lcdoc.memory.job_records import JobStatus

QUESTIONS = (
    "Who is responsible for the decision?",
    "How much money was paid?",
    "What happened in the end?",
)
_LARGEST_TXT_BYTES = 600_000
_PRODUCTS = """
import time, numpy
a = numpy.random.default_rng(0).random((384, 1536), dtype=numpy.float32)
b = numpy.ascontiguousarray(a.T)
end, done = time.perf_counter() + 4, 0
while time.perf_counter() < end:
    numpy.tanh(a @ b)
    done += 1
print(done)
"""


@dataclass(frozen=True)
class Run:
    """One run of the job."""

    seconds: float
    status: JobStatus

    @property
    def documents_per_hour(self) -> float:
        return 3600 * sum(self.status.documents.values()) / self.seconds


def default_files() -> list[str]:
    """The filings and most of the books of the data folder. Raises SystemExit where there is none."""
    data = Path(os.environ.get("LCDOC_DATA") or Path(__file__).parents[2] / "shared" / "data")
    found = [
        *sorted((data / "financebench" / "pdfs").glob("*.pdf")),
        *sorted((data / "books" / "pdf").glob("*.pdf")),
        *sorted((data / "books" / "epub").glob("*.epub")),
        *sorted(path for path in (data / "books" / "txt").glob("*.txt") if path.stat().st_size < _LARGEST_TXT_BYTES),
    ]
    if not found:
        raise SystemExit(f"no books and filings in {data}; name files, or set LCDOC_DATA")
    return list(map(str, found))


def measure(files: list[str], workers: int) -> Run:
    """The job from beginning to end over an empty library."""
    job = Job(tasks=tuple(AskTask(question=question) for question in QUESTIONS), model="offline")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "library.sqlite"
        with Library.open(library) as opened:
            job_id = opened.jobs.create(job.settings(), tasks=len(job.tasks))
            opened.jobs.add_documents(job_id, files)
        started = time.monotonic()
        status = run_job(library, job_id, workers=workers, on_line=lambda line: print(f"  {line}", flush=True))
        return Run(time.monotonic() - started, status)


def machine_gain(processes: int) -> float:
    """How much more matrix products so many processes do than one, in the same time."""

    def products(count: int) -> int:
        command = [sys.executable, "-c", _PRODUCTS]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(count)]
        return sum(json.loads(process.communicate()[0]) for process in running)

    return products(processes) / products(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=1)
    given = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = "1"
    files = given.files or default_files()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    best: dict[int, Run] = {}
    for _ in range(given.runs):
        for workers in given.workers:
            run = measure(files, workers)
            if workers not in best or run.seconds < best[workers].seconds:
                best[workers] = run
    first = best[given.workers[0]]
    for workers, run in best.items():
        status = run.status
        print(
            f"{workers} worker{'s'[: workers != 1]}: {sum(status.documents.values())} documents"
            f" ({status.documents['failed']} failed), {status.pages:,} pages, {status.characters:,} characters,"
            f" {status.total} answers in {run.seconds:.0f} s: {run.documents_per_hour:,.0f} documents an hour,"
            f" {status.pages / run.seconds:.1f} pages/s; preparing took {status.reading_s:.0f} s,"
            f" answering {status.answering_s:.0f} s of workers' time;"
            f" {first.seconds / run.seconds:.2f}x (the machine itself: {machine_gain(workers):.2f}x)",
            flush=True,
        )


if __name__ == "__main__":
    main()
