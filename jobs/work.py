"""Doing what was claimed: a file becomes a document that can be searched, a task becomes a row.

Nothing is carried from one task to the next but what is at hand: the documents used last, with their vectors. What a
run was cut off in the middle of is gone on with by the run itself, from its notes, its checkpoint and the call store.
Processes, leases and clocks are others' matter (`worker.py`, `jobs/ray/`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol

from lcdoc.agents.models.config import Config
from lcdoc.agents.models.purse import Purse
from lcdoc.documents import Document
from lcdoc.documents.errors import SourceChangedError
from lcdoc.documents.loading import RawFile, parse, read_raw
from lcdoc.jobs.daemon_thread import in_daemon_thread
from lcdoc.jobs.faults import Fault, UndoneError, fault_of
from lcdoc.jobs.job import Job, Task
from lcdoc.jobs.results import Result, ResultDocument, ResultTask
from lcdoc.memory import Library
from lcdoc.memory.errors import LibraryError, UnknownDocumentError
from lcdoc.memory.job_records import TaskWork
from lcdoc.memory.usage import ModelUsage
from lcdoc.retrieval.chunker import Chunker
from lcdoc.retrieval.embedders import Embedder, load_embedder
from lcdoc.retrieval.index import Index
from lcdoc.workflows.answer import Answer, Usage
from lcdoc.workflows.asking import Asking, OnEvent
from lcdoc.workflows.events import Started
from lcdoc.workflows.readers import ReadingDesk
from lcdoc.workflows.registry import AUTO
from lcdoc.workflows.search import Search

if TYPE_CHECKING:
    from lcdoc.agents.models.shared_limits import SharedLimits

_log = logging.getLogger(__name__)

AT_HAND = 4
"""Documents kept open."""

Parse = Callable[[RawFile], Document]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document of the job that is in the library, with its chunks and all of its vectors."""

    document_id: str
    name: str
    pages: int
    characters: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """What a task came to; `fault` is what its row's `error` is about."""

    row: Result
    fault: Fault | None = None

    @property
    def usage(self) -> ModelUsage:
        """What it cost."""
        return ModelUsage(**self.row.usage.model_dump())


@dataclass(frozen=True, slots=True)
class _Open:
    """A document at hand."""

    document: Document
    search: Search


class Doing(Protocol):
    """Who does what a shift claims: `Work`, or what stands for it."""

    @property
    def job_id(self) -> str: ...

    def prepare(self, path: str) -> Prepared:
        """Blocks; called from threads. Raises UndoneError."""
        ...

    async def answer(self, work: TaskWork) -> Done:
        """Raises UndoneError."""
        ...


class Work:
    """The work of one job, with a library of the caller's. `prepare` may be called from any thread, `answer` from one
    event loop.

    `worker` is written into the rows; `since` is when the job was begun. `parse` stands in for parsing in a child
    process of its own, `purses` gives what a document's calls are paid from, by its number, and `shared` shares the
    limits of the model's server. Raises ModelNameError, ModelConfigError for a model that does not fit.
    """

    def __init__(
        self,
        library: Library,
        job: Job,
        job_id: str,
        *,
        worker: str = "",
        since: datetime | None = None,
        parse: Parse | None = None,
        purses: Callable[[int], Purse | None] = lambda _document: None,
        shared: SharedLimits | None = None,
        config: Config | None = None,
    ) -> None:
        self.job = job
        self.job_id = job_id
        self._library = library
        self._worker = worker
        self._since = since
        self._parse = parse or self._parse_here
        self._purses = purses
        self._desk = ReadingDesk(library, job.asked_model, config, shared=shared)
        self._asking = Asking(library, self._desk)
        self._chunker = Chunker()
        self._embedder: Embedder | None = None
        self._loading = threading.Lock()
        self._opening = threading.Lock()
        self._fetching = threading.Lock()
        self._open: OrderedDict[str, _Open] = OrderedDict()

    @property
    def model(self) -> str:
        """The name of the model, or `offline`."""
        return self._desk.model

    @property
    def concurrency(self) -> int:
        """Requests that the model takes at once; 1 where none is asked."""
        spec = self._desk.spec
        return 1 if spec is None else spec.limits.concurrency

    @property
    def embedder(self) -> Embedder:
        """What makes the vectors. Raises EmbedderError."""
        with self._loading:
            if self._embedder is None:
                self._embedder = load_embedder(self.job.embedder)
            return self._embedder

    async def aclose(self) -> None:
        """Close the model's connections. The library is the caller's."""
        await self._desk.aclose()

    def prepare(self, path: str) -> Prepared:
        """Put the file into the library: parsed, chunked, indexed, all of its passages embedded.

        What is there already costs a look-up. Raises UndoneError, of a fault that reaches no further than "task" where
        it is the file's.
        """
        started = time.monotonic()
        try:
            document = self._added(path)
            self._opened(document.id, document).search.index.fill(document.id)
        except Exception as error:
            raise UndoneError(fault_of(error)) from error
        seconds = round(time.monotonic() - started, 3)
        return Prepared(document.id, document.name, len(document.pages), len(document.text), seconds)

    async def answer(self, work: TaskWork) -> Done:
        """Do the task. What is its own failure is a row, too.

        Raises UndoneError for what is not: the fault of the model's server, of the place of the results, of the job.
        """
        task = self.job.tasks[work.task - 1]
        about = ResultTask.of(work.task, task)
        asked = ResultDocument(number=work.document, path=work.path, id=work.document_id)
        runs: list[str] = []
        started = time.monotonic()
        try:
            opened = await in_daemon_thread(self._at_hand, work)
            document = opened.document
            asked = asked.model_copy(update={"name": document.name, "pages": len(document.pages)})
            answer = await self._answered(
                task,
                opened,
                self._purses(work.document),
                lambda event: runs.append(event.run_id) if isinstance(event, Started) else None,
            )
        except Exception as error:
            fault = fault_of(error)
            if fault.reach != "task":
                raise UndoneError(fault) from error
            failed = Result.failed(
                self.job_id,
                asked,
                about,
                fault.reason,
                usage=self._spent(runs),
                seconds=time.monotonic() - started,
                run_id=runs[-1] if runs else "",
                worker=self._worker,
            )
            return Done(failed, fault)
        seconds = time.monotonic() - started
        row = Result.answered(self.job_id, asked, about, answer, seconds=seconds, worker=self._worker)
        return Done(row)

    async def _answered(self, task: Task, opened: _Open, purse: Purse | None, on_event: OnEvent) -> Answer:
        document, store, profile = opened.document, self.job.store, self.job.profile
        embedder = await asyncio.to_thread(lambda: self.embedder)
        if store != "use":
            # Without the call store, what this job has paid for is in the notes of the run that was cut off.
            cut_off = await asyncio.to_thread(
                partial(
                    self._library.runs.cut_off,
                    task.request,
                    None if task.workflow == AUTO else task.workflow,
                    self._desk.model,
                    [(document.id, document.name)],
                    since=self._since,
                )
            )
            if cut_off is not None:
                return await self._asking.resume(
                    cut_off,
                    [document],
                    opened.search,
                    embedder,
                    budget=None,
                    profile=profile,
                    on_event=on_event,
                    store=store,
                    purse=purse,
                )
        return await self._asking.ask(
            task.request,
            [document],
            opened.search,
            embedder,
            workflow=task.workflow,
            budget=None,
            store=store,
            profile=profile,
            on_event=on_event,
            purse=purse,
        )

    def _at_hand(self, work: TaskWork) -> _Open:
        """The document of a task. One that another machine prepared is put into the library of this one first."""
        try:
            return self._opened(work.document_id)
        except UnknownDocumentError:
            with self._fetching:  # its tasks come together
                document = self._added(work.path)
        if document.id != work.document_id:
            remedy = "put the file back that was read, or begin another job with this one"
            raise SourceChangedError(work.path, "it is not the file any more that was read for this job", remedy)
        opened = self._opened(document.id, document)
        opened.search.index.fill(document.id)
        return opened

    def _added(self, path: str) -> Document:
        library = self._library
        raw = read_raw(path, limits=self.job.parsing)
        document = library.document_for(raw.digest, raw.reader, raw.reader_version, path=raw.name)
        if document is None or library.recipe_of(document.id) != self._chunker.recipe:
            document = document or self._parse(raw)
            library.add(document, self._chunker.chunks(document), recipe=self._chunker.recipe)
        return document

    def _parse_here(self, raw: RawFile) -> Document:
        return parse(raw, password=self.job.password, limits=self.job.parsing)

    def _opened(self, document_id: str, document: Document | None = None) -> _Open:
        """The document at hand, read from the library if it is not (or `document`, which is the same)."""
        with self._opening:
            opened = self._open.pop(document_id, None)
            if opened is None:
                # An index of its own, so that its vectors go when the document goes.
                search = Search(Index(self._library, self.embedder))
                opened = _Open(document or self._library.get(document_id), search)
            self._open[document_id] = opened
            while len(self._open) > AT_HAND:
                self._open.popitem(last=False)
        return opened

    def _spent(self, runs: Sequence[str]) -> Usage:
        """What the runs of a task cost that came to nothing."""
        try:
            totals = [self._library.runs.find(run_id).total for run_id in runs]
        except LibraryError as error:
            _log.warning("what a failed task cost is not known: %s", error)
            return Usage()
        return Usage.of(sum(totals, ModelUsage()), seconds=sum(total.seconds for total in totals))
