"""The server under load, with clients that leave, and with those who must not ask."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from lcdoc.local_engine.serving.settings import Settings, SettingsError
from lcdoc.tests.local_engine.served_engine import Served, eventually, served_engine

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
# As long as the window: minutes, if nobody ended it.
ENDLESS: dict[str, Any] = {**HELLO, "max_tokens": None, "ignore_eos": True}
KEY = "correct-horse-battery"


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[..., Path]) -> Path:
    return checkpoint("qwen2", max_position_embeddings=30_000)


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    """Of two places to run and one to wait in."""
    with served_engine(folder, sequences=2, max_waiting=1, max_body_bytes=200_000) as running:
        yield running


def is_idle(served: Served) -> bool:
    stats = served.engine.stats()
    return stats.running == stats.waiting == 0 and stats.pages_used == stats.pages_cached


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("data: {"):
            yield json.loads(line.removeprefix("data: "))


@pytest.fixture
def endless(served: Served) -> Iterator[Callable[[], Any]]:
    """Begin an endless answer, wait for its first text, and leave it when the test is over."""
    with httpx.Client(timeout=60) as client:
        open_streams: list[Any] = []

        def begin() -> Any:
            stream = client.stream("POST", f"{served.url}/chat/completions", json={**ENDLESS, "stream": True})
            answer = stream.__enter__()
            assert answer.status_code == 200
            arriving = events(answer.iter_lines())
            while not next(arriving)["choices"][0]["delta"].get("content"):
                pass
            open_streams.append((stream, arriving))
            return stream

        yield begin
        # With the iterator gone, the client closes the connection.
        for stream, _ in open_streams:
            stream.__exit__(None, None, None)
    assert eventually(lambda: is_idle(served))


def test_a_client_that_leaves_a_stream_ends_it(served: Served, endless: Callable[[], Any]) -> None:
    before = served.metrics()
    stream = endless()
    assert served.engine.stats().running == 1
    assert not is_idle(served)
    stream.__exit__(None, None, None)
    assert eventually(lambda: is_idle(served), 3)
    name = 'lcdoc_requests_total{api="chat.completion",outcome="cancelled"}'
    assert eventually(lambda: served.metrics()[name] == before.get(name, 0) + 1)


@pytest.mark.parametrize("n", [1, 2])
def test_a_client_that_leaves_a_whole_answer_ends_it(served: Served, n: int) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{served.url}/chat/completions", json={**ENDLESS, "n": n}, timeout=0.7)
    assert eventually(lambda: is_idle(served), 3)


def test_beyond_the_queue_a_request_is_refused_for_now(served: Served, endless: Callable[[], Any]) -> None:
    one, _ = endless(), endless()
    with ThreadPoolExecutor(1) as pool:
        third = pool.submit(httpx.post, f"{served.url}/chat/completions", json=HELLO, timeout=60)
        assert eventually(lambda: served.engine.stats().waiting == 1)
        metrics = served.metrics()
        assert (metrics["lcdoc_requests_running"], metrics["lcdoc_requests_waiting"]) == (2, 1)
        assert metrics["lcdoc_cache_pages_used"] > 0
        fourth = served.post("/chat/completions", json=HELLO)
        assert fourth.status_code == 429
        assert int(fourth.headers["retry-after"]) > 0
        assert fourth.json()["error"]["code"] == "queue_full"
        with pytest.raises(openai.RateLimitError):
            served.client().completions.create(model="", prompt="x")
        assert httpx.get(f"{served.root}/health").json() == {"status": "ok"}
        # A place is free as soon as one of the two leaves.
        one.__exit__(None, None, None)
        assert third.result().status_code == 200


def test_more_answers_than_places_are_refused(served: Served) -> None:
    assert served.post("/chat/completions", json={**HELLO, "n": 4}).status_code == 429
    assert served.post("/chat/completions", json={**HELLO, "n": 3}).status_code == 200
    assert is_idle(served)


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("size", [200_001, 3_000_000])
def test_a_long_body_is_refused_before_it_is_read_as_json(served: Served, stated: bool, size: int) -> None:
    def pieces() -> Iterator[bytes]:
        for start in range(0, size, 50_000):
            yield b"[" * min(50_000, size - start)

    content: Any = b"[" * size if stated else pieces()
    answer = served.post("/chat/completions", content=content)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    assert "200,000 bytes" in answer.json()["error"]["message"]
    with pytest.raises(openai.APIStatusError, match="200,000 bytes"):
        served.client().completions.create(model="", prompt="x" * size)


def test_a_request_has_a_time_limit(folder: Path) -> None:
    with served_engine(folder, timeout_s=0.5) as running:
        whole = running.post("/chat/completions", json=ENDLESS)
        assert whole.status_code == 408
        assert whole.json()["error"]["code"] == "request_timeout"
        assert whole.headers["x-should-retry"] == "false"
        with pytest.raises(openai.APIError, match=r"0\.5 seconds"):
            for _ in running.client().chat.completions.create(
                model="", messages=HELLO["messages"], stream=True, extra_body={"ignore_eos": True}
            ):
                pass
        assert eventually(lambda: is_idle(running), 3)
        assert running.metrics()['lcdoc_requests_total{api="chat.completion",outcome="timeout"}'] == 2


def test_the_key_is_asked_for_and_never_told(folder: Path) -> None:
    with served_engine(folder, key=KEY, host="0.0.0.0") as running:
        url = running.url.replace(running.url.split("//")[1].split(":")[0], "127.0.0.1")
        asking = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0)
        assert asking.completions.create(model="", prompt="x", max_tokens=1).usage
        root = url.removesuffix("/v1")
        assert httpx.get(f"{root}/health").status_code == 200
        assert httpx.get(f"{root}/metrics").status_code == 401
        assert httpx.get(f"{root}/metrics", headers={"Authorization": f"bearer {KEY}"}).status_code == 200
        wrong = ["", "Bearer", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", KEY, "Bearer \xfc"]
        for value in wrong:
            answer = httpx.get(f"{url}/models", headers={"Authorization": value.encode("latin-1")})
            assert answer.status_code == 401, value
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert KEY[:-1] not in answer.text
        # Not a byte of the body is read for those who have no key.
        assert httpx.post(f"{url}/completions", content=b"[" * 9_000_000).status_code == 401
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=url, api_key="other", max_retries=0).models.list()
    assert KEY not in repr(Settings(key=KEY))


def test_without_a_key_only_programs_of_this_machine_may_ask(served: Served) -> None:
    for headers in ({"Host": "rebound.example"}, {"Origin": "https://page.example"}, {"Origin": "null"}, {"Host": ""}):
        answer = served.post("/chat/completions", json=HELLO, headers=headers)
        assert answer.status_code == 403, headers
        assert answer.json()["error"]["code"] == "forbidden_host"
    for headers in ({"Host": "localhost:1"}, {"Host": "[::1]:80"}, {"Origin": "http://localhost:3000"}):
        assert served.post("/chat/completions", json=HELLO, headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_machines_are_served_with_a_key_only(host: str) -> None:
    with pytest.raises(SettingsError, match="LCDOC_SERVE_KEY"):
        Settings(host=host)
    assert Settings(host=host, key=KEY).key == KEY


def test_a_key_that_no_client_could_send_is_refused() -> None:
    for key in ("", "  ", "a\nb", "schlüssel"):
        with pytest.raises(SettingsError, match="printable ASCII"):
            Settings(key=key)


def test_an_end_lets_answers_end_and_nobody_in(folder: Path) -> None:
    with served_engine(folder, drain_s=20) as running:
        body = {
            **HELLO,
            "max_tokens": 150,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        with httpx.stream("POST", f"{running.url}/chat/completions", json=body, timeout=60) as answer:
            arriving = events(answer.iter_lines())
            next(arriving)
            running.server.stop()
            assert eventually(lambda: httpx.get(f"{running.root}/health").status_code == 503)
            refused = running.post("/chat/completions", json=HELLO)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "shutting_down"
            assert "retry-after" in refused.headers
            *_, last = arriving
        assert last["usage"]["completion_tokens"] == 150


@pytest.mark.parametrize("again", [False, True])
def test_what_does_not_end_in_time_is_cut_off_and_told(folder: Path, again: bool) -> None:
    with served_engine(folder, drain_s=60 if again else 0.3) as running, ThreadPoolExecutor(1) as pool:
        whole = pool.submit(running.post, "/chat/completions", json=ENDLESS)
        body = {**ENDLESS, "stream": True}
        with httpx.stream("POST", f"{running.url}/chat/completions", json=body, timeout=60) as answer:
            arriving = events(answer.iter_lines())
            next(arriving)
            assert eventually(lambda: running.engine.stats().running == 2)
            running.server.stop()
            if again:
                running.server.stop()
            *_, last = arriving
        assert last["error"]["code"] == "shutting_down"
        assert whole.result().status_code == 503


def test_others_are_answered_while_a_long_prompt_is_read(folder: Path) -> None:
    """A prompt of a megabyte and a schema of many fields: seconds of work before the engine sees anything."""
    names = [f"field_{number}" for number in range(1_500)]
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names}
    form = {"type": "json_object", "schema": schema}
    long = [{"role": "user", "content": "The quick brown fox <|im_end|>. " * 40_000}]
    with served_engine(folder) as running, ThreadPoolExecutor(2) as pool:
        busy = [
            pool.submit(running.post, "/chat/completions", json={**HELLO, "messages": long}),
            pool.submit(running.post, "/chat/completions", json={**HELLO, "response_format": form}),
        ]
        waits: list[float] = []
        with httpx.Client(base_url=running.root, timeout=60) as client:
            while not all(each.done() for each in busy):
                began_s = time.perf_counter()
                client.get("/health")
                waits.append(time.perf_counter() - began_s)
        assert busy[0].result().json()["error"]["code"] == "context_length_exceeded"
        assert busy[1].result().status_code == 200
        assert len(waits) > 20
        assert sorted(waits)[len(waits) * 9 // 10] < 0.2


def test_figures_are_counted(folder: Path) -> None:
    with served_engine(folder) as running:
        text = "the lamp at the north pier, " * 30
        for _ in range(2):
            running.post("/completions", json={"prompt": text, "max_tokens": 10, "ignore_eos": True, "temperature": 0})
        running.post("/completions", json={"prompt": 5})
        metrics = running.metrics()
        prompt = running.engine.count_tokens(text)
        assert metrics["lcdoc_prompt_tokens_total"] == 2 * prompt
        assert prompt - 20 < metrics["lcdoc_prompt_tokens_cached_total"] < prompt
        assert metrics["lcdoc_output_tokens_total"] == 20
        assert metrics["lcdoc_time_to_first_token_seconds_count"] == 2
        assert 2 <= metrics["lcdoc_inter_token_seconds_count"] <= 18
        assert metrics["lcdoc_request_seconds_count"] == 2
        assert metrics['lcdoc_requests_total{api="text_completion",outcome="ok"}'] == 2
        assert metrics['lcdoc_requests_total{api="text_completion",outcome="invalid"}'] == 1
        assert metrics["lcdoc_cache_pages"] > metrics["lcdoc_cache_pages_used"] == metrics["lcdoc_cache_pages_kept"] > 0
        assert metrics["lcdoc_draft_tokens_total"] >= metrics["lcdoc_draft_tokens_accepted_total"]
        assert metrics["lcdoc_preemptions_total"] == 0


def test_a_slow_reader_is_not_waited_for_beyond_the_limit(folder: Path) -> None:
    """It asks and never reads: what it holds is free when its time is up."""
    with served_engine(folder, timeout_s=1.0, max_waiting=0) as running:
        body = json.dumps({**ENDLESS, "stream": True, "logprobs": True, "top_logprobs": 20}).encode()
        host, port = running.root.removeprefix("http://").split(":")
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect((host, int(port)))
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            assert eventually(lambda: running.engine.stats().running == 1)
            assert eventually(lambda: is_idle(running), 4)


def test_a_body_that_never_comes_holds_no_place_for_ever(folder: Path) -> None:
    with served_engine(folder, timeout_s=0.5) as running:
        host, port = running.root.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: 50\r\n\r\n".encode())
            connection.settimeout(5)
            assert b" 408 " in connection.recv(200)


def test_a_server_whose_engine_has_ended_is_not_healthy(folder: Path) -> None:
    with served_engine(folder) as running:
        running.engine.close()
        assert httpx.get(f"{running.root}/health").status_code == 503
        answer = running.post("/chat/completions", json=HELLO)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ended")


def test_a_stream_in_which_nothing_happens_is_kept_alive(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcdoc.local_engine.serving.events._BEAT_S", 0.002)
    body = {**HELLO, "max_tokens": 20, "seed": 1}
    with served_engine(folder) as running:
        answer = running.post("/chat/completions", json={**body, "stream": True})
        assert ": still at work\n\n" in answer.text
        pieces = running.client().chat.completions.create(**body, model="", stream=True)
        whole = running.client().chat.completions.create(**body, model="")
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole.choices[0].message.content


def test_several_answers_read_their_prompt_once(folder: Path) -> None:
    with served_engine(folder) as running:
        content = "the lamp at the north pier, " * 60
        messages = [{"role": "user", "content": content}]
        running.post("/chat/completions", json={"messages": messages, "max_tokens": 2, "n": 3, "ignore_eos": True})
        stats = running.engine.stats()
        assert stats.prompt_tokens - stats.cached_tokens < stats.prompt_tokens / 3 + 3 * 16


def test_two_servers_share_a_process(folder: Path) -> None:
    """Their figures are their own."""
    with served_engine(folder) as one, served_engine(folder) as other:
        assert one.url != other.url
        one.post("/completions", json={"prompt": "x", "max_tokens": 1})
        assert one.metrics()["lcdoc_request_seconds_count"] == 1
        assert other.metrics()["lcdoc_request_seconds_count"] == 0
