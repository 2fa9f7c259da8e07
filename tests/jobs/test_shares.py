"""What workers get of a machine."""

from pathlib import Path

import pytest

from lcdoc.documents.pool import usable_processors
from lcdoc.jobs.job import Job
from lcdoc.jobs.shares import environment_of, gpus, suitable_workers, who_answers
from lcdoc.retrieval.packs import cores
from lcdoc.tests.jobs.small_jobs import honest_model
from lcdoc.tests.servers.chat_server import ChatServer

ASK = {"question": "When does the lease end?"}


@pytest.fixture(autouse=True)
def _own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    config.write_text("", encoding="utf-8")
    monkeypatch.setenv("LCDOC_CONFIG", str(config))
    for name in ("LCDOC_MODEL", "OMP_NUM_THREADS", "RAYON_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def test_offline_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(tasks=[ASK], model="offline")
    assert suitable_workers(job) == usable_processors()
    environment = environment_of(0, usable_processors(), job)
    assert (environment["OMP_NUM_THREADS"], environment["RAYON_NUM_THREADS"]) == ("1", "1")
    assert environment_of(0, 1, job)["OMP_NUM_THREADS"] == str(usable_processors())
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert environment_of(0, 1, job)["OMP_NUM_THREADS"] == "7"


def test_embedding_takes_no_more_threads_than_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    free = cores()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert cores() == 1
    for nonsense in ("0", "many", "4,2"):
        monkeypatch.setenv("OMP_NUM_THREADS", nonsense)
        assert cores() == free


def test_a_few_workers_do_where_a_server_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer() as server:
        honest_model(server, tmp_path, monkeypatch)
        job = Job(tasks=[ASK], model="honest")
        assert who_answers(job) == "server"
        assert 1 <= suitable_workers(job) <= 4


def test_each_worker_gets_a_gpu_where_the_model_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(tasks=[ASK], model="local/somebody/some-model")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert who_answers(job) == "here"
    assert suitable_workers(job) == 2
    assert [environment_of(place, 3, job)["CUDA_VISIBLE_DEVICES"] for place in range(3)] == ["2", "5", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert gpus() == []
    assert suitable_workers(job) == 1
