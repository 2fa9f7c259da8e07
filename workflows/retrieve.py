"""Retrieve, then read: the best passages for a question, checked quotes from them, an answer from those quotes only.

Source of the shape: "ALR2: A Retrieve-then-Reason Framework for Long-context Question Answering".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from lcdoc.agents.models.budget import Budget
from lcdoc.agents.models.errors import BudgetExceededError, ModelError
from lcdoc.agents.notes import Claim, Draft, Note
from lcdoc.agents.reader import Passage
from lcdoc.documents import Document
from lcdoc.memory import Library
from lcdoc.retrieval.embedders import Progress as CountPassages
from lcdoc.retrieval.embedders import ignore_progress
from lcdoc.retrieval.index import Index
from lcdoc.workflows.answer import Answer, DocumentRef
from lcdoc.workflows.events import Answered, Event, NoteTaken, PartFailed, Partial, PassagesFound, Progress, Started
from lcdoc.workflows.readers import Readers
from lcdoc.workflows.rehearsal import Stage
from lcdoc.workflows.run import Run
from lcdoc.workflows.workflow import Plan, Requests

PASSAGES = 12
WIDER = 48
"""Passages read when the best ones hold no answer, before saying that there is none."""
_SECONDS_PER_PASSAGE = 0.04


class Retrieve:
    """The look-up workflow, with any reader."""

    name = "retrieve"

    def __init__(
        self,
        library: Library,
        index: Index,
        readers: Readers,
        *,
        lazy_tokens: int | None = None,
        progress: CountPassages = ignore_progress,
    ) -> None:
        """`lazy_tokens` bounds the text embedded for the question: see `Index.search`.

        `progress` counts the passages that get their vectors now; it is called from the searching thread.
        """
        self._lazy_tokens = lazy_tokens
        self._library = library
        self._index = index
        self._progress = progress
        self._readers = readers

    async def best_passages(
        self, question: str, documents: Sequence[Document], count: int
    ) -> tuple[list[Passage], list[str]]:
        """The best passages of the documents, best first, and what the user should know of the search."""
        by_id = {document.id: document for document in documents}
        hits = await asyncio.to_thread(
            self._index.search,
            question,
            count,
            within=list(by_id),
            lazy_tokens=self._lazy_tokens,
            progress=self._progress,
        )
        return [Passage.of_hit(by_id[hit.chunk.document_id], hit) for hit in hits], list(hits.notes)

    async def plan(self, question: str, documents: Sequence[Document], stage: Stage | None) -> Plan:
        """Offline: no calls. With a model: those for the passages that `stream` would read first, and an answer."""
        if stage is None:
            return Plan(calls=0, tokens_in=0, tokens_out=0, cost_usd=0.0, seconds=_SECONDS_PER_PASSAGE * WIDER)
        passages, _ = await self.best_passages(question, documents, WIDER)
        # What the offline reader notes stands for what the model will.
        with self._readers.start(question, self.name, documents, Budget()) as run:
            likely = await run.reader.read_many(passages[:PASSAGES], question)
        requests = Requests(
            reading=await stage.reading(passages[:PASSAGES], question),
            answering=await stage.answering(question, [likely.model_copy(update={"found": True})]),
            widening=await stage.reading(passages[PASSAGES:], question),
        )
        return stage.plan(requests)

    async def stream(
        self, question: str, documents: Sequence[Document], *, budget: Budget | None = None
    ) -> AsyncIterator[Event]:
        """Search, read, and if nothing was found search wider once. Raises EmbedderError, LibraryError, ModelError."""
        yield Started(question, tuple(document.name for document in documents), self.name)
        warnings = [f"{document.name}: {warning}" for document in documents for warning in document.source.warnings]
        total = sum(len(shelved.chunk_ids) for shelved in self._library.shelved([d.id for d in documents]))
        with self._readers.start(question, self.name, documents, budget or Budget()) as run:
            passages, notes_of_search = await self.best_passages(question, documents, WIDER)
            warnings += notes_of_search
            warnings += run.warnings
            work = _Work(run, question)
            for first, last in ((0, PASSAGES), (PASSAGES, WIDER)):
                chosen = passages[first:last]
                if not chosen or work.stopped():
                    break
                places = tuple((p.document.id, p.span.start, p.span.end) for p in chosen)
                yield PassagesFound(places, searched=total)
                async for event in work.read(chosen):
                    yield event
                async for event in work.answer():
                    yield event
                if work.draft.found:
                    break
            answer = Answer(
                question=question,
                found=work.draft.found,
                claims=work.draft.claims,
                partial=bool(work.problems),
                confidence=work.draft.confidence,
                workflow=self.name,
                model=run.model,
                documents=tuple(DocumentRef.of(document) for document in documents),
                passages=total,
                passages_read=work.passages_read,
                quotes_dropped=sum(note.dropped for note in work.notes),
                warnings=(*warnings, *work.problems),
                usage=run.usage(),
                run_id=run.id,
            )
            yield Answered(run.ends_with(answer))


class _Work:
    """What one run has read and answered so far."""

    def __init__(self, run: Run, question: str) -> None:
        self.notes: list[Note] = []
        self.draft = Draft(found=False)
        self.passages_read = 0
        self.problems: list[str] = []
        """Why the answer is not all it could be, a line each."""
        self._run = run
        self._question = question

    def stopped(self) -> bool:
        """Whether going on is of no use: a cap was reached, or the model does not answer."""
        if not self.problems and self._run.out_of_time():
            self.problems.append("the time set for the answer is over; raise --max-seconds to go on")
        return bool(self.problems)

    async def read(self, passages: Sequence[Passage]) -> AsyncIterator[Event]:
        """Read passages in as many parts as the reader wants, at once. A part that fails does not cost the others.

        Raises the first part's ModelError when no part at all could be read, unless a cap is the reason.
        """
        model, reader = self._run.model, self._run.reader
        parts = reader.parts(passages, self._question)
        tasks = {asyncio.ensure_future(reader.read_many(part, self._question)): part for part in parts}
        notes: dict[int, Note] = {}
        first_error: ModelError | None = None
        try:
            waiting = set(tasks)
            while waiting:
                finished, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    error = task.exception()
                    if error is None:
                        note = notes[parts.index(tasks[task])] = task.result()
                        self.passages_read += len(tasks[task])
                        yield NoteTaken(note.found, quotes=len(note.quotes), dropped=note.dropped)
                    elif isinstance(error, ModelError):
                        first_error = first_error or error
                        yield self._failed(error)
                    else:
                        raise error
                yield Progress("asking", model, sum(len(parts[place]) for place in notes), len(passages))
        finally:
            for task in tasks:
                task.cancel()
        if (
            first_error is not None
            and not self.notes
            and not notes
            and not isinstance(first_error, BudgetExceededError)
        ):
            raise first_error
        # In the order of the passages, not of the answers, so that equal runs ask equal questions.
        self.notes += [notes[place] for place in sorted(notes)]

    async def answer(self) -> AsyncIterator[Event]:
        """Answer from all notes. Where the model cannot, what was noted is the answer."""
        found = [note for note in self.notes if note.found]
        if not found:
            self.draft = Draft(found=False, confidence=max((note.confidence for note in self.notes), default=0.0))
            return
        try:
            async for written in self._written(found):
                if isinstance(written, str):
                    yield Partial(written)
                else:
                    self.draft = written
        except ModelError as error:
            self.draft = _draft_of(found)
            yield self._failed(error)

    async def _written(self, notes: list[Note]) -> AsyncIterator[str | Draft]:
        """The answer as it is written: the text so far, again and again, then the whole with its quotes checked."""
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        writing = asyncio.ensure_future(self._run.reader.answer(self._question, notes, on_text=pieces.put_nowait))
        writing.add_done_callback(lambda _: pieces.put_nowait(None))
        text = ""
        try:
            while (piece := await pieces.get()) is not None:
                # An empty piece begins anew.
                text = text + piece if piece else ""
                yield text
            yield writing.result()
        finally:
            writing.cancel()

    def _failed(self, error: ModelError) -> PartFailed:
        message = str(error)
        if message not in self.problems:
            self.problems.append(message)
        return PartFailed(message)


def _draft_of(notes: Sequence[Note]) -> Draft:
    """What was noted, as an answer."""
    claims = tuple(
        Claim(text=note.claim or note.quotes[0].text, citations=note.citations, confidence=note.confidence)
        for note in notes
        if note.claim or note.quotes
    )
    return Draft(found=bool(claims), claims=claims, confidence=max((note.confidence for note in notes), default=0.0))
