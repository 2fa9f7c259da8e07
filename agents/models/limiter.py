"""No more requests at a time, and in a minute, than a server admits: one limiter for all runs of a model."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from hashlib import blake2b
from types import TracebackType
from typing import Protocol

from lcdoc.agents.models.errors import ModelError, RateLimitError
from lcdoc.agents.models.model import ChatModel, Completion, ModelSpec, RateLimits, Request
from lcdoc.agents.models.pace import Outcome, Pace, outcome_of
from lcdoc.agents.models.queue_time import in_queue
from lcdoc.agents.models.worst_case import longest_answer, prompt_tokens

_log = logging.getLogger(__name__)

_COUNTS_KEPT = 4_096
_SHORTEST_TIMER_S = 0.001


class Turn(Protocol):
    """A request's turn: it is being made."""

    def used(self, tokens: int) -> None:
        """What the request really took; the rest is free for others. Without it, all that was asked for counts."""


class Turns(Protocol):
    """Gives requests their turns, first come, first served."""

    @property
    def counts_tokens(self) -> bool:
        """Whether it matters how long a request is."""

    def slot(self, tokens: int = 0) -> AbstractAsyncContextManager[Turn]:
        """`async with turns.slot(tokens) as slot`: waits for a turn, of at most `tokens`.

        What ends the block tells how the server is doing: nothing means well, a RateLimitError that it is too much.
        """


class Limiter:
    """Admits the requests of one process. For the tasks of one event loop at a time.

    `clock` gives seconds and runs like the loop's. Raises ValueError for limits that admit nothing.
    """

    def __init__(self, limits: RateLimits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self._pace = Pace(limits, clock())
        self._in_flight = 0
        self._waiting: OrderedDict[asyncio.Future[None], Slot] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def window(self) -> int:
        """Requests at once, at the moment: 1 to `limits.concurrency`."""
        return self._pace.window

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def counts_tokens(self) -> bool:
        return self.limits.tokens_per_minute is not None

    def slot(self, tokens: int = 0) -> Slot:
        """`async with limiter.slot(tokens) as slot`: waits for a turn, of at most `tokens`.

        What ends the block tells how the server is doing: nothing means well, a RateLimitError that it is too much.
        """
        return Slot(self, tokens)

    async def _enter(self, slot: Slot) -> None:
        if not self._waiting and self._in_flight < self.window and self._wait_s(slot) <= 0:
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
        before = self.window
        self._pace.ended(outcome_of(error), slot.stamp, self._clock())
        if self.window < before:
            _log.info("%s; at most %d requests at once from here on", error, self.window)
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
            if self._in_flight >= self.window:
                return
            if (wait_s := self._wait_s(slot)) > 0:
                self._timer = turn.get_loop().call_later(max(wait_s, _SHORTEST_TIMER_S), self._admit)
                return
            del self._waiting[turn]
            self._take(slot)
            turn.set_result(None)

    def _wait_s(self, slot: Slot) -> float:
        return self._pace.wait_s(slot.tokens, self._clock())

    def _take(self, slot: Slot) -> None:
        self._in_flight += 1
        slot.stamp = self._pace.take(slot.tokens)

    def _return_unused(self, slot: Slot) -> None:
        self._in_flight -= 1
        self._pace.ended(Outcome("unsent"), slot.stamp, self._clock())
        self._correct(slot, 0)

    def _correct(self, slot: Slot, tokens: int) -> None:
        self._pace.correct(tokens - slot.tokens)
        slot.tokens = tokens


class Slot:
    """One request's turn. Entered once."""

    __slots__ = ("_limiter", "stamp", "tokens")

    def __init__(self, limiter: Limiter, tokens: int) -> None:
        self._limiter = limiter
        self.tokens = tokens
        self.stamp = 0
        """What the pace was when this turn began."""

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


class LimitedModel:
    """A model behind a limiter. Remembers how long texts are, since a prompt is counted for every attempt and layer."""

    def __init__(self, inner: ChatModel, limiter: Turns) -> None:
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
