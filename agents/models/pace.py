"""How fast a server is asked: no more in a minute than it admits, and no more at a time than it bears.

Requests and tokens per minute are token buckets. How many requests are under way at once follows the server: half as
many when it says that this is too much, one more after each round of answers. A server that breaks an answer off when
another request comes is soon asked for one at a time, and more are tried seldom.

These are the rules alone: who waits, and for what, is the limiter's business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from lcdoc.agents.models.errors import CutStreamError, ModelError, ModelTimeoutError, RateLimitError, ServerError
from lcdoc.agents.models.model import RateLimits
from lcdoc.agents.models.token_bucket import Bucket

LONGEST_PAUSE_S: Final = 180.0
"""A server that asks for more is not waited for: whoever is next hears of it himself, and fails with that."""
LONGEST_COOL_DOWN_S: Final = 30.0
"""Between two requests to a server that refuses all of them and does not say for how long."""
_OVERLOADED = re.compile(r"(?:the server answered )?(?:503|529)\b")
"""Of the problems of a ServerError, which begin with the status."""
_LONGEST_PATIENCE = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a request's end tells of the server."""

    kind: Literal["answered", "too_much", "interrupted", "nothing", "unsent"]
    """It bears this pace; it has too much to do; it broke the answer off for another; nothing; it was never asked."""
    pause_s: float | None = None
    """For how long it wants to be left alone, where it says so."""


def outcome_of(error: BaseException | None) -> Outcome:
    """What the end of a request by this error tells, or by an answer."""
    if error is None:
        return Outcome("answered")
    if isinstance(error, CutStreamError) and error.interrupted:
        return Outcome("interrupted")
    if isinstance(error, ModelError) and _means_slower(error):
        return Outcome("too_much", error.retry_after_s if isinstance(error, RateLimitError | ServerError) else None)
    return Outcome("nothing")


def _means_slower(error: ModelError) -> bool:
    """Whether the server has too much to do. Other failures, at any rate of requests, are no reason to send fewer."""
    if isinstance(error, RateLimitError | ModelTimeoutError):
        return True
    if not isinstance(error, ServerError):
        return False
    return error.retry_after_s is not None or _OVERLOADED.match(error.problem) is not None


def check_limits(limits: RateLimits) -> None:
    """Raises ValueError for limits that admit nothing."""
    for name in ("requests_per_minute", "tokens_per_minute", "concurrency"):
        value = getattr(limits, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}: at least 1 is needed")


class Pace:
    """What may be sent now, and what was learned of the server. Times are seconds of one clock.

    `state`, as `state()` gave it, is gone on with, whatever the limits were then. Raises ValueError for limits that
    admit nothing.
    """

    def __init__(self, limits: RateLimits, now: float, state: Mapping[str, Any] | None = None) -> None:
        check_limits(limits)
        state = state or {}
        self.limits = limits
        self.window: int = min(state.get("window", limits.concurrency), limits.concurrency)
        """Requests at once, at the moment: 1 to `limits.concurrency`."""
        self._successes: int = state.get("successes", 0)
        self._slowings: int = state.get("slowings", 0)
        """How often the window was made smaller."""
        self._slowings_in_a_row: int = state.get("slowings_in_a_row", 0)
        self._interruptions_in_a_row: int = state.get("interruptions_in_a_row", 0)
        self._patience: int = state.get("patience", 1)
        """Rounds of answers before one more is let go at once."""
        self._paused_until: float = state.get("paused_until", float("-inf"))
        self._requests = _bucket(limits.requests_per_minute, now, state.get("requests"))
        self._tokens = _bucket(limits.tokens_per_minute, now, state.get("tokens"))

    def state(self) -> dict[str, Any]:
        """All of it, as plain JSON values."""
        return {
            "window": self.window,
            "successes": self._successes,
            "slowings": self._slowings,
            "slowings_in_a_row": self._slowings_in_a_row,
            "interruptions_in_a_row": self._interruptions_in_a_row,
            "patience": self._patience,
            "paused_until": max(self._paused_until, 0.0),
            "requests": self._requests and self._requests.state,
            "tokens": self._tokens and self._tokens.state,
        }

    def wait_s(self, tokens: int, now: float) -> float:
        """Seconds until a request of at most `tokens` may be sent, as far as the minute goes."""
        wait_s = self._paused_until - now
        if self._requests is not None:
            wait_s = max(wait_s, self._requests.wait_s(1, now))
        if self._tokens is not None:
            wait_s = max(wait_s, self._tokens.wait_s(tokens, now))
        return wait_s

    def take(self, tokens: int) -> int:
        """A request is sent. Its stamp is to be given to `ended`."""
        if self._requests is not None:
            self._requests.take(1)
        self.correct(tokens)
        return self._slowings

    def correct(self, tokens: int) -> None:
        """A request took so many more tokens than was said; fewer, where it is negative."""
        if self._tokens is not None:
            self._tokens.take(tokens)

    def ended(self, outcome: Outcome, stamp: int, now: float) -> None:
        """A request is over."""
        # The rest of a burst was sent before the window was made smaller and says nothing of the smaller one.
        fresh = stamp == self._slowings
        if outcome.kind == "answered":
            self._answered(fresh=fresh)
        elif outcome.kind == "too_much":
            self._too_much(outcome.pause_s, now, fresh=fresh)
        elif outcome.kind == "interrupted" and fresh and self.window > 1:
            self._interrupted()
        elif outcome.kind == "unsent" and self._requests is not None:
            self._requests.take(-1)

    def _answered(self, *, fresh: bool) -> None:
        self._slowings_in_a_row = 0
        if not fresh:
            return
        self._successes += 1
        if self._successes >= self.window * self._patience:
            self._successes = 0
            self.window = min(self.window + 1, self.limits.concurrency)
            if self.window > 2:
                # Two at once did no harm, so it was not that which had the answers broken off.
                self._patience = 1
                self._interruptions_in_a_row = 0

    def _too_much(self, pause_s: float | None, now: float, *, fresh: bool) -> None:
        if fresh:
            self._slowings += 1
            self._slowings_in_a_row += 1
            self._successes = 0
            self.window = max(1, self.window // 2)
        if pause_s is None and self._slowings_in_a_row > 1:
            # Not a single answer at the slower pace: perhaps a limit per minute that nobody told us. Six attempts, the
            # usual number, last for more than a minute in this way.
            pause_s = min(LONGEST_COOL_DOWN_S, 2.0 * 4.0 ** min(self._slowings_in_a_row - 2, 64))
        if pause_s is not None and pause_s <= LONGEST_PAUSE_S:
            self._paused_until = max(self._paused_until, now + pause_s)

    def _interrupted(self) -> None:
        """An answer was broken off, for another request as likely as not: whatever the pace, so nobody has to pause."""
        self._slowings += 1
        self._successes = 0
        self._interruptions_in_a_row += 1
        # Halving until it fits would have the last in the row broken off more often than it is tried.
        self.window = 1 if self._interruptions_in_a_row > 1 else self.window // 2
        self._patience = min(2 * self._patience, _LONGEST_PATIENCE)


def _bucket(per_minute: int | None, now: float, state: tuple[float, float] | None) -> Bucket | None:
    return None if per_minute is None else Bucket(per_minute, now, state)
