"""What a workflow is: a way to arrange readers over documents. `run` is the last event of `stream`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lcdoc.agents.models.budget import Budget
from lcdoc.agents.models.model import Request
from lcdoc.documents import Document
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.events import Answered, Event

if TYPE_CHECKING:
    from lcdoc.workflows.rehearsal import Stage


@dataclass(frozen=True, slots=True)
class Requests:
    """What would be sent to a model, in order."""

    reading: tuple[Request, ...]
    """For the passages read first."""
    answering: tuple[Request, ...]
    """With notes that are only likely: what the model will note is not known before."""
    widening: tuple[Request, ...]
    """For the passages read when the first ones hold no answer."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What answering will take, known before anything is paid."""

    calls: int
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    """None: the price is not known."""
    seconds: float | None
    """None: this model has not been timed yet."""
    at_most: Plan | None = None
    """The same for the worst case: what was looked for is not found at first, so more is read, and answers are as long
    as they may be. Calls made again after a failure come on top, unless a budget caps them."""
    requests: Requests | None = None
    """None: no model is asked."""


class Workflow(Protocol):
    """Plans, and answers as a stream of events whose last one is `Answered`."""

    @property
    def name(self) -> str: ...

    async def plan(self, question: str, documents: Sequence[Document], stage: Stage | None) -> Plan:
        """What `stream` will take for this question, rehearsed on `stage` where a model is to be asked."""
        ...

    def stream(self, question: str, documents: Sequence[Document], *, budget: Budget) -> AsyncIterator[Event]:
        """Answer, telling what happens on the way."""
        ...


def ignore_events(_event: Event) -> None:
    """For callers that only want the result."""


async def run(
    workflow: Workflow,
    question: str,
    documents: Sequence[Document],
    *,
    budget: Budget | None = None,
    on_event: Callable[[Event], None] = ignore_events,
) -> Answer:
    """The answer alone. There is one code path: this reads the stream to its end, handing each event to `on_event`."""
    answer: Answer | None = None
    async for event in workflow.stream(question, documents, budget=budget or Budget()):
        on_event(event)
        if isinstance(event, Answered):
            answer = event.answer
    if answer is None:
        raise RuntimeError(f"the workflow {workflow.name} ended without an answer")
    return answer
