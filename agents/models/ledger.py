"""What a run may cost at most, and what it has cost.

A call is admitted only when the caps hold even if it, and every call under way, costs the most it can. What a call
really took is entered when it is done, and the difference is free for others. Where a run is one of several that share
caps, the call is reserved in their purse as well.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from lcdoc.agents.models.errors import BudgetExceededError, ModelConfigError
from lcdoc.agents.models.model import ModelSpec, TokenUsage
from lcdoc.agents.models.purse import Purse
from lcdoc.agents.models.queue_time import in_queue
from lcdoc.memory.errors import LibraryError
from lcdoc.memory.spending import UNITS_PER_USD, CapReachedError, Caps, Spending, dollars
from lcdoc.memory.usage import ModelUsage

_log = logging.getLogger(__name__)

OnUsage = Callable[[str, ModelUsage], None]


@dataclass(frozen=True, slots=True)
class Budget:
    """The caps of a run; None: no cap. 0 admits no call at all. Raises ValueError for a figure that is no amount."""

    usd: float | None = None
    tokens: int | None = None
    """Of prompts and answers together."""
    calls: int | None = None
    """Requests that are sent, those that fail and those that are sent again included."""
    seconds: float | None = None

    def __post_init__(self) -> None:
        for cap in fields(self):
            value = getattr(self, cap.name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"the cap on {cap.name} is {value}: it must be 0 or more, or None for no cap")

    @property
    def caps(self) -> Caps:
        """The same, as several runs share them."""
        cost = None if self.usd is None else round(self.usd * UNITS_PER_USD)
        return Caps(cost, self.tokens, self.calls, self.seconds)


class Reservation:
    """The worst case of one call, held back until the call is settled or released."""

    __slots__ = ("cost", "in_purse", "open", "spec", "worst")

    def __init__(self, spec: ModelSpec, worst: TokenUsage) -> None:
        self.spec = spec
        self.worst = worst
        self.cost = _worst_cost(spec, worst)
        self.open = True
        self.in_purse: int | None = None
        """Its number in the purse that the run shares with others."""


class Ledger:
    """The accounts of one run, one for each model. For the tasks of one event loop.

    `on_usage` is given a model's name and its totals so far, whenever they change; a LibraryError it raises is logged.
    `purse` is what the run shares with others. The clock starts here.
    """

    def __init__(
        self,
        budget: Budget | None = None,
        *,
        on_usage: OnUsage | None = None,
        clock: Callable[[], float] = time.monotonic,
        purse: Purse | None = None,
    ) -> None:
        self.budget = budget or Budget()
        self._cap_cost = self.budget.caps.cost
        self._purse = purse
        self._on_usage = on_usage
        self._clock = clock
        self._start = clock()
        self._usage: dict[str, ModelUsage] = {}
        self._costs: dict[str, int | None] = {}
        self._exhausted: str | None = None
        self._spent_cost = self._spent_tokens = self._spent_calls = 0
        self._held_cost = self._held_tokens = self._held_calls = 0
        self._waiting: OrderedDict[asyncio.Future[None], Reservation] = OrderedDict()

    @property
    def exhausted(self) -> str | None:
        """The first cap that did not admit a call: usd, tokens, calls or seconds. None while all were admitted."""
        return self._exhausted

    def usage(self) -> dict[str, ModelUsage]:
        """What each model has cost so far, by its name. Calls under way are not in it."""
        return dict(self._usage)

    def total(self) -> ModelUsage:
        """What all models together have cost so far."""
        total = sum(self._usage.values(), ModelUsage())
        costs = [cost for cost in self._costs.values() if cost is not None]
        return replace(total, cost_usd=_usd(sum(costs) if len(costs) == len(self._costs) else None))

    def remaining_s(self) -> float | None:
        """Seconds until the time of the run, or of what it shares, is up, 0 when it is; None without a cap on it."""
        own_s, shared_s = self._remaining()
        return None if own_s == shared_s == math.inf else min(own_s, shared_s)

    def _remaining(self) -> tuple[float, float]:
        """Seconds that the run has left, and what it shares."""
        own_s, shared_s = math.inf, None if self._purse is None else self._purse.remaining_s()
        if self.budget.seconds is not None:
            own_s = max(0.0, self.budget.seconds - (self._clock() - self._start))
        return own_s, math.inf if shared_s is None else shared_s

    def out_of_time(self, spec: ModelSpec) -> BudgetExceededError:
        """The error for a call that the time does not admit."""
        own_s, shared_s = self._remaining()
        if self._purse is not None and shared_s < own_s:
            return self._exceeded(spec, self._purse.time_is_up())
        self._exhausted = self._exhausted or "seconds"
        problem = f"the cap of {self.budget.seconds or 0:g} seconds is reached"
        return BudgetExceededError(spec.name, problem, "raise --max-seconds to go on", cap="seconds")

    async def reserve(self, spec: ModelSpec, worst: TokenUsage) -> Reservation:
        """Hold back what a call may take. To be settled or released, whatever happens.

        Waits, first come, first served, while calls under way may yet leave enough by taking less than their worst
        case. Raises BudgetExceededError when they cannot (a call under way is a call, so the cap on calls is never
        waited for), and ModelConfigError when money is capped and the model's prices are not known.
        """
        reservation = await self._reserve_own(spec, worst)
        if self._purse is None:
            return reservation
        try:
            with in_queue():
                reservation.in_purse = await self._purse.reserve(Spending(reservation.cost, worst.tokens, 1))
        except CapReachedError as reached:
            self.release(reservation)
            raise self._exceeded(spec, reached) from reached
        except BaseException:
            self.release(reservation)
            raise
        return reservation

    async def _reserve_own(self, spec: ModelSpec, worst: TokenUsage) -> Reservation:
        capped = self.budget.usd is not None or (self._purse is not None and self._purse.caps_usd)
        if capped and spec.prices is None:
            raise ModelConfigError(
                spec.name,
                f"the price of {spec.name} is not known, so a cap on cost cannot be held",
                "set its `prices` in config.toml, or cap tokens (--max-tokens) or calls (--max-calls) instead",
            )
        if self.remaining_s() == 0:
            raise self.out_of_time(spec)
        reservation = Reservation(spec, worst)
        if refusal := self._refusal(reservation):
            raise refusal
        if not self._waiting and self._fits(reservation):
            self._hold(reservation)
            return reservation
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = reservation
        try:
            with in_queue():
                await turn
        except BaseException:
            if self._waiting.pop(turn, None) is None and not turn.cancelled() and turn.exception() is None:
                self._let_go(reservation)
            self._admit()
            raise
        return reservation

    def settle(self, reservation: Reservation, usage: TokenUsage, *, seconds: float, failed: bool) -> None:
        """Enter what a call that was sent took, whatever was held back for it."""
        self._let_go(reservation)
        spec, worst = reservation.spec, reservation.worst
        if self._purse is not None and reservation.in_purse is not None:
            self._purse.settle(reservation.in_purse, Spending(_cost(spec, usage), usage.tokens, 1))
        cost = None if spec.cost_usd(usage) is None else _cost(spec, usage)
        if usage.tokens > worst.tokens or (cost or 0) > reservation.cost:
            _log.warning(
                "model %s: a call took %d tokens in and %d out, expected were at most %d and %d",
                *(spec.name, usage.tokens_in, usage.tokens_out, worst.tokens_in, worst.tokens_out),
            )
        self._spent_cost += cost or 0
        self._spent_tokens += usage.tokens
        self._spent_calls += 1
        self._admit()
        self._enter(
            spec.name,
            ModelUsage(
                calls=1,
                failed_calls=int(failed),
                tokens_in=usage.tokens_in,
                tokens_cached=usage.tokens_cached,
                tokens_out=usage.tokens_out,
                seconds=seconds,
                estimated=usage.estimated,
            ),
            cost,
        )

    def release(self, reservation: Reservation) -> None:
        """The call was not sent after all."""
        self._let_go(reservation)
        if self._purse is not None and reservation.in_purse is not None:
            self._purse.release(reservation.in_purse)
        self._admit()

    def count_stored(self, spec: ModelSpec) -> None:
        """A request was answered from the call store."""
        self._enter(spec.name, ModelUsage(stored_calls=1), 0)

    def _enter(self, model: str, usage: ModelUsage, cost: int | None) -> None:
        before = self._costs.get(model, 0)
        total = self._costs[model] = None if before is None or cost is None else before + cost
        self._usage[model] = replace(self._usage.get(model, ModelUsage()) + usage, cost_usd=_usd(total))
        if self._on_usage is None:
            return
        try:
            self._on_usage(model, self._usage[model])
        except LibraryError as error:
            # An answer that was paid for is not to be lost with the note of its price; the next note has the totals.
            _log.warning("model %s: what the run has cost so far could not be kept: %s", model, error)

    def _exceeded(self, spec: ModelSpec, reached: CapReachedError) -> BudgetExceededError:
        """The error for a call that what the run shares with others does not admit."""
        self._exhausted = self._exhausted or reached.cap
        return BudgetExceededError(spec.name, reached.problem, "raise it to go on", cap=reached.cap)

    def _refusal(self, reservation: Reservation) -> BudgetExceededError | None:
        """Why the call cannot be admitted even if those under way took nothing; None when it then can."""
        budget, worst = self.budget, reservation.worst
        cap: str | None = None
        if self._cap_cost is not None and (not self._cap_cost or self._spent_cost + reservation.cost > self._cap_cost):
            cap, option = "usd", "--max-cost"
            limit = f"{dollars(self._cap_cost)} USD"
            state = f"{dollars(self._spent_cost)} spent, this call may cost {dollars(reservation.cost)}"
        elif budget.tokens is not None and (not budget.tokens or self._spent_tokens + worst.tokens > budget.tokens):
            cap, option = "tokens", "--max-tokens"
            limit = f"{budget.tokens:,} tokens"
            state = f"{self._spent_tokens:,} used, this call may take {worst.tokens:,}"
        elif budget.calls is not None and self._spent_calls + self._held_calls + 1 > budget.calls:
            cap, option = "calls", "--max-calls"
            limit = f"{budget.calls:,} call{'' if budget.calls == 1 else 's'}"
            state = f"{self._spent_calls:,} made"
            if self._held_calls:
                state += f", {self._held_calls:,} under way"
        if cap is None:
            return None
        self._exhausted = self._exhausted or cap
        problem = f"the cap of {limit} is reached: {state}"
        return BudgetExceededError(reservation.spec.name, problem, f"raise {option} to go on", cap=cap)

    def _fits(self, reservation: Reservation) -> bool:
        """Whether the caps on money and tokens hold if everything under way costs the most it can."""
        tokens = self._spent_tokens + self._held_tokens + reservation.worst.tokens
        cost = self._spent_cost + self._held_cost + reservation.cost
        return (self._cap_cost is None or cost <= self._cap_cost) and (
            self.budget.tokens is None or tokens <= self.budget.tokens
        )

    def _admit(self) -> None:
        """Answer those in front, as far as there is an answer. When nothing is under way, there always is one."""
        while self._waiting:
            turn, reservation = next(iter(self._waiting.items()))
            if turn.done():
                del self._waiting[turn]
            elif refusal := self._refusal(reservation):
                del self._waiting[turn]
                turn.set_exception(refusal)
            elif self._fits(reservation):
                del self._waiting[turn]
                self._hold(reservation)
                turn.set_result(None)
            else:
                return

    def _hold(self, reservation: Reservation) -> None:
        self._held_cost += reservation.cost
        self._held_tokens += reservation.worst.tokens
        self._held_calls += 1

    def _let_go(self, reservation: Reservation) -> None:
        if not reservation.open:
            raise ValueError("the reservation is settled or released already")
        reservation.open = False
        self._held_cost -= reservation.cost
        self._held_tokens -= reservation.worst.tokens
        self._held_calls -= 1


def _cost(spec: ModelSpec, usage: TokenUsage) -> int:
    return max(0, round((spec.cost_usd(usage) or 0.0) * UNITS_PER_USD))


def _worst_cost(spec: ModelSpec, worst: TokenUsage) -> int:
    """Without a cache, or with one whose price is the higher."""
    fresh = TokenUsage(worst.tokens_in, 0, worst.tokens_out)
    return max(_cost(spec, fresh), _cost(spec, replace(fresh, tokens_cached=worst.tokens_in)))


def _usd(cost: int | None) -> float | None:
    return None if cost is None else cost / UNITS_PER_USD
