"""Jobs on a real Ray cluster whose parts die: nodes, the supervisor, whoever watches."""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lcdoc.benchmarks.batch_kills import compare, results
from lcdoc.jobs.ending import Ending
from lcdoc.jobs.ray.cluster import connected
from lcdoc.jobs.ray.driver import run_job
from lcdoc.jobs.ray.errors import RayError
from lcdoc.jobs.worker import work
from lcdoc.memory import Library
from lcdoc.memory.job_records import JobStatus
from lcdoc.tests.jobs.ray_cluster import Holding, Nodes, driver, with_kill
from lcdoc.tests.jobs.small_jobs import QUESTION, begun, honest_model, texts
from lcdoc.tests.servers.chat_server import ChatServer

pytest.importorskip("ray", reason="the extra lcdoc[ray] is not installed")

DEADLINE_S = 240
CONCURRENCY = 2
CARTS = "How many carts may the ferry carry?"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    before = dict(os.environ)
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_DEDUP_LOGS="0")
    nodes = Nodes(2)
    os.environ["RAY_ADDRESS"] = nodes.address
    try:
        yield nodes
    finally:
        nodes.close()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    with ChatServer() as running:
        honest_model(running, tmp_path, monkeypatch, concurrency=CONCURRENCY)
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "library.sqlite"


def _until(holds: Callable[[], bool], path: Path, job: str) -> None:
    """Wait for it, while the job is under way."""
    deadline = time.monotonic() + DEADLINE_S
    with Library.open(path) as library:
        while not holds():
            record = library.jobs.get(job)
            assert record.state == "open", (record.reason, [row.error for row in library.jobs.results(job)])
            assert time.monotonic() < deadline
            time.sleep(0.05)


@contextmanager
def _watched(path: Path, job: str) -> Iterator[list[JobStatus]]:
    """The job is done meanwhile, and has ended behind the block; its statuses."""
    statuses: list[JobStatus] = []
    errors: list[BaseException] = []
    stop = threading.Event()

    def watch() -> None:
        try:
            statuses.append(run_job(path, job, on_status=statuses.append, every_s=0.1, stop=stop))
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield statuses
    except BaseException:
        stop.set()
        raise
    finally:
        thread.join(DEADLINE_S)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def _supervisor(path: Path, job: str) -> int:
    """The process of the job's supervisor; 0 where there is none."""
    with Library.open(path) as library:
        return max((worker.pid for worker in library.jobs.status(job).workers), default=0)


def _answered_again(server: ChatServer) -> int:
    """How many requests were answered wholly when an equal one had been."""
    answered = Counter(json.dumps(request.body["messages"]) for request in server.requests if request.finished)
    return sum(answered.values()) - len(answered)


def test_a_job_comes_to_what_it_comes_to_here(nodes: Nodes, path: Path, tmp_path: Path) -> None:
    paths = [*texts(tmp_path / "texts", 3), str(tmp_path / "texts" / "missing.txt")]
    alone = tmp_path / "alone.sqlite"
    with Library.open(alone) as library:
        quiet = begun(library, paths, QUESTION, CARTS)
    assert work(alone, quiet) is Ending.FINISHED
    with Library.open(path) as library:
        job = begun(library, paths, QUESTION, CARTS)
    status = run_job(path, job, every_s=0.1)
    assert status.job.state == "finished"
    assert status.documents == {"waiting": 0, "preparing": 0, "ready": 3, "failed": 1}
    assert compare(results(alone, quiet), results(path, job), 8) == []
    with Library.open(path) as library:
        assert library.list() == []
        assert {row.row["worker"] for row in library.jobs.results(job) if row.row} != {""}


def test_a_node_that_dies_costs_no_result_and_no_call(
    nodes: Nodes, path: Path, tmp_path: Path, server: ChatServer
) -> None:
    server.default = holding = Holding(answered=3)
    with Library.open(path) as library:
        job = begun(library, texts(tmp_path / "texts", 5), QUESTION, CARTS, model="honest", store="use")
    with _watched(path, job) as statuses:
        _until(lambda: holding.held >= CONCURRENCY, path, job)
        # The server's limit holds for all nodes together.
        assert server.open_peak == CONCURRENCY
        nodes.kill_one()
        holding.let_go()
    assert statuses[-1].job.state == "finished"
    assert statuses[-1].tasks["done"] == len(results(path, job)) == 10
    # What was under way on the node is asked again; what had been answered is not.
    assert _answered_again(server) == 0
    # Those of the dead come free at once, which the server may hear of later than of the next request.
    assert server.open_peak <= CONCURRENCY + sum(request.aborted for request in server.requests)


def test_the_job_outlives_who_watches_it_and_its_supervisor(
    nodes: Nodes, path: Path, tmp_path: Path, server: ChatServer
) -> None:
    server.default = holding = Holding(answered=3)
    with Library.open(path) as library:
        job = begun(library, texts(tmp_path / "texts", 3), QUESTION, CARTS, model="honest", store="use")
    first = driver(path, job)
    _until(lambda: holding.held > 0, path, job)
    first.kill()
    first.wait()
    supervisor = _supervisor(path, job)
    with _watched(path, job) as statuses:
        _until(lambda: bool(statuses), path, job)
        assert _supervisor(path, job) == supervisor
        with_kill(supervisor)
        _until(lambda: _supervisor(path, job) not in (0, supervisor), path, job)
        holding.let_go()
    assert statuses[-1].job.state == "finished"
    assert statuses[-1].tasks["done"] == len(results(path, job)) == 6
    assert _answered_again(server) == 0


def test_caps_hold_for_all_nodes(nodes: Nodes, path: Path, tmp_path: Path, server: ChatServer) -> None:
    with Library.open(path) as library:
        job = begun(library, texts(tmp_path / "texts", 4), QUESTION, model="honest", caps={"calls": 3})
    status = run_job(path, job, every_s=0.1)
    assert status.job.state == "paused"
    assert "cap of 3 calls is reached" in status.job.reason
    assert len(server.requests) <= 3


def test_what_is_wrong_for_every_node_stops_the_job_in_one_line(nodes: Nodes, path: Path, tmp_path: Path) -> None:
    with Library.open(path) as library:
        job = begun(library, texts(tmp_path / "texts", 1), model="openai/gpt-4.1-mini")
    with pytest.raises(Exception, match="OPENAI_API_KEY is not set") as caught:
        run_job(path, job)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("on", "problem"),
    [
        ("ray://127.0.0.1:9", "no Ray cluster can be reached at ray://127.0.0.1:9"),
        ("ray://no-such-host.invalid:10001", "no Ray cluster can be reached"),
        ("spark", "'spark' is no place for a job"),
    ],
)
def test_a_cluster_that_is_not_there_is_told_at_once(on: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(RayError, match=problem) as caught, connected(on):
        pass
    assert "\n" not in str(caught.value)


def test_that_ray_is_not_installed_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(RayError, match=r"pip install 'lcdoc\[ray\]'"), connected("ray"):
        pass
