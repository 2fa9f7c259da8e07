"""Trying again: what, how often, how long, and what is said when it is given up."""

import asyncio
import logging
import random
from itertools import pairwise

import pytest

from lcdoc.agents.models.budget import Budget, BudgetedModel, Ledger
from lcdoc.agents.models.errors import (
    AuthenticationError,
    BudgetExceededError,
    ConnectionFailedError,
    CutStreamError,
    ModelTimeoutError,
    QuotaError,
    RateLimitError,
    RetriesExhaustedError,
    ServerError,
)
from lcdoc.agents.models.limiter import LimitedModel, Limiter
from lcdoc.agents.models.model import Completion, Message, ModelSpec, Prices, RateLimits, Request, Server, TokenUsage
from lcdoc.agents.models.openai_client import OpenAIModel
from lcdoc.agents.models.queue_time import in_queue
from lcdoc.agents.models.retry import RetryingModel, RetryPolicy
from lcdoc.tests.agents.models.virtual_time import now, run_in_virtual_time
from lcdoc.tests.servers.chat_server import ChatServer, Cut, Hang, Reply, Status

REQUEST = Request((Message("user", "hi"),))
BROKEN = ServerError("m", "500 from the server", "try later")


class Inner:
    """Does one thing of `script` at each attempt: raises an error, after any text before it; else answers."""

    spec = ModelSpec("m", 8_192)

    def __init__(self, *script, seconds=0.0, queue_s=0.0):
        self.script = list(script)
        self.seconds = seconds
        self.queue_s = queue_s
        self.at = []
        self.requests = []

    def count_tokens(self, text):
        return len(text)

    async def complete(self, request):
        self.requests.append(request)
        if self.queue_s:
            with in_queue():
                await asyncio.sleep(self.queue_s)
        self.at.append(now())
        await asyncio.sleep(self.seconds)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        text, error = step if isinstance(step, tuple) else ("", step)
        for piece in text:
            request.on_text(piece)
        if error is not None:
            raise error
        request.on_text("fine")
        return Completion("fine", usage=TokenUsage(10, 0, 1))


class Longest(random.Random):
    """Draws the longest wait there may be."""

    def uniform(self, a, b):
        return b


async def ask(inner, *, policy=None, seconds=None, rng=None, request=REQUEST):
    ledger = Ledger(Budget(seconds=seconds), clock=asyncio.get_running_loop().time)
    return await RetryingModel(inner, policy or RetryPolicy(), ledger, rng=rng).complete(request)


def attempts(inner, **options):
    """How the request ended, and the waits before each further attempt."""

    async def main():
        try:
            result = await ask(inner, **options)
        except Exception as error:  # noqa: BLE001 - returned to be looked at
            result = error
        return result, [b - a - inner.seconds for a, b in pairwise(inner.at)]

    return run_in_virtual_time(main())


def test_what_passes_is_tried_again():
    inner = Inner(BROKEN, RateLimitError("m", "429"), CutStreamError("m", "cut"), None)
    completion, waits = attempts(inner)
    assert completion.text == "fine"
    assert len(waits) == 3
    assert all(request == REQUEST for request in inner.requests)


@pytest.mark.parametrize("error", [AuthenticationError("m", "401"), QuotaError("m", "no credit"), ValueError("bug")])
def test_what_does_not_pass_is_not_tried_again(error):
    result, waits = attempts(Inner(error))
    assert result is error
    assert waits == []


def test_waits_grow_to_a_bound_and_the_attempts_end():
    inner = Inner(BROKEN)
    error, waits = attempts(inner, rng=Longest())
    assert waits == pytest.approx([0.5, 1, 2, 4, 8], abs=0.01)
    assert isinstance(error, RetriesExhaustedError)
    assert not error.retryable
    assert error.__cause__ is BROKEN
    assert str(error) == "model m: 500 from the server (tried 6 times in 16 s); try later"
    _, waits = attempts(Inner(BROKEN), rng=Longest(), policy=RetryPolicy(attempts=9, longest_wait_s=5, ceiling_s=1e9))
    assert waits == pytest.approx([0.5, 1, 2, 4, 5, 5, 5, 5], abs=0.01)


def test_waits_are_random_so_that_callers_do_not_come_back_together():
    firsts = [attempts(Inner(BROKEN, None), rng=random.Random(seed))[1][0] for seed in range(40)]
    assert len(set(firsts)) == 40
    assert all(0 <= wait <= 0.51 for wait in firsts)
    assert min(firsts) < 0.1
    assert max(firsts) > 0.4
    assert attempts(Inner(BROKEN), rng=random.Random(1))[1] == attempts(Inner(BROKEN), rng=random.Random(1))[1]


@pytest.mark.parametrize("kind", [RateLimitError, ServerError])
def test_what_the_server_asks_to_wait_is_the_least(kind):
    result, waits = attempts(Inner(kind("m", "later", retry_after_s=40.0), None))
    assert result.text == "fine"
    assert 40 <= waits[0] <= 40.51


def test_a_server_that_asks_for_too_long_is_not_waited_for():
    error, waits = attempts(Inner(RateLimitError("m", "429", "slow down", retry_after_s=600.0)))
    assert waits == []
    assert isinstance(error, RetriesExhaustedError)
    assert "429 (tried once in 0.0 s; the next attempt would have to wait 60" in str(error)
    assert str(error).endswith("; slow down")


def test_the_ceiling_ends_it_before_the_attempts_do():
    policy = RetryPolicy(attempts=1_000, ceiling_s=100)
    inner = Inner(BROKEN, seconds=9.0)
    error, waits = attempts(inner, policy=policy, rng=Longest())
    assert isinstance(error, RetriesExhaustedError)
    assert sum(waits) + 9.0 * (len(waits) - 1) <= 100
    assert 4 <= len(waits) <= 8


def test_long_attempts_and_our_own_queues_do_not_eat_the_ceiling():
    result, _ = attempts(Inner(CutStreamError("m", "cut"), None, seconds=1_000.0))
    assert result.text == "fine"
    inner = Inner(BROKEN, BROKEN, BROKEN, None, queue_s=1_000.0)
    result, _ = attempts(inner)
    assert result.text == "fine"
    error, _ = attempts(Inner(BROKEN, queue_s=1_000.0), rng=Longest())
    assert "tried 6 times in 16 s" in str(error)


def test_a_server_that_is_not_there_is_given_up_soon():
    error, waits = attempts(Inner(ConnectionFailedError("m", "refused")), rng=Longest())
    assert isinstance(error, RetriesExhaustedError)
    assert len(waits) == 2
    assert sum(waits) < 5


def test_an_answer_that_never_begins_is_waited_for_twice():
    error, waits = attempts(Inner(ModelTimeoutError("m", "nothing for 120 s"), seconds=120.0))
    assert isinstance(error, RetriesExhaustedError)
    assert len(waits) == 1


def test_an_answer_that_stops_in_the_middle_is_tried_as_often_as_any():
    stalled = ("some text", ModelTimeoutError("m", "nothing for 60 s"))
    assert len(attempts(Inner(stalled))[1]) == 5
    thinking = ModelTimeoutError("m", "nothing for 60 s", usage=TokenUsage(10, 0, 50))
    assert len(attempts(Inner(thinking))[1]) == 5


def test_failures_of_different_kinds_are_counted_apart():
    refused, slow = ConnectionFailedError("m", "refused"), ModelTimeoutError("m", "nothing")
    result, _ = attempts(Inner(refused, slow, BROKEN, refused, None))
    assert result.text == "fine"


def test_an_attempt_that_is_made_again_announces_that_the_text_begins_anew():
    heard = []
    inner = Inner(BROKEN, ("ab", CutStreamError("m", "cut")), BROKEN, None)
    result, _ = attempts(inner, request=Request(REQUEST.messages, on_text=heard.append))
    assert result.text == "fine"
    assert heard == ["a", "b", "", "fine"]
    heard.clear()
    attempts(Inner(("x", BROKEN)), policy=RetryPolicy(attempts=1), request=Request((), on_text=heard.append))
    assert heard == ["x"]


def test_no_attempt_is_waited_for_that_the_runs_time_does_not_admit():
    error, waits = attempts(Inner(RateLimitError("m", "429", retry_after_s=30.0), seconds=3.0), seconds=20)
    assert waits == []
    assert isinstance(error, RetriesExhaustedError)
    assert "tried once in 3.0 s; the run's last 17 s are too short for another" in str(error)


def test_the_end_of_the_runs_time_is_a_cap():
    error, _ = attempts(Inner(BROKEN, seconds=20.0), seconds=20)
    assert isinstance(error, BudgetExceededError)
    assert error.cap == "seconds"
    assert error.__cause__ is BROKEN


def test_cancelling_ends_the_wait():
    async def main():
        inner = Inner(RateLimitError("m", "429", retry_after_s=100.0))
        task = asyncio.create_task(ask(inner))
        await asyncio.sleep(5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(inner.at)

    assert run_in_virtual_time(main()) == 1


def test_each_retry_is_logged(caplog):
    with caplog.at_level(logging.INFO, logger="lcdoc.agents.models.retry"):
        attempts(Inner(BROKEN, None))
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "500 from the server" in caplog.text
    assert "attempt 1" in caplog.text


@pytest.mark.parametrize(
    "figures", [{"attempts": 0}, {"connect_attempts": 0}, {"first_wait_s": -1}, {"ceiling_s": float("nan")}]
)
def test_a_policy_that_makes_no_sense_is_an_error(figures):
    with pytest.raises(ValueError):
        RetryPolicy(**figures)


def test_every_attempt_is_paid_for_and_the_caps_stop_it():
    async def main():
        inner = Inner(CutStreamError("m", "cut", usage=TokenUsage(10, 0, 5)))
        ledger = Ledger(Budget(calls=4))
        model = RetryingModel(BudgetedModel(inner, ledger), RetryPolicy(), ledger)
        with pytest.raises(BudgetExceededError):
            await model.complete(REQUEST)
        assert len(inner.at) == 4
        total = ledger.total()
        assert (total.calls, total.failed_calls, total.tokens) == (4, 4, 60)
        assert ledger.exhausted == "calls"

    run_in_virtual_time(main())


def test_through_http_every_layer_does_its_part():
    """A 503, a refusal with a wait, a stream that is cut: then the answer, and the bill for all of it."""
    heard, usage = [], {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}

    async def main(server):
        spec = ModelSpec(
            "m", 8_192, server=Server(server.url, "test"), prices=Prices(1.0, 1.0), limits=RateLimits(concurrency=4)
        )
        client, ledger, limiter = OpenAIModel(spec, None), Ledger(Budget(calls=10, usd=1.0)), Limiter(spec.limits)
        model = RetryingModel(
            BudgetedModel(LimitedModel(client, limiter), ledger), RetryPolicy(first_wait_s=0.01), ledger
        )
        completion = await model.complete(Request(REQUEST.messages, on_text=heard.append))
        await client.aclose()
        assert limiter.window == 2, "halved twice, and one more after the answer"
        return completion, ledger.total()

    with ChatServer() as server:
        server.script(
            Status(503), Status(429, retry_after="0.05"), Cut("Once upon a time"), Reply("hello", usage=usage)
        )
        completion, total = asyncio.run(main(server))
        _, second, third, fourth = server.requests
    assert completion.text == "hello"
    assert third.at - second.at >= 0.05
    before, _, after = "|".join(heard).partition("||")
    assert "Once upon a time".startswith(before.replace("|", ""))
    assert after.replace("|", "") == "hello"
    assert (total.calls, total.failed_calls) == (4, 3)
    assert total.tokens > 14, "the cut answer cost something too"
    assert total.estimated
    assert fourth.finished


def test_through_http_the_runs_time_ends_a_server_that_hangs():
    async def main(server):
        spec = ModelSpec("m", 8_192, server=Server(server.url, "test"))
        client, ledger = OpenAIModel(spec, None), Ledger(Budget(seconds=1.0))
        limited = LimitedModel(client, Limiter(spec.limits))
        model = RetryingModel(BudgetedModel(limited, ledger), RetryPolicy(), ledger)
        with pytest.raises(BudgetExceededError) as caught:
            await model.complete(REQUEST)
        await client.aclose()
        return caught.value.cap, ledger.total()

    with ChatServer() as server:
        server.script(Hang())
        cap, total = asyncio.run(main(server))
    assert cap == "seconds"
    assert (total.calls, total.failed_calls, total.estimated) == (1, 1, True)
    assert total.tokens_in > 0


def test_through_http_a_server_that_is_not_there_is_given_up_soon():
    async def main(url):
        spec = ModelSpec("m", 8_192, server=Server(url, "test"))
        client, ledger = OpenAIModel(spec, None), Ledger()
        limited = LimitedModel(client, Limiter(spec.limits))
        model = RetryingModel(BudgetedModel(limited, ledger), RetryPolicy(first_wait_s=0.05), ledger)
        with pytest.raises(RetriesExhaustedError, match="tried 3 times"):
            await model.complete(REQUEST)
        await client.aclose()
        return ledger.total()

    with ChatServer() as server:
        url = server.url
    total = asyncio.run(main(url))
    assert (total.calls, total.failed_calls, total.tokens) == (3, 3, 0)


class Busy:
    """A server that answers so many requests in any minute, refuses the rest, and does not say when to come back."""

    spec = ModelSpec("m", 8_192)

    def __init__(self, per_minute):
        self.per_minute = per_minute
        self.answered = []
        self.refused = 0

    def count_tokens(self, text):
        return len(text)

    async def complete(self, request):
        await asyncio.sleep(0.5)
        if sum(time > now() - 60 for time in self.answered) >= self.per_minute:
            self.refused += 1
            raise RateLimitError("m", "429")
        self.answered.append(now())
        return Completion("yes", usage=TokenUsage(10, 0, 1))


def test_a_limit_nobody_told_us_is_got_through():
    async def main():
        server, ledger = Busy(per_minute=20), Ledger()
        limited = LimitedModel(server, Limiter(RateLimits(concurrency=8), clock=asyncio.get_running_loop().time))
        models = [
            RetryingModel(BudgetedModel(limited, ledger), RetryPolicy(), ledger, rng=random.Random(seed))
            for seed in range(60)
        ]
        results = await asyncio.gather(*(model.complete(REQUEST) for model in models), return_exceptions=True)
        failed = [result for result in results if isinstance(result, Exception)]
        assert len(failed) == 0, failed
        return server.refused

    assert run_in_virtual_time(main()) < 100


def test_a_limit_nobody_told_us_is_got_through_one_by_one():
    async def main():
        ledger = Ledger()
        limiter = Limiter(RateLimits(concurrency=8), clock=asyncio.get_running_loop().time)
        limited = LimitedModel(Busy(per_minute=10), limiter)
        model = RetryingModel(BudgetedModel(limited, ledger), RetryPolicy(), ledger, rng=random.Random(7))
        for _ in range(35):
            assert (await model.complete(REQUEST)).text == "yes"

    run_in_virtual_time(main())
