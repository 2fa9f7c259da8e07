"""Amounts that calls to models take, in whole numbers, and the caps that hold for them.

Money is counted in units of 1e-12 US dollars: binary fractions would not add up to a cap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Final, Literal

UNITS_PER_USD: Final = 10**12

Whose = Literal["job", "document"]
"""The job as a whole, or one of its documents."""


@dataclass(frozen=True, slots=True)
class Spending:
    """What calls take, or took."""

    cost: int = 0
    """In units of 1e-12 US dollars; 0 where the price is not known."""
    tokens: int = 0
    """Of prompts and answers together."""
    calls: int = 0

    def __add__(self, other: Spending) -> Spending:
        return Spending(self.cost + other.cost, self.tokens + other.tokens, self.calls + other.calls)

    @property
    def usd(self) -> float:
        return self.cost / UNITS_PER_USD


def added(amounts: Iterable[Spending]) -> Spending:
    """All of them together."""
    return reduce(add, amounts, Spending())


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that may be spent. None: no cap; 0 admits no call at all."""

    cost: int | None = None
    """In units of 1e-12 US dollars."""
    tokens: int | None = None
    calls: int | None = None
    seconds: float | None = None
    """Of wall time in which somebody was at work."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self != Caps()


class CapReachedError(Exception):
    """A cap that is shared by several runs does not admit a call. `str(error)` is one line."""

    def __init__(self, whose: Whose, cap: str, problem: str) -> None:
        self.whose: Whose = whose
        self.cap = cap
        """usd, tokens, calls or seconds."""
        self.problem = problem
        super().__init__(whose, cap, problem)

    def __str__(self) -> str:
        return self.problem


def refusal(whose: Whose, caps: Caps, gone: Spending, under_way: Spending, worst: Spending) -> CapReachedError | None:
    """Why a call cannot be admitted even if those under way took nothing; None when it then can.

    `gone` was spent, or may have been by a process that is no more. A call under way is a call already.
    """
    owner = f"the {whose}'s"
    if caps.cost is not None and (not caps.cost or gone.cost + worst.cost > caps.cost):
        state = f"{dollars(gone.cost)} spent, this call may cost {dollars(worst.cost)}"
        return CapReachedError(whose, "usd", f"{owner} cap of {dollars(caps.cost)} USD is reached: {state}")
    if caps.tokens is not None and (not caps.tokens or gone.tokens + worst.tokens > caps.tokens):
        state = f"{gone.tokens:,} used, this call may take {worst.tokens:,}"
        return CapReachedError(whose, "tokens", f"{owner} cap of {caps.tokens:,} tokens is reached: {state}")
    if caps.calls is not None and gone.calls + under_way.calls + worst.calls > caps.calls:
        state = f"{gone.calls:,} made" + (f", {under_way.calls:,} under way" if under_way.calls else "")
        limit = f"{caps.calls:,} call{'' if caps.calls == 1 else 's'}"
        return CapReachedError(whose, "calls", f"{owner} cap of {limit} is reached: {state}")
    return None


def fits(caps: Caps, taken: Spending, worst: Spending) -> bool:
    """Whether the caps on money and tokens hold if everything under way costs the most it can: then it is `taken`."""
    return (caps.cost is None or taken.cost + worst.cost <= caps.cost) and (
        caps.tokens is None or taken.tokens + worst.tokens <= caps.tokens
    )


def time_is_up(whose: Whose, caps: Caps) -> CapReachedError:
    """The error for a call that the time at work does not admit."""
    return CapReachedError(whose, "seconds", f"the {whose}'s cap of {caps.seconds or 0:g} seconds is reached")


def dollars(cost: int) -> str:
    """An amount of money, as messages give it."""
    usd = cost / UNITS_PER_USD
    return f"{usd:.2f}" if usd >= 0.1 or not usd else f"{usd:.2g}"
