"""How the processes that ask one server share what it admits: the rules alone, as plain data.

Each member tells what ended and what waits, and is told how many of its requests may be sent now. Turns go to whoever
has had least of late (start-time fair queueing: Goyal, Vin and Cheng 1996), so that one with ten times as many requests
does not keep another waiting. What is left when all who wait have had their part is anybody's, so nothing lies idle: a
member need not ask for its part to be kept, and one that stays away forfeits it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import astuple, dataclass
from typing import Any, Final

from lcdoc.agents.models.model import RateLimits
from lcdoc.agents.models.pace import Outcome, Pace

MOST_TOLD: Final = 64
"""Waiting requests that a member tells of at a time."""
SIGN_S: Final = 10.0
"""A member with requests under way tells of itself at least so often."""
_SHORTEST_WAIT_S: Final = 0.005
_LONGEST_WAIT_S: Final = 0.025
"""Between two questions of a member that waits for others."""
_LONGEST_PAUSE_S: Final = 1.0
"""The same for one that waits for the minute to pass, or for a pause that the server wanted."""
_LATE_S: Final = 0.5
"""A member that does not ask again within so long after it was to, waits for nothing."""
_FORGOTTEN_S: Final = 10.0
"""What a member that has nothing to do has had of late is forgotten after so long."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that is over, or was not sent after all."""

    stamp: int
    """Its turn's."""
    more_tokens: int
    """What it took beyond what was said; fewer, where it is negative."""
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Told:
    """What a member tells."""

    under_way: int
    """Its requests now, without those that ended."""
    ended: tuple[Ended, ...] = ()
    """Since the last time."""
    waiting: tuple[int, ...] = ()
    """The most that each waiting request takes, in tokens, the first in front; at most MOST_TOLD of them."""


@dataclass(frozen=True, slots=True)
class Given:
    """What it is told."""

    turns: tuple[int, ...]
    """The stamps of those of its waiting requests that may be sent, from the front."""
    wait_s: float
    """Where more wait: when to ask again."""
    window: int
    """Requests at once, of all members, at the moment."""


@dataclass(slots=True)
class _Member:
    under_way: int = 0
    waiting: int = 0
    tokens: int = 0
    """Of the request in front."""
    had: float = 0.0
    """Its part of what was given of late."""
    seen_at: float = 0.0
    due_at: float = 0.0
    """When it is to ask again."""


IsGone = Callable[[str, float], bool]
"""Whether a member has ended, from its name and how long ago it was last heard of."""


class Sharing:
    """The turns at one server. Times are seconds of one clock, which all members go by.

    `state`, as `state()` gave it, is gone on with. Raises ValueError for limits that admit nothing.
    """

    def __init__(self, limits: RateLimits, now: float, state: Mapping[str, Any] | None = None) -> None:
        self._limits = limits
        self._served: float = 0.0
        """What the member that was served last had had before."""
        self._members: dict[str, _Member] = {}
        if state is not None:
            self._served = state["served"]
            self._members = {name: _Member(*values) for name, values in state["members"].items()}
        self._pace = Pace(limits, now, None if state is None else state["pace"])

    def state(self) -> dict[str, Any]:
        """All of it, as plain JSON values."""
        members = {name: astuple(member) for name, member in self._members.items()}
        return {"served": self._served, "members": members, "pace": self._pace.state()}

    def exchange(self, name: str, told: Told, now: float, is_gone: IsGone) -> Given:
        """Take what a member tells, and give it its turns."""
        for ended in told.ended:
            self._pace.correct(ended.more_tokens)
            self._pace.ended(ended.outcome, ended.stamp, now)
        if name not in self._members:
            self._forget(name, now, is_gone)
            self._members[name] = _Member(had=self._served)
        me = self._members[name]
        if not me.waiting and told.waiting:
            # Whoever had nothing to do has not saved up for later.
            me.had = max(me.had, self._served)
        me.under_way, me.seen_at, me.due_at = told.under_way, now, now
        me.waiting, me.tokens = 0, 0
        turns = self._turns(me, told.waiting, now)
        if len(turns) < len(told.waiting) and self._forget(name, now, is_gone):
            turns += self._turns(me, told.waiting[len(turns) :], now)
        left = told.waiting[len(turns) :]
        if not left:
            return Given(tuple(turns), 0.0, self._pace.window)
        me.waiting, me.tokens = len(left), left[0]
        wait_s = self._wait_s(left[0], now)
        me.due_at = now + wait_s
        return Given(tuple(turns), wait_s, self._pace.window)

    def _turns(self, me: _Member, waiting: Sequence[int], now: float) -> list[int]:
        """Turns as they would be given to all who wait, of which `me` gets its own."""
        turns: list[int] = []
        under_way = sum(member.under_way for member in self._members.values())
        rivals = [
            copy(member)
            for member in self._members.values()
            if member is not me and member.waiting and now <= member.due_at + _LATE_S
        ]
        # What is set aside for others is not taken: they do that themselves.
        ahead = Pace(self._limits, now, self._pace.state()) if rivals else self._pace
        while len(turns) < len(waiting) and under_way < self._pace.window:
            rival = min(rivals, key=lambda member: member.had, default=None)
            if rival is not None and rival.had < me.had:
                if ahead.wait_s(rival.tokens, now) > 0:
                    break
                ahead.take(rival.tokens)
                rival.had += self._part(rival.tokens)
                rival.waiting -= 1
                if not rival.waiting:
                    rivals.remove(rival)
            else:
                tokens = waiting[len(turns)]
                if ahead.wait_s(tokens, now) > 0:
                    break
                if ahead is not self._pace:
                    ahead.take(tokens)
                turns.append(self._pace.take(tokens))
                self._served = max(self._served, me.had)
                me.had += self._part(tokens)
                me.under_way += 1
            under_way += 1
        return turns

    def _part(self, tokens: int) -> float:
        """How much of what the server admits a request is."""
        requests, limit = self._limits.requests_per_minute, self._limits.tokens_per_minute
        parts = [part for part in (requests and 1 / requests, limit and max(1, tokens) / limit) if part]
        return max(parts, default=1.0)

    def _wait_s(self, tokens: int, now: float) -> float:
        wait_s = self._pace.wait_s(tokens, now)
        if wait_s <= _LONGEST_WAIT_S:
            return max(wait_s, _SHORTEST_WAIT_S) if wait_s > 0 else _LONGEST_WAIT_S
        return min(wait_s, _LONGEST_PAUSE_S)

    def _forget(self, asking: str, now: float, is_gone: IsGone) -> bool:
        """Forget members that are gone, or have long had nothing to do; whether turns came free."""
        freed = False
        for name, member in list(self._members.items()):
            if name == asking:
                continue
            unseen_s = now - member.seen_at
            busy = bool(member.under_way or member.waiting)
            if is_gone(name, unseen_s) if busy else unseen_s > _FORGOTTEN_S:
                freed = freed or busy
                del self._members[name]
        return freed
