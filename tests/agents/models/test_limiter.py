"""The limiter: rates in virtual time, concurrency, order, and that nothing is lost whatever is cancelled."""

import asyncio
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.agents.models.errors import (
    ConnectionFailedError,
    CutStreamError,
    ModelTimeoutError,
    RateLimitError,
    RefusedRequestError,
    ServerError,
)
from lcdoc.agents.models.limiter import LimitedModel, Limiter
from lcdoc.agents.models.model import Completion, Message, ModelSpec, RateLimits, Request, TokenUsage
from lcdoc.agents.models.pace import LONGEST_PAUSE_S
from lcdoc.agents.models.queue_time import in_queue, watch_queues
from lcdoc.agents.models.token_bucket import Bucket
from lcdoc.tests.agents.models.virtual_time import now, run_in_virtual_time, settle_down

TOO_MUCH = RateLimitError("m", "429")


def limiter(**limits):
    return Limiter(RateLimits(**limits), clock=asyncio.get_running_loop().time)


async def call(limiter, seconds=1.0, *, tokens=0, used=None, error=None, log=None, name=None):
    async with limiter.slot(tokens) as slot:
        if log is not None:
            log.append((now(), name))
        await asyncio.sleep(seconds)
        if used is not None:
            slot.used(used)
        if error is not None:
            raise error


async def fail(limiter, error, seconds=0.0):
    with pytest.raises(type(error)):
        await call(limiter, seconds, error=error)


def most_in_a_minute(times):
    return max(sum(start <= time < start + 60 - 1e-6 for time in times) for start in times)


@settings(max_examples=40, deadline=None)
@given(
    per_minute=st.integers(1, 3_000),
    pauses=st.lists(st.floats(0, 20), max_size=30),
)
def test_a_bucket_never_lets_a_minute_have_more_than_its_limit(per_minute, pauses):
    bucket, time, taken = Bucket(per_minute, 0.0), 0.0, []
    for pause in [*pauses, 0.0]:
        time += pause
        for _ in range(min(40, per_minute)):
            time += bucket.wait_s(1, time)
            bucket.take(1)
            taken.append(time)
    assert most_in_a_minute(taken) <= per_minute


def test_a_bucket_that_is_always_asked_gives_nearly_all_it_may():
    bucket, time = Bucket(600, 0.0), 0.0
    for _ in range(6_000):
        time += bucket.wait_s(1, time)
        bucket.take(1)
    assert 600 <= time < 600 / 0.94


def test_requests_are_spread_over_the_minute():
    async def main():
        slots, log = limiter(requests_per_minute=60, concurrency=500), []
        await asyncio.gather(*(call(slots, 0.1, log=log) for _ in range(150)))
        return [time for time, _ in log]

    times = run_in_virtual_time(main())
    assert most_in_a_minute(times) <= 60
    assert times[2] == times[0] < times[4], "a small burst passes at once, a large one does not"
    assert 120 < times[-1] - times[0] < 160


def test_tokens_are_spread_over_the_minute_by_what_was_really_used():
    async def main():
        slots, log = limiter(tokens_per_minute=60_000, concurrency=500), []
        await asyncio.gather(*(call(slots, 0.0, tokens=2_000, used=500, log=log) for _ in range(240)))
        generous = log[-1][0] - log[0][0]
        slots, log = limiter(tokens_per_minute=60_000, concurrency=500), []
        await asyncio.gather(*(call(slots, 0.0, tokens=2_000, log=log) for _ in range(240)))
        return generous, log[-1][0] - log[0][0]

    corrected, uncorrected = run_in_virtual_time(main())
    assert 110 < corrected < 130  # 120,000 tokens
    assert 470 < uncorrected < 510  # 480,000 tokens


def test_more_tokens_than_reserved_are_owed():
    async def main():
        slots = limiter(tokens_per_minute=60_000)
        start = now()
        await call(slots, 0.0, tokens=10, used=30_000)
        await call(slots, 0.0, tokens=10)
        return now() - start

    assert 28 < run_in_virtual_time(main()) < 33


def test_a_request_larger_than_a_minute_passes_alone():
    async def main():
        slots, log = limiter(tokens_per_minute=1_000), []
        start = now()
        await asyncio.gather(*(call(slots, 0.0, tokens=5_000, log=log) for _ in range(3)))
        return [time - start for time, _ in log]

    first, second, third = run_in_virtual_time(main())
    assert first == 0
    assert 290 < second < 330
    assert 590 < third < 660


def test_no_more_at_once_than_the_limit_and_in_order():
    async def main():
        slots, log = limiter(concurrency=3), []
        calls = [asyncio.create_task(call(slots, 1.0, log=log, name=name)) for name in range(10)]
        await settle_down()
        assert (slots.in_flight, slots.waiting) == (3, 7)
        await asyncio.gather(*calls)
        assert (slots.in_flight, slots.waiting) == (0, 0)
        return log

    log = run_in_virtual_time(main())
    assert [name for _, name in log] == list(range(10))
    assert [round(time - log[0][0]) for time, _ in log] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]


def test_a_small_request_does_not_overtake_a_large_one():
    async def main():
        slots, log = limiter(tokens_per_minute=60_000), []
        await call(slots, 0.0, tokens=3_000)
        large = asyncio.create_task(call(slots, 0.0, tokens=3_000, log=log, name="large"))
        await asyncio.sleep(1)  # 950 tokens are there again
        small = asyncio.create_task(call(slots, 0.0, tokens=1, log=log, name="small"))
        await asyncio.gather(large, small)
        return [name for _, name in log]

    assert run_in_virtual_time(main()) == ["large", "small"]


def test_a_burst_of_refusals_halves_once_and_answers_bring_it_back():
    async def main():
        slots = limiter(concurrency=8)
        await asyncio.gather(*(fail(slots, TOO_MUCH, 0.1) for _ in range(8)))
        assert slots.window == 4
        for expected in (5, 6, 7, 8, 8):
            await asyncio.gather(*(call(slots, 0.1) for _ in range(slots.window)))
            assert slots.window == expected
        for expected in (4, 2, 1, 1):
            await fail(slots, TOO_MUCH)
            assert slots.window == expected

    run_in_virtual_time(main())


def test_refusals_in_a_row_hold_everybody_back_for_longer_each_time():
    async def main():
        slots, times = limiter(concurrency=1), []
        for _ in range(9):
            await fail(slots, TOO_MUCH)
            times.append(now())
        await call(slots, 0.0)
        waits = [later - earlier for earlier, later in pairwise(times)]
        await fail(slots, TOO_MUCH)
        start = now()
        await call(slots, 0.0)
        return waits, now() - start

    waits, after_an_answer = run_in_virtual_time(main())
    assert waits == pytest.approx([0, 2, 8, 30, 30, 30, 30, 30], abs=0.01)
    assert after_an_answer == 0


@pytest.mark.parametrize(
    ("error", "slower"),
    [
        (ServerError("m", "overloaded", retry_after_s=0.0), True),
        (ModelTimeoutError("m", "no token"), True),
        (ServerError("m", "503: no worker is free"), True),
        (ServerError("m", "the server answered 529 and nothing else"), True),
        (ServerError("m", "500: error 503 in module"), False),
        (ConnectionFailedError("m", "refused"), False),
        (RefusedRequestError("m", "400"), False),
        (ValueError("a bug"), False),
    ],
)
def test_only_what_means_too_much_slows_down(error, slower):
    async def main():
        slots = limiter(concurrency=8)
        await fail(slots, error)
        return slots.window

    assert run_in_virtual_time(main()) == (4 if slower else 8)


def test_a_server_that_breaks_answers_off_is_soon_asked_for_one_at_a_time():
    torn = CutStreamError("m", "it ended without a reason", interrupted=True)

    async def main():
        slots = limiter(concurrency=16)
        await fail(slots, CutStreamError("m", "the connection ended"))
        assert slots.window == 16
        await asyncio.gather(*(fail(slots, torn, 0.1) for _ in range(8)))
        assert slots.window == 8
        await asyncio.gather(*(fail(slots, torn, 0.1) for _ in range(8)))
        assert slots.window == 1
        start = now()
        # Two at once are tried more and more seldom.
        for answers in (4, 8, 16, 32, 64, 64, 64):
            for _ in range(answers):
                assert slots.window == 1
                await call(slots, 0.0)
            assert slots.window == 2
            await fail(slots, torn)
        assert now() == start, "nobody had to pause"

    run_in_virtual_time(main())


def test_an_answer_broken_off_by_chance_does_no_lasting_harm():
    torn = CutStreamError("m", "it ended without a reason", interrupted=True)

    async def main():
        slots = limiter(concurrency=8)
        for _ in range(20):
            await fail(slots, torn)
            assert slots.window == 4
            for _ in range(60):
                await asyncio.gather(*(call(slots, 0.1) for _ in range(slots.window)))
            assert slots.window == 8

    run_in_virtual_time(main())


def test_everybody_waits_as_long_as_the_server_asks():
    async def main():
        slots, log = limiter(concurrency=8), []
        await fail(slots, RateLimitError("m", "429", retry_after_s=20.0))
        start = now()
        await asyncio.gather(*(call(slots, 0.0, log=log) for _ in range(5)))
        assert [time - start for time, _ in log] == pytest.approx([20] * 5, abs=0.01)
        await fail(slots, RateLimitError("m", "429", retry_after_s=LONGEST_PAUSE_S + 1))
        start = now()
        await call(slots, 0.0)
        assert now() - start < 2, "nobody would wait that long: the next request finds out for itself"

    run_in_virtual_time(main())


def test_a_pause_set_while_others_wait_holds_for_them_and_ends():
    async def main():
        slots, log = limiter(concurrency=2), []
        failing = asyncio.create_task(fail(slots, RateLimitError("m", "429", retry_after_s=10.0), 1.0))
        start = now()
        await asyncio.gather(*(call(slots, 2.0, log=log, name=name) for name in range(3)), failing)
        return [(round(time - start), name) for time, name in log]

    assert run_in_virtual_time(main()) == [(0, 0), (11, 1), (13, 2)]


def test_a_cancelled_waiter_gives_its_place_back():
    async def main():
        slots, log = limiter(concurrency=1), []
        first = asyncio.create_task(call(slots, 1.0, log=log, name="first"))
        await settle_down()
        second = asyncio.create_task(call(slots, 1.0, log=log, name="second"))
        third = asyncio.create_task(call(slots, 1.0, log=log, name="third"))
        await settle_down()
        second.cancel()
        await asyncio.gather(first, third)
        assert second.cancelled()
        assert (slots.in_flight, slots.waiting) == (0, 0)
        return [name for _, name in log]

    assert run_in_virtual_time(main()) == ["first", "third"]


def test_a_large_request_that_leaves_lets_the_next_one_go_at_once():
    async def main():
        slots, log = limiter(tokens_per_minute=6_000), []
        await call(slots, 0.0, tokens=200)
        start = now()
        large = asyncio.create_task(call(slots, 0.0, tokens=300))
        small = asyncio.create_task(call(slots, 0.0, tokens=50, log=log))
        await settle_down()
        large.cancel()
        await small
        return log[0][0] - start

    assert run_in_virtual_time(main()) == 0


def test_cancelled_at_the_moment_of_its_turn_returns_slot_and_tokens():
    async def main():
        slots = limiter(concurrency=1, tokens_per_minute=6_000)
        entered = []
        async with slots.slot(0):
            waiting = asyncio.create_task(call(slots, 1.0, tokens=300, log=entered))
            await settle_down()
        # The turn is given, the task has not run since.
        assert (slots.in_flight, slots.waiting) == (1, 0)
        waiting.cancel()
        await settle_down()
        assert waiting.cancelled()
        assert not entered
        assert slots.in_flight == 0
        start = now()
        await call(slots, 0.0, tokens=300)
        return now() - start

    assert run_in_virtual_time(main()) == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_nothing_is_lost_whatever_happens(seed):
    rng = random.Random(seed)

    async def one(slots):
        error = rng.choice([None, None, None, TOO_MUCH, RateLimitError("m", "429", retry_after_s=1.5), ValueError()])
        tokens = rng.randrange(400)
        await call(slots, rng.choice([0.0, 0.3, 1.0]), tokens=tokens, used=rng.randrange(600), error=error)

    async def main():
        slots = limiter(concurrency=4, requests_per_minute=600, tokens_per_minute=60_000)
        tasks = []
        for _ in range(120):
            tasks.append(asyncio.create_task(one(slots)))
            if rng.random() < 0.3:
                await asyncio.sleep(rng.choice([0.0, 0.1, 0.3]))
            if rng.random() < 0.4:
                rng.choice(tasks).cancel()
            assert 0 <= slots.in_flight <= 4
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (slots.in_flight, slots.waiting) == (0, 0)
        # Every slot can be had again.
        await asyncio.gather(*(call(slots, 0.1) for _ in range(40)))
        assert 1 <= slots.window <= 4

    run_in_virtual_time(main())


def test_ten_thousand_waiting_calls_all_get_their_turn_in_order():
    async def main():
        slots, log = limiter(concurrency=16, requests_per_minute=100_000), []
        await asyncio.gather(*(call(slots, 0.01, log=log, name=name) for name in range(10_000)))
        return [name for _, name in log]

    assert run_in_virtual_time(main()) == list(range(10_000))


def test_it_works_in_one_event_loop_after_another():
    slots = Limiter(RateLimits(concurrency=1, requests_per_minute=6_000))

    async def left_behind():
        async with slots.slot():
            for _ in range(3):
                asyncio.create_task(call(slots, 0.0))  # noqa: RUF006 - ends with its loop
            await asyncio.sleep(0)

    async def again():
        await asyncio.wait_for(asyncio.gather(*(call(slots, 0.0) for _ in range(3))), 30)

    asyncio.run(left_behind())
    asyncio.run(again())
    assert (slots.in_flight, slots.waiting) == (0, 0)


def test_waiters_of_a_loop_that_was_closed_under_them_are_in_nobodys_way():
    time = [0.0]
    slots = Limiter(RateLimits(requests_per_minute=600), clock=lambda: time[0])
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it would tell of tasks that never end
    left = [loop.create_task(call(slots, 0.0)) for _ in range(33)]
    while slots.in_flight or slots.waiting != 3:  # the bucket holds 30
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    time[0] += 60
    asyncio.run(asyncio.wait_for(call(slots, 0.0), 30))
    assert slots.waiting == 0
    assert sum(task.done() for task in left) == 30


def test_the_outer_watch_has_what_the_inner_one_saw():
    async def main():
        with watch_queues() as outer:
            for _ in range(2):
                with watch_queues() as inner, in_queue():
                    assert inner.queued
                    await asyncio.sleep(3)
                assert not inner.queued
        assert inner.total_s == 3
        assert outer.total_s == 6

    run_in_virtual_time(main())


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "concurrency"])
def test_limits_that_admit_nothing_are_errors(name):
    with pytest.raises(ValueError, match=name):
        Limiter(RateLimits(**{name: 0}))


class Inner:
    """Answers after a second with `usage`, or raises."""

    def __init__(self, usage=None, error=None):
        self.spec = ModelSpec("m", 8_192, max_output_tokens=50)
        self.usage = usage or TokenUsage(10, 0, 5)
        self.error = error
        self.counted = []
        self.entered = []

    def count_tokens(self, text):
        self.counted.append(text)
        return len(text)

    async def complete(self, request):
        self.entered.append(now())
        await asyncio.sleep(1)
        if self.error:
            raise self.error
        return Completion("yes", usage=self.usage, seconds=1.0)


def test_the_model_waits_its_turn_and_the_waiting_is_known_but_not_counted():
    inner = Inner()

    async def main():
        model = LimitedModel(inner, limiter(concurrency=1))
        with watch_queues() as whole:
            first, second = await asyncio.gather(
                model.complete(Request((Message("user", "a"),))), model.complete(Request((Message("user", "b"),)))
            )
        assert (first.seconds, second.seconds) == (1.0, 1.0)
        assert whole.total_s == pytest.approx(1.0)
        assert model.spec is inner.spec

    run_in_virtual_time(main())


def test_a_prompt_is_counted_once():
    inner = Inner()

    async def main():
        model = LimitedModel(inner, limiter(tokens_per_minute=10_000))
        request = Request((Message("system", "be good \ud800"), Message("user", "a")))
        for _ in range(3):
            assert model.count_tokens("a") == 1
            await model.complete(request)
        await model.complete(request.with_messages(Message("user", "again")))

    run_in_virtual_time(main())
    assert sorted(inner.counted) == sorted(["a", "be good \ud800", "again"])


@pytest.mark.parametrize(
    ("error", "wait_s"),
    [
        (None, 5),  # 500 tokens used
        (ServerError("m", "cut", usage=TokenUsage(300, 0, 0)), 3),
        (ConnectionFailedError("m", "refused"), 0),
        (TOO_MUCH, 60),  # 6,000 tokens reserved, none given back
    ],
)
def test_the_model_takes_its_prompt_and_longest_answer_and_gives_back_the_rest(error, wait_s):
    inner = Inner(TokenUsage(490, 0, 10), error)
    prompt = "x" * (6_000 - 8 - 50)

    async def main():
        model = LimitedModel(inner, limiter(tokens_per_minute=6_000))
        try:
            await model.complete(Request((Message("user", prompt),), max_tokens=2_000))
        except type(error) as raised:
            assert raised is error
        end, inner.error = now(), None
        # One that wants a full bucket tells how much is missing.
        await model.complete(Request((Message("user", "x" * 300),), max_tokens=50))
        return inner.entered[1] - end

    # The second's refill was under way for the second that the first one took.
    assert run_in_virtual_time(main()) == pytest.approx(wait_s / 0.95, abs=1.1)
