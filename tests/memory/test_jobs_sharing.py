"""Jobs shared by real processes that die at any moment, and on a disk that is full."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lcdoc.memory import LibraryAccessError
from lcdoc.memory.database import Database
from lcdoc.memory.jobs import Jobs
from lcdoc.memory.store import Connection, Store

WORKER = """
import random, sys, time
from pathlib import Path
from lcdoc.memory.database import Database
from lcdoc.memory.jobs import Jobs

place, job, log, at_once = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
if "://" in place:
    from lcdoc.memory.postgres import PostgresDatabase
    store = PostgresDatabase(place)
else:
    store = Database(Path(place))
jobs = Jobs(store)
worker = jobs.register(job)
with open(log, "a", buffering=1) as said:
    while jobs.unfinished(job):
        document = jobs.claim_document(job, worker, ahead=2, lease_s=3600)
        if document is not None:
            time.sleep(random.random() / 100)
            jobs.ready(document, document_id=document.path, name="", pages=document.number, characters=0, seconds=1)
        tasks = jobs.claim(job, worker, most=at_once, lease_s=3600)
        for task in tasks:
            time.sleep(random.random() / 100)
            if jobs.keep(task, {"answer": [task.document, task.task]}, seconds=1):
                said.write(f"{task.document} {task.task}\\n")
        if not tasks and document is None:
            time.sleep(0.02)
jobs.leave(job, worker)
"""


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the tables lie: a file, or the address of a server."""
    return str(tmp_path / "library.sqlite") if request.param == "sqlite" else request.getfixturevalue("shared")


@contextmanager
def opened(place: str) -> Iterator[Store]:
    if "://" not in place:
        with Database(Path(place)) as store:
            yield store
    else:
        from lcdoc.memory.postgres import PostgresDatabase

        with PostgresDatabase(place) as server:
            yield server


def until(condition: Callable[[], bool], deadline_s: float = 60.0) -> None:
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_workers_killed_at_any_moment_lose_nothing_and_repeat_nothing(place: str, tmp_path: Path) -> None:
    log = tmp_path / "kept"
    chance = random.Random(8)
    with opened(place) as store:
        jobs = Jobs(store)
        job = jobs.create({}, tasks=5, attempts=100)
        jobs.add_documents(job, [f"{number}.pdf" for number in range(1, 13)])

        def worker() -> subprocess.Popen[bytes]:
            command = [sys.executable, "-c", WORKER, place, job, str(log), "3"]
            return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})

        def kept() -> int:
            return jobs.status(job).tasks["done"]

        workers = [worker() for _ in range(3)]
        for kills in range(1, 5):
            until(lambda: kept() >= 10 * kills)  # noqa: B023 - called at once
            time.sleep(chance.random() / 50)
            index = chance.randrange(len(workers))
            workers[index].kill()
            workers[index].wait()
            workers[index] = worker()
        # Leases last an hour: what the dead held is taken over because they are seen to be dead.
        for process in workers:
            assert process.wait(60) == 0
        rows = list(jobs.ordered(job))
        status = jobs.status(job)
        assert jobs.problems() == []
    everything = [[document, task] for document in range(1, 13) for task in range(1, 6)]
    assert [row.row for row in rows] == [{"answer": pair} for pair in everything]
    assert sorted(row.sequence for row in rows) == list(range(1, 61))
    assert (status.documents["ready"], status.pages, status.workers) == (12, sum(range(1, 13)), ())
    told = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    assert len(told) == len(set(told))
    assert len(told) >= 56  # a worker may be killed between keeping and telling


def test_threads_take_different_work(place: str) -> None:
    with opened(place) as store:
        jobs = Jobs(store)
        job = jobs.create({}, tasks=30)
        jobs.add_documents(job, ["a.pdf"])
        document = jobs.claim_document(job, "w")
        assert document is not None
        jobs.ready(document, document_id="", name="", pages=1, characters=1, seconds=1)
        taken: list[int] = []

        def work() -> None:
            while works := jobs.claim(job, threading.current_thread().name, most=2):
                taken.extend(one.task for one in works)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == list(range(1, 31))


def test_a_full_disk_loses_nothing_and_says_so(tmp_path: Path) -> None:
    with Database(tmp_path / "library.sqlite") as database:
        jobs = Jobs(database)
        job = jobs.create({}, tasks=2)
        jobs.add_documents(job, ["a.pdf"])
        document = jobs.claim_document(job, "w")
        assert document is not None
        jobs.ready(document, document_id="", name="", pages=1, characters=1, seconds=1)
        first, second = jobs.claim(job, "w", most=2)
        row = {"answer": random.Random(1).randbytes(200_000).hex()}
        with fixed_size(database):
            with pytest.raises(LibraryAccessError, match="the disk is full; free some space"):
                jobs.keep(first, row, seconds=1)
            assert list(jobs.results(job)) == []
            assert jobs.status(job).tasks["running"] == 2
            assert jobs.beat(job, "w", [first.lease.token, second.lease.token]) == set()
            assert jobs.keep(second, {"answer": "short"}, seconds=1)  # it finds room in a page that is there
        assert jobs.keep(first, row, seconds=1)
        assert [kept.row for kept in jobs.ordered(job)] == [row, {"answer": "short"}]
        assert jobs.problems() == []


def test_what_is_kept_is_synced_and_a_claim_need_not_be(tmp_path: Path) -> None:
    with Database(tmp_path / "library.sqlite") as database:
        jobs = Jobs(database)
        job = jobs.create({}, tasks=1)
        jobs.add_documents(job, ["a.pdf"])
        levels: list[int] = []

        def note(statement: str) -> None:
            if statement == "COMMIT":
                levels.extend(connection.execute("PRAGMA synchronous").fetchone())

        with database.read() as connection:
            connection.set_trace_callback(note)
        document = jobs.claim_document(job, "w")
        assert document is not None
        jobs.ready(document, document_id="", name="", pages=1, characters=1, seconds=1)
        (task,) = jobs.claim(job, "w")
        jobs.beat(job, "w", [task.lease.token])
        jobs.keep(task, {}, seconds=1)
        assert levels == [1, 2, 1, 1, 2]  # 2 is FULL


@contextmanager
def fixed_size(database: Database) -> Iterator[None]:
    """The file of this thread's connection cannot grow in the block, as on a full disk."""
    with database.read() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (limit,) = connection.execute("PRAGMA max_page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
    try:
        yield
    finally:
        with database.read() as connection:
            connection.execute(f"PRAGMA max_page_count = {limit}")


def test_no_statement_of_the_work_reads_a_whole_job(tmp_path: Path) -> None:
    with Database(tmp_path / "library.sqlite") as database:
        jobs = Jobs(database)
        said: list[str] = []
        with database.read() as connection:
            connection.set_trace_callback(said.append)
        a_bit_of_everything(jobs)
        with database.read() as connection:
            connection.set_trace_callback(None)
            steps = [(step, statement) for statement in dict.fromkeys(said) for step in plan(connection, statement)]
    searches = [(step, statement) for step, statement in steps if names_large_table(step)]
    assert len(searches) > 20
    for step, statement in searches:
        by = step.partition("(")[2]
        if by in {"", "job=?)"}:  # nothing but the job narrows it: then it is the next few in an index's order
            assert "SEARCH" in step, (step, statement)
            assert "INDEX" in step, (step, statement)
            assert "LIMIT" in statement, (step, statement)
    assert not [said for step, said in steps if "TEMP B-TREE" in step and names_large_table(said)]


def a_bit_of_everything(jobs: Jobs) -> None:
    job = jobs.create({}, tasks=3)
    jobs.add_documents(job, ["a.pdf", "b.pdf", "c.pdf"])
    worker = jobs.register(job)
    sound, broken = jobs.claim_document(job, worker, ahead=2), jobs.claim_document(job, worker)
    assert sound is not None
    assert broken is not None
    jobs.ready(sound, document_id="", name="", pages=1, characters=1, seconds=1)
    jobs.document_failed(broken, "no", 1)
    first, second, third = jobs.claim(job, worker, most=5, prefer=[1, 2])
    assert jobs.claim_document(job, "other") is not None
    assert jobs.claim_document(job, "idle") is None
    assert jobs.claim(job, "idle") == []
    jobs.beat(job, worker, [first.lease.token, second.lease.token])
    jobs.keep(first, {}, seconds=1)
    jobs.give_back([second])
    jobs.abandon(job, worker)
    jobs.claim(job, worker, most=2)
    jobs.leave(job, third.lease.worker)
    jobs.unfinished(job)
    jobs.status(job)
    assert len(list(jobs.results(job, after=1))) == len(list(jobs.ordered(job))) - 1


def plan(connection: Connection, statement: str) -> list[str]:
    if not statement.startswith(("SELECT", "UPDATE", "DELETE", "INSERT", "\n")):
        return []
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]


def names_large_table(text: str) -> bool:
    return any(f" {name} " in text for name in ("job_documents", "job_tasks", "job_results", "r", "t", "d"))


def test_the_settings_of_a_job_may_hold_any_words(tmp_path: Path) -> None:
    with Database(tmp_path / "library.sqlite") as database:
        jobs = Jobs(database)
        settings = {"questions": ["Wer? \0 \udce9 \U0001f600"]}
        assert jobs.get(jobs.create(settings, tasks=1)).settings == json.loads(json.dumps(settings))
