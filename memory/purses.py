"""What jobs may still spend: caps that hold over any number of processes, whichever of them are killed.

Each process keeps a row with what it has spent and what it holds back for calls under way, and nobody else writes it. A
call is admitted when all rows of an account together, with the most that the call can take, are within the caps. What a
process that is gone held back stays counted, since it may have been spent. Whether a process is gone matters only to
those who wait: what a living one holds back may yet be free.

What is said here outlives the process that said it, not a power failure: see `lcdoc.memory.journal`.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from lcdoc.memory import purse_rows
from lcdoc.memory.journal import Journal, Operation
from lcdoc.memory.owner import Owner
from lcdoc.memory.purse_parts import Part, Seen
from lcdoc.memory.purse_rows import WHOLE_JOB, Account, Row
from lcdoc.memory.spending import CapReachedError, Caps, Spending, added, time_is_up
from lcdoc.memory.store import Connection, Store

_FIRST_WAIT_S: Final = 0.02
_LONGEST_WAIT_S: Final = 0.5
"""Between two looks at what other processes hold back."""
_SIGN_EVERY_S: Final = 10.0
"""Between two signs of life that come along with reservations."""


class Purses:
    """The purses of the jobs in a store."""

    def __init__(self, store: Store, journal: Journal) -> None:
        self._store = store
        self._journal = journal

    def open(self, job: str, caps: Caps, per_document: Caps | None = None) -> JobPurse:
        """This process's purse of a job. What was spent before counts, whatever the caps were then."""
        return JobPurse(self._store, self._journal, job, caps, per_document or Caps())

    def spent(self, job: str) -> Account:
        """What the job has spent, by all processes. Nothing is known where it has no caps of its own."""
        return self._account(job, WHOLE_JOB)

    def spent_on(self, job: str, document: int) -> Account:
        """The same for one of its documents. Nothing is known where documents have no caps."""
        return self._account(job, document)

    def _account(self, job: str, document: int) -> Account:
        with self._store.read() as connection:
            return purse_rows.account(connection, job, document, self._store.now(connection))


class JobPurse:
    """One process's part in what a job may spend.

    Calls are reserved from one event loop; `at_work` and `beat` are for any thread. What `Purses.open` makes.
    """

    def __init__(self, store: Store, journal: Journal, job: str, caps: Caps, per_document: Caps) -> None:
        self._store = store
        self._journal = journal
        self._job = job
        self._per_document = per_document
        self._owner = str(Owner.here())
        self._whole = Part(WHOLE_JOB, caps, uses=1) if caps else None
        self._documents: dict[int, Part] = {}
        self._numbers = itertools.count(1)
        self._reservations: dict[int, Sequence[Part]] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._reached: CapReachedError | None = None
        self._sign_due = 0.0
        # The journal's thread works with the parts too.
        self._lock = threading.RLock()
        if caps or per_document:
            with store.write() as connection:
                store.claim(connection, job)
                purse_rows.fold(connection, job)
                self._sign(connection)
                if self._whole is not None:
                    self._work(connection, self._whole, working=None)

    @property
    def reached(self) -> CapReachedError | None:
        """The cap of the job itself that did not admit a call, or its time that is up; None while there is neither."""
        if self._reached is None and self._whole is not None and self._whole.remaining_s() == 0:
            self._reached = time_is_up("job", self._whole.caps)
        return self._reached

    def of_document(self, number: int) -> DocumentPurse | None:
        """What calls about one of the job's documents, from 1, are reserved in; None where nothing is capped."""
        return DocumentPurse(self, number) if self._whole is not None or self._per_document else None

    @contextmanager
    def at_work(self, number: int) -> Iterator[None]:
        """Around whatever is done with a document: it takes time of its own and of the job's."""
        parts = self.use(number)
        self._count_work(parts, +1)
        try:
            yield
        finally:
            self._count_work(parts, -1)
            self.leave(parts)

    def beat(self) -> None:
        """Give a sign of life. To be done every 15 seconds or so."""
        if self._whole is None and not self._per_document:
            return

        def beat(connection: Connection) -> None:
            self._store.claim(connection, self._job)
            self._sign(connection)
            with self._lock:
                known = [*self._documents.values(), *([self._whole] if self._whole else [])]
                parts = [part for part in known if part.at_work]
            for part in parts:
                self._work(connection, part, working=None)

        self._journal.post_latest((self._owner, "beat"), beat)

    def use(self, number: int) -> list[Part]:
        """The parts that calls about a document are reserved in, to be left again."""
        with self._lock:
            parts = [] if self._whole is None else [self._whole]
            if self._per_document:
                parts.append(self._documents.setdefault(number, Part(number, self._per_document)))
            for part in parts:
                part.uses += 1
        return parts

    def leave(self, parts: Sequence[Part]) -> None:
        """The inverse of `use`."""
        with self._lock:
            for part in parts:
                part.uses -= 1
                if not part.uses:
                    # Whoever is next looks its row up again: by then this is written, since the journal keeps order.
                    del self._documents[part.document]
                    self._journal.post(self._writing(part, put_away=True))

    async def reserve(self, number: int, worst: Spending) -> int:
        """See `DocumentPurse.reserve`."""
        reservation, parts = next(self._numbers), self.use(number)
        self._reservations[reservation] = parts
        wait_s = _FIRST_WAIT_S
        try:
            while not (said := await self._journal.write(lambda c: self._attempt(c, parts, reservation, worst))):
                await self._wait(wait_s)
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
        except BaseException:
            self.end(reservation, Spending())
            raise
        if said is True:
            return reservation
        self.end(reservation, Spending())
        if said.whose == "job":
            self._reached = self._reached or said
        raise said

    def end(self, reservation: int, spent: Spending) -> None:
        """The call of this reservation is over, or was not sent at all. Raises ValueError where it ended already."""
        with self._lock:
            parts = self._reservations.pop(reservation, None)
            if parts is None:
                raise ValueError("the reservation is settled or released already")
            for part in parts:
                part.held.pop(reservation, None)
                if part.spent is not None:
                    part.spent += spent
                    self._journal.post_latest((self._owner, part.document), self._writing(part))
            self.leave(parts)
        for turn in self._waiting:
            if not turn.done():
                turn.set_result(None)

    def remaining_s(self, number: int) -> float | None:
        """See `DocumentPurse.remaining_s`."""
        known = [left_s for part in self._known(number) if (left_s := part.remaining_s()) is not None]
        return min(known, default=None)

    def time_is_up(self, number: int) -> CapReachedError:
        """See `DocumentPurse.time_is_up`."""
        timed = [part for part in self._known(number) if part.caps.seconds is not None]
        part = min(timed, key=lambda part: part.remaining_s() or 0.0)
        error = time_is_up(part.whose, part.caps)
        if part is self._whole:
            self._reached = self._reached or error
        return error

    @property
    def caps_usd(self) -> bool:
        """See `DocumentPurse.caps_usd`."""
        return self._per_document.cost is not None or (self._whole is not None and self._whole.caps.cost is not None)

    def _attempt(
        self, connection: Connection, parts: Sequence[Part], reservation: int, worst: Spending
    ) -> CapReachedError | bool:
        """True when the call's worst case is held back, False when it may yet be; else what refuses it for good."""
        self._store.claim(connection, self._job)
        with self._lock:
            if reservation not in self._reservations:
                return False  # whoever wanted it was cancelled
            for part in parts:
                part.held.pop(reservation, None)  # this may be done again, after it was undone
            seen = [Seen(part, self._others(connection, part)) for part in parts]
            if said := _first(one.refusal(worst) for one in seen):
                return said
            if all(one.fits(worst) for one in seen):
                for part in parts:
                    part.held[reservation] = worst
                    self._write(connection, part)
                if time.monotonic() >= self._sign_due:
                    self._sign(connection)
                return True
            now = self._store.now(connection)
            # What processes that are gone held back will not be free.
            return _first(one.refusal(worst, now) for one in seen) or False

    def _others(self, connection: Connection, part: Part) -> list[Row]:
        """The parts that others have in an account; this process's own is looked up where that was not done yet."""
        rows = purse_rows.rows_of(connection, self._job, part.document)
        if part.spent is None:
            # What was held back when it was put away, and still is: that it was spent could not be written.
            part.spent = added(row.spent + row.held for row in rows if row.owner == self._owner)
        return [row for row in rows if row.owner != self._owner]

    def _writing(self, part: Part, *, put_away: bool = False) -> Operation[None]:
        def write(connection: Connection) -> None:
            self._store.claim(connection, self._job)
            with self._lock:
                # What is done for the latest of several comes last: by then the part may be another.
                if put_away or part.uses:
                    self._write(connection, part)

        return write

    def _write(self, connection: Connection, part: Part) -> None:
        if part.spent is not None:
            held = added(part.held.values())
            purse_rows.keep_amounts(connection, self._key(part), part.spent, held)

    def _sign(self, connection: Connection) -> None:
        purse_rows.sign(connection, self._job, self._owner, self._store.now(connection))
        self._sign_due = time.monotonic() + _SIGN_EVERY_S

    def _count_work(self, parts: Sequence[Part], more: int) -> None:
        with self._lock:
            for part in parts:
                if part.caps.seconds is None:
                    continue
                now, was = time.monotonic(), bool(part.at_work)
                if was:
                    part.seconds += now - part.seconds_at
                part.seconds_at = now
                part.at_work += more
                if was != bool(part.at_work):
                    self._journal.post(self._working(part, working=bool(part.at_work)))

    def _working(self, part: Part, *, working: bool) -> Operation[None]:
        def work(connection: Connection) -> None:
            self._store.claim(connection, self._job)
            self._sign(connection)
            self._work(connection, part, working=working)

        return work

    def _work(self, connection: Connection, part: Part, *, working: bool | None) -> None:
        if part.caps.seconds is None:
            return
        now = self._store.now(connection)
        seconds = purse_rows.keep_working(connection, self._key(part), now, working=working)
        with self._lock:
            part.seconds, part.seconds_at = seconds, time.monotonic()

    def _key(self, part: Part) -> tuple[str, int, str]:
        return self._job, part.document, self._owner

    def _known(self, number: int) -> list[Part]:
        """The job's part, and that of the document: as far as they have caps."""
        with self._lock:
            parts = [] if self._whole is None else [self._whole]
            if self._per_document:
                parts.append(self._documents.get(number) or Part(number, self._per_document))
        return parts

    async def _wait(self, wait_s: float) -> None:
        """Until a call of this process has ended, or others may have."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.add(turn)
        try:
            await asyncio.wait([turn], timeout=wait_s)
        finally:
            self._waiting.discard(turn)


class DocumentPurse:
    """What calls about one document of a job are reserved in: the job's account, the document's, or both."""

    def __init__(self, purse: JobPurse, number: int) -> None:
        self._purse = purse
        self._number = number

    @property
    def caps_usd(self) -> bool:
        """Whether money is capped."""
        return self._purse.caps_usd

    def remaining_s(self) -> float | None:
        """Seconds of work until a cap on them is reached, 0 when it is; None without one."""
        return self._purse.remaining_s(self._number)

    def time_is_up(self) -> CapReachedError:
        """The error for a call that comes when no time remains."""
        return self._purse.time_is_up(self._number)

    async def reserve(self, worst: Spending) -> int:
        """Hold back what a call may take; the reservation's number. Kept when this returns, whatever becomes of the
        process.

        Waits while calls under way, of any process, may yet leave enough by taking less than their worst case. Raises
        CapReachedError when they cannot, and LibraryError.
        """
        return await self._purse.reserve(self._number, worst)

    def settle(self, number: int, spent: Spending) -> None:
        """Enter what a call that was sent took. Does not wait: until it is kept, its worst case counts."""
        self._purse.end(number, spent)

    def release(self, number: int) -> None:
        """The call was not sent after all."""
        self._purse.end(number, Spending())


def _first(refusals: Iterable[CapReachedError | None]) -> CapReachedError | None:
    return next((said for said in refusals if said is not None), None)
