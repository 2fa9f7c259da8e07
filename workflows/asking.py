"""Answering: the workflow that fits or was named, with the readers of the chosen model, over documents once read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lcdoc.agents.models.budget import Budget
from lcdoc.agents.models.call_store import StoreMode
from lcdoc.agents.models.errors import ModelConfigError
from lcdoc.agents.models.model import Profile
from lcdoc.agents.models.purse import Purse
from lcdoc.agents.offline_reader import OfflineReader
from lcdoc.documents import Document
from lcdoc.memory import Library
from lcdoc.memory.runs import Run as RunRecord
from lcdoc.retrieval.embedders import Embedder
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.auto import Auto
from lcdoc.workflows.events import Event
from lcdoc.workflows.readers import OfflineReaders, Readers, ReadingDesk, Resuming
from lcdoc.workflows.registry import AUTO, make
from lcdoc.workflows.rehearsal import Stage
from lcdoc.workflows.search import Search
from lcdoc.workflows.workflow import Plan, Workflow, run

OnEvent = Callable[[Event], None]


class Asking:
    """Answers, resumes and plans, for the one event loop that the model's connections belong to."""

    def __init__(self, library: Library, desk: ReadingDesk) -> None:
        self._library = library
        self._desk = desk

    async def ask(
        self,
        question: str,
        documents: Sequence[Document],
        search: Search,
        embedder: Embedder,
        *,
        workflow: str,
        budget: Budget | None,
        store: StoreMode,
        profile: Profile | None,
        on_event: OnEvent,
        purse: Purse | None = None,
    ) -> Answer:
        """See `Workspace.ask`. `purse` is what this run may spend together with others."""
        readers = await self._desk.readers(embedder, store=store, profile=profile, on_event=on_event, purse=purse)
        stage = await self._desk.stage(embedder, profile=profile) if workflow == AUTO else None
        made = self._made(workflow, search, readers, stage, embedder)
        return await run(made, question, documents, budget=self._desk.budget(budget), on_event=on_event)

    async def resume(
        self,
        cut_off: RunRecord,
        documents: Sequence[Document],
        search: Search,
        embedder: Embedder,
        *,
        budget: Budget | None,
        profile: Profile | None,
        on_event: OnEvent,
        store: StoreMode = "use",
        purse: Purse | None = None,
    ) -> Answer:
        """See `Workspace.resume`. `purse` is what this run may spend together with others."""
        own = await self._desk.readers(embedder, store=store, profile=profile, on_event=on_event, purse=purse)
        readers = Resuming(own, cut_off)
        made = make(cut_off.workflow, self._library, search, readers)
        return await run(made, cut_off.question, documents, budget=self._desk.budget(budget), on_event=on_event)

    def check(self, cut_off: RunRecord) -> None:
        """Raises ModelConfigError for a run that was made with another model."""
        if cut_off.model != self._desk.model:
            problem = f"run {cut_off.id} was made with {cut_off.model}, and this workspace answers with"
            raise ModelConfigError(
                self._desk.model, f"{problem} {self._desk.model}", f"name {cut_off.model} as the model"
            )

    async def plan(
        self,
        question: str,
        documents: Sequence[Document],
        search: Search,
        embedder: Embedder,
        *,
        workflow: str,
        profile: Profile | None,
    ) -> Plan:
        """See `Workspace.plan`."""
        stage = await self._desk.stage(embedder, profile=profile)
        readers = OfflineReaders(embedder, self._library.runs)
        return await self._made(workflow, search, readers, stage, embedder).plan(question, documents, stage)

    def _made(
        self, workflow: str, search: Search, readers: Readers, stage: Stage | None, embedder: Embedder
    ) -> Workflow:
        if workflow != AUTO:
            return make(workflow, self._library, search, readers)
        reader = stage.reader if stage else OfflineReader(embedder)
        return Auto(self._library, search, readers, reader, self._desk.spec)
