"""What nodes keep with the job's library: answers of models the moment they are there, and what calls may cost.

The clerk sits beside the library, on the head node, so nothing that was paid for is lost with a node. Nodes speak to it
as if its books were theirs: `ClerkCalls` is their call store, `NodePurse` what their calls are paid from.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from lcdoc.jobs.job import Job
from lcdoc.memory import Library
from lcdoc.memory.calls import Call, Calls
from lcdoc.memory.errors import LibraryError
from lcdoc.memory.purses import JobPurse
from lcdoc.memory.spending import CapReachedError, Spending, Whose


@dataclass(frozen=True, slots=True)
class Refused:
    """A LibraryError on its way to a node."""

    kind: type[LibraryError]
    path: str
    problem: str
    remedy: str

    @classmethod
    def of(cls, error: LibraryError) -> Refused:
        return cls(type(error), str(error.path), error.problem, error.remedy)

    def error(self) -> LibraryError:
        return self.kind(self.path, self.problem, self.remedy)


class Line(Protocol):
    """How a node reaches the clerk."""

    async def ask(self, what: str, *given: Any) -> Any:
        """Have the clerk do `what`, a method of `Clerk`, and return its result."""
        ...

    def tell(self, what: str, *given: Any) -> None:
        """The same, without waiting for it."""
        ...


class Clerk:
    """Keeps the books of a job for its nodes. For one event loop.

    Who asks is a `member`. One that is gone is to be forgotten: what it was at is free for others then, and what it
    held back for calls counts as spent, since it may have been.
    """

    def __init__(self, library: Library, purse: JobPurse | None = None) -> None:
        self._calls = library.calls
        self._purse = purse
        self._at: dict[str, str] = {}
        """Keys of calls under way, and whose they are."""
        self._held: dict[int, tuple[str, Spending]] = {}

    async def claim(self, member: str, key: str, other_than: float | None) -> Call | bool | Refused:
        """See `Calls.claim`."""
        try:
            if self._at.get(key, member) != member:
                call = self._calls.get(key)
                return call if call is not None and call.created_at != other_than else False
            self._at[key] = member
            claim = await self._calls.claim(key, other_than=other_than)
        except LibraryError as error:
            self._let_go(member, key)
            return Refused.of(error)
        if claim is not True:
            self._let_go(member, key)
        return claim

    async def put(self, member: str, key: str, call: Call) -> Refused | None:
        """See `Calls.put`."""
        try:
            await self._calls.put(key, call)
        except LibraryError as error:
            return Refused.of(error)
        self._let_go(member, key)
        return None

    async def is_claimed(self, member: str, key: str) -> bool:
        """See `Calls.is_claimed`: whether anybody else is at it."""
        return self._at.get(key, member) != member or self._calls.is_claimed(key)

    async def release(self, member: str, key: str) -> None:
        """See `Calls.release`."""
        if self._at.get(key) == member:
            del self._at[key]
            self._calls.release(key)

    async def reserve(self, member: str, document: int, worst: Spending) -> int | CapReachedError | Refused:
        """See `Purse.reserve`."""
        if self._purse is None:
            raise ValueError("the job has no caps to reserve in")
        try:
            number = await self._purse.reserve(document, worst)
        except CapReachedError as error:
            return error
        except LibraryError as error:
            return Refused.of(error)
        self._held[number] = member, worst
        return number

    async def settle(self, number: int, spent: Spending) -> None:
        """See `Purse.settle`. What was settled already, for one that seemed to be gone, stays so."""
        if self._held.pop(number, None) is not None and self._purse is not None:
            self._purse.end(number, spent)

    def forget(self, member: str) -> None:
        """The member is gone."""
        for key in [key for key, whose in self._at.items() if whose == member]:
            del self._at[key]
            self._calls.release(key)
        for number, worst in [(number, worst) for number, (whose, worst) in self._held.items() if whose == member]:
            del self._held[number]
            if self._purse is not None:
                self._purse.end(number, worst)

    def _let_go(self, member: str, key: str) -> None:
        if self._at.get(key) == member:
            del self._at[key]


class ClerkCalls(Calls):
    """A node's call store: the clerk's.

    `get` finds nothing, since it cannot wait: a call that is kept is given by `claim`.
    """

    def __init__(self, line: Line, member: str) -> None:
        self._line = line
        self._member = member
        self._looking: dict[str, asyncio.Future[bool]] = {}
        # Nothing here waits for the clerk in the event loop's own thread.
        self.is_far = False
        self.flights = {}

    def get(self, key: str) -> Call | None:
        """Nothing: see `claim`."""
        return None

    async def put(self, key: str, call: Call) -> None:
        """See `Calls.put`."""
        _checked(await self._line.ask("put", self._member, key, call))

    async def claim(self, key: str, *, other_than: float | None = None) -> Call | bool:
        """See `Calls.claim`."""
        claim: Call | bool = _checked(await self._line.ask("claim", self._member, key, other_than))
        return claim

    def is_claimed(self, key: str) -> bool:
        """Whether another was at it when the clerk last said so; it is asked again with every look."""
        looking = self._looking.pop(key, None)
        if looking is not None and looking.done():
            return looking.result()
        if looking is None:
            looking = asyncio.ensure_future(self._line.ask("is_claimed", self._member, key))
        self._looking[key] = looking
        return True

    def release(self, key: str) -> None:
        """See `Calls.release`."""
        self._line.tell("release", self._member, key)

    def pace(self, base_url: str, model: str) -> dict[tuple[str, bool | None], tuple[float, int]]:
        """Nothing is known here of how long answers are."""
        return {}


@dataclass(frozen=True, slots=True)
class PurseTerms:
    """What a node has to know of the job's purse when a task is given to it."""

    document: int
    caps_usd: bool
    remaining_s: float | None
    of_document: bool
    """Whether time is capped for each document."""

    @classmethod
    def of(cls, purse: JobPurse | None, job: Job, document: int) -> PurseTerms | None:
        """None where nothing is capped. For a document that somebody is at work with."""
        part = None if purse is None else purse.of_document(document)
        if part is None:
            return None
        return cls(document, part.caps_usd, part.remaining_s(), job.per_document.seconds is not None)


class NodePurse:
    """What a task's calls are paid from: the job's purse, through the clerk. `seconds` remain of its time.

    For the tasks of one event loop.
    """

    def __init__(
        self,
        line: Line,
        member: str,
        terms: PurseTerms,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._line = line
        self._member = member
        self._terms = terms
        self._clock = clock
        self._since = clock()

    @property
    def caps_usd(self) -> bool:
        """Whether money is capped."""
        return self._terms.caps_usd

    def remaining_s(self) -> float | None:
        """Seconds of work until a cap on them is reached, as far as was known when the task was given out."""
        if self._terms.remaining_s is None:
            return None
        return max(0.0, self._terms.remaining_s - (self._clock() - self._since))

    def time_is_up(self) -> CapReachedError:
        """The error for a call that comes when no time remains."""
        whose: Whose = "document" if self._terms.of_document else "job"
        return CapReachedError(whose, "seconds", "the time that it may take is over")

    async def reserve(self, worst: Spending) -> int:
        """See `Purse.reserve`."""
        said = _checked(await self._line.ask("reserve", self._member, self._terms.document, worst))
        if isinstance(said, CapReachedError):
            raise said
        number: int = said
        return number

    def settle(self, number: int, spent: Spending) -> None:
        """See `Purse.settle`."""
        self._line.tell("settle", number, spent)

    def release(self, number: int) -> None:
        """See `Purse.release`."""
        self._line.tell("settle", number, Spending())


def _checked(said: Any) -> Any:
    if isinstance(said, Refused):
        raise said.error()
    return said
