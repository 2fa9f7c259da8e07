"""What a workflow is: a way to arrange readers over documents. `run` is the last event of `stream`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lcdoc.documents import Document
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.events import Answered, Event


@dataclass(frozen=True, slots=True)
class Plan:
    """What answering will take, known before anything is paid. `cost_usd` None: the price is unknown."""

    calls: int
    tokens_in: int
    tokens_out: int
    cost_usd: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Budget:
    """What answering may take at most. Reaching a bound ends the work with the best partial answer."""

    seconds: float | None = None


class Workflow(Protocol):
    """Plans, and answers as a stream of events whose last one is `Answered`."""

    name: str

    def plan(self, question: str, documents: Sequence[Document]) -> Plan:
        """What `stream` will take for this question."""
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
