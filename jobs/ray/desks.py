"""The desks at which a model is asked: which nodes have one, and which is free.

A model of a server is asked from one desk on each node, which takes no processor of its own, since it mostly waits. A
model that runs here is loaded at each desk: one for each GPU, or one for each node where no node has any.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from lcdoc.jobs.faults import Fault
from lcdoc.jobs.ray.clerk import PurseTerms
from lcdoc.jobs.ray.cluster import Node, on_node
from lcdoc.jobs.ray.remote import Desk
from lcdoc.jobs.work import Done
from lcdoc.memory.job_records import TaskWork

_log = logging.getLogger(__name__)

Kind = Literal["server", "local"]

_MOST_AT_A_DESK: Final = 32
"""Tasks under way in one process; beyond, its own processor is what they wait for."""
_DEATHS: Final = 5
"""Desks that died as they were opened, one after the other, before the job is told to stop."""
_AGAIN_S: Final = 15.0
"""Between two attempts to open a desk where one died."""


class DeskDiedError(Exception):
    """The process or the node of a desk died while a task was there."""


@dataclass(slots=True, eq=False)
class _Place:
    """A desk, and how many tasks are at it."""

    member: str
    node_id: str
    handle: Any
    tasks: int = 0
    is_open: bool = False


class Desks:
    """Opens and closes desks as nodes come and go. For one event loop.

    `gone` is told of members that died, so that what they held comes free.
    """

    def __init__(
        self,
        terms: list[Any],
        kind: Kind,
        *,
        concurrency: int,
        gone: Callable[[str], None],
    ) -> None:
        self._terms = terms
        self._kind = kind
        self._most = min(_MOST_AT_A_DESK, max(1, concurrency))
        self._gone = gone
        self._numbers = itertools.count(1)
        self._places: list[_Place] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._not_before: dict[str, float] = {}
        self._changed = asyncio.Condition()
        self._fault: Fault | None = None
        self._deaths = 0

    @property
    def room(self) -> int:
        """Tasks that can be under way at all desks together."""
        return self._most * sum(place.is_open for place in self._places)

    def follow(self, nodes: Sequence[Node]) -> None:
        """Have desks where they belong, on these nodes and no other."""
        with_gpus = self._kind == "local" and any(node.gpus >= 1 for node in nodes)
        now = asyncio.get_running_loop().time()
        for node in nodes:
            wanted = int(node.gpus) if with_gpus else int(node.cpus >= 1)
            here = sum(place.node_id == node.id for place in self._places)
            if here < wanted and now >= self._not_before.get(node.id, 0.0):
                for _ in range(wanted - here):
                    self._add(node, gpu=with_gpus)
        living = {node.id for node in nodes}
        for place in [place for place in self._places if place.node_id not in living]:
            self._remove(place)

    async def answer(self, work: TaskWork, purse: PurseTerms | None, parcel: Any) -> Done | Fault:
        """Have a task done at the desk with most room. Raises DeskDiedError."""
        from ray.exceptions import RayActorError

        place = await self._free()
        if isinstance(place, Fault):
            return place
        place.tasks += 1
        try:
            # In a list, so that the document is not sent where it is already.
            reference = place.handle.answer.remote(work, purse, [parcel])
            outcome: Done | Fault = await or_cancel(reference)
        except RayActorError as error:
            self._remove(place)
            raise DeskDiedError(str(error).partition("\n")[0]) from error
        finally:
            place.tasks -= 1
            async with self._changed:
                self._changed.notify_all()
        return outcome

    async def close(self) -> None:
        """End all desks."""
        for task in self._opening:
            task.cancel()
        for place in list(self._places):
            self._remove(place)

    def _add(self, node: Node, *, gpu: bool) -> None:
        import ray

        member = f"desk-{next(self._numbers)}"
        if self._kind == "server":
            takes: dict[str, Any] = {"num_cpus": 0}
        elif gpu:
            takes = {"num_cpus": 0, "num_gpus": 1}
        else:
            # One processor is left for documents to be prepared.
            takes = {"num_cpus": max(0, int(node.cpus) - 1)}
        made = ray.remote(Desk).options(
            **takes, **on_node(node.id), max_restarts=0, max_task_retries=0, max_concurrency=self._most + 1
        )
        place = _Place(member, node.id, made.remote(self._terms, member))
        self._places.append(place)
        self._not_before[node.id] = asyncio.get_running_loop().time() + _AGAIN_S
        task = asyncio.create_task(self._open(place))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _open(self, place: _Place) -> None:
        from ray.exceptions import RayError

        try:
            fault: Fault | None = await place.handle.open.remote()
        except RayError as error:
            _log.info("a desk was not opened: %s", error)
            self._deaths += 1
            said = str(error).partition("\n")[0]
            reason = f"whatever is to ask the model dies as it begins, {_DEATHS} times now: {said}"
            fault = Fault("job", reason) if self._deaths >= _DEATHS else None
            if fault is None:
                self._remove(place)
                return
        if fault is not None:
            self._fault = fault
            self._remove(place)
        else:
            place.is_open = True
            self._fault, self._deaths = None, 0
        async with self._changed:
            self._changed.notify_all()

    async def _free(self) -> _Place | Fault:
        """The open desk with fewest tasks, when one has room; what is wrong, where none can be opened."""
        async with self._changed:
            while True:
                free = [place for place in self._places if place.is_open and place.tasks < self._most]
                if free:
                    return min(free, key=lambda place: place.tasks)
                if self._fault is not None and not any(place.is_open for place in self._places):
                    fault, self._fault = self._fault, None
                    return fault
                await self._changed.wait()

    def _remove(self, place: _Place) -> None:
        import ray

        if place in self._places:
            self._places.remove(place)
            with suppress(ray.exceptions.RayError, ValueError):
                ray.kill(place.handle, no_restart=True)
            self._gone(place.member)


async def or_cancel(reference: Any) -> Any:
    """What a task comes to; it is cancelled with whoever waits."""
    import ray

    try:
        return await reference
    except asyncio.CancelledError:
        with suppress(ray.exceptions.RayError, ValueError):
            ray.cancel(reference)
        raise
