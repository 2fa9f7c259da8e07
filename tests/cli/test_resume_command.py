"""`lcdoc ask` that is cut off, and `lcdoc ask --resume`, from the outside."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lcdoc.memory import Library
from lcdoc.tests.servers.behaviours import Hang
from lcdoc.tests.servers.chat_server import ChatServer
from lcdoc.tests.servers.truthful import Truthful

QUESTION = "How many passengers does the ferry Otterling carry?"
LOOK_UP = ("--workflow", "retrieve")
ANSWER = "The ferry Otterling carries ninety passengers and six carts."


@pytest.fixture
def server(environment: dict[str, str], tmp_path: Path) -> Iterator[ChatServer]:
    """A model named `honest` in the configuration."""
    with ChatServer() as running:
        running.default = Truthful()
        running.models = [{"id": "honest", "max_model_len": 8192}]
        config = tmp_path / "config.toml"
        config.write_text(f'[models.honest]\nurl = "{running.url}"\n')
        environment["LCDOC_CONFIG"] = str(config)
        yield running


@pytest.fixture
def cut_off(environment: dict[str, str], story: Path, server: ChatServer) -> Callable[[int], tuple[int, str, str]]:
    """Ask, send this signal when the model's second call (the answer's) is under way; the exit code and the output."""

    def ask(number: int) -> tuple[int, str, str]:
        honest = server.default
        server.default = lambda recorded: Hang() if len(server.requests) > 1 else honest(recorded)
        command = [sys.executable, "-m", "lcdoc", "ask", str(story), QUESTION, *LOOK_UP, "--model", "honest"]
        process = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=story.parent
        )
        server.wait_for(lambda: len(server.requests) > 1, 60)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        server.default = honest
        return process.returncode, out, err

    return ask


def run_of(environment: dict[str, str]):
    with Library.open(environment["LCDOC_LIBRARY"]) as library:
        (run,) = library.runs.list()
    return run


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_says_how_to_go_on_and_that_goes_on(lcdoc, cut_off, environment, server, story):
    code, out, err = cut_off(signal.SIGINT)
    run = run_of(environment)
    assert (code, out) == (130, "")
    assert err.splitlines()[-1].startswith("lcdoc: interrupted; what was read is kept.")
    assert err.rstrip().endswith(f"lcdoc ask --resume {run.id}")
    assert "Traceback" not in err
    assert "never awaited" not in err
    assert run.status == "interrupted"
    story.unlink()
    seen = len(server.requests)
    resumed = lcdoc("ask", "--resume", run.id[:8])
    assert resumed.returncode == 0, resumed.stderr
    assert ANSWER in resumed.stdout
    assert f"going on with run {run.id}: 1 note kept" in resumed.stderr
    assert len(server.requests) == seen + 1
    assert run_of(environment).status == "answered"


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
def test_asking_again_after_a_crash_goes_on(lcdoc, cut_off, environment, server, story):
    code, _, _ = cut_off(signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert run_of(environment).status == "died"
    seen = len(server.requests)
    again = lcdoc("ask", story, QUESTION, *LOOK_UP, "--model", "honest")
    assert ANSWER in again.stdout, again.stderr
    assert f"going on with run {run_of(environment).id}: 1 note kept" in again.stderr
    assert len(server.requests) == seen + 1
    assert "going on" not in lcdoc("ask", story, QUESTION, *LOOK_UP, "--model", "honest").stderr


def test_a_capped_run_is_completed_with_a_higher_cap(lcdoc, environment, server, story):
    capped = lcdoc("ask", story, QUESTION, *LOOK_UP, "--model", "honest", "--max-calls", "1")
    assert "cap of 1 call" in capped.stderr
    run = run_of(environment)
    assert run.status == "partial"
    answered = lcdoc("ask", "--resume", run.id, "--max-calls", "1")
    assert ANSWER in answered.stdout, answered.stderr
    assert "cap of" not in answered.stderr
    refused = lcdoc("ask", "--resume", run.id)
    assert refused.returncode == 2
    assert f"run {run.id} came to its end" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume", "zzzz"], "no run 'zzzz'; `lcdoc runs list` shows what is there"),
        (["lamp.md", "Why?", "--resume", "zzzz"], "lcdoc: --resume goes on with a run as it began"),
    ],
)
def test_a_run_that_cannot_be_gone_on_with(lcdoc, story, arguments, message):
    run = lcdoc("ask", *arguments)
    assert run.returncode == 2
    assert run.stdout == ""
    assert message in run.stderr
    assert run.stderr.count("\n") == 1
