"""What servers say of themselves, each kind by its own fields; what they say wrongly, slowly or not at all."""

import asyncio
import json
import os
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lcdoc.agents.models.config import Config, load_config
from lcdoc.agents.models.discovery import REMEMBERED_LOCAL_S, REMEMBERED_S, resolve_online
from lcdoc.agents.models.errors import ConnectionFailedError, ModelNameError
from lcdoc.agents.models.model import Prices, Server
from lcdoc.agents.models.model_specs import ASSUMED_WINDOW
from lcdoc.agents.models.names import resolve
from lcdoc.agents.models.secrets import Key
from lcdoc.agents.models.server_statements import MAX_ANSWER_BYTES, OLLAMA_DEFAULT_WINDOW, discover
from lcdoc.tests.servers.chat_server import ChatServer

KEY = "test-discovery-key-0123456789"
PATIENCE_S = 30.0
"""A bound that a loaded machine keeps."""


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "OPENROUTER_", "OLLAMA_", "LCDOC_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@dataclass(frozen=True)
class Moved:
    url: str


class Pages:
    """Fixed answers by method and path: JSON values, bytes as they are, a status, `Moved`; None never answers.

    Asked as a proxy, the path is the whole address."""

    def __init__(self, pages):
        self.pages = pages
        self.seen = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.seen.append((self.command, self.path, dict(self.headers), body))
                value = outer.pages.get(f"{self.command} {self.path}", 404)
                if value is None:
                    outer.released.wait(PATIENCE_S)
                    return
                location = value.url if isinstance(value, Moved) else None
                value = 302 if location else value
                status = value if isinstance(value, int) else 200
                raw = (
                    value if isinstance(value, bytes) else json.dumps({} if isinstance(value, int) else value).encode()
                )
                self.send_response(status)
                self.send_header("Content-Length", str(len(raw)))
                if location:
                    self.send_header("Location", location)
                self.end_headers()
                try:
                    self.wfile.write(raw)
                except OSError:
                    # The reader had enough.
                    self.close_connection = True

            do_GET = do_POST = answer  # noqa: N815

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def found(self, model="m", *, key=None, timeout_s=PATIENCE_S):
        return asyncio.run(discover(Server(self.url, model), key, timeout_s=timeout_s))


class Kept:
    """Memos in memory."""

    def __init__(self):
        self.kept = {}

    def get(self, key):
        return self.kept.get(key, (None,))[0]

    def set(self, key, value, *, ttl_s):
        self.kept[key] = (value, ttl_s)


def online(name, config=None, memos=None):
    return asyncio.run(resolve_online(resolve(name, config or Config()), memos=memos, timeout_s=PATIENCE_S))


def listed(*entries):
    return {"object": "list", "data": list(entries)}


# --- each kind of server ---------------------------------------------------------------------------------------------


def test_vllm_and_sglang_state_their_window_in_the_list():
    with ChatServer() as server:
        server.models = [{"id": "m", "owned_by": "vllm", "max_model_len": 16_384}, {"id": "n", "max_model_len": 999}]
        found = asyncio.run(discover(Server(server.url, "m"), None, timeout_s=PATIENCE_S))
        assert [request.path for request in server.other_requests] == ["/v1/models"]
    assert found.models == ("m", "n")
    assert (found.context_window, found.context_window_known, found.notes) == (16_384, True, ())


def test_llama_cpp_states_the_window_of_a_slot_and_not_the_trained_one():
    with ChatServer() as server:
        server.models = [{"id": "m", "owned_by": "llamacpp", "meta": {"n_ctx_train": 131_072}}]
        server.pages = {"/props": {"total_slots": 4, "default_generation_settings": {"n_ctx": 8_192}}}
        found = asyncio.run(discover(Server(server.url, "m"), None, timeout_s=PATIENCE_S))
    assert (found.context_window, found.context_window_known) == (8_192, True)


def test_the_trained_window_alone_is_told_and_not_taken():
    with Pages(
        {"GET /v1/models": listed({"id": "m", "owned_by": "llamacpp", "meta": {"n_ctx_train": 131_072}})}
    ) as server:
        found = server.found()
    assert found.context_window is None
    assert any("131,072" in note for note in found.notes)


def test_lm_studio_states_the_window_it_loaded_the_model_with():
    pages = {
        "GET /v1/models": listed({"id": "m", "owned_by": "organization_owner"}),
        "GET /api/v0/models": listed(
            {"id": "n", "loaded_context_length": 1_024},
            {"id": "m", "state": "loaded", "max_context_length": 131_072, "loaded_context_length": 16_000},
        ),
    }
    with Pages(pages) as server:
        assert server.found().context_window == 16_000
        assert [path for _, path, *_ in server.seen] == ["/v1/models", "/api/v0/models"]
        pages["GET /api/v0/models"] = listed({"id": "m", "state": "not-loaded", "max_context_length": 131_072})
        found = server.found()
    assert found.context_window is None
    assert any("not loaded" in note and "131,072" in note for note in found.notes)


def test_ollama_states_the_window_of_a_loaded_model():
    pages = {
        "GET /v1/models": listed({"id": "qwen2.5:latest", "owned_by": "library"}),
        "GET /api/ps": {"models": [{"name": "qwen2.5:latest", "model": "qwen2.5:latest", "context_length": 20_000}]},
    }
    with Pages(pages) as server:
        found = server.found("qwen2.5")
    assert (found.context_window, found.context_window_known, found.notes) == (20_000, True, ())


def test_ollamas_small_default_is_assumed_for_a_model_that_is_not_loaded():
    pages = {
        "GET /v1/models": listed({"id": "m", "owned_by": "library"}),
        "GET /api/ps": {"models": [{"model": "other", "context_length": 20_000}]},
        "POST /api/show": {"parameters": 'stop "x"', "model_info": {"qwen2.context_length": 32_768}},
    }
    with Pages(pages) as server:
        found = server.found()
        assert json.loads(server.seen[-1][3]) == {"model": "m"}
        assert (found.context_window, found.context_window_known) == (OLLAMA_DEFAULT_WINDOW, False)
        (note,) = found.notes
        assert "OLLAMA_CONTEXT_LENGTH" in note and "32,768" in note and "cuts longer prompts" in note
        pages["POST /api/show"] = {"parameters": "temperature 0.7\nnum_ctx                        12288\n"}
        found = server.found()
    assert (found.context_window, found.context_window_known) == (12_288, True)


def test_ollama_is_recognised_without_a_list_of_its_models():
    with Pages({"GET /api/ps": {"models": []}}) as server:
        found = server.found("not-pulled")
    assert (found.context_window, found.context_window_known) == (OLLAMA_DEFAULT_WINDOW, False)


def test_openrouters_window_prices_and_longest_answer_are_read():
    entry = {
        "id": "a/m",
        "context_length": 200_000,
        "top_provider": {"context_length": 128_000, "max_completion_tokens": 16_384},
        "pricing": {"prompt": "0.0000004", "completion": "0.0000016", "input_cache_read": "0.0000001", "image": "0"},
    }
    with Pages({"GET /v1/models": listed(entry)}) as server:
        found = server.found("a/m")
    assert found.context_window == 128_000
    assert found.max_output_tokens == 16_384
    assert found.prices == Prices(0.4, 1.6, 0.1)


@pytest.mark.parametrize(
    "pricing",
    [
        {"prompt": "-1", "completion": "-1"},
        {"prompt": "0.1", "completion": "x"},
        {"prompt": 0.30, "completion": 0.30},
        {"prompt": "0.1"},
        {"prompt": "0.1", "completion": "0.1", "request": "0.01"},
        {"prompt": "nan", "completion": "0.1"},
        {"prompt": "9" * 400, "completion": "0.1"},
        "free",
    ],
)
def test_prices_in_another_form_are_not_known(pricing):
    with Pages({"GET /v1/models": listed({"id": "m", "context_length": 8_192, "pricing": pricing})}) as server:
        assert server.found().prices is None


# --- servers that say little, or nonsense ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"<html>not JSON</html>",
        b"",
        b"[" * 200_000,
        b"\xff\xfe",
        {"data": "none"},
        {"data": [1, None, {"id": 3}, {"id": ""}, {"id": "a\nb"}, {"id": "x" * 1_000}]},
        ["m"],
        401,
        500,
        302,
    ],
)
def test_a_list_that_is_none_is_no_error(answer):
    with Pages({"GET /v1/models": answer}) as server:
        found = server.found(key=Key(KEY))
    assert (found.models, found.context_window, found.prices) == ((), None, None)
    assert not any(KEY in note for note in found.notes)


@pytest.mark.parametrize("window", ["8192", -1, 0, 7, 10**12, 8_192.5, True, None, [8_192], {"n": 1}])
def test_a_window_that_cannot_be_one_is_not_taken(window):
    with Pages({"GET /v1/models": listed({"id": "m", "max_model_len": window})}) as server:
        assert server.found().context_window is None


def test_a_refused_key_is_told():
    with Pages({"GET /v1/models": 401}) as server:
        found = server.found(key=Key(KEY))
        assert server.seen[0][2]["Authorization"] == f"Bearer {KEY}"
    assert any("refuses the key" in note for note in found.notes)


def test_an_endless_answer_is_given_up():
    with Pages({"GET /v1/models": b" " * (MAX_ANSWER_BYTES + 100_000)}) as server:
        found = server.found()
    assert any("longer than" in note for note in found.notes)


def test_a_server_that_does_not_answer_costs_only_the_timeout():
    with Pages({"GET /v1/models": None}) as server:
        found = server.found(timeout_s=0.3)
    assert any("did not answer" in note for note in found.notes)


def test_what_was_learnt_before_the_timeout_is_kept():
    with Pages({"GET /v1/models": listed({"id": "m"}), "GET /props": None}) as server:
        found = server.found(timeout_s=3.0)
    assert found.models == ("m",)
    assert found.notes


def test_no_server_at_all_is_told():
    with Pages({}) as server:
        url = server.url
    found = asyncio.run(discover(Server(url, "m"), None, timeout_s=PATIENCE_S))
    assert found.models == () and any("no connection" in note for note in found.notes)


def test_a_model_that_the_server_does_not_list_is_told():
    with Pages({"GET /v1/models": listed({"id": "a", "max_model_len": 4_096}, {"id": "b"})}) as server:
        found = server.found("c")
    assert found.context_window is None
    assert any("does not list c; it lists a, b" in note for note in found.notes)


def test_the_own_machine_is_never_asked_through_a_proxy(monkeypatch):
    with Pages({}) as proxy, Pages({"GET /v1/models": listed({"id": "m", "max_model_len": 4_096})}) as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        assert server.found().context_window == 4_096
        assert proxy.seen == []


def test_redirects_are_not_followed_so_that_no_key_travels_on():
    with Pages({"GET /v1/models": listed({"id": "m", "max_model_len": 4_096})}) as elsewhere:
        with Pages({"GET /v1/models": Moved(f"{elsewhere.url}/models")}) as server:
            found = server.found(key=Key(KEY))
        assert elsewhere.seen == []
    assert any("HTTP 302" in note for note in found.notes)


# --- resolve_online --------------------------------------------------------------------------------------------------


def test_the_servers_window_is_filled_in():
    with ChatServer() as server:
        server.models = [{"id": "qwen2.5-7b", "max_model_len": 12_000}]
        chosen = online(f"{server.url}#qwen2.5-7b")
    assert (chosen.spec.context_window, chosen.spec.context_window_known) == (12_000, True)
    assert chosen.spec.profile == "small"
    assert chosen.notes == ()


def test_the_only_model_is_taken_where_none_was_named():
    with ChatServer() as server:
        server.models = [{"id": "Qwen/Qwen2.5-7B-Instruct", "max_model_len": 12_000}]
        chosen = online(server.url)
        assert chosen.spec.server.model == "Qwen/Qwen2.5-7B-Instruct"
        assert chosen.spec.name == f"{server.url}#Qwen/Qwen2.5-7B-Instruct"
        assert (chosen.spec.context_window, chosen.spec.profile) == (12_000, "small")


def test_several_models_are_listed_and_none_is_taken(tmp_path):
    with ChatServer() as server:
        server.models = [{"id": "a"}, {"id": "b"}]
        with pytest.raises(ModelNameError, match=r"2 models: a, b; name it: http://.*#a"):
            online(server.url)
        (tmp_path / "c.toml").write_text(f'[models.house]\nurl = "{server.url}"')
        with pytest.raises(ModelNameError, match=r'house: .*set model = "a" in its entry'):
            online("house", load_config(tmp_path / "c.toml"))
        server.models = []
        with pytest.raises(ModelNameError, match="lists no models"):
            online(server.url)


def test_a_model_left_open_needs_the_server():
    with Pages({}) as server:
        url = server.url
    with pytest.raises(ConnectionFailedError, match="no connection"):
        online(url)


def test_a_server_that_says_nothing_gets_a_cautious_window_and_a_remedy():
    with ChatServer() as server:
        server.models = [{"id": "house"}]
        chosen = online(f"{server.url}#house")
    assert (chosen.spec.context_window, chosen.spec.context_window_known) == (ASSUMED_WINDOW, False)
    (note,) = chosen.notes
    assert "8,192 tokens are assumed" in note and "context_window" in note


def test_where_the_server_says_nothing_the_familys_window_is_taken_but_not_as_known():
    with ChatServer() as server:
        server.models = [{"id": "qwen2.5-7b"}]
        chosen = online(f"{server.url}#qwen2.5-7b")
    assert (chosen.spec.context_window, chosen.spec.context_window_known) == (32_768, False)
    assert chosen.notes


def test_no_server_leaves_the_assumption_and_tells_why():
    with Pages({}) as server:
        url = server.url
    chosen = online(f"{url}#house")
    assert (chosen.spec.context_window, chosen.spec.context_window_known) == (ASSUMED_WINDOW, False)
    assert any("no connection" in note for note in chosen.notes)


def test_the_configurations_window_stands_and_nothing_is_asked(tmp_path):
    with ChatServer() as server:
        server.models = [{"id": "m", "max_model_len": 12_000}]
        entry = f'[models.house]\nurl = "{server.url}"\nmodel = "m"\ncontext_window = 5_000'
        (tmp_path / "c.toml").write_text(entry)
        chosen = online("house", load_config(tmp_path / "c.toml"))
        assert server.other_requests == []
    assert (chosen.spec.context_window, chosen.spec.context_window_known) == (5_000, True)


def test_an_entry_without_a_model_keeps_its_name_and_settings(tmp_path):
    with ChatServer() as server:
        server.models = [{"id": "m", "max_model_len": 12_000}]
        (tmp_path / "c.toml").write_text(
            f'[models.house]\nurl = "{server.url}"\ncontext_window = 5_000\nconcurrency = 3'
        )
        chosen = online("house", load_config(tmp_path / "c.toml"))
    assert chosen.spec.name == "house"
    assert chosen.spec.server.model == "m"
    assert (chosen.spec.context_window, chosen.spec.limits.concurrency) == (5_000, 3)


def test_known_openai_models_are_not_asked_about(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    chosen = resolve("openai/gpt-4.1-mini", Config())
    assert asyncio.run(resolve_online(chosen, timeout_s=0.001)) is chosen


def test_prices_of_the_server_are_taken_where_none_are_configured_and_told():
    entry = {"id": "a/m", "context_length": 9_000, "pricing": {"prompt": "0.000001", "completion": "0.000002"}}
    with Pages({"GET /v1/models": listed(entry)}) as server:
        chosen = online(f"{server.url}#a/m")
    assert chosen.spec.prices == Prices(1.0, 2.0)
    assert any("prices are those that the server lists" in note for note in chosen.notes)


def test_a_gateways_window_ends_where_the_prices_do(monkeypatch):
    entry = {"id": "openai/gpt-5", "context_length": 400_000}
    with Pages({"GET /v1/models": listed(entry)}) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        chosen = online("openai/openai/gpt-5")
    assert (chosen.spec.context_window, chosen.spec.context_window_known) == (272_000, True)


def test_statements_are_remembered_and_assumptions_are_not():
    memos = Kept()
    with ChatServer() as server:
        server.models = [{"id": "m", "max_model_len": 12_000}]
        first = online(f"{server.url}#m", memos=memos)
        asked = len(server.other_requests)
        again = online(f"{server.url}#m", memos=memos)
        assert len(server.other_requests) == asked
        assert again.spec == first.spec
        ((_, ttl_s),) = memos.kept.values()
        assert ttl_s == REMEMBERED_LOCAL_S
        server.models = [{"id": "n"}]
        online(f"{server.url}#n", memos=memos)
        assert len(memos.kept) == 1


def test_another_machines_statements_are_remembered_for_a_day(monkeypatch):
    memos = Kept()
    with Pages({"GET http://llm.example.com/v1/models": listed({"id": "m", "max_model_len": 9_000})}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        assert online("http://llm.example.com#m", memos=memos).spec.context_window == 9_000
    ((_, ttl_s),) = memos.kept.values()
    assert ttl_s == REMEMBERED_S
    assert online("http://llm.example.com#m", memos=memos).spec.context_window == 9_000


def test_the_only_model_and_its_prices_are_remembered_too():
    memos = Kept()
    entry = {"id": "a/m", "context_length": 9_000, "pricing": {"prompt": "0.000001", "completion": "0.000002"}}
    with Pages({"GET /v1/models": listed(entry)}) as server:
        first = online(server.url, memos=memos)
        seen = len(server.seen)
        assert online(server.url, memos=memos) == first
        assert len(server.seen) == seen
    assert first.spec.prices == Prices(1.0, 2.0)


@pytest.mark.parametrize("kept", ["", "{", "[]", "{}", '{"models": 3, "window": 1, "prices": null}'])
def test_a_memo_that_cannot_be_read_is_asked_anew(kept):
    memos = Kept()
    with ChatServer() as server:
        server.models = [{"id": "m", "max_model_len": 12_000}]
        memos.set(f"server/1 {server.url} m", kept, ttl_s=1.0)
        assert online(f"{server.url}#m", memos=memos).spec.context_window == 12_000
