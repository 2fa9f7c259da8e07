"""`lcdoc serve` as a user runs it: a process, signals, and lcdoc itself as its client."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

import lcdoc as package
from lcdoc.agents.prompts.schemas import Reading
from lcdoc.tests.local_engine.checkpoints import save_checkpoint

HANDBOOK = Path(package.__file__).parent / "examples" / "handbook.pdf"
KEY = "correct-horse-battery"
CHAT = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return save_checkpoint(folder, "qwen2", max_position_embeddings=8192, num_hidden_layers=1)


@dataclass
class Serving:
    """A server's process, its API's address, and what it has said."""

    process: subprocess.Popen[str]
    url: str
    said: list[str]
    reading: threading.Thread

    def client(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=key, max_retries=0)


@contextmanager
def serving(*arguments: object, **environment: str) -> Iterator[Serving]:
    """Run `lcdoc serve` until the block ends, from the moment it says that it is ready."""
    command = [sys.executable, "-m", "lcdoc", "serve", "--port", "0", "--max-memory", "32MiB", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment}
    )
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"at (http://\S+/v1);", line):
            break
    else:
        raise AssertionError("".join(said))
    rest = threading.Thread(target=lambda: said.extend(process.stdout or ()))
    rest.start()
    try:
        yield Serving(process, found[1], said, rest)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        rest.join()
        process.stdout.close()


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Serving]:
    with serving(model, "--dtype", "float32") as running:
        yield running


def test_it_says_where_it_is_and_how_to_use_it(server: Serving, model: Path) -> None:
    loading, ready = server.said
    assert loading == f"loading {model}\n"
    assert ready == (
        f'serving tiny (8,192 tokens, float32 on cpu) at {server.url}; try: lcdoc ask FILE "QUESTION" --model '
        f"{server.url}\n"
    )


def test_the_official_client_chats_with_it(server: Serving) -> None:
    client = server.client()
    answer = client.chat.completions.parse(model="", messages=CHAT, max_tokens=300, response_format=Reading)
    assert isinstance(answer.choices[0].message.parsed, Reading)
    pieces = client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=20, seed=1, stream=True)
    streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces)
    whole = client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=20, seed=1)
    assert streamed == whole.choices[0].message.content


def test_lcdoc_asks_it_about_a_document(
    lcdoc: Callable[..., subprocess.CompletedProcess[str]], server: Serving
) -> None:
    run = lcdoc("ask", HANDBOOK, "Who keeps the keys?", "--model", server.url, "--json", "--quiet")
    assert run.returncode in {0, 1}, run.stderr
    answer = json.loads(run.stdout)
    assert answer["found"] is (run.returncode == 0)
    assert answer["usage"]["calls"] > 0
    assert not answer["partial"], run.stderr


def test_ctrl_c_lets_an_answer_end_and_nobody_in(server: Serving) -> None:
    """The last of the tests with this server."""
    pieces = server.client().chat.completions.create(
        model="", messages=CHAT, max_tokens=200, stream=True, extra_body={"ignore_eos": True}
    )
    next(pieces)
    server.process.send_signal(signal.SIGINT)
    with pytest.raises(openai.InternalServerError, match="shutting down"):
        while True:
            server.client().completions.create(model="", prompt="x", max_tokens=1)
    assert [piece.choices[0].finish_reason for piece in pieces][-1] == "length"
    assert server.process.wait(30) == 130
    server.reading.join()
    assert server.said[2:] == ["lcdoc: interrupted\n"]


def test_other_machines_are_served_with_a_key_that_is_never_shown(
    lcdoc: Callable[..., subprocess.CompletedProcess[str]], model: Path
) -> None:
    refused = lcdoc("serve", model, "--host", "0.0.0.0")
    assert refused.returncode == 2
    assert "LCDOC_SERVE_KEY" in refused.stderr
    with serving(model, "--host", "0.0.0.0", "--debug", LCDOC_SERVE_KEY=KEY) as running:
        port = running.url.rsplit(":", 1)[1].removesuffix("/v1")
        running.url = f"http://127.0.0.1:{port}/v1"
        with pytest.raises(openai.AuthenticationError):
            running.client("wrong").models.list()
        assert running.client(KEY).models.list().data[0].id == "tiny"
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0
        running.reading.join()
    assert KEY not in "".join(running.said)


def test_a_port_in_use_is_told_before_the_model_is_loaded(
    lcdoc: Callable[..., subprocess.CompletedProcess[str]], model: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = lcdoc("serve", model, "--port", port)
    assert run.returncode == 2
    assert run.stderr.splitlines() == [
        f"lcdoc: 127.0.0.1:{port}: the port is in use: end the program that has it, or take another with --port"
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no/such/folder",), "no/such/folder"),
        ((), "name one model"),
        (("a", "--model", "b"), "name one model"),
        (("a", "--max-memory", "much"), "--max-memory much"),
        (("a", "--host", "no.such.host.invalid", "--api-key", "x"), "no.such.host.invalid"),
    ],
)
def test_what_cannot_be_served_is_one_line(
    lcdoc: Callable[..., subprocess.CompletedProcess[str]], arguments: tuple[str, ...], said: str
) -> None:
    run = lcdoc("serve", "--port", "0", *arguments)
    assert run.returncode == 2
    (line,) = [line for line in run.stderr.splitlines() if not line.startswith("loading")]
    assert line.startswith("lcdoc: ")
    assert said in line


def test_the_help_teaches(lcdoc: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    told = " ".join(lcdoc("serve", "--help").stdout.split())
    for part in ("lcdoc serve models/", "LCDOC_SERVE_KEY", "/v1/chat/completions", "--drain-seconds", "429", "413"):
        assert part in told
