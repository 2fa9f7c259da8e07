"""Workers: processes that do a job's work, and what ends them."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lcdoc.jobs.crew import python
from lcdoc.jobs.ending import Ending
from lcdoc.jobs.worker import work
from lcdoc.memory import Library
from lcdoc.tests.jobs.small_jobs import QUESTION, begun, honest_model, texts
from lcdoc.tests.servers.chat_server import ChatServer, Hang

DEADLINE_S = 60


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _stored(library: Library) -> int:
    with library.database.read() as connection:
        return int(connection.execute("SELECT count(*) FROM calls").fetchone()[0])


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    with ChatServer() as running:
        honest_model(running, tmp_path, monkeypatch)
        yield running


def test_a_worker_does_what_there_is_and_ends(library: Library, tmp_path: Path) -> None:
    paths = texts(tmp_path, 2)
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.7\nand nothing else")
    job = begun(library, [*paths, str(broken)], QUESTION, "When do the bakers meet?")
    before = signal.getsignal(signal.SIGTERM)
    assert work(library.path, job, worker_id="me") is Ending.FINISHED
    assert signal.getsignal(signal.SIGTERM) is before
    kept = list(library.jobs.ordered(job))
    assert [(row.document, row.task, row.state) for row in kept] == [
        (1, 1, "done"),
        (1, 2, "done"),
        (2, 1, "done"),
        (2, 2, "done"),
        (3, 1, "failed"),
        (3, 2, "failed"),
    ]
    assert "102 passengers" in str(kept[2].row)
    assert str(broken) in kept[4].error
    assert {row.worker for row in kept[:4]} == {"me"}
    assert library.jobs.status(job).workers == ()


def test_a_model_that_is_not_there_stops_the_job_with_the_reason(library: Library, tmp_path: Path) -> None:
    job = begun(library, texts(tmp_path, 1), model="nobody/knows-this")
    said: list[str] = []
    assert work(library.path, job, on_line=said.append) is Ending.STOPPED
    record = library.jobs.get(job)
    assert record.state == "paused"
    assert "nobody/knows-this" in record.reason
    assert said == [record.reason]


@pytest.mark.parametrize("how", ["SIGTERM", "the runner is gone"])
def test_a_worker_that_is_ended_gives_back_what_it_holds(
    library: Library, server: ChatServer, tmp_path: Path, how: str
) -> None:
    server.default = Hang()
    job = begun(library, texts(tmp_path, 3), model="honest")
    command = python("lcdoc.jobs.process", job, "--library", str(library.path), "--worker", "one")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        _until(lambda: library.jobs.status(job).tasks["running"] == 3 and server.open_now > 0)
        if how == "SIGTERM":
            process.terminate()
        else:
            process.stdin.close()
        assert process.wait(DEADLINE_S) == Ending.INTERRUPTED
    status = library.jobs.status(job)
    assert (status.tasks["waiting"], status.tasks["running"], status.workers) == (3, 0, ())
    assert [again.attempt for again in library.jobs.claim(job, "two", most=3)] == [1, 1, 1]


def test_no_answer_that_was_stored_is_asked_for_again_when_a_worker_is_killed(
    library: Library, server: ChatServer, tmp_path: Path
) -> None:
    honest = server.default
    assert callable(honest)
    hang = Hang()
    server.default = lambda recorded: honest(recorded) if len(server.requests) <= 4 else hang
    job = begun(library, texts(tmp_path, 6), model="honest")
    command = python("lcdoc.jobs.process", job, "--library", str(library.path))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        server.wait_for(lambda: sum(server.answered.values()) == 4 and server.open_now >= 2, DEADLINE_S)
        answered = set(server.answered)
        _until(lambda: _stored(library) == 4)
        process.kill()
    server.default = honest
    assert work(library.path, job) is Ending.FINISHED
    kept = list(library.jobs.ordered(job))
    assert len(kept) == 6
    assert all(f"{100 + row.document} passengers" in str(row.row) for row in kept)
    assert {key: server.received[key] for key in answered} == dict.fromkeys(answered, 1)


def test_a_job_that_reaches_its_cap_stops_and_goes_on_with_a_higher_one(
    library: Library, server: ChatServer, tmp_path: Path
) -> None:
    caps = {"calls": 5}
    job = begun(library, texts(tmp_path, 6), model="honest", caps=caps)
    assert work(library.path, job) is Ending.STOPPED
    record = library.jobs.get(job)
    assert record.state == "paused"
    assert "cap of 5 calls is reached" in record.reason
    status = library.jobs.status(job)
    assert 0 < status.tasks["done"] < 6
    assert status.tasks["failed"] == 0
    assert sum(server.received.values()) == 5
    library.jobs.change(job, {**record.settings, "caps": {**record.settings["caps"], "calls": 100}})
    library.jobs.resume(job)
    assert work(library.path, job) is Ending.FINISHED
    kept = list(library.jobs.ordered(job))
    assert all(row.row and not row.row["partial"] for row in kept)
    assert [key for key, count in server.repeated.items() if count] == []


def test_a_cap_for_each_document_leaves_the_others_alone(library: Library, server: ChatServer, tmp_path: Path) -> None:
    job = begun(library, texts(tmp_path, 3), model="honest", per_document={"calls": 1})
    assert work(library.path, job) is Ending.FINISHED
    kept = list(library.jobs.ordered(job))
    assert len(kept) == 3
    assert all(row.error or (row.row and row.row["partial"]) for row in kept)
    assert sum(server.received.values()) == 3
