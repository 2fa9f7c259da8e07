"""What runs on nodes: tasks that prepare and answer, and desks, actors that ask a model.

Nothing here raises for a fault of a file, a model or a place: it is returned, so that what is raised is Ray's alone.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

from lcdoc.jobs.faults import Fault, UndoneError
from lcdoc.jobs.ray.clerk import PurseTerms
from lcdoc.jobs.ray.files import Mark
from lcdoc.jobs.ray.gate import ClusterLimits
from lcdoc.jobs.ray.node import Node, Packed, RayLine, Terms, fault_here
from lcdoc.jobs.ray.parcel import Parcel
from lcdoc.jobs.work import Done
from lcdoc.memory.job_records import TaskWork
from lcdoc.workflows.loop import LoopThread


class Elsewhere:
    """Said by a node that does not see a file: its bytes are to be sent."""


@dataclass(frozen=True, slots=True)
class _Place:
    """This process's part in a job, and the loop it answers in."""

    node: Node
    loop: LoopThread

    def close(self) -> None:
        self.loop.run(self.node.work.aclose())
        self.loop.close()
        self.node.close()


_lock = threading.Lock()
_places: dict[str, _Place] = {}


def _place(terms: list[Any]) -> _Place:
    """`terms` holds the reference to a job's Terms, so that they are sent to a process once."""
    import ray

    key = terms[0].hex()
    with _lock:
        if key not in _places:
            for other in list(_places):
                _places.pop(other).close()
            known: Terms = ray.get(terms[0])
            member = f"task-{os.getpid()}"
            _places[key] = _Place(Node(known, member, line=RayLine(known.supervisor)), LoopThread())
        return _places[key]


def prepare(
    terms: list[Any], path: str, mark: Mark | None, data: bytes | None
) -> tuple[Packed | Elsewhere | Fault, Parcel | None]:
    """Prepare a document. The first result is small; the parcel stays with the node until somebody wants it."""
    try:
        made = _place(terms).node.prepare(path, mark, data)
    except Exception as error:  # noqa: BLE001 - what it means for the job is told
        return fault_here(error), None
    if made is None:
        return Elsewhere(), None
    prepared, parcel = made
    return Packed(prepared, parcel.size_bytes), parcel


def answer(terms: list[Any], work: TaskWork, purse: PurseTerms | None, parcel: Parcel | None) -> Done | Fault:
    """Answer without a model."""

    async def fetch() -> Parcel:
        return _whole(parcel)

    try:
        place = _place(terms)
        return place.loop.run(place.node.answer(work, purse, fetch))
    except Exception as error:  # noqa: BLE001 - what it means for the job is told
        return fault_here(error)


class Desk:
    """An actor that asks a model, many tasks at once. It connects, or loads the model, once."""

    def __init__(self, terms: list[Any], member: str) -> None:
        self._node: Node | None = None
        self._terms = terms
        self._member = member

    async def open(self) -> Fault | None:
        """Begin; what is wrong with the model or the place, if anything."""
        if self._node is None:
            try:
                known: Terms = await self._terms[0]
                line = RayLine(known.supervisor)
                self._node = Node(known, self._member, line=line, shared=ClusterLimits())
            except Exception as error:  # noqa: BLE001 - what it means for the job is told
                return fault_here(error)
        return None

    async def answer(self, work: TaskWork, purse: PurseTerms | None, parcel: list[Any]) -> Done | Fault:
        """Do a task; `parcel` holds the reference to its document, which is got where it is not at hand."""

        async def fetch() -> Parcel:
            return _whole(await parcel[0])

        try:
            if self._node is None:
                raise ValueError("the desk was not opened")
            return await self._node.answer(work, purse, fetch)
        except Exception as error:  # noqa: BLE001 - what it means for the job is told
            return fault_here(error)


def _whole(parcel: Parcel | None) -> Parcel:
    """A parcel that was made again, after its node died, out of a file that can no longer be read, is none."""
    if parcel is None:
        raise UndoneError(Fault("task", "the document cannot be read any more"))
    return parcel
