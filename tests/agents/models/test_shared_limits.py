"""Limits that several share: the rules in virtual time, each member with a limiter of its own, as in its process."""

import asyncio
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.agents.models.errors import RateLimitError
from lcdoc.agents.models.model import RateLimits, Server
from lcdoc.agents.models.queue_time import watch_queues
from lcdoc.agents.models.secrets import Key
from lcdoc.agents.models.shared_limits import SharedLimiter, server_name
from lcdoc.agents.models.sharing import Sharing, Told
from lcdoc.tests.agents.models.virtual_time import now, run_in_virtual_time, settle_down


class Table:
    """Where all members sit: keeps the state as text, and knows who is gone."""

    def __init__(self):
        self.state = None
        self.gone = set()
        self.exchanges = 0

    async def exchange(self, server, limits, member, told):
        self.exchanges += 1
        sharing = Sharing(limits, now(), None if self.state is None else json.loads(self.state))
        given = sharing.exchange(member, told, now(), lambda name, _: name in self.gone)
        self.state = json.dumps(sharing.state(), separators=(",", ":"))
        return given


def members(count, **limits):
    table = Table()
    return table, [SharedLimiter(table, "server", RateLimits(**limits)) for _ in range(count)]


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


def test_all_together_send_no_more_in_a_minute_than_the_server_admits():
    async def main():
        _, (one, two, three) = members(3, requests_per_minute=60, concurrency=500)
        log = []
        await asyncio.gather(*(call(limiter, 0.1, log=log) for limiter in (one, two, three) for _ in range(50)))
        return [time for time, _ in log]

    times = run_in_virtual_time(main())
    assert most_in_a_minute(times) <= 60
    assert 135 < times[-1] - times[0] < 160, "and not much less"


def test_tokens_are_shared_by_what_was_really_used():
    async def main():
        _, (one, two) = members(2, tokens_per_minute=60_000, concurrency=500)
        start = now()
        calls = (call(limiter, 0.0, tokens=2_000, used=500) for limiter in (one, two) for _ in range(120))
        await asyncio.gather(*calls)
        return now() - start

    assert 110 < run_in_virtual_time(main()) < 135  # 120,000 tokens


def test_no_more_at_once_than_the_limit_and_all_of_it():
    async def main():
        _, limiters = members(4, concurrency=6)
        peak, start = 0, now()

        async def one(limiter):
            nonlocal peak
            async with limiter.slot():
                peak = max(peak, sum(each.in_flight for each in limiters))
                await asyncio.sleep(1)

        await asyncio.gather(*(one(limiter) for limiter in limiters for _ in range(30)))
        return peak, now() - start

    peak, seconds = run_in_virtual_time(main())
    assert peak == 6
    assert 20 <= seconds < 20.9, "120 calls, 6 at once: the rest is what asking again takes"


@pytest.mark.parametrize("limits", [{"concurrency": 4}, {"requests_per_minute": 600, "concurrency": 100}])
def test_one_that_sends_ten_times_as_many_does_not_keep_another_waiting(limits):
    async def main():
        _, (many, few) = members(2, **limits)
        log = []
        calls = [asyncio.create_task(call(many, 1.0, log=log, name="many")) for _ in range(300)]
        await asyncio.sleep(0.5)
        calls += [asyncio.create_task(call(few, 1.0, log=log, name="few")) for _ in range(30)]
        await asyncio.gather(*calls)
        return [name for _, name in log]

    names = run_in_virtual_time(main())
    first, last = names.index("few"), len(names) - names[::-1].index("few")
    assert first <= 40, "it waits for what was sent before it came, no more"
    assert names[first:last].count("many") <= 33, "then turn by turn"


def test_large_requests_count_for_what_they_are():
    async def main():
        _, (large, small) = members(2, tokens_per_minute=60_000, concurrency=100)
        log = []
        calls = [call(large, 0.0, tokens=3_000, log=log, name=3_000) for _ in range(40)]
        calls += [call(small, 0.0, tokens=300, log=log, name=300) for _ in range(400)]
        await asyncio.gather(*calls)
        return log

    log = run_in_virtual_time(main())
    half = log[0][0] + 120
    sent = {size: sum(name for time, name in log if name == size and time < half) for size in (300, 3_000)}
    assert 0.8 < sent[300] / sent[3_000] < 1.25


def test_what_one_does_not_need_is_anothers():
    async def main():
        _, (busy, idle) = members(2, concurrency=4)
        await call(idle, 0.0)
        start = now()
        await asyncio.gather(*(call(busy, 1.0) for _ in range(40)))
        return now() - start

    assert run_in_virtual_time(main()) == pytest.approx(10, abs=0.3)


def test_one_that_waits_and_does_not_come_for_its_turn_keeps_nobody_waiting():
    async def main():
        table, (stuck, busy) = members(2, concurrency=2)
        holding = [asyncio.create_task(call(stuck, 1_000.0)) for _ in range(6)]
        await asyncio.sleep(1)
        assert (stuck.in_flight, stuck.waiting) == (2, 4)
        stuck._talking.cancel()  # as a process does that was stopped
        table.state = table.state.replace("[2,4,", "[1,4,")
        start = now()
        await asyncio.gather(*(call(busy, 1.0) for _ in range(20)))
        for task in holding:
            task.cancel()
        return now() - start

    assert run_in_virtual_time(main()) < 21


def test_turns_of_one_that_is_gone_come_free_at_once():
    async def main():
        table, (dead, alive) = members(2, concurrency=3)
        lost = [asyncio.create_task(call(dead, 1_000.0)) for _ in range(9)]
        await asyncio.sleep(0.1)
        waiting = [asyncio.create_task(call(alive, 1.0)) for _ in range(3)]
        await asyncio.sleep(5)
        assert alive.in_flight == 0
        dead._talking.cancel()
        table.gone.add(dead._member)
        start = now()
        await asyncio.gather(*waiting)
        for task in lost:
            task.cancel()
        return now() - start

    assert run_in_virtual_time(main()) < 1.1


def test_a_refusal_slows_all_of_them_down():
    async def main():
        _, (one, two) = members(2, concurrency=8)
        await fail(one, RateLimitError("m", "429", retry_after_s=20.0))
        await settle_down()
        start, log = now(), []
        await asyncio.gather(*(call(two, 0.1, log=log) for _ in range(8)))
        return [time - start for time, _ in log]

    waits = run_in_virtual_time(main())
    assert min(waits) == pytest.approx(20, abs=0.1)
    assert max(waits) == pytest.approx(20.1, abs=0.2), "four at once"


def test_answers_to_any_of_them_bring_the_pace_back():
    async def main():
        _, (one, two) = members(2, concurrency=8)
        await asyncio.gather(*(fail(one, RateLimitError("m", "429"), 0.1) for _ in range(8)))
        for limiter in (one, two) * 20:
            await call(limiter, 0.1)
        return two.window

    assert run_in_virtual_time(main()) == 8


def test_a_cancelled_request_gives_back_what_was_set_aside():
    async def main():
        _, (one, two) = members(2, concurrency=1, tokens_per_minute=6_000)
        first = asyncio.create_task(call(one, 1.0))
        await settle_down()
        waiting = asyncio.create_task(call(two, 1.0, tokens=300))
        await asyncio.sleep(0.5)
        waiting.cancel()
        await first
        start = now()
        await call(one, 0.0, tokens=300)
        assert (one.in_flight, two.in_flight, one.waiting, two.waiting) == (0, 0, 0, 0)
        return now() - start

    assert run_in_virtual_time(main()) == 0


def test_the_wait_is_queue_time():
    async def main():
        _, (one, two) = members(2, concurrency=1)
        first = asyncio.create_task(call(one, 3.0))
        await settle_down()
        with watch_queues() as queues:
            await call(two, 1.0)
        await first
        return queues.total_s

    assert run_in_virtual_time(main()) == pytest.approx(3, abs=0.1)


def test_nobody_asks_without_end():
    async def main():
        table, limiters = members(4, concurrency=4)
        await asyncio.gather(*(call(limiter, 10.0) for limiter in limiters for _ in range(5)))
        return table.exchanges

    # 50 seconds of work: most of the time three wait, each asking every 25 ms.
    assert run_in_virtual_time(main()) < 4 * 50 * 44


def test_one_whose_turns_cannot_be_had_is_told():
    class Broken:
        async def exchange(self, *_):
            raise RuntimeError("nobody there")

    async def main():
        limiter = SharedLimiter(Broken(), "server", RateLimits())
        for _ in range(2):
            outcomes = await asyncio.gather(call(limiter), call(limiter), return_exceptions=True)
            assert [str(outcome) for outcome in outcomes] == ["nobody there"] * 2
        assert (limiter.waiting, limiter.in_flight) == (0, 0)

    run_in_virtual_time(main())


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_nothing_is_lost_whatever_happens(seed):
    rng = random.Random(seed)

    async def main():
        _, limiters = members(3, concurrency=4, requests_per_minute=600, tokens_per_minute=60_000)
        tasks = []
        for _ in range(60):
            error = rng.choice([None, None, RateLimitError("m", "429", retry_after_s=1.5), ValueError()])
            wanted = call(
                rng.choice(limiters),
                rng.choice([0.0, 0.3, 1.0]),
                tokens=rng.randrange(400),
                used=rng.randrange(600),
                error=error,
            )
            tasks.append(asyncio.create_task(wanted))
            if rng.random() < 0.3:
                await asyncio.sleep(rng.choice([0.0, 0.1, 0.3]))
            if rng.random() < 0.4:
                rng.choice(tasks).cancel()
            assert sum(limiter.in_flight for limiter in limiters) <= 4
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(1)
        assert [(limiter.in_flight, limiter.waiting) for limiter in limiters] == [(0, 0)] * 3
        await asyncio.gather(*(call(limiter, 0.1) for limiter in limiters for _ in range(20)))

    run_in_virtual_time(main())


def test_a_member_that_asks_under_other_limits_is_held_to_its_own():
    strict, lavish = RateLimits(concurrency=1), RateLimits(concurrency=5)
    sharing = Sharing(lavish, 0.0)
    assert len(sharing.exchange("lavish", Told(0, (), (0,) * 4), 0.0, lambda *_: False).turns) == 4
    again = Sharing(strict, 0.0, json.loads(json.dumps(sharing.state())))
    assert again.exchange("strict", Told(0, (), (0,)), 0.0, lambda *_: False).turns == ()


def test_servers_are_told_apart_and_the_key_is_not_told():
    server = Server("http://user:password@127.0.0.1/v1", "m")
    key = Key("sk-a-key-of-somebody")
    names = {
        server_name(server, None),
        server_name(server, key),
        server_name(Server("http://127.0.0.1/v1", "other"), key),
        server_name(Server("http://127.0.0.2/v1", "m"), key),
    }
    assert len(names) == 4
    assert server_name(Server("http://127.0.0.1/v1", "m"), key) == server_name(server, key)
    assert not any(part in name for name in names for part in ("sk-", "key", "password"))


@pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "concurrency"])
def test_limits_that_admit_nothing_are_errors(name):
    with pytest.raises(ValueError, match=name):
        SharedLimiter(Table(), "server", RateLimits(**{name: 0}))
