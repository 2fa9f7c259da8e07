"""How streams end: whole, torn, without a reason, without a byte; told apart, and what follows from it."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest

from lcdoc.agents.models.errors import (
    ContextOverflowError,
    CutStreamError,
    ModelError,
    RetriesExhaustedError,
    ServerError,
)
from lcdoc.agents.models.ledger import Budget, Ledger
from lcdoc.agents.models.limiter import LimitedModel, Limiter
from lcdoc.agents.models.model import Completion, Message, ModelSpec, RateLimits, Request, Server
from lcdoc.agents.models.openai_client import OpenAIModel
from lcdoc.agents.models.retry import RetryingModel, RetryPolicy
from lcdoc.agents.models.wire import FormattedRequest
from lcdoc.tests.servers.chat_server import Behaviour, ChatServer, EmptyChoices, Garbage, Reply, Status, error_body

ASK = Request((Message("user", "What is it?"),), max_tokens=64)
BARE = Reply("some text", finish=None, usage=None)
"""Text and `[DONE]`, and nothing that says whether it is all."""
TOO_LONG = error_body(
    "This model's maximum context length is 512 tokens. However, you requested 2026 tokens.",
    code="context_length_exceeded",
)


@pytest.fixture
def server():
    with ChatServer() as server:
        yield server


def client(server, **limits):
    return OpenAIModel(ModelSpec("local/test", 8192, Server(server.url, "test"), limits=RateLimits(**limits)), None)


async def outcome(model, request):
    try:
        return await model.complete(request)
    except ModelError as error:
        return error


def ask(server, *requests):
    async def go():
        model = client(server)
        ends = [await outcome(model, request) for request in requests]
        await model.aclose()
        return ends

    return asyncio.run(go())


def test_a_server_that_gives_reasons_has_broken_off_what_ends_without_one(server):
    server.script(Reply("whole"), BARE, BARE, BARE)
    whole, *torn = ask(server, *[ASK] * 4)
    assert whole.finish == "stop"
    for error in torn:
        assert isinstance(error, CutStreamError)
        assert error.interrupted and error.retryable
        assert error.usage.tokens_in > 0 < error.usage.tokens_out


def test_a_server_that_never_gives_reasons_is_believed_the_second_time(server):
    server.default = BARE
    first, second, third = ask(server, *[ASK] * 3)
    assert isinstance(first, CutStreamError)
    assert [(one.text, one.finish) for one in (second, third)] == [("some text", "other")] * 2


def test_a_reason_given_later_counts_against_the_endings_without(server):
    server.script(BARE, BARE, Reply("whole"), BARE)
    assert [type(end) for end in ask(server, *[ASK] * 4)] == [CutStreamError, Completion, Completion, CutStreamError]


def test_endings_of_requests_that_met_prove_nothing(server):
    server.default = BARE

    async def go():
        model = client(server)
        together = await asyncio.gather(*(outcome(model, ASK) for _ in range(8)))
        alone = [await outcome(model, ASK) for _ in range(2)]
        await model.aclose()
        return together, alone

    together, alone = asyncio.run(go())
    assert [type(end) for end in together] == [CutStreamError] * 8
    assert [type(end) for end in alone] == [CutStreamError, Completion]


def test_a_sum_of_tokens_is_only_given_of_what_was_written_to_its_end(server):
    server.script(replace(BARE, usage={"prompt_tokens": 9, "completion_tokens": 3}))
    (answer,) = ask(server, ASK)
    assert (answer.text, answer.finish, answer.usage.tokens_out) == ("some text", "other", 3)


def test_a_whole_json_object_is_whole_without_a_reason(server):
    request = FormattedRequest(ASK.messages, response_format={"type": "json_object"})
    server.script(Reply("whole"), replace(BARE, text='{"found": true}'), replace(BARE, text='{"found": tr'))
    _, whole, torn = ask(server, *[request] * 3)
    assert whole.text == '{"found": true}'
    assert isinstance(torn, CutStreamError)


def test_an_ending_without_text_is_never_an_answer(server):
    server.script(Reply("", finish=None, usage=None), Reply("", finish=None, usage=None), EmptyChoices())
    first, second, empty = ask(server, *[ASK] * 3)
    assert isinstance(first, CutStreamError)
    assert isinstance(second, ServerError) and isinstance(empty, ServerError)


# A server that breaks an answer off when another request comes


@dataclass
class OneAtATime:
    """Gives its reasons, but ends what it is at without one as soon as another request is there."""

    latest: Counter = field(default_factory=Counter)

    def __call__(self, _recorded):
        self.latest["request"] += 1
        return Interruptible(self, self.latest["request"])


@dataclass(frozen=True)
class Interruptible(Behaviour):
    house: OneAtATime
    number: int
    is_answer = True

    async def play(self, exchange):
        exchange.open_stream()
        for _ in range(4):
            if self.house.latest["request"] != self.number:
                exchange.events("[DONE]", last=True)
                return
            exchange.events({"choices": [{"index": 0, "delta": {"content": "word "}}]})
            await asyncio.sleep(0.004)
        exchange.events({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, "[DONE]", last=True)


def test_requests_to_a_server_that_takes_one_at_a_time_do_not_starve_each_other(server):
    server.default = OneAtATime()
    policy = RetryPolicy(attempts=5, first_wait_s=0.01)

    async def go():
        inner = client(server, concurrency=16)
        limiter = Limiter(inner.spec.limits)
        model = RetryingModel(LimitedModel(inner, limiter), policy, Ledger(Budget()))
        asked = [replace(ASK, messages=(Message("user", f"number {number}"),)) for number in range(40)]
        ends = await asyncio.gather(*(outcome(model, request) for request in asked))
        await inner.aclose()
        return ends, limiter.window

    ends, window = asyncio.run(go())
    assert [end.text if isinstance(end, Completion) else end for end in ends] == ["word word word word "] * 40
    assert window <= 2
    # The first burst is lost, and now and then a second request that is tried: not one more for every answer.
    assert len(server.requests) < 80


# 200 and not a byte


def silent_when_streamed(otherwise):
    return lambda recorded: Garbage(b"") if recorded.body["stream"] else otherwise


def test_an_overflow_that_is_silent_in_a_stream_is_heard_unstreamed(server):
    server.default = silent_when_streamed(Status(400, TOO_LONG))
    error, again = ask(server, ASK, ASK)
    assert isinstance(error, ContextOverflowError) and not error.retryable
    assert error.context_window == 512
    assert isinstance(again, ContextOverflowError)
    bodies = [request.body for request in server.requests]
    assert [body["stream"] for body in bodies] == [True, False, True], "what was said once is remembered"
    assert bodies[1]["max_tokens"] == 1 and "stream_options" not in bodies[1]
    assert bodies[1]["messages"] == bodies[0]["messages"]


@pytest.mark.parametrize("otherwise", [Reply("x"), Status(500), Garbage(b""), Status(400, error_body("no"))])
def test_a_silence_without_a_reason_is_the_servers_fault_and_asked_about_once(server, otherwise):
    server.default = silent_when_streamed(otherwise)

    async def go():
        inner = client(server)
        model = RetryingModel(inner, RetryPolicy(attempts=3, first_wait_s=0.01), Ledger(Budget()))
        try:
            return await outcome(model, ASK)
        finally:
            await inner.aclose()

    error = asyncio.run(go())
    assert isinstance(error, RetriesExhaustedError) and isinstance(error.__cause__, ServerError)
    assert [request.body["stream"] for request in server.requests] == [True, False, True, True]


def test_what_the_question_about_a_silence_took_is_counted(server):
    server.default = silent_when_streamed(Reply("x", usage={"prompt_tokens": 7, "completion_tokens": 1}))
    first, second = ask(server, ASK, ASK)
    assert first.usage.tokens_in == second.usage.tokens_in + 7
    assert first.usage.tokens_out == 1


def test_the_question_about_a_silence_is_not_shown_as_text(server):
    server.default = silent_when_streamed(Reply("x"))
    pieces = []
    ask(server, replace(ASK, on_text=pieces.append))
    assert pieces == []
