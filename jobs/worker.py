"""A worker: a process that does its share of a job. Any number of them may work at one job, on one machine or many."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from lcdoc.documents import Document
from lcdoc.documents.loading import RawFile
from lcdoc.documents.pool import ParserPool
from lcdoc.jobs.ending import Ending
from lcdoc.jobs.faults import fault_of
from lcdoc.jobs.growth import Growth
from lcdoc.jobs.job import Job
from lcdoc.jobs.patience import outlast
from lcdoc.jobs.shift import OVERDUE, PREPARING, Shift
from lcdoc.jobs.work import Work
from lcdoc.memory import Library
from lcdoc.workflows.run import OFFLINE

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

_MORE_TASKS = 1.5
"""Tasks under way for each request that the model is sent at once: some are between two requests."""
_STUCK = 70
"""Exit status of a worker in which nothing moved any more."""


def work(
    library: str | os.PathLike[str] | None,
    job: str,
    *,
    worker_id: str = "",
    stay: bool = False,
    share: int = 1,
    recycle: bool = False,
    on_line: Callable[[str], None] = _log.warning,
    alive: Callable[[], None] = lambda: None,
) -> Ending:
    """Work at the job (an id, its first characters, or a name) in this library until nothing is left.

    SIGTERM and SIGINT give back what is held and end it; a second one ends it at once. `share`: how many workers there
    are, which share what the model's server takes at once. `stay`: wait for more when everything is done. `recycle`:
    end when memory grew, for another to take its place. `on_line` is told what a user should know, `alive` is called
    every few seconds. Raises LibraryError, UnknownJobError; what is wrong for every task pauses the job, with the
    reason.
    """

    def patiently(action: Callable[[], Result]) -> Result:
        return outlast(action, on_line, meanwhile=alive)

    with patiently(lambda: Library.open(library)) as opened:
        record = opened.jobs.find(job)
        worker_id = patiently(lambda: opened.jobs.register(record.id, worker=worker_id))
        try:
            described = Job.of(record.settings)
            caps, per_document = described.caps.budget.caps, described.per_document.budget.caps
            purse = patiently(lambda: opened.purses.open(record.id, caps, per_document))
            with ParserPool(PREPARING + OVERDUE) as pool:
                doing = Work(
                    opened,
                    described,
                    record.id,
                    worker=worker_id,
                    since=record.created_at,
                    parse=_through(pool, described),
                    purses=purse.of_document,
                )
                offline = doing.model == OFFLINE
                shift = Shift(
                    opened,
                    doing,
                    worker_id=worker_id,
                    at_once=1 if offline else max(2, math.ceil(_MORE_TASKS * doing.concurrency / share)),
                    alternating=offline,
                    stay=stay,
                    purse=purse,
                    say=on_line,
                    alive=alive,
                    grown=Growth() if recycle else lambda: False,
                    stuck=_end_at_once,
                )
                with _signals_end(shift):
                    return asyncio.run(_whole(shift, doing))
        except Exception as error:
            fault = fault_of(error)
            if fault.reach != "job":
                raise
            # It is so for every worker: a model that is not configured, a library that is damaged.
            on_line(fault.reason)
            patiently(lambda: opened.jobs.pause(record.id, fault.reason))
            return Ending.STOPPED


async def _whole(shift: Shift, doing: Work) -> Ending:
    try:
        return await shift.run()
    finally:
        await doing.aclose()


def _through(pool: ParserPool, job: Job) -> Callable[[RawFile], Document]:
    def parse(raw: RawFile) -> Document:
        return pool.parse(raw, password=job.password, limits=job.parsing)

    return parse


@contextmanager
def _signals_end(shift: Shift) -> Iterator[None]:
    """The first SIGTERM or SIGINT ends the shift, the next one does what it always does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(_number: int, _frame: object) -> None:
        restore()
        shift.end(Ending.INTERRUPTED)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield
    finally:
        restore()


def _end_at_once() -> None:
    _log.critical("nothing has moved for a long time; what this worker holds is left to others")
    os._exit(_STUCK)
