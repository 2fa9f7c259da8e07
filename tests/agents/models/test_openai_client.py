"""The client against a real server on the loopback: answers, timeouts, cuts, refusals, and what they mean."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import socket
from urllib.parse import urlsplit

import pytest

from lcdoc.agents.models.errors import (
    AuthenticationError,
    ConnectionFailedError,
    ContextOverflowError,
    CutStreamError,
    InvalidOutputError,
    ModelConfigError,
    ModelError,
    ModelTimeoutError,
    RateLimitError,
    RefusedRequestError,
    ServerError,
    UnknownModelError,
    UnsupportedParameterError,
)
from lcdoc.agents.models.key_hints import key_hint
from lcdoc.agents.models.model import Message, ModelSpec, Request, Server, TokenUsage
from lcdoc.agents.models.openai_client import OpenAIModel
from lcdoc.agents.models.secrets import Key
from lcdoc.agents.models.streaming import Answer, EventReader
from lcdoc.agents.models.timeouts import Timeouts
from lcdoc.agents.models.usage_figures import believable_usage
from lcdoc.agents.models.wire import FormattedRequest
from lcdoc.tests.agents.models.refusal_texts import (
    DEEPSEEK_LOGPROBS,
    FORMATS,
    GEMINI_SEED,
    MISTRAL_STREAM_OPTIONS,
    OPENAI_MAX_TOKENS,
    OPENAI_TEMPERATURE,
)
from lcdoc.tests.servers.chat_server import (
    ChatServer,
    Cut,
    EmptyChoices,
    ErrorEvent,
    Garbage,
    Hang,
    HangMid,
    Refuse,
    Reply,
    Status,
    error_body,
)

SECRET = "sk-test-0123456789abcdef"
ASK = Request((Message("system", "Be brief."), Message("user", "What is it?")), max_tokens=64)
QUICK = Timeouts(connect_s=5, first_token_s=0.4, idle_s=0.4)
PATIENT = Timeouts(connect_s=20, first_token_s=60, idle_s=60)


@pytest.fixture
def server():
    with ChatServer() as server:
        yield server


def spec_of(server, **fields) -> ModelSpec:
    url = server if isinstance(server, str) else server.url
    return ModelSpec("local/test", 8192, Server(url, "test", **fields))


def ask(server, *requests: Request, key: Key | None = None, timeouts=PATIENT, spec=None, **fields):
    """The answers to `requests`, one after the other; an error is one too."""

    async def go():
        model = OpenAIModel(spec or spec_of(server, **fields), key, timeouts=timeouts)
        answers = []
        for request in requests or (ASK,):
            try:
                answers.append(await model.complete(request))
            except ModelError as error:
                answers.append(error)
        await model.aclose()
        return answers[0] if len(answers) == 1 else answers

    return asyncio.run(go())


# Answers


def test_an_answer_comes_with_its_usage_and_finish(server):
    server.script(Reply("Grüße 😀 an alle", usage={"prompt_tokens": 20, "completion_tokens": 6}, pieces=4))
    answer = ask(server, key=Key(SECRET))
    assert (answer.text, answer.finish, answer.model) == ("Grüße 😀 an alle", "stop", "test")
    assert answer.usage == TokenUsage(20, 0, 6)
    assert answer.seconds > 0
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.body == {
        "model": "test",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is it?"}],
        "max_tokens": 64,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_every_field_of_a_request_is_sent_and_the_servers_ways_are_kept(server):
    request = FormattedRequest(
        ASK.messages, max_tokens=9_000, temperature=0.5, top_p=0.9, seed=7, stop=("END",), logprobs=True,
        response_format={"type": "json_object"},
    )  # fmt: skip
    spec = dataclasses.replace(
        spec_of(
            server,
            max_tokens_field="max_completion_tokens",
            sends_temperature=False,
            headers=(("X-Title", "lcdoc"), ("user-agent", "mine")),
            extra_body=(("top_k", 5), ("stream", False)),
        ),
        max_output_tokens=4_000,
    )
    ask(server, request, spec=spec)
    (sent,) = server.requests
    fields = {name: value for name, value in sent.body.items() if name not in {"model", "messages", "stream_options"}}
    assert fields == {
        "max_completion_tokens": 4_000,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["END"],
        "logprobs": True,
        "response_format": {"type": "json_object"},
        "top_k": 5,
        "stream": True,
    }
    assert (sent.headers["x-title"], sent.headers["user-agent"]) == ("lcdoc", "mine")


def test_pieces_are_handed_on_as_they_come_and_thinking_is_not(server):
    pieces: list[str] = []
    server.script(Reply("one two three", reasoning="let me see", pieces=("one ", "two ", "three")))
    server.script(Reply("four", reasoning="hm", reasoning_field="reasoning"))
    answers = ask(server, *[dataclasses.replace(ASK, on_text=pieces.append)] * 2)
    assert pieces == ["one ", "two ", "three", "four"]
    assert [answer.reasoning for answer in answers] == ["let me see", "hm"]
    assert [answer.text for answer in answers] == ["one two three", "four"]


def test_logprobs_are_given_where_the_server_gives_them(server):
    server.script(Reply("ab", pieces=("a", "b"), logprobs=True), Reply("ab"))
    given, not_given = ask(server, *[dataclasses.replace(ASK, logprobs=True)] * 2)
    assert [(entry.token, entry.logprob) for entry in given.logprobs] == [("a", -0.25), ("b", -0.5)]
    assert not_given.logprobs is None


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "other"),
        ("eos", "stop"),
    ],
)
def test_finish_reasons(server, reason, finish):
    server.script(Reply("text", finish=reason))
    assert ask(server).finish == finish


def test_a_server_that_does_not_stream_is_understood(server):
    body = {
        "model": "test",
        "choices": [{"message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2},
    }
    server.script(Garbage(json.dumps(body, indent=1).encode(), "application/json"))
    answer = ask(server)
    assert (answer.text, answer.finish, answer.usage) == ("whole", "stop", TokenUsage(9, 0, 2))


def test_what_is_complete_is_not_lost_to_a_server_that_does_not_close(server):
    chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": "text"}, "finish_reason": "stop"}]})
    reader, answer = EventReader(), Answer(max_bytes=100, max_reasoning_bytes=100)
    for event in reader.feed(f"data: {chunk}\n\n".encode()):
        answer.add(event)
    assert answer.complete
    # The connection breaks where the usage should come.
    server.script(Garbage(f'data: {chunk}\n\ndata: {{"choices"'.encode()))
    assert ask(server).text == "text"


# Usage


def test_usage_that_cannot_be_right_is_counted_here(server):
    wrong = [
        None,
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": -5, "completion_tokens": -1},
        {"prompt_tokens": 10**9, "completion_tokens": 10**9},
    ]
    server.script(*(Reply("a short answer", usage=usage) for usage in wrong))
    answers = ask(server, *[ASK] * len(wrong))
    for answer in answers:
        assert answer.usage.estimated
        assert 8 <= answer.usage.tokens_in <= 60
        assert 3 <= answer.usage.tokens_out <= 14


def test_no_estimate_is_above_what_the_server_was_told_to_stop_at(server):
    server.script(Reply("¶ " * 60, usage=None), Cut("¶ " * 60))
    whole, cut = ask(server, *[dataclasses.replace(ASK, max_tokens=12)] * 2)
    assert (whole.usage.estimated, whole.usage.tokens_out) == (True, 12)
    assert (cut.usage.estimated, cut.usage.tokens_out) == (True, 12)


@pytest.mark.parametrize(
    ("stated", "taken", "given"),
    [
        ({"prompt_tokens": 90, "completion_tokens": 9}, TokenUsage(tokens_in=90), TokenUsage(tokens_out=9)),
        (
            {"prompt_tokens": 90, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 64}},
            TokenUsage(90, 64),
            TokenUsage(tokens_out=9),
        ),
        (
            {"prompt_tokens": 90, "completion_tokens": 9, "prompt_cache_hit_tokens": 91},
            TokenUsage(90),
            TokenUsage(0, 0, 9),
        ),
        ({"prompt_tokens": 10_000, "completion_tokens": 9}, None, TokenUsage(tokens_out=9)),
        ({"prompt_tokens": 90, "completion_tokens": 5_000}, TokenUsage(tokens_in=90), None),
        (
            {"prompt_tokens": 90, "completion_tokens": 5_000, "completion_tokens_details": {"reasoning_tokens": 4_900}},
            TokenUsage(tokens_in=90),
            TokenUsage(tokens_out=5_000),
        ),
        ({"prompt_tokens": "12", "completion_tokens": 1.5}, None, None),
        ({"prompt_tokens": True, "completion_tokens": None}, None, None),
        ({}, None, None),
        ("many", None, None),
    ],
)
def test_believable_usage(stated, taken, given):
    assert believable_usage(stated, prompt_bytes=400, max_tokens=64, answer_bytes=40) == (taken, given)


def test_a_server_that_clips_prompts_is_noticed(server, caplog):
    server.default = Reply("short", usage={"prompt_tokens": 2_048, "completion_tokens": 2})
    long = Request((Message("user", "a rather long document " * 4_000),))
    with caplog.at_level(logging.WARNING):
        ask(server, long, long)
    assert caplog.text.count("num_ctx") == 1
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        ask(server, Request((Message("user", "a rather long document " * 300),)))
    assert "num_ctx" not in caplog.text


def test_an_error_instead_of_a_stream_counts_as_its_status(server):
    server.script(Garbage(b'{"error": {"code": 429, "message": "slow down"}}', "application/json"))
    assert isinstance(ask(server), RateLimitError)


# What goes wrong on the way


def test_a_server_that_hangs_is_left_and_its_prompt_counted(server):
    server.script(Hang(), HangMid("some text of an answer"))
    first, middle = ask(server, ASK, ASK, timeouts=QUICK)
    assert isinstance(first, ModelTimeoutError) and first.usage.tokens_in > 0 and first.usage.tokens_out == 0
    assert isinstance(middle, ModelTimeoutError) and middle.usage.tokens_in > 0 and middle.usage.tokens_out >= 4
    assert first.retryable and first.usage.estimated
    server.wait_for(lambda: all(request.aborted for request in server.requests))


def test_keep_alive_lines_are_no_tokens(server):
    server.script(Hang(comments_s=0.05))
    assert isinstance(ask(server, timeouts=QUICK), ModelTimeoutError)


def test_keep_alive_lines_do_no_harm(server):
    server.script(Reply("text", comments=5, drip_s=0.01))
    assert ask(server).text == "text"


def test_the_whole_answer_has_a_time_too(server):
    server.script(Reply("x" * 24 * 400, drip_s=0.05))
    error = ask(server, timeouts=Timeouts(first_token_s=60, idle_s=60, total_s=0.7))
    assert isinstance(error, ModelTimeoutError)
    assert "0.7 s" in str(error)


def test_an_answer_that_is_cut_is_an_error_and_has_cost_something(server):
    text = "the beginning of an answer that goes on"
    server.script(Cut(text), Cut(text, reset=True), Cut(text, clean=True))
    for error in ask(server, ASK, ASK, ASK):
        assert isinstance(error, CutStreamError)
        assert error.usage.estimated
        assert error.usage.tokens_in > 0
    assert error.usage.tokens_out >= 8


def test_no_answer_at_all(server):
    server.script(EmptyChoices(), Reply("", usage={"prompt_tokens": 5, "completion_tokens": 1}), Reply(" \n"), Refuse())
    empty, silent, blank, refused = ask(server, *[ASK] * 4)
    for error in (empty, silent, blank):
        assert isinstance(error, ServerError)
        assert error.retryable
    assert silent.usage == TokenUsage(5, 0, 1)
    assert isinstance(refused, ConnectionFailedError)
    assert refused.usage == TokenUsage()


def test_all_tokens_gone_to_thinking_is_explained_and_not_tried_again(server):
    usage = {"prompt_tokens": 5, "completion_tokens": 64}
    server.script(Reply("", reasoning="on the one hand", finish="length", usage=usage))
    error = ask(server)
    assert isinstance(error, InvalidOutputError)
    assert not error.retryable
    assert "raise max_tokens" in str(error)
    assert error.usage == TokenUsage(5, 0, 64)


def test_a_withheld_answer_is_not_tried_again(server):
    server.script(Reply("", finish="content_filter"))
    error = ask(server)
    assert isinstance(error, RefusedRequestError)
    assert "content filter" in str(error)


@pytest.mark.parametrize(
    "body",
    [
        b"data: {broken\n\n",
        b"data: \xff\xfe\xff\n\n",
        b'data: "no object"\n\n',
        b"no such thing\n",
        b"",
        b"data: " + b"[" * 100_000 + b"\n\n",
        b'data: {"choices": {"0": 1}}\n\n',
        b'data: {"choices": [{"delta": {"content": "a"}}]}\n\nnot an event\n',
    ],
)
def test_what_is_not_the_protocol_is_the_servers_fault(server, body):
    server.script(Garbage(body))
    error = ask(server)
    assert isinstance(error, ServerError)
    assert len(str(error)) < 500


def test_a_web_page_is_a_wrong_address(server):
    server.script(Garbage(b"<!doctype html><title>It works</title>", "text/html"))
    error = ask(server)
    assert isinstance(error, UnknownModelError)
    assert "ends in /v1" in str(error)
    assert not error.retryable


def test_a_web_page_from_a_server_that_has_answered_is_no_wrong_address(server):
    server.script(Reply("fine"), Garbage(b"<!doctype html><title>Back in a minute</title>", "text/html"), Reply("fine"))
    before, page, after = ask(server, ASK, ASK, ASK)
    assert isinstance(page, ServerError) and page.retryable and "web page" in str(page)
    assert (before.text, after.text) == ("fine", "fine")


def test_an_error_within_a_stream_counts_as_its_status(server):
    overloaded = {"error": {"code": 429, "message": "Provider overloaded"}}
    too_long = error_body("This model's maximum context length is 4096 tokens.", code=400)
    server.script(ErrorEvent(), ErrorEvent("some text first"), ErrorEvent(body=overloaded), ErrorEvent(body=too_long))
    died, later, limited, overflow = ask(server, *[ASK] * 4)
    assert isinstance(died, ServerError) and "the engine died" in str(died)
    assert isinstance(later, ServerError) and later.usage.tokens_out > 0
    assert isinstance(limited, RateLimitError)
    assert isinstance(overflow, ContextOverflowError) and overflow.context_window == 4096


def test_an_endless_answer_is_cut_off(server):
    server.script(Reply("abcdefgh" * 10_000, pieces=100))
    pieces: list[str] = []
    answer = ask(server, dataclasses.replace(ASK, max_tokens=10, on_text=pieces.append))
    assert answer.finish == "length"
    assert len(answer.text) == 64 * 10 + 4_096
    assert "".join(pieces) == answer.text


def test_a_server_that_is_not_there():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        error = ask(url)
    assert isinstance(error, ConnectionFailedError)
    assert f"is the server running at {url}?" in str(error)
    assert error.usage == TokenUsage()


def test_what_the_listener_of_the_text_raises_passes_through(server):
    server.default = Reply("one two three", pieces=3)

    def fail(_text):
        raise TimeoutError("the screen is gone")

    async def go():
        model = OpenAIModel(spec_of(server), None, timeouts=PATIENT)
        with pytest.raises(TimeoutError, match="the screen is gone"):
            await model.complete(dataclasses.replace(ASK, on_text=fail))
        await model.aclose()

    asyncio.run(go())


# Cancelling


def test_cancelled_calls_leave_no_connection_behind(server):
    server.default = Hang()

    async def go():
        model = OpenAIModel(spec_of(server), None, timeouts=PATIENT)
        for _ in range(2):
            before = len(server.requests)
            calls = [asyncio.create_task(model.complete(ASK)) for _ in range(100)]
            while len(server.requests) < before + 100:
                await asyncio.sleep(0.01)
            for call in calls:
                call.cancel()
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(end, asyncio.CancelledError) for end in ends)
        pool = model._http._client._transport._pool
        assert pool.connections == []
        server.default = Reply("still there")
        assert (await model.complete(ASK)).text == "still there"
        await model.aclose()

    asyncio.run(go())
    server.wait_for(lambda: sum(request.aborted for request in server.requests) == 200)


def test_a_call_cancelled_in_the_middle_of_its_text_is_seen_by_the_server(server):
    server.script(HangMid("the beginning of it"))

    async def go():
        model = OpenAIModel(spec_of(server), None, timeouts=PATIENT)
        begun = asyncio.Event()
        call = asyncio.create_task(model.complete(dataclasses.replace(ASK, on_text=lambda _text: begun.set())))
        await asyncio.wait_for(begun.wait(), 30)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        server.wait_for(lambda: server.requests[0].aborted)
        await model.aclose()

    asyncio.run(go())


def test_connections_are_used_again_and_outlive_an_event_loop(server):
    model = OpenAIModel(spec_of(server), None, timeouts=PATIENT)

    async def twice():
        await model.complete(ASK)
        await model.complete(ASK)
        return len(model._http._client._transport._pool.connections)

    assert asyncio.run(twice()) == 1
    assert asyncio.run(twice()) == 1  # another loop, in which the first one's connections are of no use
    asyncio.run(model.aclose())


# What is sent of the environment


def test_nothing_of_the_environment_goes_to_a_server_that_is_not_openais(server, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_WEBHOOK_SECRET"):
        monkeypatch.setenv(name, f"ambient-{name}")
    monkeypatch.setenv(
        "OPENAI_CUSTOM_HEADERS", "X-Ambient: ambient-header\nAuthorization: Bearer ambient-token\nAccept: a/b"
    )
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/ambient")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert ask(server).text == "ok"
    assert ask(server, key=Key(SECRET)).text == "ok"
    without, with_key = server.requests
    assert "ambient" not in str(without.headers) + str(with_key.headers)
    assert "authorization" not in without.headers
    assert with_key.headers["authorization"] == f"Bearer {SECRET}"
    assert not [name for name in without.headers if name.startswith(("openai-", "x-stainless-os", "x-stainless-arch"))]


def test_openais_own_server_gets_what_its_client_takes_from_the_environment(monkeypatch):
    from lcdoc.agents.models.connections import new_client

    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    server = Server("https://api.openai.com/v1", "gpt-4o")
    client = new_client(server, "api.openai.com", Key(SECRET), connect_s=1, write_s=1)
    assert client.default_headers["OpenAI-Organization"] == "org-1"
    assert client.default_headers["Authorization"] == f"Bearer {SECRET}"
    assert client.max_retries == 0


def test_a_broken_proxy_setting_is_explained(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "nonsense://x")
    error = ask("https://192.0.2.1/v1")
    assert isinstance(error, ModelConfigError)
    assert "HTTPS_PROXY" in str(error)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8080/v1", "ftp://host/v1", "http://", "http://[::1/v1", "http://h:99999/v1"]
)
def test_an_address_that_is_none(url):
    with pytest.raises(ModelConfigError):
        OpenAIModel(spec_of(url), None)


def test_a_key_that_cannot_be_sent_is_not_shown(server):
    with pytest.raises(ModelConfigError, match="its key") as caught:
        OpenAIModel(spec_of(server), Key("sk-secret\u2026\nsecond-line"))
    assert "second" not in str(caught.value)


def test_a_server_that_sends_elsewhere_is_not_followed(server):
    server.script(Status(307, "", headers={"location": "http://127.0.0.1:9/v1/chat/completions"}))
    error = ask(server)
    assert isinstance(error, UnknownModelError)
    assert "http://127.0.0.1:9/v1" in str(error)
    assert len(server.requests) == 1


def test_neither_logs_nor_errors_hold_keys_or_prompts(server, caplog):
    body = error_body(f"Incorrect API key provided: {SECRET}\x1b[31m\nsecond line " + "and more " * 200)
    server.script(Reply("fine"), Status(401, body))
    with caplog.at_level(logging.DEBUG):
        fine, error = ask(server, ASK, ASK, key=Key(SECRET, source="TEST_KEY"))
    assert fine.text == "fine"
    assert isinstance(error, AuthenticationError)
    message = str(error)
    assert SECRET not in message and "[key]" in message and "check TEST_KEY" in message
    assert "\n" not in message and "\x1b" not in message and len(message) < 450
    ours = [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.INFO or record.name.startswith("lcdoc")
    ]
    assert not [line for line in ours if SECRET in line or "What is it?" in line]


# Fields that a server does not know


def test_fields_the_server_does_not_know_are_left_out_from_then_on(server, caplog):
    server.script(
        Status(400, OPENAI_MAX_TOKENS),
        Status(400, OPENAI_TEMPERATURE),
        Status(422, MISTRAL_STREAM_OPTIONS),
        Status(400, GEMINI_SEED),
        Status(400, DEEPSEEK_LOGPROBS),
    )
    request = dataclasses.replace(ASK, seed=1, logprobs=True)
    with caplog.at_level(logging.WARNING):
        first, second = ask(server, request, request)
    assert first.text == second.text == "ok"
    assert first.usage.estimated and first.logprobs is None
    assert len(server.requests) == 7
    for sent in server.requests[-2:]:
        assert sorted(sent.body) == ["max_completion_tokens", "messages", "model", "stream"]
    assert [
        word for word in ("max_tokens", "temperature", "stream_options", "seed", "logprobs") if word not in caplog.text
    ] == []


def test_requests_at_the_same_time_find_out_together(server):
    def choose(recorded):
        return Status(400, OPENAI_MAX_TOKENS) if "max_tokens" in recorded.body else Reply("fine")

    server.default = choose

    async def go():
        model = OpenAIModel(spec_of(server), None, timeouts=PATIENT)
        answers = await asyncio.gather(*(model.complete(ASK) for _ in range(8)))
        await model.aclose()
        return {answer.text for answer in answers}

    assert asyncio.run(go()) == {"fine"}


@pytest.mark.parametrize("body", FORMATS)
def test_a_refused_response_format_is_the_structured_layers_business(server, body):
    server.script(Status(400, body))
    request = FormattedRequest(ASK.messages, response_format={"type": "json_schema", "json_schema": {"schema": {}}})
    error = ask(server, request)
    assert isinstance(error, UnsupportedParameterError)
    assert error.parameter == "response_format"
    assert len(server.requests) == 1


def test_a_refusal_of_what_the_user_configured_is_told(server):
    server.script(Status(400, GEMINI_SEED))
    assert isinstance(ask(server, extra_body=(("seed", 5),)), RefusedRequestError)
    assert len(server.requests) == 1


def test_retry_after_arrives_with_the_error(server):
    server.script(Status(429, retry_after="3"), Status(503, retry_after="4"))
    limited, down = ask(server, ASK, ASK)
    assert (limited.retry_after_s, down.retry_after_s) == (3, 4)
    assert limited.retryable and down.retryable


# 401 and 404 say what to do


def test_an_unknown_model_is_told_what_there_is(server):
    server.models = [{"id": name} for name in ("tiny-llama", "test-large", "qwen3:8b")]
    server.default = Status(404, error_body("The model `test` does not exist.", code="model_not_found"))
    first, second = ask(server, ASK, ASK)
    for error in (first, second):
        assert isinstance(error, UnknownModelError)
        assert "test-large" in str(error)


def test_a_wrong_address_is_told(server):
    server.models = []
    error = ask(server.url.removesuffix("/v1") + "/nowhere")
    assert isinstance(error, UnknownModelError)
    assert "/nowhere" in str(error)
    assert "ends in /v1" in str(error)


def test_a_missing_key_is_told_with_the_name_of_its_variable(server):
    server.default = Status(401)
    assert "key" in str(ask(server))
    hints = {"https://api.openai.com/v1": "OPENAI_API_KEY", "https://openrouter.ai/api/v1": "OPENROUTER_API_KEY"}
    for url, variable in hints.items():
        host = urlsplit(url).hostname
        assert variable in key_hint(host, None)
        assert "MY_KEY" in key_hint(host, Key(SECRET, source="MY_KEY"))
        assert "MY_HEADER" in key_hint(host, None, (("api-key", Key(SECRET, source="MY_HEADER")),))


def test_a_huge_error_body_is_not_read_to_its_end(server):
    server.script(Status(500, "<html>" + "x" * 3_000_000))
    error = ask(server)
    assert isinstance(error, ServerError)
    assert len(str(error)) < 500
