"""Failures that may pass are tried again, after growing, random waits, for no longer than anybody would wait."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal, NoReturn

from lcdoc.agents.models.errors import (
    ConnectionFailedError,
    ModelError,
    ModelTimeoutError,
    RateLimitError,
    RetriesExhaustedError,
    ServerError,
)
from lcdoc.agents.models.ledger import Ledger
from lcdoc.agents.models.model import ChatModel, Completion, ModelSpec, OnText, Request
from lcdoc.agents.models.queue_time import watch_queues

_log = logging.getLogger(__name__)

_Kind = Literal["connect", "first_token", "other"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a request is tried. Raises ValueError for figures that allow no attempt."""

    attempts: int = 6
    """All in all, the first one included."""
    connect_attempts: int = 3
    """Of them, how many may end without a connection: a server that is not running does not appear by waiting."""
    first_token_attempts: int = 2
    """Of them, how many may wait in vain for the answer to begin: each took minutes already."""
    first_wait_s: float = 0.5
    """The wait after the first failure at most; twice that after each further one."""
    longest_wait_s: float = 30.0
    ceiling_s: float = 180.0
    """From the first failure to the last attempt's beginning, at most; waiting in our own queues is not counted."""

    def __post_init__(self) -> None:
        if min(self.attempts, self.connect_attempts, self.first_token_attempts) < 1:
            raise ValueError("a request is tried at least once")
        if not all(wait_s >= 0 for wait_s in (self.first_wait_s, self.longest_wait_s, self.ceiling_s)):
            raise ValueError("waits are 0 seconds or more")

    def allowed(self, kind: _Kind) -> int:
        """How many attempts may fail in this way."""
        return {"connect": self.connect_attempts, "first_token": self.first_token_attempts}.get(kind, self.attempts)


class RetryingModel:
    """A model that is asked again where `ModelError.retryable` says so.

    Waits are random between 0 and a bound that doubles, so that many callers do not come back together; what the server
    asks to wait is the least. `rng` makes the waits; a seeded one repeats them.
    """

    def __init__(
        self, inner: ChatModel, policy: RetryPolicy, ledger: Ledger, *, rng: random.Random | None = None
    ) -> None:
        self._inner = inner
        self._policy = policy
        self._ledger = ledger
        self._rng = rng or random.Random()

    @property
    def spec(self) -> ModelSpec:
        return self._inner.spec

    def count_tokens(self, text: str) -> int:
        return self._inner.count_tokens(text)

    async def complete(self, request: Request) -> Completion:
        """Answer. Raises RetriesExhaustedError from the last error, BudgetExceededError when the run's time is up."""
        clock = asyncio.get_running_loop().time
        start = clock()
        first_failure_s: float | None = None
        failures: Counter[_Kind] = Counter()
        with watch_queues() as queues:
            while True:
                listener = _Listener(request.on_text)
                try:
                    return await self._inner.complete(replace(request, on_text=listener))
                except ModelError as error:
                    if not error.retryable:
                        raise
                    passed_s = clock() - start - queues.total_s
                    if first_failure_s is None:
                        first_failure_s = passed_s
                    failures[_kind(error, listener)] += 1
                    wait_s = self._wait_s(error, failures, passed_s, passed_s - first_failure_s)
                    _log.info("%s; attempt %d, the next in %.1f s", error, failures.total(), wait_s)
                await asyncio.sleep(wait_s)
                if listener.heard and request.on_text is not None:
                    request.on_text("")

    def _wait_s(self, error: ModelError, failures: Counter[_Kind], passed_s: float, failing_s: float) -> float:
        """Seconds to wait before the next attempt. Raises when there is none."""
        policy, tried = self._policy, failures.total()
        if tried >= policy.attempts or any(count >= policy.allowed(kind) for kind, count in failures.items()):
            _give_up(error, tried, passed_s)
        # 2**tried alone would not be a float any more after a thousand attempts.
        longest_s = min(policy.longest_wait_s, policy.first_wait_s * 2.0 ** min(tried - 1, 64))
        wait_s = self._rng.uniform(0, longest_s)
        asked_s = error.retry_after_s if isinstance(error, RateLimitError | ServerError) else None
        if asked_s is not None:
            wait_s = max(wait_s, asked_s + self._rng.uniform(0, policy.first_wait_s))
        if failing_s + wait_s > policy.ceiling_s:
            _give_up(error, tried, passed_s, f"the next attempt would have to wait {_seconds(wait_s)}")
        remaining_s = self._ledger.remaining_s()
        if remaining_s == 0:
            raise self._ledger.out_of_time(self.spec) from error
        if remaining_s is not None and wait_s >= remaining_s:
            _give_up(error, tried, passed_s, f"the run's last {_seconds(remaining_s)} are too short for another")
        return wait_s


class _Listener:
    """Hands the text on and knows whether there was any."""

    __slots__ = ("_on_text", "heard")

    def __init__(self, on_text: OnText | None) -> None:
        self._on_text = on_text
        self.heard = False

    def __call__(self, piece: str) -> None:
        self.heard = self.heard or bool(piece)
        if self._on_text is not None:
            self._on_text(piece)


def _kind(error: ModelError, listener: _Listener) -> _Kind:
    if isinstance(error, ConnectionFailedError):
        return "connect"
    if isinstance(error, ModelTimeoutError) and not listener.heard and not error.usage.tokens_out:
        return "first_token"
    return "other"


def _give_up(error: ModelError, tried: int, passed_s: float, reason: str = "") -> NoReturn:
    times = "once" if tried == 1 else f"{tried} times"
    effort = f"tried {times} in {_seconds(passed_s)}" + (f"; {reason}" if reason else "")
    raise RetriesExhaustedError(error.model, f"{error.problem} ({effort})", error.remedy) from error


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
