"""`lcdoc ask --model`, `lcdoc models` and `lcdoc runs`, as processes against a server on loopback."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lcdoc.tests.servers.behaviours import error_body
from lcdoc.tests.servers.chat_server import ChatServer, Hang, Recorded, Reply, Status
from lcdoc.tests.servers.truthful import Truthful

QUESTION = "How many passengers may the ferry Bittern carry?"
LOOK_UP = ("--workflow", "retrieve")
"""The story is short enough to be read at once, which is one call; looking up is two."""
KEY = "sk-planted-7d1f0c2b9a8e4f63"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        running.default = Truthful()
        running.models = [{"id": "honest", "max_model_len": 8192}]
        yield running


@pytest.fixture
def environment(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LCDOC_MODEL", "LCDOC_API_KEY"):
        environment.pop(name, None)
    environment["LCDOC_CONFIG"] = str(tmp_path / "config.toml")
    (tmp_path / "config.toml").write_text("", encoding="utf-8")
    return environment


def chats(server: ChatServer) -> list[Recorded]:
    return [each for each in server.requests if each.path.endswith("/chat/completions")]


def test_an_answer_through_a_model_is_cited_and_accounted_for(lcdoc, story, server):
    run = lcdoc("ask", story, QUESTION, *LOOK_UP, "--model", server.url)
    assert run.returncode == 0, run.stderr
    assert "forty passengers" in run.stdout
    assert "\x1b" not in run.stdout + run.stderr
    account = run.stderr.strip().splitlines()[-1]
    assert re.search(
        r"#honest; .* passages read.*; 2 calls, [\d,]+ tokens in, \d+ out, price unknown; .* s; run \w+$", account
    )
    run_id = account.rsplit(" ", 1)[1]
    shown = lcdoc("runs", "show", run_id[:9])
    assert shown.returncode == 0
    assert "answered" in shown.stdout
    assert QUESTION in shown.stdout
    assert json.loads(lcdoc("runs", "show", run_id, "--json").stdout)["total"]["calls"] == 2
    assert run_id in lcdoc("runs", "list").stdout
    assert "2 calls" in lcdoc("runs", "cost", "--by", "day").stdout


def test_the_same_command_again_sends_nothing(lcdoc, story, server):
    lcdoc("ask", story, QUESTION, *LOOK_UP, "--model", server.url)
    sent = len(chats(server))
    again = lcdoc("ask", story, QUESTION, *LOOK_UP, "--model", server.url)
    assert len(chats(server)) == sent
    assert "0 calls and 2 from the store" in again.stderr
    anew = lcdoc("ask", story, QUESTION, *LOOK_UP, "--model", server.url, "--refresh")
    assert len(chats(server)) == 2 * sent
    assert "2 calls" in anew.stderr


def test_estimates_and_prompts_are_shown_without_asking(lcdoc, story, server):
    run = lcdoc("ask", story, QUESTION, *LOOK_UP, "--model", server.url, "--estimate", "--show-prompts")
    assert run.returncode == 0
    assert not chats(server)
    assert "2 calls, about" in run.stdout
    assert "at most: " in run.stdout
    assert "--- system ---" in run.stdout
    assert "forty passengers" in run.stdout
    assert QUESTION in run.stdout


def test_an_offline_estimate_is_nothing(lcdoc, story):
    run = lcdoc("ask", story, QUESTION, "--estimate")
    assert run.returncode == 0
    assert run.stdout.startswith("offline: 0 calls")


def test_a_cap_gives_a_partial_answer(lcdoc, story, server):
    run = lcdoc("ask", story, QUESTION, *LOOK_UP, "--model", server.url, "--max-calls", "1", "--json")
    answer = json.loads(run.stdout)
    assert run.returncode == 0
    assert answer["partial"]
    assert answer["found"]
    assert len(chats(server)) == 1
    assert any("--max-calls" in warning for warning in answer["warnings"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "gpt-4.1-mini"], "did you mean openai/gpt-4.1-mini?"),
        (["--model", "openai/gpt-4.1-mini"], "OPENAI_API_KEY is not set"),
        (["--model", "http://user:secret@127.0.0.1:9/v1"], "user name or password"),
        (["--model", "http://127.0.0.1:9/v1#none"], "127.0.0.1:9"),
        (["--model", "http://127.0.0.1:9/v1#none", "--max-cost", "1"], "price"),
        (["--refresh", "--no-cache"], "exclude each other"),
        (["--max-cost", "-1"], "--max-cost"),
    ],
)
def test_what_cannot_be_asked_is_one_line(lcdoc, story, options, message):
    run = lcdoc("ask", story, QUESTION, *options)
    assert run.returncode == 2
    assert message in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr
    assert "secret" not in run.stderr
    assert not run.stdout


def test_the_configured_model_is_the_default_and_its_caps_hold(lcdoc, story, server, environment):
    Path(environment["LCDOC_CONFIG"]).write_text(
        f'model = "mine"\nmax_calls = 1\n[models.mine]\nurl = "{server.url}"\nprices = {{ input = 2, output = 8 }}\n',
        encoding="utf-8",
    )
    run = lcdoc("ask", story, QUESTION, *LOOK_UP)
    assert "mine; " in run.stderr
    assert len(chats(server)) == 1
    assert re.search(r"\$0\.00\d\d", run.stderr)
    listed = lcdoc("models")
    assert "default        mine" in listed.stdout
    assert f"mine: {server.url}" in listed.stdout
    known = json.loads(lcdoc("models", "mine", "--json").stdout)
    assert known["window"] == "8,192 tokens"
    assert known["key"] == "none"


def test_a_sample_configuration_is_written_once(lcdoc, environment):
    path = Path(environment["LCDOC_CONFIG"])
    path.unlink()
    assert lcdoc("models", "--init").returncode == 0
    assert "[models" in path.read_text(encoding="utf-8")
    again = lcdoc("models", "--init")
    assert again.returncode == 2
    assert str(path) in again.stderr.replace("\n", "")


def test_keys_are_nowhere_but_in_the_request(lcdoc, story, server, environment, tmp_path):
    environment |= {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url}
    refusal = error_body(f"Incorrect API key provided: {KEY}. Authorization: Bearer {KEY}")
    server.script(Status(401, body=refusal))
    runs = [lcdoc("ask", story, QUESTION, "--model", "openai/honest", "--debug")]
    server.default = Truthful()
    model = ["--model", "openai/honest"]
    runs += [
        lcdoc("ask", story, QUESTION, *model, "--debug"),
        lcdoc("ask", story, QUESTION, *model, "--debug", "--show-prompts", "--estimate"),
        lcdoc("ask", story, QUESTION, *model, "--json"),
        lcdoc("runs", "list", "--json"),
        lcdoc("models", "openai/honest", "--debug"),
        lcdoc("doctor"),
    ]
    assert {each.headers.get("authorization") for each in chats(server)} == {f"Bearer {KEY}"}
    assert runs[0].returncode != 0
    assert runs[1].returncode == 0, runs[1].stderr
    for run in runs:
        assert KEY not in run.stdout + run.stderr
        assert KEY[3:] not in run.stdout + run.stderr
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


def test_other_servers_never_get_the_key_of_openai(lcdoc, story, server, environment):
    environment |= {"OPENAI_API_KEY": KEY, "OPENAI_ORG_ID": "org-planted", "OPENAI_PROJECT_ID": "proj-planted"}
    assert lcdoc("ask", story, QUESTION, *LOOK_UP, "--model", server.url).returncode == 0
    for request in server.requests:
        assert "planted" not in json.dumps(request.headers)


def test_nothing_is_asked_unless_a_model_is_named(lcdoc, story, server, environment):
    environment |= {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url}
    run = lcdoc("ask", story, QUESTION)
    assert run.returncode == 0
    assert "offline, by extraction" in run.stderr
    assert not server.requests


def test_hostile_answers_cannot_move_the_cursor(lcdoc, story, server):
    honest = Truthful()

    def hostile(recorded: Recorded):
        reply = honest(recorded)
        if honest.read[-1] != "answer":
            return reply
        claim = {"text": "Forty\x1b[2J\x1b]0;owned\x07 passengers.", "evidence": [1]}
        return Reply(json.dumps({"found": True, "claims": [claim]}))

    server.default = hostile
    run = lcdoc("ask", story, QUESTION, *LOOK_UP, "--model", server.url)
    assert "\x1b" not in run.stdout
    assert "\x07" not in run.stdout
    assert "passengers" in run.stdout


def test_an_interrupted_run_says_so_and_is_recorded(story, server, environment, tmp_path):
    import signal
    import subprocess
    import sys

    server.default = Hang()
    command = [sys.executable, "-m", "lcdoc", "ask", str(story), QUESTION, "--model", server.url]
    process = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    server.wait_for(lambda: chats(server), timeout_s=60)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in errors
    assert "Traceback" not in errors
    server.wait_for(lambda: all(each.aborted for each in chats(server)))
