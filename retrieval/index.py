"""Searching documents: by words and by meaning.

Words are looked up in the full-text index, which is there as soon as a document is. Vectors cost a hundred times
more, so they are made when they are first wanted: a question has those of its best candidates made, `Index.fill` makes
the rest. What has a vector takes part in every later search by meaning.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from lcdoc.retrieval import lexical
from lcdoc.retrieval.diversity import most_relevant_and_different
from lcdoc.retrieval.embedders import Embedder, Progress, ignore_progress
from lcdoc.retrieval.fusion import blend
from lcdoc.retrieval.indexed import Indexed
from lcdoc.retrieval.numbers import numeracy, wants_number
from lcdoc.retrieval.passages import Hit
from lcdoc.retrieval.shelf import Shelf, Shelved
from lcdoc.retrieval.tokens import estimate_tokens

Positions = npt.NDArray[np.int64]

CANDIDATES = 200
"""Passages that each method names for the blended ranking, at least."""
LAZY_PASSAGES = 24
"""Passages that get a vector, if they have none, before the ranking is made: the best by words. Twice as many find no
more and are waited for twice as long."""
LAZY_TOKENS = 4_000
"""What these may add up to: about a second on two cores."""
BLIND_PASSAGES = 100
BLIND_TOKENS = 16_000
"""The same for a question none of whose words is in the documents, so that nothing says which passages are best."""
SCANNED_PASSAGES = 100_000
"""Passages up to which all vectors are compared; beyond, only those of documents that have a candidate by words."""
RERANKED = 60
"""Passages, at least, whose text and vectors are looked at for the final order."""
NUMERACY_WEIGHT = 0.125
"""What a passage made of numbers gains when the question wants one."""
DIVERSITY_TRADE_OFF = 0.95
"""How much relevance counts against likeness to a better passage."""
BATCH_PASSAGES = 256
"""Passages that `Index.fill` hands to the embedder at a time: enough for it to use its means for bulk."""
FLUSH_PASSAGES = 256
"""Vectors that `Index.fill` makes before it writes them, since each time it is the whole file."""


def always() -> bool:
    """Goes on until it is done."""
    return True


class Hits(list[Hit]):
    """What a search found, best first. `notes` tell the user what was not as usual, one line each."""

    def __init__(self, hits: Iterable[Hit] = (), notes: Sequence[str] = ()) -> None:
        super().__init__(hits)
        self.notes = tuple(notes)


class Index:
    """Finds passages in the documents of a shelf. May be shared by threads."""

    def __init__(self, shelf: Shelf, embedder: Embedder) -> None:
        self._shelf = shelf
        self._embedder = embedder
        self._opened: OrderedDict[str, Indexed] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def embedder(self) -> Embedder:
        """What its vectors are made with."""
        return self._embedder

    def search(
        self,
        question: str,
        k: int,
        *,
        within: Sequence[str] | None = None,
        lazy_tokens: int | None = None,
        progress: Progress = ignore_progress,
    ) -> Hits:
        """The best `k` passages for `question` in the documents `within` (ids; default: all), best first.

        Any string is a valid question. `lazy_tokens` bounds the text that gets its vectors now (default: LAZY_TOKENS,
        or BLIND_TOKENS where no word of the question is in the documents); `progress` counts those passages. Raises
        the shelf's error for a document that is not there, EmbedderError, VectorStoreError.
        """
        scope = _Scope([shelved for shelved in self._shelf.shelved(within) if shelved.chunk_ids])
        if k < 1 or not scope.total:
            return Hits()
        if not lexical.terms_of(question).words:
            return Hits(notes=["the question has no words to search for"])
        depth = max(CANDIDATES, 2 * k)
        with self._shelf.reading() as connection:
            matches = lexical.search(connection, question, [each.chunk_ids for each in scope.documents], depth)
        by_words = scope.positions([chunk_id for chunk_id, _ in matches.scores])
        shares = np.zeros(scope.total)
        shares[by_words] = [score / matches.most for _, score in matches.scores]
        searched = self._open_some(scope, by_words)
        notes = self._embed_some(scope, searched, by_words, lazy_tokens, progress)
        notes += [warning for document in searched.values() for warning in document.warnings()]
        asked = self._embedder.embed([question])[0]
        cosines = np.full(scope.total, np.nan)
        for place, document in searched.items():
            cosines[scope.slice_of(place)] = document.cosines(asked)
        by_meaning = np.argsort(-cosines, kind="stable")[: min(depth, int(np.count_nonzero(~np.isnan(cosines))))]

        candidates = np.union1d(by_words, by_meaning)
        relevance = blend(shares[candidates], cosines[candidates])
        best = np.argsort(-relevance, kind="stable")[: max(RERANKED, 2 * k)]
        found = [(searched[place], ordinal) for place, ordinal in map(scope.at, candidates[best].tolist())]
        scores = relevance[best]
        if wants_number(question):
            scores += NUMERACY_WEIGHT * np.array([numeracy(document.text(ordinal)) for document, ordinal in found])
        vectors = np.array([document.vectors[ordinal] for document, ordinal in found])
        chosen = most_relevant_and_different(scores, vectors, k, trade_off=DIVERSITY_TRADE_OFF)
        ranks = {"lexical": _ranks(by_words), "dense": _ranks(by_meaning)}
        hits = Hits(notes=notes)
        for at in chosen:
            document, ordinal = found[at]
            position = int(candidates[best[at]])
            hits.append(
                Hit(
                    chunk=document.chunks[ordinal],
                    score=float(scores[at]),
                    ranks={method: rank[position] for method, rank in ranks.items() if position in rank},
                    cosine=None if np.isnan(cosines[position]) else float(cosines[position]),
                )
            )
        return hits

    def fill(
        self,
        document_id: str,
        *,
        progress: Progress = ignore_progress,
        go_on: Callable[[], bool] = always,
        batch_passages: int = BATCH_PASSAGES,
    ) -> int:
        """Make the vectors that a document still lacks, and return how many were made.

        `go_on` is asked before each batch: it may take its time, and stops the filling by returning False. Batches
        that are done are kept, whatever happens. Raises as `search` does.
        """
        (shelved,) = self._shelf.shelved([document_id])
        document = self.opened(shelved)
        missing = np.flatnonzero(~document.known).tolist()
        made = unwritten = 0
        try:
            while made < len(missing) and go_on():
                batch = missing[made : made + batch_passages]
                document.embed(batch, _shifted(progress, made, len(missing)))
                made += len(batch)
                unwritten += len(batch)
                if unwritten >= FLUSH_PASSAGES:
                    document.flush()
                    unwritten = 0
        finally:
            document.flush()
        return made

    def missing(self, document_id: str) -> int:
        """How many of a document's passages have no vector yet."""
        (shelved,) = self._shelf.shelved([document_id])
        return int(np.count_nonzero(~self.opened(shelved).known))

    def opened(self, shelved: Shelved) -> Indexed:
        """The document's chunks and vectors, as they are on the disk now; kept in memory for the next search."""
        with self._lock:
            document = self._opened.pop(shelved.document_id, None)
            if document is None or document.shelved != shelved:
                document = Indexed(shelved, self._shelf, self._embedder)
            self._opened[shelved.document_id] = document
            kept = sum(len(other.known) for other in self._opened.values())
            while kept > SCANNED_PASSAGES and len(self._opened) > 1:
                _, dropped = self._opened.popitem(last=False)
                kept -= len(dropped.known)
        document.refresh()
        return document

    def _open_some(self, scope: _Scope, by_words: Positions) -> dict[int, Indexed]:
        """The documents whose vectors are compared, by their place in the scope."""
        if scope.total <= SCANNED_PASSAGES:
            places = list(range(len(scope.documents)))
        else:
            places = sorted({scope.at(position)[0] for position in by_words.tolist()})
        return {place: self.opened(scope.documents[place]) for place in places}

    def _embed_some(
        self,
        scope: _Scope,
        searched: dict[int, Indexed],
        by_words: Positions,
        lazy_tokens: int | None,
        progress: Progress,
    ) -> list[str]:
        """Make the vectors that this question needs most; returns notes for the user."""
        # Of documents whose vectors are not compared, none is made, unless there is no other passage to go by.
        known = np.full(scope.total, bool(searched))
        for place, document in searched.items():
            known[scope.slice_of(place)] = document.known
        if len(by_words):
            budget_tokens, best = LAZY_TOKENS, by_words[:LAZY_PASSAGES]
            room = LAZY_PASSAGES - len(best)
        else:
            budget_tokens, best, room = BLIND_TOKENS, by_words, BLIND_PASSAGES
        if lazy_tokens is not None:
            budget_tokens = min(budget_tokens, lazy_tokens)
        # Where words name too few, passages spread evenly over the documents stand in for the others.
        free = ~known
        free[best] = False
        others = np.flatnonzero(free)
        spread = others[np.linspace(0, len(others) - 1, min(room, len(others))).astype(np.int64)]
        wanted: dict[int, list[int]] = {}
        count = 0
        for position in [*best[~known[best]].tolist(), *spread.tolist()]:
            place, ordinal = scope.at(position)
            if place not in searched:
                searched[place] = self.opened(scope.documents[place])
            document = searched[place]
            budget_tokens -= min(estimate_tokens(document.text(ordinal)), self._embedder.max_tokens)
            if budget_tokens < 0:
                break
            wanted.setdefault(place, []).append(ordinal)
            count += 1
        done = 0
        for place, ordinals in wanted.items():
            searched[place].embed(ordinals, _shifted(progress, done, count))
            searched[place].flush()
            done += len(ordinals)
        if len(by_words):
            return []
        compared = int(np.count_nonzero(known)) + count
        return [_blind_note(compared, scope.total)]


class _Scope:
    """The documents of one search, their passages numbered through: the first document's first passage is 0."""

    def __init__(self, documents: Sequence[Shelved]) -> None:
        self.documents = documents
        self._first_ids = [each.chunk_ids.start for each in documents]
        self._starts = [0, *accumulate(len(each.chunk_ids) for each in documents)]
        self.total = self._starts[-1]

    def positions(self, chunk_ids: Iterable[int]) -> Positions:
        """Where in the scope the chunks with these ids are."""
        places = [(chunk_id, bisect_right(self._first_ids, chunk_id) - 1) for chunk_id in chunk_ids]
        return np.array(
            [self._starts[place] + chunk_id - self._first_ids[place] for chunk_id, place in places], dtype=np.int64
        )

    def at(self, position: int) -> tuple[int, int]:
        """A passage's document, by its place in `documents`, and its ordinal there."""
        place = bisect_right(self._starts, position) - 1
        return place, position - self._starts[place]

    def slice_of(self, place: int) -> slice:
        """The positions of a document's passages."""
        return slice(self._starts[place], self._starts[place + 1])


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _of_these: progress(before + done, total)


def _ranks(positions: Positions) -> dict[int, int]:
    return {position: rank for rank, position in enumerate(positions.tolist(), 1)}


def _blind_note(compared: int, total: int) -> str:
    if compared >= total:
        return "none of the question's words is in the documents; passages were compared by meaning alone"
    return (
        f"none of the question's words is in the documents; {compared:,} of {total:,} passages were compared by meaning"
        " alone; `lcdoc index` prepares the rest"
    )
