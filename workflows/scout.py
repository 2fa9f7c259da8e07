"""Several documents: which of them are worth reading in full, and a search that gives each one compared its share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import PurePosixPath

from lcdoc.agents.reader import Passage
from lcdoc.agents.stems import STOP_WORDS, stems_of, tokens_of
from lcdoc.documents import Document
from lcdoc.retrieval.index import LAZY_TOKENS
from lcdoc.workflows.question_kinds import kind_of
from lcdoc.workflows.search import Search

MOST_DOCUMENTS = 5
"""Documents that are read in full for one question, unless all are listed from or the question names more."""
MOST_COMPARED = 12
"""Documents that a comparison searches one by one."""
_PASSAGES = 100
"""Best passages of all documents together by which the documents are ranked."""
_RANK_OFFSET = 10
"""A passage at rank r counts 1 / (r + this): many fair passages outweigh a single good one."""
_OPENING_CHARACTERS = 1_000
_OPENING_WEIGHT = 0.2
"""What a document gains whose name and first lines have all words of the question: as much as about two passages at the
top of the ranking."""
_MAIN_TITLE = re.compile(r"\s*(?::|;|\s[-–—]\s|\()")


@dataclass(frozen=True, slots=True)
class Candidates:
    """Documents worth reading in full, in the order they were given, and why these, in one line."""

    documents: tuple[Document, ...]
    reason: str


async def candidates(
    question: str, documents: Sequence[Document], search: Search, *, most: int = MOST_DOCUMENTS
) -> Candidates:
    """The `most` documents likeliest to answer: those named in the question, then by best passages, names, first lines.

    All of them where they are no more than `most`. A document that is named is never left out. Raises EmbedderError,
    LibraryError.
    """
    if len(documents) <= most:
        return Candidates(tuple(documents), f"all {len(documents)} documents are read" if len(documents) > 1 else "")
    named = {document.id for document in named_in(question, documents)}
    passages, _ = await search.best(question, documents, _PASSAGES)
    scores = {document.id: _OPENING_WEIGHT * _opening_share(question, document) for document in documents}
    for rank, passage in enumerate(passages):
        scores[passage.document.id] += 1 / (rank + _RANK_OFFSET)
    # The sort is stable: what is equal stays in the order of the documents.
    best = sorted(documents, key=lambda document: (document.id not in named, -scores[document.id]))
    kept = {document.id for document in best[: max(most, len(named))]}
    chosen = tuple(document for document in documents if document.id in kept)
    why = "named in the question or nearest to it" if named else "with the best passages for the question"
    return Candidates(chosen, f"{len(chosen)} of {len(documents)} documents are read: those {why}")


def named_in(question: str, documents: Sequence[Document]) -> list[Document]:
    """The documents that the question names: by title or file name, or by words and numbers that tell names apart.

    Such words count where the question writes them with a capital or a digit, and the document with most of them is
    meant: `3M and Boeing in 2018` names `3M_2018_10K.pdf` and `BOEING_2018_10K.pdf`, not `3M_2019_10K.pdf`.
    """
    asked = f" {' '.join(tokens_of(question))} "
    marked = [word for word in question.split() if any(c.isupper() or c.isdigit() for c in word)]
    said = {token for word in marked for token in _words(word)} - STOP_WORDS
    names = {document.id: _names(document) for document in documents}
    words = {id_: {word for name in own for word in name.split()} for id_, own in names.items()}
    everywhere = set.intersection(*words.values()) if words else set()
    matches = {id_: frozenset(own & said - everywhere) for id_, own in words.items()}
    sets = set(matches.values())
    meant = {match for match in sets if match and not any(match < other for other in sets)}
    return [
        document
        for document in documents
        if matches[document.id] in meant or any(f" {name} " in asked for name in names[document.id])
    ]


def _names(document: Document) -> set[str]:
    """What the document may be called: its title, the title before a colon, its file's name; words parted by blanks."""
    stem = PurePosixPath(document.source.path.replace("\\", "/")).stem
    title = document.source.title
    names = {" ".join(_words(name)) for name in (title, _MAIN_TITLE.split(title)[0], stem)}
    return {name for name in names if len(name) > 2 and not set(name.split()) <= STOP_WORDS}


def _words(name: str) -> list[str]:
    return tokens_of(name.replace("_", " "))


def _opening_share(question: str, document: Document) -> float:
    """The share of the question's words that stand in the document's name or first lines."""
    wanted = set(stems_of(question))
    return len(wanted & set(stems_of(f"{document.name}\n{document.body[:_OPENING_CHARACTERS]}"))) / max(1, len(wanted))


@dataclass(frozen=True)
class FairSearch(Search):
    """A search that gives each of the documents that a question compares as many passages as the others.

    One ranking of all passages would be filled by the document that says most about the matter, and nothing of the
    others would be read. Which documents are compared the question says; if it names fewer than two, all are.
    """

    @classmethod
    def of(cls, search: Search) -> FairSearch:
        """The same search, but fair."""
        return cls(search.index, search.lazy_tokens, search.progress)

    async def best(self, question: str, documents: Sequence[Document], count: int) -> tuple[list[Passage], list[str]]:
        """As `Search.best`; of documents that are compared, the best passage of each, then the second of each, ..."""
        compared = compared_in(question, documents)
        if not compared:
            return await Search.best(self, question, documents, count)
        share = replace(self, lazy_tokens=(self.lazy_tokens or LAZY_TOKENS) // len(compared))
        # One after the other: the embedder uses all cores as it is.
        found = [await Search.best(share, question, [document], count) for document in compared]
        in_turn = zip_longest(*(passages for passages, _ in found))
        passages = [passage for turn in in_turn for passage in turn if passage is not None]
        return passages[:count], list(dict.fromkeys(note for _, notes in found for note in notes))


def compared_in(question: str, documents: Sequence[Document]) -> list[Document]:
    """The documents that the question compares with each other, at most `MOST_COMPARED`; empty where it does not."""
    if len(documents) < 2 or kind_of(question) != "comparison":
        return []
    named = named_in(question, documents)
    compared = named if len(named) > 1 else list(documents)
    return compared if len(compared) <= MOST_COMPARED else []
