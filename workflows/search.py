"""Searching the documents of a question."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from lcdoc.agents.reader import Passage
from lcdoc.documents import Document
from lcdoc.retrieval.embedders import Progress, ignore_progress
from lcdoc.retrieval.index import Index


@dataclass(frozen=True, slots=True)
class Search:
    """Finds passages by words and meaning. `lazy_tokens` bounds the text embedded for it: see `Index.search`.

    `progress` counts the passages that get their vectors now; it is called from the searching thread.
    """

    index: Index
    lazy_tokens: int | None = None
    progress: Progress = ignore_progress

    async def best(self, question: str, documents: Sequence[Document], count: int) -> tuple[list[Passage], list[str]]:
        """The `count` best passages of the documents, best first, and what the user should know of the search.

        Raises EmbedderError, LibraryError.
        """
        by_id = {document.id: document for document in documents}
        hits = await asyncio.to_thread(
            self.index.search,
            question,
            count,
            within=list(by_id),
            lazy_tokens=self.lazy_tokens,
            progress=self.progress,
        )
        return [Passage.of_hit(by_id[hit.chunk.document_id], hit) for hit in hits], list(hits.notes)
