"""The work of a job as a shift asks for it, done on the nodes of a cluster.

Documents are prepared by tasks, which Ray does again elsewhere when a node dies, and again when a parcel was lost with
one. Questions are answered by tasks too where no model is asked, and else at desks.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from lcdoc.jobs.faults import Fault, UndoneError, fault_of
from lcdoc.jobs.job import Job
from lcdoc.jobs.ray import remote
from lcdoc.jobs.ray.clerk import PurseTerms
from lcdoc.jobs.ray.desks import DeskDiedError, Desks
from lcdoc.jobs.ray.files import Mark
from lcdoc.jobs.ray.node import Packed
from lcdoc.jobs.ray.parcels import Parcels
from lcdoc.jobs.results import Result, ResultDocument, ResultTask
from lcdoc.jobs.work import Done, Prepared
from lcdoc.memory.job_records import TaskWork
from lcdoc.memory.purses import JobPurse

_log = logging.getLogger(__name__)


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
        self._making: dict[str, asyncio.Task[Prepared]] = {}

    def prepare(self, path: str) -> Prepared:
        """Have a document prepared by a node. Raises UndoneError."""
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
                self._parcels.keep(outcome, parcel)
                return outcome.prepared
            data = ray.put(self._read(path))

    async def answer(self, work: TaskWork) -> Done:
        """Have a task done by a node. Raises UndoneError for what is not its own fault."""
        purse = PurseTerms.of(self._purse, self._job, work.document)
        crash: Exception | None = None
        for _ in range(self._job.attempts if self._desks is not None else 1):
            try:
                await self._at_hand(work)
                with self._parcels.using(work.document_id) as parcel:
                    if parcel is None:
                        continue  # it went again: more is under way than there is room for
                    if self._desks is None:
                        outcome = await self._by_task(work, purse, parcel)
                    else:
                        outcome = await self._desks.answer(work, purse, parcel)
            except DeskDiedError as error:
                crash = error
                continue
            except UndoneError as error:
                if error.fault.reach != "task":
                    raise
                return self._failed(work, error.fault)
            if isinstance(outcome, Fault):
                if outcome.reach == "task":
                    return self._failed(work, outcome)
                raise UndoneError(outcome)
            return outcome
        return self._failed(work, _crash(crash, self._job.attempts))

    async def _by_task(self, work: TaskWork, purse: PurseTerms | None, parcel: Any) -> Done | Fault:
        import ray

        reference = self._answer.remote(self._terms, work, purse, parcel)
        try:
            outcome: Done | Fault = await reference
        except asyncio.CancelledError:
            with suppress(ray.exceptions.RayError, ValueError):
                ray.cancel(reference)
            raise
        except ray.exceptions.RayError as error:
            if isinstance(error, ray.exceptions.ObjectLostError):
                self._parcels.drop(work.document_id)
            return _crash(error, self._job.attempts)
        return outcome

    async def _at_hand(self, work: TaskWork) -> None:
        """See that there is a parcel: a supervisor that begins anew has none. Raises UndoneError."""
        if self._parcels.packed(work.document_id) is not None:
            return
        making = self._making.get(work.document_id)
        if making is None:
            making = asyncio.create_task(asyncio.to_thread(self.prepare, work.path))
            self._making[work.document_id] = making
            making.add_done_callback(lambda _: self._making.pop(work.document_id, None))
        prepared = await asyncio.shield(making)
        if prepared.document_id != work.document_id:
            raise UndoneError(Fault("task", f"{work.path} is not the file any more that was read for this job"))

    def _read(self, path: str) -> bytes:
        """The bytes of a file that a node does not see. Raises UndoneError."""
        try:
            with Path(path).open("rb") as file:
                return file.read(self._job.parsing.max_bytes + 1)
        except OSError as error:
            raise UndoneError(fault_of(error)) from error

    def _failed(self, work: TaskWork, fault: Fault) -> Done:
        task = self._job.tasks[work.task - 1]
        packed = self._parcels.packed(work.document_id)
        document = ResultDocument(number=work.document, path=work.path, id=work.document_id)
        if packed is not None:
            prepared = packed.prepared
            document = document.model_copy(update={"name": prepared.name, "pages": prepared.pages})
        return Done(Result.failed(self.job_id, document, ResultTask.of(work.task, task), fault.reason), fault)


def _crash(error: Exception | None, attempts: int) -> Fault:
    """What it means that Ray could not do it, however often it tried."""
    said = " ".join(str(error).partition("\n")[0].split()) if error is not None else "no room for its document"
    times = "once" if attempts == 1 else f"{attempts} times"
    return Fault("task", f"the process that did it died {times} ({said})", kind="crash")
