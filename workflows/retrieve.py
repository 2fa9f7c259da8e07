"""Retrieve, then read: the best passages for a question, sentences from them as checked quotes, an answer from those.

Source of the shape: "ALR2: A Retrieve-then-Reason Framework for Long-context Question Answering".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from lcdoc.agents.notes import Draft, Note
from lcdoc.agents.offline_reader import OfflineReader
from lcdoc.agents.reader import Passage
from lcdoc.documents import Document
from lcdoc.memory import Library
from lcdoc.retrieval.embedders import Progress, ignore_progress
from lcdoc.retrieval.index import Index
from lcdoc.workflows.answer import Answer, DocumentRef, Usage
from lcdoc.workflows.events import Answered, Event, NoteTaken, PassagesFound, Started
from lcdoc.workflows.workflow import Budget, Plan

PASSAGES = 12
WIDER = 48
"""Passages read when the best ones hold no answer, before saying that there is none."""
_SECONDS_PER_PASSAGE = 0.04


class Retrieve:
    """The look-up workflow, with the offline reader."""

    name = "retrieve"

    def __init__(
        self,
        library: Library,
        index: Index,
        reader: OfflineReader,
        *,
        lazy_tokens: int | None = None,
        progress: Progress = ignore_progress,
    ) -> None:
        """`lazy_tokens` bounds the text embedded for the question: see `Index.search`.

        `progress` counts the passages that get their vectors now; it is called from the searching thread.
        """
        self._lazy_tokens = lazy_tokens
        self._library = library
        self._index = index
        self._progress = progress
        self._reader = reader

    def plan(self, question: str, documents: Sequence[Document]) -> Plan:
        """No calls and no cost; seconds for reading and, at first, embedding passages."""
        return Plan(calls=0, tokens_in=0, tokens_out=0, cost_usd=0.0, seconds=_SECONDS_PER_PASSAGE * WIDER)

    async def stream(
        self, question: str, documents: Sequence[Document], *, budget: Budget | None = None
    ) -> AsyncIterator[Event]:
        """Search, read, and if nothing was found search wider once. Raises EmbedderError, LibraryError."""
        start = time.monotonic()
        budget = budget or Budget()
        yield Started(question, tuple(document.name for document in documents), self.name)
        by_id = {document.id: document for document in documents}
        warnings = [f"{document.name}: {warning}" for document in documents for warning in document.source.warnings]
        note = Note(found=False)
        draft = Draft(found=False)
        read = 0
        partial = False
        total = sum(len(shelved.chunk_ids) for shelved in self._library.shelved(list(by_id)))
        hits = await asyncio.to_thread(
            self._index.search,
            question,
            WIDER,
            within=list(by_id),
            lazy_tokens=self._lazy_tokens,
            progress=self._progress,
        )
        warnings += hits.notes
        for wanted in (PASSAGES, WIDER):
            partial = budget.seconds is not None and time.monotonic() - start > budget.seconds
            if partial or read >= min(wanted, len(hits)):
                break
            passages = [Passage.of_hit(by_id[hit.chunk.document_id], hit) for hit in hits[:wanted]]
            yield PassagesFound(tuple((p.document.id, p.span.start, p.span.end) for p in passages), searched=total)
            read = len(passages)
            note = await self._reader.read_many(passages, question)
            yield NoteTaken(note.found, quotes=len(note.quotes), dropped=note.dropped)
            draft = await self._reader.answer(question, [note])
            if draft.found:
                break
        yield Answered(
            Answer(
                question=question,
                found=draft.found,
                claims=draft.claims,
                partial=partial,
                confidence=draft.confidence,
                workflow=self.name,
                model="offline",
                documents=tuple(DocumentRef.of(document) for document in documents),
                passages=total,
                passages_read=read,
                quotes_dropped=note.dropped,
                warnings=tuple(warnings),
                usage=Usage(seconds=round(time.monotonic() - start, 3)),
            )
        )
