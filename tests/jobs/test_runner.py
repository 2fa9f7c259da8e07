"""The runner and its crew: processes that die, fall silent, or end."""

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from lcdoc.jobs import crew as crew_module
from lcdoc.jobs import runner
from lcdoc.jobs.crew import Crew
from lcdoc.jobs.ending import Ending
from lcdoc.memory import Library
from lcdoc.memory.job_records import JobStatus
from lcdoc.tests.jobs.small_jobs import QUESTION, begun, texts

DEADLINE_S = 60
_LIVES = 'import os, sys; print(\'{"line": "here"}\', flush=True); os.read(0, 1); sys.exit(130)'


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that died are started again at once."""
    monkeypatch.setattr(crew_module, "_LONGEST_WAIT_S", 0.0)


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _crew(program: str, size: int, said: list[str], **options: object) -> Crew:
    return Crew(lambda _worker: [sys.executable, "-c", program], [{}] * size, said=said.append, **options)


def test_those_that_are_killed_are_told_and_started_again(soon: None) -> None:
    said: list[str] = []
    died: list[str] = []
    with _crew(_LIVES, 2, said, died=died.append) as crew:
        crew.start()
        first = crew.pids
        crew._places[0].popen.kill()  # type: ignore[union-attr]
        _until(lambda: (crew.tend(), crew.working)[1] == 1)
        crew.start()
        assert crew.working == 2
        assert crew.pids[1] == first[1]
        assert crew.pids[0] != first[0]
        _until(lambda: (crew.tend(), said.count("here"))[1] >= 2)
    assert len(died) == 1
    assert f"worker {died[0]} died: it was killed (SIGKILL); what it held is taken over" in said


def test_one_that_ends_by_itself_says_how_and_is_no_death() -> None:
    said: list[str] = []
    with _crew(f"import sys; sys.exit({Ending.GROWN.value})", 1, said) as crew:
        crew.start()
        _until(lambda: (crew.tend(), crew.working)[1] == 0)
    assert crew.deaths_in_vain == 0
    assert said == []


def test_one_that_gives_no_sign_of_life_is_ended() -> None:
    said: list[str] = []
    with _crew("import time; time.sleep(600)", 1, said, silent_s=0.2) as crew:
        crew.start()
        _until(lambda: (crew.tend(), crew.working)[1] == 0)
    assert "has given no sign of life for 0 s and is ended" in said[0]
    assert crew.deaths_in_vain == 1


def test_those_that_die_at_once_are_started_less_and_less_often() -> None:
    with _crew("raise SystemExit('no luck')", 2, []) as crew:
        for _ in range(2):
            crew.start()
            _until(lambda: (crew.tend(), crew.working)[1] == 0)
        assert crew.deaths_in_vain == 4
        crew.start()
        assert crew.working == 0
    assert crew.last_words == "it ended with status 1, saying: no luck"


def test_at_the_end_they_have_time_to_give_back_what_they_hold(tmp_path: Path) -> None:
    mark = tmp_path / "given back"
    program = f"import os, time; os.read(0, 1); time.sleep(0.3); open({str(mark)!r}, 'w').close()"
    with _crew(program, 1, []) as crew:
        crew.start()
    assert mark.exists()


def test_a_job_is_run_to_its_end(library: Library, tmp_path: Path) -> None:
    job = begun(library, texts(tmp_path, 5), QUESTION, "When do the bakers meet?")
    heard: list[JobStatus] = []
    status = runner.run_job(library.path, job, workers=2, on_status=heard.append, every_s=0.2)
    assert status.job.state == heard[-1].job.state == "finished"
    assert status.tasks["done"] == 10
    assert heard[0].tasks["done"] == 0
    assert len({(row.document, row.task) for row in library.jobs.results(job)}) == 10
    assert runner.run_job(library.path, job, workers=2).tasks["done"] == 10


def test_workers_that_die_one_after_the_other_pause_the_job_with_their_last_words(
    library: Library, tmp_path: Path, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: str) -> Sequence[str]:
        return [sys.executable, "-S", "-c", "raise SystemExit('no luck')"]

    monkeypatch.setattr(runner, "python", broken)
    job = begun(library, texts(tmp_path, 1))
    said: list[str] = []
    status = runner.run_job(library.path, job, workers=1, on_line=said.append, every_s=0.05)
    assert status.job.state == "paused"
    assert status.job.reason.endswith("of the last one, it ended with status 1, saying: no luck")
    assert len(said) > 10


def test_a_runner_that_is_stopped_leaves_the_job_open(library: Library, tmp_path: Path) -> None:
    job = begun(library, texts(tmp_path, 1))
    stop = threading.Event()
    stop.set()
    status = runner.run_job(library.path, job, workers=1, stop=stop)
    assert status.job.state == "open"
    assert status.tasks["waiting"] == 1
