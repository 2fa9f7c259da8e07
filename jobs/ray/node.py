"""What a process of a node does for a job: it prepares documents, and answers what is asked of those in parcels.

A process is used again and again, so what is dear to load (the embedder, a model) and what is at hand (documents) stays
from one task to the next.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lcdoc.agents.models.config import Config
from lcdoc.agents.models.purse import Purse
from lcdoc.documents import Document
from lcdoc.documents.loading import RawFile
from lcdoc.documents.pool import ParserPool
from lcdoc.jobs.faults import Fault, fault_of
from lcdoc.jobs.job import Job
from lcdoc.jobs.ray.clerk import ClerkCalls, Line, NodePurse, PurseTerms
from lcdoc.jobs.ray.files import Mark, put_down
from lcdoc.jobs.ray.parcel import Parcel
from lcdoc.jobs.ray.scratch import NodeLibrary, Scratch, ScratchFolder
from lcdoc.jobs.work import Done, Prepared, Work
from lcdoc.memory import Library
from lcdoc.memory.database import Database
from lcdoc.memory.job_records import TaskWork

_LIBRARY = "library.sqlite"


@dataclass(frozen=True, slots=True)
class Terms:
    """A job as its nodes have to know it."""

    job_id: str
    settings: Mapping[str, Any]
    config: Config
    secret: bytes
    """The library's: prompts are fenced by it."""
    shared: str | None
    """The server where nodes keep what is shared; None: with the clerk."""
    supervisor: Any
    """The actor that answers for the clerk."""
    since: datetime | None = None
    """When the job was begun."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A document that was prepared, and how large its parcel is."""

    prepared: Prepared
    size_bytes: int


class Node:
    """One process's part in a job. `member` is what the clerk knows it by.

    Raises ModelNameError, ModelConfigError for a model that cannot be asked from here, and LibraryError.
    """

    def __init__(self, terms: Terms, member: str, *, line: Line, **options: Any) -> None:
        job = Job.of(terms.settings)
        self._line = line
        self._member = member
        self._purses: dict[int, Purse] = {}
        self._parsers: ParserPool | None = None
        folder = ScratchFolder()
        self._scratch = Scratch(_library(terms, member, line, folder.path / _LIBRARY), folder)
        self.work = Work(
            self._scratch.library,
            job,
            terms.job_id,
            worker=f"{socket.gethostname()}-{os.getpid()}",
            since=terms.since,
            parse=self._parsed,
            purses=self._purses.get,
            config=terms.config,
            **options,
        )

    def prepare(self, path: str, mark: Mark | None, data: bytes | None) -> tuple[Prepared, Parcel] | None:
        """The document in the file `path`, read here where it is the marked one, else out of `data`; None where neither
        is at hand. Raises UndoneError."""
        if data is None:
            if mark is not None and Mark.of(path) != mark:
                return None
            return self._prepared(path)
        with TemporaryDirectory(prefix="lcdoc-sent-") as folder:
            return self._prepared(str(put_down(path, data, Path(folder))))

    async def answer(self, work: TaskWork, purse: PurseTerms | None, fetch: Callable[[], Awaitable[Parcel]]) -> Done:
        """Do a task; `fetch` gets its document where it is not at hand. Raises UndoneError."""
        if purse is not None:
            self._purses[work.document] = NodePurse(self._line, self._member, purse)
        try:
            if not self._scratch.enter(work.document_id):
                await asyncio.to_thread(self._scratch.unpack, await fetch())
            return await self.work.answer(work)
        finally:
            self._scratch.leave(work.document_id)

    def close(self) -> None:
        """Forget everything. Connections of the model are closed before, by `work.aclose`."""
        if self._parsers is not None:
            self._parsers.close()
        self._scratch.close()

    def _parsed(self, raw: RawFile) -> Document:
        if self._parsers is None:
            self._parsers = ParserPool(1)
        job = self.work.job
        return self._parsers.parse(raw, password=job.password, limits=job.parsing)

    def _prepared(self, path: str) -> tuple[Prepared, Parcel]:
        prepared = self.work.prepare(path)
        self._scratch.enter(prepared.document_id)
        try:
            return prepared, self._scratch.pack(prepared.document_id)
        finally:
            self._scratch.leave(prepared.document_id)


class RayLine:
    """The line to a clerk that is an actor."""

    def __init__(self, supervisor: Any) -> None:
        self._supervisor = supervisor

    async def ask(self, what: str, *given: Any) -> Any:
        """See `Line`."""
        return await self._supervisor.clerk.remote(what, *given)

    def tell(self, what: str, *given: Any) -> None:
        """See `Line`."""
        self._supervisor.clerk.remote(what, *given)


def _library(terms: Terms, member: str, line: Line, path: Path) -> Library:
    if terms.shared is not None:
        return Library.open(path, shared=terms.shared)
    library = NodeLibrary(Database(path), terms.secret)
    library.keep_calls_with(ClerkCalls(line, member))
    return library


def fault_here(error: Exception) -> Fault:
    """What the error means for the job, with the node's name where it is not the file's or the question's own."""
    fault = fault_of(error)
    if fault.reach == "task":
        return fault
    return Fault(fault.reach, f"on node {socket.gethostname()}: {fault.reason}", fault.kind)
