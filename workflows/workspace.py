"""A workspace: the library, the index and the reader, held open between questions."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lcdoc.agents.models.budget import Budget
from lcdoc.agents.models.call_store import StoreMode
from lcdoc.agents.models.config import Config
from lcdoc.agents.models.model import Profile
from lcdoc.agents.quotes import citation_boxes
from lcdoc.documents import Document, FileChoice, Limits, NotFoundError, find_files
from lcdoc.memory import Library
from lcdoc.retrieval.background import BackgroundFill
from lcdoc.retrieval.chunker import Chunker
from lcdoc.retrieval.embedders import DEFAULT_EMBEDDER, Embedder, load_embedder
from lcdoc.retrieval.index import Index
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.asking import Asking
from lcdoc.workflows.events import Event, Progress
from lcdoc.workflows.langgraph_ahead import begin_import
from lcdoc.workflows.loop import LoopThread
from lcdoc.workflows.readers import ReadingDesk
from lcdoc.workflows.reading import DocumentReading
from lcdoc.workflows.registry import AUTO
from lcdoc.workflows.search import Search
from lcdoc.workflows.workflow import Plan, ignore_events

if TYPE_CHECKING:
    from types import TracebackType

    from lcdoc.workflows.extract_answer import ExtractAnswer
    from lcdoc.workflows.keeping import For, Keeping, Kept

_FILL_PASSAGES = 128
"""Passages embedded at a time when nothing waits: many together use all cores well."""
_LAZY_TOKENS_BESIDE_BACKGROUND = 600
"""About an eighth of a second on two cores."""


class Workspace:
    """Documents read, indexed and ready to be asked.

    Use as a context manager. Reading a file twice costs a look-up; the embedder loads in the background while files
    are read. Methods may be called from one thread at a time.
    """

    def __init__(
        self,
        library: Library,
        *,
        embedder: str = DEFAULT_EMBEDDER,
        limits: Limits | None = None,
        background: bool = True,
        model: str | None = None,
        config: Config | None = None,
    ) -> None:
        self.library = library
        # Before any document is read: a name that means nothing should not cost minutes.
        self._desk = ReadingDesk(library, model, config)
        self._asking = Asking(library, self._desk)
        self._loop = LoopThread()
        self._background = background
        self._filling: BackgroundFill | None = None
        self._left: list[str] = []
        self._filled: set[str] = set()
        self.limits = limits or Limits()
        self.chunker = Chunker()
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lcdoc-embedder")
        self._embedder_name = embedder

    @classmethod
    def open(
        cls,
        library: str | os.PathLike[str] | None = None,
        *,
        embedder: str = DEFAULT_EMBEDDER,
        limits: Limits | None = None,
        background: bool = True,
        model: str | None = None,
        config: Config | None = None,
    ) -> Workspace:
        """A workspace over the library in this file (default: `$LCDOC_LIBRARY`, else the user's data folder).

        `model` names the model that answers (docs/models.md); without it, the configuration's, and without that,
        `offline`. Raises ModelError for a name or a configuration that does not fit, LibraryError.

        With `background`, a thread embeds the passages of documents that were asked about, whenever no question is
        being answered, so that later questions search all of them by meaning and need not wait.
        """
        opened = Library.open(library)
        try:
            return cls(opened, embedder=embedder, limits=limits, background=background, model=model, config=config)
        except BaseException:
            opened.close()
            raise

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the library. What was read stays in it. Raises what went wrong in the background."""
        try:
            self._stop_filling()
        finally:
            self._close()

    def _close(self) -> None:
        self._loop.run(self._desk.aclose())
        self._loop.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.library.close()

    @cached_property
    def _embedder_loading(self) -> Future[Embedder]:
        return self._threads.submit(load_embedder, self._embedder_name)

    @cached_property
    def index(self) -> Index:
        """Searches every document of the library. Raises EmbedderError when the embedder cannot be loaded."""
        return Index(self.library, self.embedder)

    @cached_property
    def embedder(self) -> Embedder:
        """What makes the vectors. Raises EmbedderError when it cannot be loaded."""
        return self._embedder_loading.result()

    def get_ready(self) -> None:
        """Begin to load what answering takes, in the background: before `read`, where a question will follow."""
        _ = self._embedder_loading
        begin_import()

    def read(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        password: str | None = None,
        on_event: Callable[[Event], None] = ignore_events,
        named_only: bool = False,
    ) -> list[Document]:
        """The documents in these files and folders, each once, read now or taken from the library.

        Of several files, one that cannot be read is left out with a DocumentFailed event; if none can be read the first
        one's DocumentError is raised. `named_only` refuses folders. Several are parsed at once, and events come from
        several threads, one at a time.
        """
        return list(self.read_each(paths, password=password, on_event=on_event, named_only=named_only))

    def read_each(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        password: str | None = None,
        on_event: Callable[[Event], None] = ignore_events,
        named_only: bool = False,
    ) -> Generator[Document]:
        """As `read`, one document after the other, so that a folder need not fit in memory.

        The next files are parsed while one document is worked with. Close it where a loop over it may be left.
        """
        files = [FileChoice(os.fspath(path), named=True) for path in paths] if named_only else find_files(paths)
        if not files:
            raise NotFoundError("", "no documents", "name a file")
        reading = DocumentReading(
            self.library,
            self.chunker,
            password=password,
            limits=self.limits,
            on_event=on_event,
            # A parser is another process: meanwhile this one can load the embedder.
            before_parsing=lambda: self._embedder_loading,
        )
        return reading.each(files)

    def ask(
        self,
        question: str,
        documents: Sequence[Document],
        *,
        workflow: str = AUTO,
        budget: Budget | None = None,
        store: StoreMode = "use",
        profile: Profile | None = None,
        on_event: Callable[[Event], None] = ignore_events,
    ) -> Answer:
        """Answer from documents that `read` returned. Events come from another thread.

        `workflow` is a name of `registry.names()`, or "auto": the one that fits; a summary is a SummaryAnswer.
        `budget` goes before the caps of the configuration. `store` says whether earlier answers of the model are taken
        ("use"), asked for anew and replaced ("refresh"), or neither looked up nor kept ("off"). `profile` overrides
        how the model is spoken to. Raises EmbedderError, LibraryError, ModelError, WorkflowError.
        """
        with self._undisturbed():
            asked = self._asking.ask(
                question,
                documents,
                self._search(documents, on_event),
                self.embedder,
                workflow=workflow,
                budget=budget,
                store=store,
                profile=profile,
                on_event=on_event,
            )
            answer = self._loop.run(asked)
        if self._background:
            self._fill_behind(documents)
        return answer

    def extract(
        self,
        documents: Sequence[Document],
        schema: Any,
        *,
        budget: Budget | None = None,
        store: StoreMode = "use",
        profile: Profile | None = None,
        on_event: Callable[[Event], None] = ignore_events,
    ) -> ExtractAnswer:
        """Fill a schema from documents that `read` returned, all together; every value has checked quotes.

        `schema` is JSON Schema or its short form (docs/workflows.md) as a mapping or text, or a pydantic model class.
        Raises SchemaError, and what `ask` raises.
        """
        from lcdoc.workflows.extract_answer import ExtractAnswer
        from lcdoc.workflows.extract_request import ExtractRequest

        request = schema if isinstance(schema, ExtractRequest) else ExtractRequest.of(schema)
        answer = self.ask(
            request.question,
            documents,
            workflow="extract",
            budget=budget,
            store=store,
            profile=profile,
            on_event=on_event,
        )
        if not isinstance(answer, ExtractAnswer):
            raise TypeError(f"the workflow extract answered with {type(answer).__name__}")
        return answer

    def resume(
        self,
        run_id: str,
        *,
        budget: Budget | None = None,
        profile: Profile | None = None,
        on_event: Callable[[Event], None] = ignore_events,
    ) -> Answer:
        """Go on with a run that died, was interrupted, failed or ended partial; `run_id` may be its first characters.

        The question, the workflow and the model are the run's own, and its documents come from the library: the files
        need not be there. What was noted is not read again. `budget` caps what is done now.

        Raises UnknownRunError, UnknownDocumentError, RunUnderWayError where a process is at it, RunEndedError where it
        has its answer, ModelConfigError where this workspace's model is another; and what `ask` raises.
        """
        cut_off = self.library.runs.find(run_id)
        self._asking.check(cut_off)
        documents = [self.library.get(document_id) for document_id, _ in cut_off.documents]
        search = self._search(documents, on_event)
        with self._undisturbed():
            return self._loop.run(
                self._asking.resume(
                    cut_off, documents, search, self.embedder, budget=budget, profile=profile, on_event=on_event
                )
            )

    def plan(
        self,
        question: str,
        documents: Sequence[Document],
        *,
        workflow: str = AUTO,
        profile: Profile | None = None,
        on_event: Callable[[Event], None] = ignore_events,
    ) -> Plan:
        """What `ask` would send and take. Searches the documents; asks no model anything. Raises what `ask` raises."""
        search = self._search(documents, on_event)
        with self._undisturbed():
            return self._loop.run(
                self._asking.plan(question, documents, search, self.embedder, workflow=workflow, profile=profile)
            )

    def keeping(
        self,
        documents: Sequence[Document],
        *,
        recipe: str | None = None,
        purposes: Sequence[For] = (),
        profile: Profile | None = None,
        on_event: Callable[[Event], None] = ignore_events,
    ) -> Keeping:
        """What it takes to have a model that runs here read documents before they are asked about, for `keep`.

        `recipe` is how the caches are compressed, as `--kv` takes it; None: what suits. `purposes` are what they are
        read for, by default for reading piece by piece and, where they fit, for answering at once. Raises ModelError.
        """
        with self._undisturbed():
            return self._loop.run(
                self._desk.keeping(
                    documents, self.embedder, recipe=recipe, purposes=purposes, profile=profile, on_event=on_event
                )
            )

    def keep(self, keeping: Keeping, *, on_event: Callable[[Event], None] = ignore_events) -> Kept:
        """Read what `keeping` names and keep it, so that questions about it are answered without reading it again.

        Interrupted, what was read stays, and keeping goes on from there. Raises ModelError.
        """
        with self._undisturbed():
            return self._loop.run(self._desk.keep(keeping, on_event))

    @property
    def runs_here(self) -> bool:
        """Whether the model that answers runs inside lcdoc."""
        return self._desk.runs_here

    @property
    def model(self) -> str:
        """The name of the model that answers, or `offline`."""
        return self._desk.model

    def _undisturbed(self) -> AbstractContextManager[object]:
        return self._filling.paused() if self._filling else nullcontext()

    def _fill_behind(self, documents: Sequence[Document]) -> None:
        new = [document.id for document in documents if document.id not in self._filled]
        if not new:
            return
        # One thread at a time: a batch of the one before is finished first, and what it left is taken over.
        left = self._stop_filling()
        self._filled.update(new)
        self._filling = BackgroundFill(self.index, [*left, *new])
        self._left = [*left, *new]
        self._filling.start()

    def wait_for_background(self, timeout_s: float | None = None) -> bool:
        """Wait until the background work is done; False if it is not by then. Raises what went wrong in it."""
        return self._filling is None or self._filling.wait(timeout_s)

    def _stop_filling(self) -> list[str]:
        """Stop the background thread and return what it was given."""
        if self._filling is None:
            return []
        filling, self._filling = self._filling, None
        filling.stop()
        return self._left

    def _search(self, documents: Sequence[Document], on_event: Callable[[Event], None]) -> Search:
        shown = documents[0].source.path if len(documents) == 1 else f"{len(documents)} documents"

        def progress(done: int, total: int) -> None:
            on_event(Progress("embedding", shown, done, total))

        # Where the background thread is on its way to all vectors, a question need not wait for many of its own.
        known = self._filling is not None and all(document.id in self._filled for document in documents)
        return Search(self.index, lazy_tokens=_LAZY_TOKENS_BESIDE_BACKGROUND if known else None, progress=progress)

    def fill(self, document: Document, *, on_event: Callable[[Event], None] = ignore_events) -> int:
        """Embed all passages of a document that have no vector yet; returns how many passages it has."""

        def progress(done: int, total: int) -> None:
            on_event(Progress("embedding", document.source.path, done, total))

        self.index.fill(document.id, progress=progress, batch_passages=_FILL_PASSAGES)
        (shelved,) = self.library.shelved([document.id])
        return len(shelved.chunk_ids)

    def answer_json(self, answer: Answer, *, boxes: bool = False, password: str | None = None) -> dict[str, Any]:
        """`Answer.to_json`, with `boxes` for each citation in a PDF where asked for."""
        value = answer.to_json()
        if boxes:
            documents = {ref.id: self.library.get(ref.id) for ref in answer.documents}
            for claim, claim_json in zip(answer.claims, value["claims"], strict=True):
                for citation, citation_json in zip(claim.citations, claim_json["citations"], strict=True):
                    found = citation_boxes(documents[citation.document_id], citation, password=password)
                    citation_json["boxes"] = [asdict(box) for box in found]
        return value
