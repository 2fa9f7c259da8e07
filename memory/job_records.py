"""What a job is made of, as its store tells it: the job, leases, work to be done, results, how far it is.

Documents and tasks are numbered from 1, in the order in which they were given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from lcdoc.memory.errors import LibraryError
from lcdoc.memory.usage import ModelUsage

DocumentState = Literal["waiting", "preparing", "ready", "failed"]
TaskState = Literal["waiting", "running", "done", "failed", "cancelled"]
"""`cancelled`: it had not ended when its job was cancelled."""
JobState = Literal["open", "paused", "cancelled", "finished"]
"""`finished`: every task is done or has failed. New documents, or failed ones tried again, open it anew."""


class UnknownJobError(LibraryError):
    """There is no job of that id, prefix or name, or more than one."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job: tasks put to documents."""

    id: str
    name: str
    settings: Mapping[str, Any]
    """What is done, as plain JSON values: the same again is the same job."""
    tasks: int
    """How many are put to each document."""
    attempts: int
    """How many workers may die at one task, or at preparing one document, before it fails."""
    state: JobState
    reason: str
    """Why it was stopped; empty where it was not, or where a user paused it."""
    out: str
    """Where its results are written to; empty where they are not."""
    created_at: datetime
    changed_at: datetime
    """When documents were added, or its state was last changed by somebody."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work at something until a moment, which beats put off."""

    token: str
    """Fences: what is given with a token that is no longer the row's is refused."""
    worker: str
    until: float
    """Unix time, by the store's clock."""


@dataclass(frozen=True, slots=True)
class DocumentWork:
    """A document to be prepared: parsed, cut, indexed."""

    job: str
    number: int
    path: str
    attempt: int
    """1 at first."""
    lease: Lease


@dataclass(frozen=True, slots=True)
class TaskWork:
    """A task to be done with a document that is ready."""

    job: str
    document: int
    path: str
    document_id: str
    task: int
    """From 1: `tasks[work.task - 1]`."""
    attempt: int
    """1 at first."""
    lease: Lease


Work = DocumentWork | TaskWork


@dataclass(frozen=True, slots=True)
class ResultRow:
    """What came of one task with one document."""

    sequence: int
    """Rises with every result of the job, in the order in which they were kept."""
    document: int
    path: str
    document_id: str
    """Empty where the document could not be read."""
    name: str
    pages: int
    task: int
    state: Literal["done", "failed"]
    error: str
    row: Mapping[str, Any] | None
    """As it was given to `keep`; None where nobody gave one: its document failed, or its workers died."""
    attempts: int
    seconds: float
    worker: str
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class JobWorker:
    """A process that works at a job."""

    id: str
    host: str
    pid: int
    started_at: datetime
    beat_at: datetime
    """When it last gave a sign of life."""
    doing: str
    """What it is at, in its own words."""


@dataclass(frozen=True, slots=True)
class DocumentCost:
    """How long a document has taken, its tasks included."""

    number: int
    path: str
    pages: int
    seconds: float


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How far a job is."""

    job: JobRecord
    documents: Mapping[DocumentState, int]
    tasks: Mapping[TaskState, int]
    pages: int
    """Of the documents that are ready."""
    characters: int
    usage: ModelUsage
    """Of all tasks, tried ones included; `usage.cost_usd` is None where a part of it is not known."""
    known_usd: float
    """The part of the cost that is known."""
    reading_s: float
    """Sum over the documents of what preparing them took."""
    answering_s: float
    """Sum over the tasks."""
    documents_per_minute: float
    """Prepared, or failed, over the last minutes; 0 when none was."""
    tasks_per_minute: float
    """Done or failed, over the last minutes; 0 when none was."""
    slowest: tuple[DocumentCost, ...]
    """The documents that took longest, the longest first."""
    workers: tuple[JobWorker, ...]
    """Those that live, as far as can be told."""

    @property
    def unfinished(self) -> int:
        """Tasks that are neither done nor failed."""
        return self.tasks["waiting"] + self.tasks["running"] + self.tasks["cancelled"]

    @property
    def total(self) -> int:
        """All tasks."""
        return sum(self.tasks.values())

    @property
    def left_s(self) -> float | None:
        """How long the rest takes at the rate of the last minutes; None where that cannot be told."""
        return 60 * self.unfinished / self.tasks_per_minute if self.tasks_per_minute else None

    def as_dict(self) -> dict[str, Any]:
        """The status as plain JSON values; times in ISO 8601."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain | {"unfinished": self.unfinished, "total": self.total, "left_s": self.left_s}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
