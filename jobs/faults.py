"""Whose failure it is: one task's, every task's, or that of the place where results are kept.

A task's own failure is its row. What would fail every task stops the job, since a folder of failures helps nobody. And
while nothing can be written, what was done is held and the rest waits.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from lcdoc.agents.models.errors import (
    AuthenticationError,
    BudgetExceededError,
    ConnectionFailedError,
    ContextOverflowError,
    ModelConfigError,
    ModelError,
    ModelNameError,
    QuotaError,
    UnknownModelError,
)
from lcdoc.agents.span_reader.weights import SpanReaderError
from lcdoc.documents import DocumentError, NotFoundError
from lcdoc.memory import LibraryError
from lcdoc.memory.errors import (
    LibraryAccessError,
    LibraryAwayError,
    LibraryBusyError,
    LibraryCorruptError,
    LibraryLostError,
    LibraryVersionError,
    UnknownDocumentError,
)
from lcdoc.retrieval.embedders import EmbedderError
from lcdoc.retrieval.vectors import VectorStoreError
from lcdoc.workflows.errors import WorkflowError

Reach = Literal["task", "server", "job", "place"]
"""`server`: it cannot be reached just now."""

IN_A_ROW = 5
"""Failures of one kind that show that something is wrong which the next task will not mend."""

_EVERYBODYS = (
    AuthenticationError,
    EmbedderError,
    LibraryCorruptError,
    LibraryVersionError,
    ModelConfigError,
    ModelNameError,
    QuotaError,
    SpanReaderError,
    UnknownModelError,
    WorkflowError,
)
_OF_THE_PLACE = (LibraryAccessError, LibraryAwayError, LibraryBusyError, LibraryLostError, VectorStoreError)
_FOR_USERS = (
    ModelError,
    DocumentError,
    EmbedderError,
    LibraryError,
    MemoryError,
    OSError,
    SpanReaderError,
    VectorStoreError,
    WorkflowError,
)
"""Errors whose messages say what happened."""
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


@dataclass(frozen=True, slots=True)
class Fault:
    """What went wrong. `kind` is the same for failures of one cause; empty where they say nothing of the next task."""

    reach: Reach
    reason: str
    kind: str = ""


class UndoneError(Exception):
    """A document or a task that was not done; `fault` says why. It can be pickled."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault

    def __str__(self) -> str:
        return self.fault.reason


def fault_of(error: Exception) -> Fault:
    """What this error means for the job. Errors that stand behind it (`__cause__`) count, too."""
    if isinstance(error, UndoneError):
        return error.fault
    causes = tuple(_causes(error))
    reach = _reach(causes)
    reason = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, _FOR_USERS):
        reason = f"a bug in lcdoc: {type(error).__name__}: {reason}"
    return Fault(reach, reason, kind="" if _is_the_documents(error) else type(causes[-1]).__name__)


def _reach(causes: Sequence[BaseException]) -> Reach:
    if any(map(_is_of_the_place, causes)):
        return "place"
    if any(isinstance(cause, ConnectionFailedError) for cause in causes):
        return "server"
    return "job" if any(isinstance(cause, _EVERYBODYS) for cause in causes) else "task"


def _is_the_documents(error: Exception) -> bool:
    """Whether it says nothing of the next document; many missing files in a row, though, are a folder that is gone."""
    if isinstance(error, NotFoundError):
        return False
    return isinstance(error, DocumentError | ContextOverflowError | BudgetExceededError | UnknownDocumentError)


def _causes(error: BaseException) -> Iterator[BaseException]:
    at: BaseException | None = error
    seen: set[int] = set()
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__


def _is_of_the_place(error: BaseException) -> bool:
    if isinstance(error, _OF_THE_PLACE):
        return True
    return isinstance(error, OSError) and error.errno in _FULL


class Streak:
    """Counts failures of one kind in a row; what was done, and a failure of another kind, begin anew."""

    def __init__(self, limit: int = IN_A_ROW) -> None:
        self._limit = limit
        self._kind = ""
        self._count = 0

    def add(self, fault: Fault | None) -> str:
        """Count what became of a task (None: it was done). Returns why the job should pause; empty: it should not."""
        if fault is not None and not fault.kind:
            return ""
        if fault is None or fault.kind != self._kind:
            self._kind, self._count = fault.kind if fault else "", 0
        if fault is None:
            return ""
        self._count += 1
        if self._count < self._limit:
            return ""
        self._count = 0
        return f"{self._limit} failures of one kind in a row, the last: {fault.reason}"
