"""The work of a job as a shift asks for it, done on the nodes of a cluster.

Documents are prepared by tasks, which Ray does again elsewhere when a node dies, and again when a parcel was lost with
one. Questions are answered by tasks too where no model is asked, and else at desks.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from lcdoc.jobs.faults import Fault, UndoneError, fault_of
from lcdoc.jobs.job import Job
from lcdoc.jobs.ray import remote
from lcdoc.jobs.ray.clerk import PurseTerms
from lcdoc.jobs.ray.desks import DeskDiedError, Desks, or_cancel
from lcdoc.jobs.ray.files import Mark
from lcdoc.jobs.ray.node import Packed
from lcdoc.jobs.ray.parcels import Parcels, Stored
from lcdoc.jobs.results import Result, ResultDocument, ResultTask
from lcdoc.jobs.work import Done, Prepared
from lcdoc.memory.job_records import TaskWork
from lcdoc.memory.purses import JobPurse


class RayWork:
    """What `lcdoc.jobs.work.Work` is to a shift. `terms` holds the reference to the job's Terms.

    `desks` is where a model is asked; None: none is. `prepare` is for any thread, `answer` for one event loop.
    """

    def __init__(
        self,
        job: Job,
        job_id: str,
        terms: list[Any],
        parcels: Parcels,
        *,
        desks: Desks | None = None,
        purse: JobPurse | None = None,
    ) -> None:
        import ray

        self.job_id = job_id
        self._job = job
        self._terms = terms
        self._parcels = parcels
        self._desks = desks
        self._purse = purse
        # A process that dies on a task is no fault of the next one: so often, the task is not at fault.
        again: dict[str, Any] = {"max_retries": job.attempts - 1, "num_cpus": 1}
        self._prepare: Any = ray.remote(remote.prepare).options(num_returns=2, scheduling_strategy="SPREAD", **again)
        self._answer: Any = ray.remote(remote.answer).options(**again)
        self._making: dict[str, asyncio.Task[Stored]] = {}

    def prepare(self, path: str) -> Prepared:
        """Have a document prepared by a node. Raises UndoneError."""
        return self._stored(path).packed.prepared

    async def answer(self, work: TaskWork) -> Done:
        """Have a task done by a node. Raises UndoneError for what is not its own fault."""
        purse = PurseTerms.of(self._purse, self._job, work.document)
        outcome: Done | Fault = _crash(None, self._job.attempts)
        for _ in range(self._job.attempts):
            try:
                stored = await self._at_hand(work)
                outcome = await self._answered(work, purse, stored.reference)
            except DeskDiedError as error:
                outcome = _crash(error, self._job.attempts)
                continue
            except UndoneError as error:
                outcome = error.fault
            break
        if isinstance(outcome, Done):
            return outcome
        if outcome.reach != "task":
            raise UndoneError(outcome)
        return self._failed(work, outcome)

    def _stored(self, path: str) -> Stored:
        """The parcel of the document in this file, made now. Raises UndoneError."""
        import ray

        mark = Mark.of(path)
        data: Any = None
        while True:
            said, parcel = self._prepare.remote(self._terms, path, mark, data)
            try:
                outcome: Packed | remote.Elsewhere | Fault = ray.get(said)
            except ray.exceptions.RayError as error:
                raise UndoneError(_crash(error, self._job.attempts)) from error
            if isinstance(outcome, Fault):
                raise UndoneError(outcome)
            if isinstance(outcome, Packed):
                stored = Stored(outcome, parcel)
                self._parcels.keep(stored)
                return stored
            data = ray.put(self._read(path))

    async def _at_hand(self, work: TaskWork) -> Stored:
        """Its document's parcel, which is made again where it is not kept: a supervisor that begins anew has none.

        Raises UndoneError.
        """
        if (stored := self._parcels.get(work.document_id)) is not None:
            return stored
        making = self._making.get(work.document_id)
        if making is None:
            making = asyncio.create_task(asyncio.to_thread(self._stored, work.path))
            self._making[work.document_id] = making
            making.add_done_callback(lambda _: self._making.pop(work.document_id, None))
        stored = await asyncio.shield(making)
        if stored.packed.prepared.document_id != work.document_id:
            raise UndoneError(Fault("task", f"{work.path} is not the file any more that was read for this job"))
        return stored

    async def _answered(self, work: TaskWork, purse: PurseTerms | None, parcel: Any) -> Done | Fault:
        """Raises DeskDiedError."""
        if self._desks is not None:
            return await self._desks.answer(work, purse, parcel)
        import ray

        try:
            outcome: Done | Fault = await or_cancel(self._answer.remote(self._terms, work, purse, parcel))
        except ray.exceptions.RayError as error:
            if isinstance(error, ray.exceptions.ObjectLostError):
                # It cannot be made again by Ray, since the bytes of its file went as well.
                self._parcels.drop(work.document_id)
                raise DeskDiedError(_first_line(error)) from error
            return _crash(error, self._job.attempts)
        return outcome

    def _read(self, path: str) -> bytes:
        """The bytes of a file that a node does not see. Raises UndoneError."""
        try:
            with Path(path).open("rb") as file:
                return file.read(self._job.parsing.max_bytes + 1)
        except OSError as error:
            raise UndoneError(fault_of(error)) from error

    def _failed(self, work: TaskWork, fault: Fault) -> Done:
        task = self._job.tasks[work.task - 1]
        document = ResultDocument(number=work.document, path=work.path, id=work.document_id)
        if (stored := self._parcels.get(work.document_id)) is not None:
            prepared = stored.packed.prepared
            document = document.model_copy(update={"name": prepared.name, "pages": prepared.pages})
        return Done(Result.failed(self.job_id, document, ResultTask.of(work.task, task), fault.reason), fault)


def _crash(error: Exception | None, attempts: int) -> Fault:
    """What it means that Ray could not do it, however often it tried."""
    times = "once" if attempts == 1 else f"{attempts} times"
    said = "" if error is None else f" ({_first_line(error)})"
    return Fault("task", f"the process that did it died {times}{said}", kind="crash")


def _first_line(error: Exception) -> str:
    return " ".join(str(error).partition("\n")[0].split())
