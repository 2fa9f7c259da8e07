"""A library, a server and a model with a short window, to put questions to one workflow about texts of a test."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from lcdoc.agents.stems import stems_of
from lcdoc.documents import Document
from lcdoc.retrieval.embedders import Embedder, load_embedder
from lcdoc.tests.servers.chat_server import ChatServer, Recorded
from lcdoc.tests.servers.truthful import Block, Truthful, skill_of
from lcdoc.workflows import events
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.frame import GraphWorkflow
from lcdoc.workflows.readers import OfflineReaders, ReadingDesk
from lcdoc.workflows.search import Search
from lcdoc.workflows.workflow import Budget, Plan, run
from lcdoc.workflows.workspace import Workspace

Result = TypeVar("Result")
_FILLER = (
    "Rain fell on page {page} of the journal and the mill turned {line} times before dusk.",
    "Nobody in the valley numbered {page} had seen a heron in week {line}, and the hedges were bare.",
    "A loaf cost {line} pennies at stall {page}, which the baker said was more than last year.",
)


@cache
def embedder() -> Embedder:
    return load_embedder()


def page_of(page: int, *facts: str, lines: int = 54) -> str:
    """A page about nothing much, with the facts in its middle."""
    filler = [_FILLER[line % 3].format(page=page, line=line) for line in range(lines)]
    return " ".join([*filler[: lines // 2], *facts, *filler[lines // 2 :]])


def book(pages: int, facts: dict[int, str]) -> str:
    """A text of so many pages, each about as long as one reading, with facts on some of them (from 1)."""
    return "\f".join(page_of(page, *filter(None, [facts.get(page)])) for page in range(1, pages + 1))


class Lister(Truthful):
    """An honest model that lists, too: what its pattern finds in sentences that have the question's words."""

    def __init__(self, item: str = r"(?!)", stated: str = r"(?!)", **options: Any) -> None:
        super().__init__(**options)
        self.item, self.stated = re.compile(item), re.compile(stated)

    def _list(self, blocks: list[Block], question: str, _: Random) -> dict[str, Any]:
        sentences = [one for block in blocks for one in _sentences(block.text)]
        items = [{"name": name, "quote": one} for one in sentences for name in self.item.findall(one)]
        stated = next((one for one in sentences if self.stated.search(one)), "")
        found = bool(items or stated)
        return {"found": found, "stated": stated, "stated_quote": stated, "items": items, "confidence": 5 * found}


def _sentences(text: str) -> list[str]:
    return [" ".join(one.split()) for one in re.split(r"(?<=[.!?])\s+", text) if stems_of(one)]


class Desk:
    """Asks one workflow."""

    def __init__(self, workspace: Workspace, folder: Path, server: ChatServer, workflow: type[GraphWorkflow]) -> None:
        self.workspace = workspace
        self.server = server
        self.events: list[events.Event] = []
        self._folder = folder
        self._workflow = workflow

    def documents(self, *texts: str) -> list[Document]:
        """The texts, each a document in the library."""
        paths = [self._folder / f"book{number}.txt" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        return self.workspace.read(paths)

    def ask(
        self, documents: list[Document], question: str, *, budget: Budget | None = None, offline: bool = False
    ) -> Answer:
        """The answer through the public interface of workflows; `events` are those of this question."""
        self.events.clear()

        async def asked(workflow: GraphWorkflow) -> Answer:
            return await run(workflow, question, documents, budget=budget, on_event=self.events.append)

        return self._with_workflow(asked, offline=offline)

    def leave(self, documents: list[Document], question: str, *, after: int) -> None:
        """Go away while the question is being answered, when so many notes were taken."""
        self.events.clear()

        async def left(workflow: GraphWorkflow) -> None:
            async with aclosing(workflow.stream(question, documents)) as stream:
                async for event in stream:
                    self.events.append(event)
                    if len(self.of(events.NoteTaken)) == after:
                        return

        self._with_workflow(left, offline=False)

    def plan(self, documents: list[Document], question: str, *, offline: bool = False) -> Plan:
        """What the workflow says it will take."""

        async def planned(workflow: GraphWorkflow) -> Plan:
            desk = ReadingDesk(self.workspace.library, "offline" if offline else "honest")
            try:
                return await workflow.plan(question, documents, await desk.stage(embedder(), profile=None))
            finally:
                await desk.aclose()

        return self._with_workflow(planned, offline=offline)

    def of(self, kind: type[Result]) -> list[Result]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def asked_for(self, skill: str) -> list[Recorded]:
        """The requests of one skill that the server got."""
        return [
            request
            for request in self.server.requests
            if (known := skill_of(request.body["messages"][0]["content"])) and known[0] == skill
        ]

    def _with_workflow(self, use: Callable[[GraphWorkflow], Awaitable[Result]], *, offline: bool) -> Result:
        library = self.workspace.library

        async def main() -> Result:
            search = Search(self.workspace.index)
            if offline:
                return await use(self._workflow(library, search, OfflineReaders(embedder(), library.runs)))
            desk = ReadingDesk(library, "honest")
            try:
                readers = await desk.readers(embedder(), store="use", profile=None)
                return await use(self._workflow(library, search, readers))
            finally:
                await desk.aclose()

        return asyncio.run(main())


@contextmanager
def desk_for(
    workflow: type[GraphWorkflow],
    tmp_path: Path,
    configure: Callable[[str], None],
    *,
    window: int = 4096,
    concurrency: int = 4,
) -> Iterator[Desk]:
    """A desk whose model is an honest lister with this window."""
    with ChatServer() as server:
        server.default = Lister()
        server.models = [{"id": "honest", "max_model_len": window}]
        configure(
            f'[models.honest]\nurl = "{server.url}"\nconcurrency = {concurrency}\nprofile = "large"\n'
            "prices = { input = 1.0, output = 4.0 }\n"
        )
        with Workspace.open(tmp_path / "library.sqlite", background=False) as workspace:
            yield Desk(workspace, tmp_path, server, workflow)
