"""The supervisor: one actor on the head node that holds a job, whoever watches it.

It claims from the job's table, has nodes do the work, and keeps what comes of it. It is found again by its name, goes
on by itself when it dies, and ends by itself when nothing is left. All it knows is in the library beside it, or on the
server that the library shares.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lcdoc.agents.models.config import Config
from lcdoc.agents.models.errors import ModelError
from lcdoc.jobs.ending import Ending
from lcdoc.jobs.faults import fault_of
from lcdoc.jobs.job import Job
from lcdoc.jobs.ray.clerk import Clerk
from lcdoc.jobs.ray.cluster import NAMESPACE, nodes, on_head
from lcdoc.jobs.ray.desks import Desks
from lcdoc.jobs.ray.node import Terms
from lcdoc.jobs.ray.parcels import Parcels
from lcdoc.jobs.ray.ray_work import RayWork
from lcdoc.jobs.ray.scratch import ScratchFolder
from lcdoc.jobs.shift import Shift
from lcdoc.memory import Library
from lcdoc.memory.errors import LibraryError
from lcdoc.memory.job_records import JobRecord
from lcdoc.memory.purses import JobPurse
from lcdoc.workflows.readers import ReadingDesk

_log = logging.getLogger(__name__)

_LOOK_S: Final = 1.0
"""Between two looks at which nodes there are."""
_LINGER_S: Final = 30.0
"""How long it can be asked how it ended."""
_STORE_PART: Final = 0.3
"""Of the object store of all nodes, for parcels; the rest is for copies on their way."""
_QUEUED: Final = 1.25
"""Tasks under way for each processor: the next one waits at the node when one ends."""
_LINES: Final = 100


@dataclass(frozen=True, slots=True)
class Order:
    """What a supervisor is to do."""

    job_id: str
    library: str
    """The library's file, as the head node sees it."""
    shared: str | None
    """The server that the library shares, where there is one."""
    config: Config


@dataclass(frozen=True, slots=True)
class Look:
    """How it stands with a supervisor."""

    ending: Ending | None
    """None while it works."""
    problem: str
    """Why it could not work, or ended."""
    lines: tuple[str, ...]
    """What a user should know, said since the last look."""
    said: int
    """How many lines were said in all."""


class Supervisor:
    """The actor. `supervisor` makes or finds it."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._said = 0
        self._ending: Ending | None = None
        self._problem = ""
        self._shift: Shift | None = None
        self._clerk: Clerk | None = None
        self._stopped = False
        self._life = asyncio.get_running_loop().create_task(self._live())

    async def look(self, said: int) -> Look:
        """How it stands; with the lines behind the first `said`."""
        new = min(len(self._lines), max(0, self._said - said))
        return Look(self._ending, self._problem, tuple(self._lines)[len(self._lines) - new :], self._said)

    async def stop(self) -> None:
        """Give back what is under way, and end."""
        self._stopped = True
        if self._shift is not None:
            self._shift.end(Ending.INTERRUPTED)
        await asyncio.shield(self._working)

    async def clerk(self, what: str, *given: Any) -> Any:
        """What a node asks of the clerk."""
        if self._clerk is None or what.startswith("_"):
            raise ValueError(f"the clerk cannot do {what!r} now")
        return await getattr(self._clerk, what)(*given)

    async def _live(self) -> None:
        """Work, stay to be asked how it went, and end for good."""
        import ray

        self._working = asyncio.get_running_loop().create_task(self._work())
        await asyncio.wait([self._working])
        await asyncio.sleep(_LINGER_S)
        ray.kill(ray.get_runtime_context().current_actor, no_restart=True)

    async def _work(self) -> None:
        try:
            with _library(self._order) as library:
                self._ending = await self._shift_of(library)
        except Exception as error:  # noqa: BLE001 - told to whoever looks
            self._problem = fault_of(error).reason
            self._ending = Ending.STOPPED

    async def _shift_of(self, library: Library) -> Ending:
        import ray

        job_id = self._order.job_id
        record = library.jobs.get(job_id)
        job = Job.of(record.settings)
        worker = f"ray-{(ray.get_runtime_context().get_actor_id() or job_id)[:8]}"
        # What it held before it died: whatever killed it, it was none of the tasks, which are done elsewhere.
        library.jobs.leave(job_id, worker)
        library.jobs.register(job_id, worker=worker)
        try:
            desk = ReadingDesk(library, job.asked_model, self._order.config)
        except ModelError as error:
            # So it is for every node.
            self._say(str(error))
            library.jobs.pause(job_id, str(error))
            return Ending.STOPPED
        purse = _purse(library, job_id, job)
        self._clerk = clerk = Clerk(library, purse)
        terms = [_terms(self._order, library, record, job)]
        desks = None
        if desk.spec is not None:
            desks = Desks(
                terms,
                "local" if desk.runs_here else "server",
                concurrency=desk.spec.limits.concurrency,
                gone=clerk.forget,
            )
        work = RayWork(job, job_id, terms, Parcels(_room()), desks=desks, purse=purse)
        shift = self._shift = Shift(
            library, work, worker_id=worker, alternating=desks is None, purse=purse, say=self._say
        )
        if self._stopped:
            return Ending.INTERRUPTED
        following = asyncio.create_task(_follow(shift, desks))
        try:
            return await shift.run()
        finally:
            following.cancel()
            if desks is not None:
                await desks.close()

    def _say(self, line: str) -> None:
        self._lines.append(line)
        self._said += 1


def supervisor(order: Order) -> Any:
    """The handle of the job's supervisor, which is made where there is none."""
    import ray

    return (
        ray.remote(Supervisor)
        .options(
            name=name_of(order.job_id),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            max_concurrency=10_000,
            **on_head(),
        )
        .remote(order)
    )


def name_of(job_id: str) -> str:
    """What the job's supervisor is known by."""
    return f"lcdoc-job-{job_id}"


async def _follow(shift: Shift, desks: Desks | None) -> None:
    """Keep as much under way as the nodes can do, while they come and go."""
    while True:
        try:
            living = await asyncio.to_thread(nodes)
            cpus = max(1, int(sum(node.cpus for node in living)))
            shift.preparing = cpus
            if desks is None:
                shift.at_once = max(2, int(cpus * _QUEUED))
            else:
                desks.follow(living)
                shift.at_once = max(1, desks.room)
        except Exception:  # noqa: BLE001 - asked again in a moment
            # Nodes are asked while one dies: what is under way stays as it was until the next look.
            _log.warning("the nodes of the cluster could not be looked at", exc_info=True)
        await asyncio.sleep(_LOOK_S)


@contextmanager
def _library(order: Order) -> Iterator[Library]:
    """Raises LibraryError where it is not there: one that would be made here is not the job's."""
    if order.shared is not None:
        # What is not shared is of no use to the job.
        folder = ScratchFolder()
        try:
            with Library.open(folder.path / "library.sqlite", shared=order.shared) as library:
                yield library
        finally:
            folder.remove()
        return
    path = Path(order.library)
    if not path.is_file():
        raise LibraryError(
            path,
            "it is not on the head node of the cluster",
            "run lcdoc on that machine, or keep jobs on a server that both reach (--shared)",
        )
    with Library.open(path) as library:
        yield library


def _terms(order: Order, library: Library, record: JobRecord, job: Job) -> Any:
    import ray

    me = ray.get_runtime_context().current_actor
    secret, since = library.secret(), record.created_at
    return ray.put(Terms(order.job_id, job.settings(), order.config, secret, order.shared, me, since))


def _purse(library: Library, job_id: str, job: Job) -> JobPurse | None:
    whole, each = job.caps.budget.caps, job.per_document.budget.caps
    return library.purses.open(job_id, whole, each) if whole or each else None


def _room() -> int:
    return int(_STORE_PART * sum(node.store_bytes for node in nodes()))
