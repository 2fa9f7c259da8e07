"""Asking: one document after the other, its questions put to everybody who is measured, each answer kept at once.

What is kept is not asked again: an evaluation that was killed goes on, and only what failed is tried anew.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lcdoc.agents.models.budget import Budget
from lcdoc.agents.models.errors import (
    BudgetExceededError,
    ContextOverflowError,
    ModelConfigError,
    ModelError,
    ModelNameError,
)
from lcdoc.documents import Document, DocumentError, Span
from lcdoc.evaluation.cases import Case, Reading
from lcdoc.evaluation.desk import Desk
from lcdoc.evaluation.errors import EvaluationError
from lcdoc.evaluation.scoring import Response, figures_of, figures_of_failure
from lcdoc.memory.usage import ModelUsage
from lcdoc.workflows.errors import WorkflowError

AT_ONCE = 4
"""Questions of one document under way at once where a model is asked."""
_FAILURES_IN_A_ROW = 5
"""So many show that something is wrong which the next question will not mend."""


class CapReachedError(EvaluationError):
    """The caps admit no further question."""


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` answers are there; `document` is being asked about."""

    done: int
    total: int
    failed: int
    document: str


@dataclass
class Spending:
    """What has been spent of a budget that holds for all questions together."""

    budget: Budget
    usd: float = 0.0
    tokens: int = 0
    calls: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def capped(self) -> bool:
        return any(getattr(self.budget, cap) is not None for cap in ("usd", "tokens", "calls", "seconds"))

    def left(self) -> Budget:
        """What the next question may cost. Raises CapReachedError."""
        budget = self.budget
        left = Budget(
            usd=None if budget.usd is None else max(0.0, budget.usd - self.usd),
            tokens=None if budget.tokens is None else max(0, budget.tokens - self.tokens),
            calls=None if budget.calls is None else max(0, budget.calls - self.calls),
            seconds=None if budget.seconds is None else max(0.0, budget.seconds - (time.monotonic() - self.started)),
        )
        if 0 in (left.usd, left.tokens, left.calls, left.seconds):
            raise _cap_reached()
        return left

    def add(self, response: Response) -> None:
        self.usd += response.usd or 0.0
        self.tokens += response.tokens
        self.calls += response.calls - response.stored_calls

    def lose(self, usage: ModelUsage) -> None:
        """Count what was spent on a question that failed."""
        self.usd += usage.cost_usd or 0.0
        self.tokens += usage.tokens
        self.calls += usage.calls


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question to somebody."""

    way: str
    reading: Reading
    case: Case


class Runner:
    """Puts the questions of `readings` to each of `ways` (names of `Desk.ask`), under the evaluation's id of each."""

    def __init__(
        self,
        desk: Desk,
        readings: Sequence[Reading],
        ways: dict[str, str],
        *,
        budget: Budget,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._desk = desk
        self._evaluations = desk.library.evaluations
        self._readings = readings
        self._ways = ways
        self._spending = Spending(budget)
        self._on_progress = on_progress
        self._failed = 0
        # Of each way: a baseline that never fails says nothing of the model beside it.
        self._in_a_row: Counter[str] = Counter()
        # With a cap, one after the other: what is under way could not be counted otherwise.
        self._at_once = 1 if desk.model == "offline" or self._spending.capped else AT_ONCE
        kept = {way: self._evaluations.items(evaluation_id) for way, evaluation_id in ways.items()}
        self._kept = {(way, name) for way, items in kept.items() for name, item in items.items() if not item["error"]}

    @property
    def total(self) -> int:
        return len(self._ways) * sum(len(reading.cases) for reading in self._readings)

    async def run(self) -> None:
        """Ask what has no answer yet, and mark each evaluation as finished.

        Raises CapReachedError; ModelError for a model that cannot be asked at all; EvaluationError where question after
        question fails. What was answered until then is kept.
        """
        for reading in self._readings:
            wanted = [
                _Asked(way, reading, case)
                for way in self._ways
                for case in reading.cases
                if (way, case.id) not in self._kept
            ]
            if not wanted:
                continue
            self._tell(reading)
            try:
                document = await asyncio.to_thread(reading.document)
                await asyncio.to_thread(self._desk.add, document)
            except DocumentError as error:
                for asked in wanted:
                    await self._keep_failure(asked, (), error)
                continue
            await self._ask_all(wanted, document)
        for evaluation_id in self._ways.values():
            self._evaluations.finish(evaluation_id)

    async def _ask_all(self, wanted: list[_Asked], document: Document) -> None:
        room = asyncio.Semaphore(self._at_once)

        async def ask(asked: _Asked) -> None:
            async with room:
                await self._ask(asked, document)

        with _first_error():
            async with asyncio.TaskGroup() as group:
                for asked in wanted:
                    group.create_task(ask(asked))

    async def _ask(self, asked: _Asked, document: Document) -> None:
        evidence = await asyncio.to_thread(asked.case.evidence, document)
        try:
            response = await self._desk.ask(
                asked.way, asked.case, document, self._spending.left(), on_lost=self._spending.lose
            )
        except BudgetExceededError as error:
            raise _cap_reached() from error
        except (ModelConfigError, ModelNameError, EvaluationError):
            raise
        except (ModelError, WorkflowError) as error:
            await self._keep_failure(asked, evidence, error)
            return
        self._spending.add(response)
        if response.partial and self._spending.capped:
            # Less than was asked for; asked again with a higher cap, it takes up its stored calls.
            raise _cap_reached()
        self._in_a_row[asked.way] = 0
        await self._keep(asked, response, figures_of(asked.case, evidence, response))

    async def _keep(self, asked: _Asked, response: Response, figures: dict[str, float], error: str = "") -> None:
        case = asked.case
        item: dict[str, Any] = {
            "document": asked.reading.name,
            "drawn_as": asked.reading.drawn_as,
            "question": case.question,
            "references": list(case.references),
            "found": response.found,
            "answer": response.text,
            "pages": sorted({page for claim in response.claims for page in claim.pages}),
            "confidence": response.confidence,
            "figures": figures,
            "error": error,
        }
        await self._evaluations.keep(self._ways[asked.way], case.id, item)
        self._kept.add((asked.way, case.id))
        self._tell(asked.reading)

    async def _keep_failure(self, asked: _Asked, evidence: Sequence[Span], error: Exception) -> None:
        self._failed += 1
        # A file that cannot be read, or a text too long for the model, says nothing of the next one.
        if not isinstance(error, DocumentError | ContextOverflowError):
            self._in_a_row[asked.way] += 1
        await self._keep(asked, Response(False), figures_of_failure(asked.case, evidence), str(error))
        if self._in_a_row[asked.way] >= _FAILURES_IN_A_ROW:
            # Those that were asked at the same time may have failed as well.
            problem = f"{_FAILURES_IN_A_ROW} questions in a row failed, the last with: {error}"
            raise EvaluationError(problem, "mend that and give the same command: it asks again what failed")

    def _tell(self, reading: Reading) -> None:
        self._on_progress(Progress(len(self._kept), self.total, self._failed, reading.name))


def _cap_reached() -> CapReachedError:
    return CapReachedError("the cap is reached", "give the same command with a higher one to go on")


@contextmanager
def _first_error() -> Iterator[None]:
    """Raise the first of a task group's errors by itself: the others came of it."""
    try:
        yield
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
