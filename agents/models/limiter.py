"""No more requests at a time, and in a minute, than a server admits: one limiter for all runs of a model.

Requests and tokens per minute are token buckets. How many requests are under way at once follows the server: half as
many when it says that this is too much, one more after each round of answers. A server that breaks an answer off when
another request comes is soon asked for one at a time, and more are tried seldom.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from types import TracebackType

from lcdoc.agents.models.errors import CutStreamError, ModelError, ModelTimeoutError, RateLimitError, ServerError
from lcdoc.agents.models.model import ChatModel, Completion, ModelSpec, RateLimits, Request
from lcdoc.agents.models.queue_time import in_queue
from lcdoc.agents.models.token_bucket import Bucket
from lcdoc.agents.models.worst_case import longest_answer, prompt_tokens

_log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 180.0
"""A server that asks for more is not waited for: whoever is next hears of it himself, and fails with that."""
LONGEST_COOL_DOWN_S = 30.0
"""Between two requests to a server that refuses all of them and does not say for how long."""
_OVERLOADED = re.compile(r"(?:the server answered )?(?:503|529)\b")
"""Of the problems of a ServerError, which begin with the status."""
_LONGEST_PATIENCE = 64
_COUNTS_KEPT = 4_096
_SHORTEST_TIMER_S = 0.001


class Limiter:
    """Admits requests, first come, first served. For the tasks of one event loop at a time.

    `clock` gives seconds and runs like the loop's. Raises ValueError for limits that admit nothing.
    """

    def __init__(self, limits: RateLimits, *, clock: Callable[[], float] = time.monotonic) -> None:
        for name in ("requests_per_minute", "tokens_per_minute", "concurrency"):
            value = getattr(limits, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: at least 1 is needed")
        self.limits = limits
        self._clock = clock
        self._window = limits.concurrency
        self._in_flight = 0
        self._successes = 0
        self._slowings = 0
        self._slowings_in_a_row = 0
        self._interruptions_in_a_row = 0
        self._patience = 1
        """Rounds of answers before one more is let go at once."""
        self._paused_until = float("-inf")
        self._requests = Bucket(limits.requests_per_minute, clock()) if limits.requests_per_minute else None
        self._tokens = Bucket(limits.tokens_per_minute, clock()) if limits.tokens_per_minute else None
        self._waiting: OrderedDict[asyncio.Future[None], Slot] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def window(self) -> int:
        """Requests at once, at the moment: 1 to `limits.concurrency`."""
        return self._window

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def counts_tokens(self) -> bool:
        return self._tokens is not None

    def slot(self, tokens: int = 0) -> Slot:
        """`async with limiter.slot(tokens) as slot`: waits for a turn, of at most `tokens`.

        What ends the block tells how the server is doing: nothing means well, a RateLimitError that it is too much.
        """
        return Slot(self, tokens)

    async def _enter(self, slot: Slot) -> None:
        if not self._waiting and self._in_flight < self._window and self._wait_s(slot) <= 0:
            self._take(slot)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = slot
        self._admit()
        try:
            with in_queue():
                await turn
        except BaseException:
            if self._waiting.pop(turn, None) is None and turn.done() and not turn.cancelled():
                self._return_unused(slot)
            self._admit()
            raise

    def _leave(self, slot: Slot, error: BaseException | None) -> None:
        self._in_flight -= 1
        if error is None:
            self._answered(slot)
        elif isinstance(error, ModelError):
            self._failed(slot, error)
        self._admit()

    def _admit(self) -> None:
        """Give turns to those in front. Called whenever one may have become possible, so that nobody has to ask."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            turn, slot = next(iter(self._waiting.items()))
            if turn.done() or turn.get_loop().is_closed():
                del self._waiting[turn]
                continue
            if self._in_flight >= self._window:
                return
            if (wait_s := self._wait_s(slot)) > 0:
                self._timer = turn.get_loop().call_later(max(wait_s, _SHORTEST_TIMER_S), self._admit)
                return
            del self._waiting[turn]
            self._take(slot)
            turn.set_result(None)

    def _wait_s(self, slot: Slot) -> float:
        now = self._clock()
        wait_s = self._paused_until - now
        if self._requests is not None:
            wait_s = max(wait_s, self._requests.wait_s(1, now))
        if self._tokens is not None:
            wait_s = max(wait_s, self._tokens.wait_s(slot.tokens, now))
        return wait_s

    def _take(self, slot: Slot) -> None:
        self._in_flight += 1
        slot.slowings = self._slowings
        if self._requests is not None:
            self._requests.take(1)
        if self._tokens is not None:
            self._tokens.take(slot.tokens)

    def _return_unused(self, slot: Slot) -> None:
        self._in_flight -= 1
        if self._requests is not None:
            self._requests.take(-1)
        self._correct(slot, 0)

    def _correct(self, slot: Slot, tokens: int) -> None:
        if self._tokens is not None:
            self._tokens.take(tokens - slot.tokens)
        slot.tokens = tokens

    def _answered(self, slot: Slot) -> None:
        self._slowings_in_a_row = 0
        if slot.slowings != self._slowings:
            return
        self._successes += 1
        if self._successes >= self._window * self._patience:
            self._successes = 0
            self._window = min(self._window + 1, self.limits.concurrency)
            if self._window > 2:
                # Two at once did no harm, so it was not that which had the answers broken off.
                self._patience = 1
                self._interruptions_in_a_row = 0

    def _failed(self, slot: Slot, error: ModelError) -> None:
        if isinstance(error, CutStreamError) and error.interrupted:
            self._interrupted(slot, error)
            return
        if not _means_slower(error):
            return
        # The rest of a burst was sent before the window was made smaller and says nothing of the smaller one.
        if slot.slowings == self._slowings:
            self._slowings += 1
            self._slowings_in_a_row += 1
            self._successes = 0
            self._window = max(1, self._window // 2)
            _log.info("%s; at most %d requests at once from here on", error, self._window)
        pause_s = error.retry_after_s if isinstance(error, RateLimitError | ServerError) else None
        if pause_s is None and self._slowings_in_a_row > 1:
            # Not a single answer at the slower pace: perhaps a limit per minute that nobody told us. Six attempts, the
            # usual number, last for more than a minute in this way.
            pause_s = min(LONGEST_COOL_DOWN_S, 2.0 * 4.0 ** min(self._slowings_in_a_row - 2, 64))
        if pause_s is not None and pause_s <= LONGEST_PAUSE_S:
            self._paused_until = max(self._paused_until, self._clock() + pause_s)

    def _interrupted(self, slot: Slot, error: CutStreamError) -> None:
        """An answer was broken off, for another request as likely as not: whatever the pace, so nobody has to pause."""
        if slot.slowings != self._slowings or self._window == 1:
            return
        self._slowings += 1
        self._successes = 0
        self._interruptions_in_a_row += 1
        # Halving until it fits would have the last in the row broken off more often than it is tried.
        self._window = 1 if self._interruptions_in_a_row > 1 else self._window // 2
        self._patience = min(2 * self._patience, _LONGEST_PATIENCE)
        _log.info("%s; at most %d requests at once from here on", error, self._window)


class Slot:
    """One request's turn. Entered once."""

    __slots__ = ("_limiter", "slowings", "tokens")

    def __init__(self, limiter: Limiter, tokens: int) -> None:
        self._limiter = limiter
        self.tokens = tokens
        self.slowings = 0
        """How often the window had been halved when this turn began."""

    async def __aenter__(self) -> Slot:
        await self._limiter._enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._limiter._leave(self, error)

    def used(self, tokens: int) -> None:
        """What the request really took; the rest is free for others. Without it, all that was asked for counts."""
        self._limiter._correct(self, tokens)


def _means_slower(error: ModelError) -> bool:
    """Whether the server has too much to do. Other failures, at any rate of requests, are no reason to send fewer."""
    if isinstance(error, RateLimitError | ModelTimeoutError):
        return True
    if not isinstance(error, ServerError):
        return False
    return error.retry_after_s is not None or _OVERLOADED.match(error.problem) is not None


class LimitedModel:
    """A model behind a limiter. Remembers how long texts are, since a prompt is counted for every attempt and layer."""

    def __init__(self, inner: ChatModel, limiter: Limiter) -> None:
        self._inner = inner
        self._limiter = limiter
        self._counts: OrderedDict[bytes, int] = OrderedDict()

    @property
    def spec(self) -> ModelSpec:
        return self._inner.spec

    def count_tokens(self, text: str) -> int:
        # Digests rather than the texts, so that a long prompt is not held for as long as the process lives.
        key = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        tokens = self._counts.get(key)
        if tokens is None:
            tokens = self._counts[key] = self._inner.count_tokens(text)
            if len(self._counts) > _COUNTS_KEPT:
                self._counts.popitem(last=False)
        return tokens

    async def complete(self, request: Request) -> Completion:
        """Answer when it is this request's turn. The waiting is not in `Completion.seconds`."""
        tokens = 0
        if self._limiter.counts_tokens:
            tokens = prompt_tokens(self, request) + longest_answer(self.spec, request)
        async with self._limiter.slot(tokens) as slot:
            try:
                completion = await self._inner.complete(request)
            except RateLimitError:
                # Whether the server counts what it refuses is not known, so it stays counted here.
                raise
            except ModelError as error:
                slot.used(error.usage.tokens)
                raise
            if completion.usage.tokens:
                slot.used(completion.usage.tokens)
            return completion
