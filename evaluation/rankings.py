"""The ways in which passages of a document can be ranked for a question: by words, by meaning, or by both."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from lcdoc.documents import Document, Span
from lcdoc.memory import Library
from lcdoc.retrieval import Chunk, Embedder, Index, lexical
from lcdoc.retrieval.fusion import reciprocal_rank
from lcdoc.retrieval.indexed import Indexed
from lcdoc.retrieval.shelf import Shelved

METHODS = {
    "words": "BM25 alone",
    "meaning": "vectors alone",
    "ranks": "both, by reciprocal rank",
    "first": "lcdoc's search in a new library, which has few vectors yet",
    "search": "lcdoc's search, all vectors there",
}
_FUSED = 200
"""Passages of each ranking that are fused."""


class Rankings:
    """Ranks the passages of documents that the library holds, with all of their vectors."""

    def __init__(self, library: Library, embedder: Embedder, index: Index) -> None:
        self._library = library
        self._embedder = embedder
        self._index = index

    def ranked(self, method: str, question: str, document: Document, k: int) -> list[tuple[Span, float]]:
        """The `k` best passages of the document with their scores, best first, by one of METHODS."""
        if method == "search":
            return _searched(self._index, question, document, k)
        if method == "first":
            with tempfile.TemporaryDirectory() as empty:
                return _searched(Index(_Bare(self._library, empty), self._embedder), question, document, k)
        (shelved,) = self._library.shelved([document.id])
        opened = self._index.opened(shelved)
        rankings: dict[str, list[tuple[int, float]]] = {}
        if method in ("words", "ranks"):
            rankings["words"] = self._by_words(question, shelved)
        if method in ("meaning", "ranks"):
            rankings["meaning"] = self._by_meaning(question, opened)
        if method == "ranks":
            fused = reciprocal_rank({name: [place for place, _ in found] for name, found in rankings.items()})
            best: Iterable[tuple[int, float]] = sorted(fused.items(), key=lambda item: -item[1])
        else:
            best = rankings[method]
        return [(opened.chunks[place].span, score) for place, score in list(best)[:k]]

    def _by_words(self, question: str, shelved: Shelved) -> list[tuple[int, float]]:
        """Places of chunks, with the share of the question that each has."""
        with self._library.reading() as connection:
            matches = lexical.search(connection, question, [shelved.chunk_ids], _FUSED)
        return [(chunk_id - shelved.chunk_ids.start, score / matches.most) for chunk_id, score in matches.scores]

    def _by_meaning(self, question: str, opened: Indexed) -> list[tuple[int, float]]:
        """Places of chunks, with their similarity to the question."""
        cosines = opened.cosines(self._embedder.embed([question])[0])
        order = np.argsort(-cosines, kind="stable")[:_FUSED].tolist()
        return [(place, float(cosines[place])) for place in order]


def _searched(index: Index, question: str, document: Document, k: int) -> list[tuple[Span, float]]:
    return [(hit.chunk.span, hit.score) for hit in index.search(question, k, within=[document.id])]


class _Bare:
    """The library as it is before any vector was made."""

    def __init__(self, library: Library, folder: str) -> None:
        self._library = library
        self.vectors_path = Path(folder)

    def shelved(self, document_ids: Sequence[str] | None = None) -> list[Shelved]:
        return self._library.shelved(document_ids)

    def get(self, document_id: str) -> Document:
        return self._library.get(document_id)

    def chunks(self, document_id: str) -> list[Chunk]:
        return self._library.chunks(document_id)

    def reading(self) -> AbstractContextManager[Any]:
        return self._library.reading()
