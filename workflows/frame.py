"""What all workflows share: a LangGraph graph over a session, its state saved step by step, its events as one stream.

A workflow is one file: its graph, how its answer is composed, and its plan. State holds names, numbers and failures;
the notes themselves are in the library's notebook, so a checkpoint stays small. A node that fails returns a Failure,
since an exception would cancel the nodes beside it.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from lcdoc.agents.models.budget import Budget
from lcdoc.documents import Document
from lcdoc.memory import Library
from lcdoc.memory.runs import Run as RunRecord
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.events import Answered, Event, NoteTaken, Partial, Progress, Resumed, Spent, Started
from lcdoc.workflows.langgraph_ahead import wait_for_import
from lcdoc.workflows.readers import Asked, Readers
from lcdoc.workflows.resume import remember_conditions, resumption, take_up
from lcdoc.workflows.run import Run
from lcdoc.workflows.search import Search
from lcdoc.workflows.session import Session
from lcdoc.workflows.workflow import Plan

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

    from lcdoc.workflows.rehearsal import Stage

_PASSING = (Progress, Partial)
"""Events that a run's record need not have."""
_SPENT_EVERY_S = 0.25
_MOST_STEPS = 100_000
"""Of a graph; LangGraph's own limit of 25 is for loops of agents, not for the pieces of a book."""


class GraphWorkflow(ABC):
    """A workflow as a graph. Subclasses give the graph, its first state, the answer at its end, and the plan."""

    name: ClassVar[str]
    about: ClassVar[str]
    """What it does and when to choose it, in one line."""

    def __init__(self, library: Library, search: Search, readers: Readers) -> None:
        self.library = library
        self.search = search
        self.readers = readers

    @abstractmethod
    def graph(self, session: Session) -> StateGraph[Any, Any, Any, Any]:
        """The graph, not compiled; its nodes are bound to `session`."""

    def first_state(self, session: Session) -> dict[str, Any]:
        """What the graph begins with."""
        return {}

    async def prepare(self, session: Session) -> None:  # noqa: B027 - most begin with nothing
        """What a new run can begin with while LangGraph is still being imported; it emits no events."""

    @abstractmethod
    def conclude(self, session: Session, state: dict[str, Any]) -> Answer:
        """The answer, from the graph's last state and what the session noted."""

    @abstractmethod
    async def plan(self, question: str, documents: Sequence[Document], stage: Stage | None) -> Plan:
        """What `stream` will take for this question, rehearsed on `stage` where a model is to be asked."""

    async def stream(
        self,
        question: str,
        documents: Sequence[Document],
        *,
        budget: Budget | None = None,
        resumed: RunRecord | None = None,
    ) -> AsyncGenerator[Event]:
        """Answer, telling what happens; `resumed` is a run to go on with, where `Readers.start` finds none by itself.

        The caps of `budget` hold for what is done now. Raises EmbedderError, LibraryError (RunUnderWayError and
        RunEndedError for a `resumed` that cannot be taken over), and ModelError where nothing could be read at all.
        """
        with self.readers.start(Asked(question, self.name, documents, budget or Budget(), resumed)) as run:
            session = Session(question, documents, run, self.library, self.search)
            names = tuple(document.name for document in documents)
            started = Started(question, names, self.name, run.id)
            self._record(run, started)
            yield started
            due_s = 0.0
            async with aclosing(self._steps(session)) as events:
                async for event in events:
                    if isinstance(event, Answered):
                        yield Spent(event.answer.usage, run.ledger.budget)
                        yield event
                        return
                    if not isinstance(event, _PASSING):
                        self._record(run, event)
                    yield event
                    if isinstance(event, NoteTaken) or time.monotonic() > due_s:
                        due_s = time.monotonic() + _SPENT_EVERY_S
                        yield Spent(run.usage(), run.ledger.budget)

    def _record(self, run: Run, event: Event) -> None:
        fields = asdict(event)
        if isinstance(event, Resumed):
            # The record has what was read before.
            fields = {"run_id": event.run_id, "notes": event.notes}
        self.library.notebook.record(run.id, type(event).__name__, fields)

    async def _steps(self, session: Session) -> AsyncGenerator[Event]:
        run = session.run
        if run.resumed is None:
            await asyncio.gather(asyncio.to_thread(wait_for_import), self.prepare(session))
        async with self.library.checkpoints() as saver:
            app = self.graph(session).compile(checkpointer=saver, name=self.name)
            config: Any = {
                "configurable": {"thread_id": run.id},
                "recursion_limit": _MOST_STEPS,
                "max_concurrency": run.concurrency,
            }
            begun = False
            if run.resumed is not None:
                await saver.forget_cancelled(run.id)
                begun = await take_up(session, await app.aget_state(config))
                if not begun:
                    await saver.adelete_thread(run.id)
                yield resumption(session)
            remember_conditions(session)
            first = None if begun else self.first_state(session)
            events: AsyncIterator[Any] = app.astream(first, config, stream_mode="custom", durability="sync")
            async for event in events:
                yield event
            answer = self.conclude(session, (await app.aget_state(config)).values)
            if session.first_error is not None and not answer.found and not answer.passages_read:
                # Nothing at all was read: that is no answer, not even a partial one.
                raise session.first_error
            # A run that is to go on from a partial answer tries again what failed, from the notes; the state has no
            # further use.
            await saver.adelete_thread(run.id)
        yield Answered(run.ends_with(answer))
