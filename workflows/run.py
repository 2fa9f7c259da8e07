"""A run: one question being answered, with the reader that answers it, what it may cost, and the record it leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lcdoc.agents.models.budget import Ledger
from lcdoc.agents.models.call_store import StoreMode
from lcdoc.agents.models.model import Request
from lcdoc.agents.models.read_ahead import ReadAhead
from lcdoc.agents.reader import Reader
from lcdoc.memory.runs import Outcome, Runs
from lcdoc.memory.runs import Run as RunRecord
from lcdoc.workflows.answer import Answer, Usage

if TYPE_CHECKING:
    from types import TracebackType


OFFLINE = "offline"


class Run:
    """One question being answered. Use as a context manager: what ends it is recorded, also when it is no answer."""

    def __init__(
        self,
        run_id: str,
        reader: Reader,
        ledger: Ledger,
        record: Runs,
        *,
        model: str = OFFLINE,
        warnings: Sequence[str] = (),
        concurrency: int = 1,
        resumed: RunRecord | None = None,
        store: StoreMode = "use",
        ahead: ReadAhead | None = None,
        recipes: Mapping[str, int] | None = None,
    ) -> None:
        self.id = run_id
        self.model = model
        self.reader = reader
        self.ledger = ledger
        self.warnings = warnings
        """What the user should know of the model."""
        self.concurrency = concurrency
        """Steps that are worth doing at once."""
        self.resumed = resumed
        """The record this run goes on from, as it was when its first process ended; None for one that is new."""
        self.store = store
        """Whether what models said earlier is used and kept."""
        self.recipes: Mapping[str, int] = {} if recipes is None else recipes
        """Of the caches that pieces are read through, with the number of requests; it fills as the run goes on."""
        self._ahead = ahead
        self._record = record
        self._started = time.monotonic()
        self._answer: Answer | None = None

    @property
    def prefetch(self) -> Callable[[Sequence[Request]], None] | None:
        """Has the model read ahead what is going to be sent; None where it cannot."""
        return None if self._ahead is None else self._ahead.announce

    def usage(self) -> Usage:
        """What it has cost so far."""
        return Usage.of(self.ledger.total(), seconds=time.monotonic() - self._started)

    def out_of_time(self) -> bool:
        """Whether the budget's wall time is used up."""
        remaining_s = self.ledger.remaining_s()
        return remaining_s is not None and remaining_s <= 0

    def ends_with(self, answer: Answer) -> Answer:
        """`answer`, which is what the record will keep of the run."""
        self._answer = answer
        return answer

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._ahead is not None:
            self._ahead.close()
        answer = self._answer
        if answer is not None:
            self._record.finish(self.id, _status(answer), answer=answer.to_json())
        elif isinstance(error, Exception):
            self._record.finish(self.id, "failed", answer=None, error=str(error))
        else:
            self._record.finish(self.id, "interrupted", answer=None)


def _status(answer: Answer) -> Outcome:
    if answer.partial:
        return "partial"
    return "answered" if answer.found else "not_found"
