"""What a worker does at a job, from its first claim until nothing is left.

It claims tasks, keeps their leases while it is at them, and puts each row into the job table before it claims the next.
Where a model is asked, many tasks are under way at once and the next documents are prepared meanwhile; offline, one
thing is done at a time, so that a worker is worth one core. A file whose preparation takes long (a hanging parser ends
by its own clock) does not keep the others waiting.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from lcdoc.jobs.daemon_thread import in_daemon_thread
from lcdoc.jobs.ending import Ending
from lcdoc.jobs.faults import Fault, Streak, UndoneError
from lcdoc.jobs.heart import BEAT_S, LEASE_S, Heart
from lcdoc.jobs.patience import Patience
from lcdoc.jobs.unless import unless
from lcdoc.jobs.work import AT_HAND, Doing, Done, Prepared
from lcdoc.memory import Library
from lcdoc.memory.errors import LibraryError
from lcdoc.memory.job_records import DocumentWork, TaskWork
from lcdoc.memory.purses import JobPurse

_log = logging.getLogger(__name__)

PATIENCE_S = 20.0
"""How long preparing a document keeps a place; then it goes on beside the rest."""
OVERDUE = 3
"""Documents that may be prepared beside the rest."""
PREPARING = 2
"""Documents prepared at once where a model is asked: while one is embedded, the next is parsed."""
_SOON_S, _LATER_S = 0.1, 1.0
"""How soon one looks again whether there is something to do: at first, and after looking in vain again and again."""
_TURN_S = 1.0

Result = TypeVar("Result")
Held = TaskWork | DocumentWork


class Shift:
    """Works at one job, in one event loop. `say` is told what a user should know, a line each.

    `at_once` tasks are under way; with `alternating`, a document being prepared takes the place of one, else so many
    are prepared beside them as `preparing` says. `stay`: a worker that waits for more when everything is done. `purse`
    holds the caps of the job. `alive` is called with every beat, `grown` after each document (whether memory grew too
    much), `stuck` when nothing has moved for long.
    """

    def __init__(
        self,
        library: Library,
        doing: Doing,
        *,
        worker_id: str,
        at_once: int = 1,
        preparing: int = PREPARING,
        alternating: bool = True,
        stay: bool = False,
        purse: JobPurse | None = None,
        say: Callable[[str], None] = _log.warning,
        alive: Callable[[], None] = lambda: None,
        grown: Callable[[], bool] = lambda: False,
        stuck: Callable[[], None] = lambda: None,
        patience_s: float = PATIENCE_S,
        lease_s: float = LEASE_S,
        beat_s: float = BEAT_S,
    ) -> None:
        self.id = worker_id
        self.at_once = at_once
        """May be set at any time, and `preparing` as well."""
        self.preparing = preparing
        self._jobs = library.jobs
        self._job = doing.job_id
        self._doing = doing
        self._purse = purse
        self._alternating = alternating
        self._stay = stay
        self._say = say
        self._alive = alive
        self._grown = grown
        self._stuck = stuck
        self._patience_s = patience_s
        self._lease_s = lease_s
        self._beat_s = beat_s
        self._patience = Patience(say)
        self._streak = Streak()
        self._ending: Ending | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._held: dict[str, Held] = {}
        """By the tokens of their leases."""
        self._begun: dict[str, float] = {}
        """When preparing began."""
        self._settling: set[str] = set()
        """What is done, and being put away: a lease that ends with it is not lost."""
        self._at_hand: OrderedDict[int, str] = OrderedDict()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def end(self, ending: Ending) -> None:
        """Claim nothing more; `INTERRUPTED` also leaves off what is under way. May be called from any thread."""
        if self._loop is None:
            self._ending = ending
            return
        with suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._end, ending)

    async def run(self) -> Ending:
        """Work until nothing is left, or it is ended. What it holds then is given back.

        Raises LibraryError for a library that cannot be used at all.
        """
        loop = self._loop = asyncio.get_running_loop()
        self._wake, self._interrupted = asyncio.Event(), asyncio.Event()
        # One thread, so that what is given back is given back after what was kept.
        self._store_thread = ThreadPoolExecutor(1, thread_name_prefix="lcdoc-jobs")
        turning = asyncio.create_task(self._turn())
        self._heart = Heart(
            self._beat,
            on_lost=lambda token: loop.call_soon_threadsafe(self._lose, token),
            on_stuck=self._stuck,
            beat_s=self._beat_s,
        )
        try:
            with self._heart:
                try:
                    ending = await unless(self._interrupted, self._until_ended())
                finally:
                    await self._let_go()
        finally:
            turning.cancel()
            self._store_thread.shutdown(wait=False)
        if self._error is not None:
            raise self._error
        return Ending.INTERRUPTED if ending is None else ending

    async def _until_ended(self) -> Ending:
        pause_s = _SOON_S
        while self._ending is None:
            self._wake.clear()
            took = await self._take()
            if took:
                pause_s = _SOON_S
            elif not self._held and (ending := await self._nothing_left()) is not None:
                return ending
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause_s)
            pause_s = _SOON_S if took or self._wake.is_set() else min(2 * pause_s, _LATER_S)
        # Python 3.11's wait_for may swallow the cancelling.
        if self._ending is not Ending.INTERRUPTED and self._tasks:
            await asyncio.wait(self._tasks.values())
        return self._ending

    async def _take(self) -> bool:
        """Claim what there is a place for, and begin it."""
        if self._purse is not None and self._purse.reached:
            await self._stop(str(self._purse.reached))
            return False
        took = False
        if (free := self._free()) > 0:
            claim = partial(
                self._jobs.claim, self._job, self.id, most=free, prefer=tuple(self._at_hand), lease_s=self._lease_s
            )
            for task in await self._patiently(claim):
                self._begin(task, self._answer(task))
                took = True
        if self._may_prepare():
            ahead = None if self._alternating else max(2, self.at_once)
            claim_document = partial(self._jobs.claim_document, self._job, self.id, ahead=ahead, lease_s=self._lease_s)
            document = await self._patiently(claim_document)
            if document is not None:
                self._begun[document.lease.token] = time.monotonic()
                self._begin(document, self._prepare(document))
                took = True
        return took

    def _free(self) -> int:
        tasks = len(self._held) - len(self._begun)
        return self.at_once - tasks - (self._in_time() if self._alternating else 0)

    def _may_prepare(self) -> bool:
        if len(self._begun) - self._in_time() > OVERDUE:
            return False
        return self._free() > 0 if self._alternating else self._in_time() < self.preparing

    def _in_time(self) -> int:
        """Documents being prepared that do not take long yet."""
        now = time.monotonic()
        return sum(now - begun < self._patience_s for begun in self._begun.values())

    async def _nothing_left(self) -> Ending | None:
        """How it ends; None: what is left is held by others, who may yet die."""
        record = await self._patiently(partial(self._jobs.get, self._job))
        if self._stay and record.state != "cancelled":
            return None
        if record.state in ("paused", "cancelled"):
            return Ending.STOPPED
        return Ending.FINISHED if record.state == "finished" else None

    def _begin(self, work: Held, doing: Awaitable[None]) -> None:
        token = work.lease.token
        self._held[token] = work
        self._heart.hold(token)
        self._tasks[token] = asyncio.create_task(self._hold(work, doing))

    async def _hold(self, work: Held, doing: Awaitable[None]) -> None:
        """Do it. What comes to nothing comes free when the shift leaves."""
        token = work.lease.token
        number = work.document if isinstance(work, TaskWork) else work.number
        try:
            with self._purse.at_work(number) if self._purse else nullcontext():
                await doing
        except UndoneError as error:
            await self._stop(error.fault.reason)
        except asyncio.CancelledError:
            _log.info("%s was left off", work.path)
        except Exception as error:  # noqa: BLE001 - raised where the worker ends
            self._error = self._error or error
            self._end(Ending.INTERRUPTED)
        finally:
            self._heart.drop(token)
            for kept in (self._held, self._tasks, self._begun):
                kept.pop(token, None)
            self._settling.discard(token)
            self._wake.set()

    async def _answer(self, work: TaskWork) -> None:
        started = time.monotonic()
        self._use(work.document, work.path)
        done: Done = await self._patience.outlast(lambda: self._doing.answer(work))
        self._patience.server_has_answered |= done.fault is None
        if self._purse is not None and self._purse.reached and (done.row.partial or done.fault):
            # Less than was asked for; with a higher cap, it goes on from what is stored.
            raise UndoneError(Fault("job", str(self._purse.reached)))
        row, seconds = done.row, time.monotonic() - started
        self._settling.add(work.lease.token)
        keep = partial(self._jobs.keep, work, row.to_json(), error=row.error, seconds=seconds, usage=done.usage)
        if not await self._patiently(keep):
            _log.info("task %d of %s was done by another worker meanwhile", work.task, work.path)
        if reason := self._streak.add(done.fault):
            await self._stop(reason)

    async def _prepare(self, work: DocumentWork) -> None:
        started = time.monotonic()
        try:
            prepared: Prepared = await self._patience.outlast(lambda: in_daemon_thread(self._doing.prepare, work.path))
        except UndoneError as error:
            if error.fault.reach != "task":
                raise
            self._settling.add(work.lease.token)
            failed = partial(self._jobs.document_failed, work, error.fault.reason, seconds=time.monotonic() - started)
            await self._patiently(failed)
            if reason := self._streak.add(error.fault):
                await self._stop(reason)
            return
        self._settling.add(work.lease.token)
        ready = partial(
            self._jobs.ready,
            work,
            document_id=prepared.document_id,
            name=prepared.name,
            pages=prepared.pages,
            characters=prepared.characters,
            seconds=prepared.seconds,
        )
        if await self._patiently(ready):
            self._use(work.number, work.path)
        if self._grown():
            self._end(Ending.GROWN)

    def _use(self, document: int, path: str) -> None:
        self._at_hand[document] = path
        self._at_hand.move_to_end(document)
        while len(self._at_hand) > AT_HAND:
            self._at_hand.popitem(last=False)

    async def _stop(self, reason: str) -> None:
        """Nobody is to claim anything more."""
        if self._ending is None:
            self._say(reason)
        await self._patiently(partial(self._jobs.pause, self._job, reason))
        self._end(Ending.STOPPED)

    async def _let_go(self) -> None:
        """Leave off what is under way."""
        while tasks := list(self._tasks.values()):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        with suppress(LibraryError):
            await self._in_store(partial(self._jobs.leave, self._job, self.id))

    async def _patiently(self, action: Callable[[], Result]) -> Result:
        """`action` on the job table, as soon as it can be done."""
        return await self._patience.outlast(lambda: self._in_store(action))

    async def _in_store(self, action: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._store_thread, action)

    async def _turn(self) -> None:
        """Shows the heart that the loop turns."""
        while True:
            self._heart.moved()
            await asyncio.sleep(_TURN_S)

    def _beat(self, tokens: Collection[str]) -> set[str]:
        self._alive()
        if self._purse is not None:
            self._purse.beat()
        return self._jobs.beat(self._job, self.id, tokens, lease_s=self._lease_s, doing=self._says())

    def _says(self) -> str:
        """What it is at, for the status."""
        held = list(self._held.values())
        tasks = [work for work in held if isinstance(work, TaskWork)]
        if not held:
            return "waiting"
        if not tasks:
            return f"preparing {Path(held[0].path).name}"
        return f"asking {Path(tasks[0].path).name}" if len(tasks) == 1 else f"asking {len(tasks)} questions"

    def _lose(self, token: str) -> None:
        task = self._tasks.get(token)
        if task is not None and token not in self._settling:
            _log.info("the lease on %s is lost", self._held[token].path)
            task.cancel()

    def _end(self, ending: Ending) -> None:
        if self._ending is None or ending is Ending.INTERRUPTED:
            self._ending = ending
        if ending is Ending.INTERRUPTED:
            self._interrupted.set()
        self._wake.set()
