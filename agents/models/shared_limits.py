"""What a server admits, shared by all that ask it: a process's requests wait here for turns that are given elsewhere.

`SharedLimits` is who gives them: see `lcdoc.agents.models.machine_limits` for the processes of one machine.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from hashlib import blake2b
from itertools import islice
from types import TracebackType
from typing import Protocol

from lcdoc.agents.models.fingerprint import public_url
from lcdoc.agents.models.model import RateLimits, Server
from lcdoc.agents.models.pace import Outcome, check_limits, outcome_of
from lcdoc.agents.models.queue_time import in_queue
from lcdoc.agents.models.secrets import Key
from lcdoc.agents.models.sharing import MOST_TOLD, SIGN_S, Ended, Given, Told
from lcdoc.memory.owner import Owner

_log = logging.getLogger(__name__)


class SharedLimits(Protocol):
    """Gives turns to members, each with many requests: see `lcdoc.agents.models.sharing` for the rules."""

    async def exchange(self, server: str, limits: RateLimits, member: str, told: Told) -> Given:
        """Tell what ended and what waits, and be given turns. Answers at once, also when there are none."""


def server_name(server: Server, key: Key | None) -> str:
    """What a server's limits are known by: its address, the model, and whose key it is, without telling the key."""
    secret = b"" if key is None else blake2b(key.reveal().encode("utf-8", "surrogatepass"), digest_size=16).digest()
    asked = json.dumps([public_url(server.base_url), server.model])
    return blake2b(asked.encode() + secret, digest_size=16).hexdigest()


class SharedLimiter:
    """The turns of this process's requests, first come, first served among them. For one event loop at a time.

    `aclose` it, so that the others know at once that nothing is under way any more. Raises ValueError for limits that
    admit nothing.
    """

    def __init__(self, shared: SharedLimits, server: str, limits: RateLimits) -> None:
        check_limits(limits)
        self.limits = limits
        self.window = limits.concurrency
        """Requests at once, of all processes, as far as was heard."""
        self._shared = shared
        self._server = server
        self._member = str(Owner.here())
        self._under_way = 0
        self._ended: list[Ended] = []
        self._waiting: OrderedDict[asyncio.Future[int], int] = OrderedDict()
        self._changed = asyncio.Event()
        self._talking: asyncio.Task[None] | None = None

    @property
    def in_flight(self) -> int:
        """Requests of this process."""
        return self._under_way

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def counts_tokens(self) -> bool:
        return self.limits.tokens_per_minute is not None

    def slot(self, tokens: int = 0) -> SharedSlot:
        """See `lcdoc.agents.models.limiter.Turns.slot`."""
        return SharedSlot(self, tokens)

    async def aclose(self) -> None:
        """Tell of what ended, when nothing is under way or waits any more."""
        talking = self._talking
        if talking is not None and not self._under_way and not self._waiting:
            if not talking.done() and talking.get_loop() is asyncio.get_running_loop():
                await talking
            if self._ended:
                await self._talk_once()

    async def _enter(self, tokens: int) -> int:
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = tokens
        if len(self._waiting) == 1:
            self._wake()
        try:
            with in_queue():
                return await turn
        except BaseException:
            if self._waiting.pop(turn, None) is None and not turn.cancelled() and turn.exception() is None:
                self._leave(Ended(turn.result(), -tokens, Outcome("unsent")))
            raise

    def _leave(self, ended: Ended) -> None:
        self._under_way -= 1
        self._ended.append(ended)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        loop = asyncio.get_running_loop()
        if self._talking is None or self._talking.done() or self._talking.get_loop() is not loop:
            self._changed = asyncio.Event()
            self._talking = loop.create_task(self._talk(self._changed))

    async def _talk(self, changed: asyncio.Event) -> None:
        """Tell and be told, as long as there is anything."""
        while True:
            changed.clear()
            try:
                wait_s = await self._talk_once()
            except Exception as error:  # noqa: BLE001 - it is raised where turns are waited for
                self._fail(error)
                return
            if not (self._waiting or self._ended or self._under_way):
                return
            if wait_s is None or wait_s > 0:
                try:
                    await asyncio.wait_for(changed.wait(), SIGN_S if wait_s is None else wait_s)
                except TimeoutError:
                    continue

    async def _talk_once(self) -> float | None:
        """Seconds until there is something to ask; None: whenever anything happens."""
        for turn in [turn for turn in self._waiting if turn.done() or turn.get_loop().is_closed()]:
            del self._waiting[turn]
        front = list(islice(self._waiting.items(), MOST_TOLD))
        ended, self._ended = self._ended, []
        told = Told(self._under_way, tuple(ended), tuple(tokens for _, tokens in front))
        try:
            given = await self._shared.exchange(self._server, self.limits, self._member, told)
        except Exception:
            self._ended = ended + self._ended
            raise
        if given.window < self.window:
            _log.info("at most %d requests at once from here on, of all processes", given.window)
        self.window = given.window
        for (turn, tokens), stamp in zip(front, given.turns, strict=False):
            if self._waiting.pop(turn, None) is None or turn.done():
                # Whoever waited has left meanwhile.
                self._ended.append(Ended(stamp, -tokens, Outcome("unsent")))
            else:
                self._under_way += 1
                turn.set_result(stamp)
        if not self._waiting:
            return None
        return given.wait_s if len(given.turns) < len(front) else 0.0

    def _fail(self, error: Exception) -> None:
        while self._waiting:
            turn, _ = self._waiting.popitem(last=False)
            if not turn.done():
                turn.set_exception(error)


class SharedSlot:
    """One request's turn. Entered once."""

    __slots__ = ("_limiter", "_stamp", "_tokens", "_used")

    def __init__(self, limiter: SharedLimiter, tokens: int) -> None:
        self._limiter = limiter
        self._tokens = self._used = tokens
        self._stamp = 0

    async def __aenter__(self) -> SharedSlot:
        self._stamp = await self._limiter._enter(self._tokens)
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._limiter._leave(Ended(self._stamp, self._used - self._tokens, outcome_of(error)))

    def used(self, tokens: int) -> None:
        """What the request really took; the rest is free for others. Without it, all that was asked for counts."""
        self._used = tokens
