"""What the nodes of one run's graph share. The graph's own state holds names of notes, and no text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import cached_property
from typing import TypedDict

from lcdoc.agents.models.errors import BudgetExceededError, ModelError
from lcdoc.agents.notes import UNQUOTED_ANSWER, Claim, Draft, Note
from lcdoc.agents.reader import Passage, Reader
from lcdoc.documents import Document, Span
from lcdoc.memory import Library
from lcdoc.workflows.answer import Answer, DocumentRef, PagesRead
from lcdoc.workflows.events import Event, NoteTaken, PartFailed, Partial, Place, ReadThrough
from lcdoc.workflows.run import Run
from lcdoc.workflows.search import Search

_DRAFT = "draft"


class Failure(TypedDict):
    """A step that failed, as a value: a raised error would cancel the steps beside it."""

    step: str
    message: str
    cap: str
    """The cap that did not admit it; empty for any other failure."""


class Session:
    """A question, its documents, the reader, and what was noted so far."""

    def __init__(
        self, question: str, documents: Sequence[Document], run: Run, library: Library, search: Search
    ) -> None:
        self.question = question
        self.documents = {document.id: document for document in documents}
        self.run = run
        self.library = library
        self._search = search
        self._found: dict[tuple[str, int], list[Passage]] = {}
        self._headings: dict[str, dict[tuple[int, int], tuple[str, ...]]] = {}
        self.warnings: list[str] = [
            f"{document.name}: {warning}" for document in documents for warning in document.source.warnings
        ]
        self.warnings += run.warnings
        # A run that is gone on with has notes of passages that its reader was never shown.
        run.reader.introduce(documents)
        self._told: list[str] = []
        if run.resumed is not None:
            events = library.notebook.events(run.id)
            self._told += [one.fields["recipe"] for one in events if one.kind == ReadThrough.__name__]
        self.first_error: ModelError | None = None
        """The first failure that was not a cap's."""

    @property
    def reader(self) -> Reader:
        return self.run.reader

    def emit(self, event: Event) -> None:
        """Tell what happens: to whoever follows the stream, and to the run's record. Call it inside a node."""
        from langgraph.config import get_stream_writer

        get_stream_writer()(event)

    # Passages and notes

    async def best_passages(self, count: int, question: str | None = None) -> list[Passage]:
        """The `count` best passages for the question (or another one), best first: see `Search.best`.

        Searched for once, so that whoever reads on in the ranking finds it as it was.
        """
        asked = (question or self.question, count)
        if asked not in self._found:
            self._found[asked], notes = await self._search.best(asked[0], list(self.documents.values()), count)
            self.warnings += notes
        return self._found[asked]

    def _headings_of_chunks(self, document_id: str) -> dict[tuple[int, int], tuple[str, ...]]:
        if document_id not in self._headings:
            self._headings[document_id] = {
                (chunk.span.start, chunk.span.end): chunk.heading_path for chunk in self.library.chunks(document_id)
            }
        return self._headings[document_id]

    @cached_property
    def passages(self) -> int:
        """How many passages the documents have."""
        return sum(len(shelved.chunk_ids) for shelved in self.library.shelved(list(self.documents)))

    def passage(self, place: Place, heading_path: tuple[str, ...] | None = None) -> Passage:
        """The passage at a place of one of the documents, under its own titles, else those of where it begins."""
        document_id, start, end = place
        document = self.documents[document_id]
        if heading_path is None:
            heading_path = self._headings_of_chunks(document_id).get((start, end))
        if heading_path is None:
            heading_path = tuple(section.title for section in document.sections_at(start))
        return Passage(document, Span(start, end), heading_path)

    async def keep(self, name: str, note: Note, *, places: Sequence[Place] = (), of: Sequence[str] = ()) -> str:
        """Keep a note under `name`, with the places it was read from or the notes it was made `of`; returns the name.

        The note outlives the process when this returns. Emits NoteTaken.
        """
        await self.library.notebook.keep(
            self.run.id,
            name,
            {"note": note.model_dump(mode="json"), "places": list(places), "of": list(of)},
        )
        for recipe in [one for one in self.run.recipes if one not in self._told]:
            self._told.append(recipe)
            self.emit(ReadThrough(recipe))
        self.emit(
            NoteTaken(
                found=note.found,
                quotes=len(note.quotes),
                dropped=note.dropped,
                name=name,
                places=tuple(places),
                of=tuple(of),
                claim=note.claim,
                pages=tuple(sorted({page for citation in note.citations for page in citation.pages})),
                confidence=note.confidence,
                unchanged=note.unchanged,
            )
        )
        return name

    def note(self, name: str) -> Note:
        """The note kept under `name`. Raises KeyError."""
        kept = self.library.notebook.note(self.run.id, name)
        if kept is None:
            raise KeyError(name)
        return Note.model_validate(kept["note"])

    def places_of(self, name: str) -> list[Place]:
        """The places a note was read from. Raises KeyError."""
        kept = self.library.notebook.note(self.run.id, name)
        if kept is None:
            raise KeyError(name)
        return [(document_id, start, end) for document_id, start, end in kept["places"]]

    def has(self, name: str) -> bool:
        """Whether there is a note of this name, of this run or of the one it goes on from."""
        return self.library.notebook.has(self.run.id, name)

    async def keep_draft(self, draft: Draft) -> None:
        """Keep the answer, for `draft`."""
        await self.library.notebook.keep(self.run.id, _DRAFT, draft.model_dump(mode="json"))

    def draft(self) -> Draft:
        """The answer kept last; one that found nothing while there is none."""
        kept = self.library.notebook.note(self.run.id, _DRAFT)
        return Draft(found=False) if kept is None else Draft.model_validate(kept)

    # Failures

    def failure(self, step: str, error: ModelError) -> Failure:
        """`error` as a value for the state, after telling of it."""
        if not isinstance(error, BudgetExceededError):
            self.first_error = self.first_error or error
        self.emit(PartFailed(str(error)))
        return Failure(step=step, message=str(error), cap=error.cap if isinstance(error, BudgetExceededError) else "")

    # Answering

    async def answer(self, notes: Sequence[Note]) -> tuple[Draft, Failure | None]:
        """The reader's answer from `notes`, written before the user's eyes; what was noted where it cannot give one."""
        found = [note for note in notes if note.found]
        if not found:
            return Draft(found=False, confidence=max((note.confidence for note in notes), default=0.0)), None
        try:
            async for written in _written(self.reader, self.question, found):
                if isinstance(written, Draft):
                    return written, None
                self.emit(Partial(written))
        except ModelError as error:
            return draft_of(found), self.failure("answer", error)
        raise RuntimeError("the reader ended without a draft")

    def compose(
        self,
        workflow: str,
        draft: Draft,
        *,
        read: Sequence[Place],
        passages_read: int,
        dropped: int = 0,
        problems: Sequence[str] = (),
    ) -> Answer:
        """The answer that a run ends with; `problems` say why it is not all it could be, and make it partial."""
        return Answer(
            question=self.question,
            found=draft.found,
            claims=draft.claims,
            partial=bool(problems),
            confidence=draft.confidence,
            workflow=workflow,
            model=self.run.model,
            documents=tuple(map(DocumentRef.of, self.documents.values())),
            passages=self.passages,
            passages_read=passages_read,
            pages_read=tuple(
                PagesRead.of(document, [Span(start, end) for id_, start, end in read if id_ == document.id])
                for document in self.documents.values()
            ),
            quotes_dropped=dropped,
            kv=tuple(sorted({*self._told, *self.run.recipes})),
            warnings=(*dict.fromkeys((*self.warnings, *draft.warnings)), *dict.fromkeys(problems)),
            usage=self.run.usage(),
            run_id=self.run.id,
        )


async def _written(reader: Reader, question: str, notes: Sequence[Note]) -> AsyncIterator[str | Draft]:
    """The answer as it is written: the text so far, again and again, then the whole with its quotes checked."""
    pieces: asyncio.Queue[str | None] = asyncio.Queue()
    writing = asyncio.ensure_future(reader.answer(question, notes, on_text=pieces.put_nowait))
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


def draft_of(notes: Sequence[Note]) -> Draft:
    """What was noted, as an answer; none where nothing of it has a quote."""
    claims = tuple(
        Claim(text=note.claim or note.quotes[0].text, citations=note.citations, confidence=note.confidence)
        for note in notes
        if note.claim or note.quotes
    )
    if claims and not any(claim.citations for claim in claims):
        return Draft(found=False, warnings=(UNQUOTED_ANSWER,))
    return Draft(found=bool(claims), claims=claims, confidence=max((note.confidence for note in notes), default=0.0))
