"""Caps that hold with hundreds of calls at once, accounts that tell the truth, and clear refusals."""

import asyncio
import logging
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.agents.models.budget import Budget, BudgetedModel, Ledger
from lcdoc.agents.models.errors import (
    BudgetExceededError,
    CutStreamError,
    ModelConfigError,
    RateLimitError,
    RefusedRequestError,
)
from lcdoc.agents.models.limiter import LimitedModel, Limiter
from lcdoc.agents.models.model import Completion, Message, ModelSpec, Prices, RateLimits, Request, TokenUsage
from lcdoc.agents.models.wire import FormattedRequest
from lcdoc.memory.errors import LibraryBusyError
from lcdoc.memory.usage import ModelUsage
from lcdoc.tests.agents.models.virtual_time import now, run_in_virtual_time, settle_down

PRICED = ModelSpec("m", 8_192, prices=Prices(input=1.0, output=10.0, cached_input=0.1))
FREE = ModelSpec("local", 8_192, prices=Prices(0.0, 0.0))
UNPRICED = ModelSpec("secret/price", 8_192)
NOTHING = TokenUsage()


def ledger_of(**caps):
    return Ledger(Budget(**caps), clock=asyncio.get_running_loop().time)


def settle(ledger, reservation, usage=None):
    ledger.settle(reservation, reservation.worst if usage is None else usage, seconds=1.0, failed=False)


@pytest.mark.parametrize("cap", ["usd", "tokens", "calls", "seconds"])
@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_a_cap_that_is_no_amount_is_an_error(cap, value):
    with pytest.raises(ValueError, match=cap):
        Budget(**{cap: value})


@pytest.mark.parametrize("spec", [PRICED, FREE], ids=["priced", "free"])
@pytest.mark.parametrize("cap", ["usd", "tokens", "calls", "seconds"])
def test_a_cap_of_nothing_admits_nothing(cap, spec):
    async def main():
        ledger = ledger_of(**{cap: 0})
        with pytest.raises(BudgetExceededError) as caught:
            await ledger.reserve(spec, TokenUsage(1, 0, 1))
        assert caught.value.cap == ledger.exhausted == cap
        assert ledger.total() == ModelUsage()

    run_in_virtual_time(main())


def test_without_caps_everything_is_admitted_and_counted():
    async def main():
        ledger = ledger_of()
        settle(ledger, await ledger.reserve(PRICED, TokenUsage(100, 0, 50)), TokenUsage(100, 40, 10))
        ledger.settle(
            await ledger.reserve(PRICED, TokenUsage(100, 0, 50)),
            TokenUsage(100, estimated=True),
            seconds=0.5,
            failed=True,
        )
        ledger.count_stored(PRICED)
        settle(ledger, await ledger.reserve(UNPRICED, TokenUsage(7, 0, 3)))
        ledger.release(await ledger.reserve(UNPRICED, TokenUsage(7, 0, 3)))
        assert ledger.usage() == {
            "m": ModelUsage(2, 1, 1, 200, 40, 10, 0.000264, 1.5, True),
            "secret/price": ModelUsage(1, 0, 0, 7, 0, 3, None, 1.0),
        }
        assert ledger.total() == ModelUsage(3, 1, 1, 207, 40, 13, None, 2.5, True)
        assert ledger.exhausted is None
        assert ledger.remaining_s() is None

    run_in_virtual_time(main())


def test_totals_are_handed_on_whenever_they_change():
    seen = []

    def keep(model, usage):
        seen.append((model, usage.calls, usage.stored_calls, usage.cost_usd))
        raise LibraryBusyError(Path("library.sqlite"), "busy")  # must not cost the answer

    async def main():
        ledger = Ledger(on_usage=keep)
        for _ in range(2):
            settle(ledger, await ledger.reserve(PRICED, TokenUsage(100, 0, 10)))
        ledger.count_stored(FREE)

    run_in_virtual_time(main())
    assert seen == [("m", 1, 0, 0.0002), ("m", 2, 0, 0.0004), ("local", 0, 1, 0.0)]


def test_a_cap_on_money_is_used_up_to_the_last_cent():
    """Ten calls of 0.1 USD: in binary fractions their sum is not 1."""

    async def main():
        ledger = ledger_of(usd=1.0)
        for _ in range(10):
            settle(ledger, await ledger.reserve(PRICED, TokenUsage(100_000, 0, 0)))
        assert ledger.total().cost_usd == 1.0
        with pytest.raises(BudgetExceededError):
            await ledger.reserve(PRICED, TokenUsage(1, 0, 0))

    run_in_virtual_time(main())


def test_messages_say_what_was_spent_and_which_option_helps():
    async def message(worst, **caps):
        ledger = ledger_of(**caps)
        settle(ledger, await ledger.reserve(PRICED, TokenUsage(80_000, 0, 40_000)))
        with pytest.raises(BudgetExceededError) as caught:
            await ledger.reserve(PRICED, worst)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    async def main():
        assert await message(TokenUsage(1_000, 0, 5_000), usd=0.5) == (
            "model m: the cap of 0.50 USD is reached: 0.48 spent, this call may cost 0.051; raise --max-cost to go on"
        )
        assert await message(TokenUsage(10, 0, 20), tokens=120_001) == (
            "model m: the cap of 120,001 tokens is reached: 120,000 used, this call may take 30; "
            "raise --max-tokens to go on"
        )
        assert await message(TokenUsage(1), calls=1) == (
            "model m: the cap of 1 call is reached: 1 made; raise --max-calls to go on"
        )

    run_in_virtual_time(main())


def test_money_is_not_capped_where_prices_are_not_known():
    async def main():
        ledger = ledger_of(usd=5.0)
        with pytest.raises(ModelConfigError, match=r"price of secret/price .* `prices` in config.toml") as caught:
            await ledger.reserve(UNPRICED, TokenUsage(1, 0, 1))
        assert "--max-tokens" in str(caught.value)
        assert ledger.total() == ModelUsage()
        settle(ledger, await ledger.reserve(FREE, TokenUsage(1, 0, 1)))

    run_in_virtual_time(main())


def test_the_worst_case_has_no_cache_discount():
    async def main():
        ledger = ledger_of(usd=0.5)
        settle(ledger, await ledger.reserve(PRICED, TokenUsage(400_000, 400_000, 0)), TokenUsage(400_000, 400_000, 0))
        assert ledger.total().cost_usd == 0.04
        with pytest.raises(BudgetExceededError):
            await ledger.reserve(PRICED, TokenUsage(500_000, 500_000, 0))

    run_in_virtual_time(main())


def test_a_call_waits_for_what_others_may_leave():
    async def main():
        ledger = ledger_of(tokens=100)
        first = await ledger.reserve(PRICED, TokenUsage(60))
        second = asyncio.create_task(ledger.reserve(PRICED, TokenUsage(60)))
        with pytest.raises(BudgetExceededError):
            await ledger.reserve(PRICED, TokenUsage(101))
        assert ledger.exhausted == "tokens"
        await settle_down()
        assert not second.done()
        settle(ledger, first, TokenUsage(40))
        settle(ledger, await second)
        assert ledger.total().tokens == 100

    run_in_virtual_time(main())


def test_a_call_that_waited_in_vain_is_refused():
    async def main():
        ledger = ledger_of(tokens=100)
        first = await ledger.reserve(PRICED, TokenUsage(60))
        others = [asyncio.create_task(ledger.reserve(PRICED, TokenUsage(60))) for _ in range(3)]
        await settle_down()
        assert ledger.exhausted is None
        settle(ledger, first)
        for refused in await asyncio.gather(*others, return_exceptions=True):
            assert isinstance(refused, BudgetExceededError)
        assert ledger.exhausted == "tokens"

    run_in_virtual_time(main())


def test_calls_under_way_are_calls_so_the_cap_on_calls_is_not_waited_for():
    async def main():
        ledger = ledger_of(calls=2)
        first, second = [await ledger.reserve(FREE, TokenUsage(1)) for _ in range(2)]
        with pytest.raises(BudgetExceededError, match="0 made, 2 under way") as caught:
            await ledger.reserve(FREE, TokenUsage(1))
        assert caught.value.cap == "calls"
        ledger.release(first)
        settle(ledger, await ledger.reserve(FREE, TokenUsage(1)))
        settle(ledger, second)

    run_in_virtual_time(main())


def test_the_first_cap_that_is_reached_ended_the_run():
    async def main():
        ledger = ledger_of(tokens=100, calls=1, seconds=5)
        with pytest.raises(BudgetExceededError):
            await ledger.reserve(FREE, TokenUsage(101))
        settle(ledger, await ledger.reserve(FREE, TokenUsage(1)))
        with pytest.raises(BudgetExceededError) as caught:
            await ledger.reserve(FREE, TokenUsage(1))
        assert caught.value.cap == "calls"
        await asyncio.sleep(6)
        with pytest.raises(BudgetExceededError) as caught:
            await ledger.reserve(FREE, TokenUsage(1))
        assert caught.value.cap == "seconds"
        assert ledger.exhausted == "tokens"

    run_in_virtual_time(main())


def test_first_come_first_served_though_a_smaller_one_would_fit():
    async def main():
        ledger, order = ledger_of(tokens=1_000), []

        async def one(name, tokens):
            reservation = await ledger.reserve(PRICED, TokenUsage(tokens))
            order.append(name)
            await asyncio.sleep(1)
            settle(ledger, reservation, NOTHING)

        tasks = [asyncio.create_task(one(*call)) for call in [("a", 600), ("big", 900), ("small", 1), ("last", 1)]]
        await asyncio.gather(*tasks)
        return order

    assert run_in_virtual_time(main()) == ["a", "big", "small", "last"]


def test_a_waiter_that_leaves_lets_the_next_one_go():
    async def main():
        ledger = ledger_of(tokens=100)
        first = await ledger.reserve(PRICED, TokenUsage(60))
        big = asyncio.create_task(ledger.reserve(PRICED, TokenUsage(90)))
        small = asyncio.create_task(ledger.reserve(PRICED, TokenUsage(40)))
        await settle_down()
        assert not small.done()
        big.cancel()
        settle(ledger, await small)
        settle(ledger, first)
        assert ledger.total().tokens == 100

    run_in_virtual_time(main())


def test_a_waiter_cancelled_at_the_moment_of_its_turn_holds_nothing():
    async def main():
        ledger = ledger_of(tokens=100)
        first = await ledger.reserve(PRICED, TokenUsage(60))
        waiting = asyncio.create_task(ledger.reserve(PRICED, TokenUsage(100)))
        await settle_down()
        settle(ledger, first, NOTHING)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        settle(ledger, await ledger.reserve(PRICED, TokenUsage(100)))

    run_in_virtual_time(main())


def test_a_reservation_is_settled_once():
    async def main():
        ledger = ledger_of()
        reservation = await ledger.reserve(FREE, TokenUsage(1))
        settle(ledger, reservation)
        with pytest.raises(ValueError, match="already"):
            ledger.release(reservation)
        assert ledger.total().calls == 1

    run_in_virtual_time(main())


def test_more_than_the_worst_case_is_recorded_as_it_is(caplog):
    async def main():
        ledger = ledger_of(tokens=1_000)
        with caplog.at_level(logging.WARNING):
            settle(ledger, await ledger.reserve(PRICED, TokenUsage(10, 0, 10)), TokenUsage(10, 0, 2_000))
        assert ledger.total().tokens == 2_010
        with pytest.raises(BudgetExceededError):
            await ledger.reserve(PRICED, TokenUsage(1))

    run_in_virtual_time(main())
    assert "2000 out" in caplog.text


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**9), cap=st.sampled_from(["usd", "tokens", "calls"]))
def test_caps_hold_and_nobody_is_forgotten(seed, cap):
    rng = random.Random(seed)
    budget = {"usd": 0.02, "tokens": 8_000, "calls": 60}[cap]

    async def main():
        ledger = ledger_of(**{cap: budget})
        under_way = []

        def worst_total(spent):
            if cap == "calls":
                return spent.calls + len(under_way)
            if cap == "tokens":
                return spent.tokens + sum(worst.tokens for worst in under_way)
            return round(spent.cost_usd + sum(PRICED.cost_usd(worst) for worst in under_way), 12)

        async def one():
            worst = TokenUsage(rng.randrange(1, 300), 0, rng.randrange(1, 300))
            reservation = await ledger.reserve(PRICED, worst)
            under_way.append(worst)
            assert worst_total(ledger.total()) <= budget
            share, usage = rng.random(), None
            try:
                await asyncio.sleep(rng.choice([0.0, 0.1, 1.0]))
                usage = TokenUsage(worst.tokens_in, 0, int(worst.tokens_out * share))
            finally:
                under_way.remove(worst)
                if usage is None and share < 0.5:
                    ledger.release(reservation)
                else:
                    settle(ledger, reservation, usage or NOTHING)

        tasks = []
        for _ in range(200):
            tasks.append(asyncio.create_task(one()))
            if rng.random() < 0.2:
                await asyncio.sleep(rng.choice([0.0, 0.2]))
            if rng.random() < 0.2:
                rng.choice(tasks).cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert result is None or isinstance(result, BudgetExceededError | asyncio.CancelledError), result
        # Nothing is held back any more: what is left can be had.
        left = {
            "usd": TokenUsage(round((0.02 - ledger.total().cost_usd) * 1e6)),
            "tokens": TokenUsage(8_000 - ledger.total().tokens),
            "calls": TokenUsage(1),
        }[cap]
        if left.tokens and (cap != "calls" or ledger.total().calls < budget):
            settle(ledger, await ledger.reserve(PRICED, left))

    run_in_virtual_time(main())


class Inner:
    """Streams two pieces, then does `then`: answers, raises, or hangs."""

    def __init__(self, then=None, *, spec=PRICED, first_s=1.0):
        self.spec = spec
        self.then = then
        self.first_s = first_s
        self.requests = []

    def count_tokens(self, text):
        return len(text)

    async def complete(self, request):
        self.requests.append(request)
        await asyncio.sleep(self.first_s)
        for piece in ("ab", "c"):
            request.on_text(piece)
        if self.then == "hang":
            await asyncio.sleep(1_000)
        if isinstance(self.then, Exception):
            raise self.then
        return Completion("abc", usage=TokenUsage(12, 2, 3), seconds=0.7)


def ask(max_tokens=100, **fields):
    return Request((Message("user", "hi"),), max_tokens=max_tokens, **fields)


def test_an_answer_is_entered_with_its_usage_and_heard_as_it_comes():
    async def main():
        ledger, heard = ledger_of(usd=1.0), []
        request = ask(on_text=heard.append)
        inner = Inner()
        completion = await BudgetedModel(inner, ledger).complete(request)
        assert completion.text == "abc"
        assert heard == ["ab", "c"]
        assert inner.requests == [request]
        assert ledger.usage() == {"m": ModelUsage(1, 0, 0, 12, 2, 3, 0.0000402, 0.7)}

    run_in_virtual_time(main())


def test_the_worst_case_is_the_prompt_and_the_longest_answer_the_model_gives():
    short = ModelSpec("m", 8_192, prices=Prices(1.0, 10.0), max_output_tokens=20)

    async def main():
        for spec, most in ((PRICED, 110), (short, 30)):
            with pytest.raises(BudgetExceededError):
                await BudgetedModel(Inner(spec=spec), ledger_of(tokens=most - 1)).complete(ask())
            await BudgetedModel(Inner(spec=spec), ledger_of(tokens=most)).complete(ask())

    run_in_virtual_time(main())


def test_the_format_that_is_sent_along_is_part_of_the_prompt():
    response_format = {"type": "json_object"}
    request = FormattedRequest((Message("user", "hi"),), max_tokens=100, response_format=response_format)

    async def main():
        most = 110 + len(str(response_format))
        with pytest.raises(BudgetExceededError):
            await BudgetedModel(Inner(), ledger_of(tokens=most - 1)).complete(request)
        inner = Inner()
        await BudgetedModel(inner, ledger_of(tokens=most)).complete(request)
        assert inner.requests[0].response_format == response_format

    run_in_virtual_time(main())


def test_nothing_is_sent_that_is_not_admitted():
    async def main():
        inner = Inner(spec=UNPRICED)
        with pytest.raises(ModelConfigError):
            await BudgetedModel(inner, ledger_of(usd=1.0)).complete(ask())
        with pytest.raises(BudgetExceededError):
            await BudgetedModel(inner, ledger_of(calls=0)).complete(ask())
        assert inner.requests == []

    run_in_virtual_time(main())


def test_a_failure_is_charged_what_it_took():
    async def main():
        ledger = ledger_of(usd=1.0)
        for error in (CutStreamError("m", "cut", usage=TokenUsage(10, 0, 3)), RateLimitError("m", "429")):
            with pytest.raises(type(error)):
                await BudgetedModel(Inner(error), ledger).complete(ask())
        assert ledger.total() == ModelUsage(2, 2, 0, 10, 0, 3, 0.00004, 2.0)
        with pytest.raises(ModelConfigError):
            await BudgetedModel(Inner(ModelConfigError("m", "no key")), ledger).complete(ask())
        assert ledger.total().calls == 2, "what cannot be sent is no call"

    run_in_virtual_time(main())


def test_a_cancelled_call_is_charged_its_prompt_and_what_had_come():
    async def main():
        ledger = ledger_of(usd=1.0)
        task = asyncio.create_task(BudgetedModel(Inner("hang"), ledger).complete(ask()))
        await asyncio.sleep(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ledger.total() == ModelUsage(1, 1, 0, 10, 0, 3, 0.00004, 3.0, True)

    run_in_virtual_time(main())


def test_a_cancelled_call_is_charged_no_more_than_was_held_back_for_it():
    async def main():
        ledger = ledger_of(tokens=100)
        task = asyncio.create_task(BudgetedModel(Inner("hang"), ledger).complete(ask(max_tokens=2)))
        await asyncio.sleep(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (ledger.total().tokens_in, ledger.total().tokens_out) == (10, 2)

    run_in_virtual_time(main())


def test_a_call_cancelled_before_its_turn_is_none():
    async def main():
        ledger = ledger_of(calls=2)
        limited = LimitedModel(Inner("hang"), Limiter(RateLimits(concurrency=1)))
        tasks = [asyncio.create_task(BudgetedModel(limited, ledger).complete(ask())) for _ in range(2)]
        await asyncio.sleep(3)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert ledger.total().calls == 1
        await BudgetedModel(Inner(), ledger).complete(ask())

    run_in_virtual_time(main())


def test_a_call_cancelled_after_it_had_waited_for_its_turn_is_one():
    async def main():
        ledger = ledger_of()
        limited = LimitedModel(Inner("hang"), Limiter(RateLimits(concurrency=1)))
        first, second = [asyncio.create_task(BudgetedModel(limited, ledger).complete(ask())) for _ in range(2)]
        await asyncio.sleep(3)
        first.cancel()
        await asyncio.sleep(3)
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        assert ledger.total() == ModelUsage(2, 2, 0, 20, 0, 6, 0.00008, 6.0, True)

    run_in_virtual_time(main())


def test_waiting_for_a_turn_is_not_time_of_the_call():
    async def main():
        ledger = ledger_of()
        error = RefusedRequestError("m", "400")
        limited = LimitedModel(Inner(error), Limiter(RateLimits(concurrency=1)))
        await asyncio.gather(
            *(BudgetedModel(limited, ledger).complete(ask()) for _ in range(5)), return_exceptions=True
        )
        assert ledger.total().seconds == pytest.approx(5.0)

    run_in_virtual_time(main())


def test_the_runs_time_ends_a_call():
    async def main():
        ledger, start = ledger_of(seconds=10), now()
        assert ledger.remaining_s() == 10
        with pytest.raises(BudgetExceededError, match=r"cap of 10 seconds .* --max-seconds") as caught:
            await BudgetedModel(Inner("hang"), ledger).complete(ask())
        assert caught.value.cap == ledger.exhausted == "seconds"
        assert now() - start == pytest.approx(10)
        assert ledger.total().tokens == 13
        assert ledger.remaining_s() == 0
        inner = Inner()
        with pytest.raises(BudgetExceededError):
            await BudgetedModel(inner, ledger).complete(ask())
        assert inner.requests == []

    run_in_virtual_time(main())


def test_the_runs_time_ends_waiting_for_other_calls():
    async def main():
        ledger, start = ledger_of(seconds=10, tokens=150), now()
        held = await ledger.reserve(PRICED, TokenUsage(100))
        with pytest.raises(BudgetExceededError) as caught:
            await BudgetedModel(Inner(), ledger).complete(ask())
        assert caught.value.cap == "seconds"
        assert now() - start == pytest.approx(10)
        settle(ledger, held, NOTHING)
        assert ledger.total().calls == 1

    run_in_virtual_time(main())


def test_a_timeout_of_somebody_else_stays_one():
    async def main():
        with pytest.raises(TimeoutError):
            await BudgetedModel(Inner(TimeoutError()), ledger_of(seconds=10)).complete(ask())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await BudgetedModel(Inner("hang"), ledger_of(seconds=10)).complete(ask())

    run_in_virtual_time(main())


def test_a_broken_listener_costs_what_had_come():
    def broken(piece):
        raise ZeroDivisionError

    async def main():
        ledger = ledger_of()
        with pytest.raises(ZeroDivisionError):
            await BudgetedModel(Inner(), ledger).complete(ask(on_text=broken))
        assert ledger.total().tokens == 10 + 2

    run_in_virtual_time(main())
