"""Finding the right page or paragraph: recall and time, beside plain BM25 and plain dense search, in one run.

    python benchmarks/retrieval.py [--sets ohr_bench squad financebench] [--part held-out] [--documents N] [--limit N]
                                   [--together]

Each question is asked of its own document, or, with --together, of all documents of the set at once. A passage is a hit
if it touches the gold page (ohr_bench, financebench) or the gold paragraph (squad: the paragraphs of an article joined
into one document). Reported are recall among the first 1, 5 and 10 passages, and, because passages differ in size,
among the first 5,000 and 10,000 characters.

The systems:

- `lcdoc, first question`: nothing but the full-text index is there when the question comes, as in a new library;
- `lcdoc, indexed`: all vectors are there;
- `lcdoc, ranks fused`: the same, but by reciprocal rank fusion of words and vectors instead of `blend`;
- `bm25s`: that package over passages of 1,000 characters, its own tokenizer, English stop words;
- `dense`: all-MiniLM-L6-v2, the same weights as lcdoc's, over the same passages, every vector compared.

The constants of lexical.py, fusion.py and index.py were chosen on the documents of `--part tuning`; `held-out` are the
others. financebench, of 33 questions, is too small to part: its figures are of the questions that were looked at.
Vectors of the dense peer are kept in --cache.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bm25s
import numpy as np

from lcdoc.documents import Document, Span, load
from lcdoc.documents.builder import DocumentBuilder, Job
from lcdoc.memory import Library
from lcdoc.retrieval import Chunk, Chunker, Embedder, Index, lexical, load_embedder
from lcdoc.retrieval.embedders import Progress, ignore_progress
from lcdoc.retrieval.fusion import reciprocal_rank
from lcdoc.retrieval.indexed import Matrix
from lcdoc.retrieval.shelf import Shelved

DATA = Path(os.environ.get("LCDOC_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data"))
PEER_CHARACTERS = 1_000
DEPTH = 40
"""Passages asked for: enough for 10,000 characters of lcdoc's."""
TIMED_FIRST_QUESTIONS = 12
_TUNED_ON = {"ohr_bench": 66, "squad": 16}


@dataclass(frozen=True)
class Question:
    """A question, the document it is asked of, and where in it the answer is."""

    text: str
    document: str
    gold: tuple[Span, ...]


@dataclass
class Corpus:
    """One data set: documents by name, and questions."""

    documents: dict[str, Document] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)


def document_of(name: str, pages: Iterable[str]) -> Document:
    """A document of these pages."""
    builder = DocumentBuilder(Job(name, b"", "text/plain"))
    for page in pages:
        builder.page()
        builder.paragraph(page)
    return builder.build(reader="benchmark", reader_version="1", digest=name)


def ohr_bench() -> Corpus:
    corpus = Corpus()
    with gzip.open(DATA / "ohr_bench" / "pages.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            pages = sorted(row["pages"], key=lambda page: int(page["page_idx"]))
            corpus.documents[row["doc_name"]] = document_of(row["doc_name"], [page["text"] for page in pages])
    with gzip.open(DATA / "ohr_bench" / "questions.json.gz", "rt", encoding="utf-8") as file:
        for row in json.load(file):
            if row["doc_name"] in corpus.documents:
                page = corpus.documents[row["doc_name"]].pages[row["evidence_page_no"]]
                corpus.questions.append(Question(row["questions"], row["doc_name"], (page.span,)))
    return corpus


def squad() -> Corpus:
    corpus = Corpus()
    for article in json.loads((DATA / "squad" / "dev-v1.1.json").read_text("utf-8"))["data"]:
        name = article["title"]
        document = document_of(name, [paragraph["context"] for paragraph in article["paragraphs"]])
        corpus.documents[name] = document
        for paragraph, page in zip(article["paragraphs"], document.pages, strict=True):
            corpus.questions += [Question(row["question"], name, (page.span,)) for row in paragraph["qas"]]
    return corpus


def financebench() -> Corpus:
    corpus = Corpus()
    for line in (DATA / "financebench" / "questions.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        name = row["doc_name"]
        if name not in corpus.documents:
            corpus.documents[name] = load(DATA / "financebench" / "pdfs" / f"{name}.pdf")
        pages = corpus.documents[name].pages
        gold = tuple(pages[number].span for number in sorted({e["evidence_page_num"] for e in row["evidence"]}))
        corpus.questions.append(Question(row["question"], name, gold))
    return corpus


SETS: dict[str, Callable[[], Corpus]] = {"ohr_bench": ohr_bench, "squad": squad, "financebench": financebench}


def selected(name: str, corpus: Corpus, *, part: str, documents: int, limit: int, seed: int) -> Corpus:
    """The part of the corpus that is asked for."""
    names = sorted(corpus.documents)
    random.Random(5).shuffle(names)
    if name in _TUNED_ON and part != "all":
        names = names[: _TUNED_ON[name]] if part == "tuning" else names[_TUNED_ON[name] :]
    shuffle = random.Random(seed)
    shuffle.shuffle(names)
    chosen = set(names[:documents] if documents else names)
    questions = [question for question in corpus.questions if question.document in chosen]
    shuffle.shuffle(questions)
    return Corpus(
        {name: document for name, document in corpus.documents.items() if name in chosen},
        questions[:limit] if limit else questions,
    )


Place = tuple[str, Span]
"""A document's name and a passage of it."""


@dataclass
class Result:
    """A line of the table. Each of `found` is what one question got, best first."""

    system: str
    found: list[list[Place]]
    index_s: float
    search_ms: float


def recalls(questions: Sequence[Question], found: Sequence[Sequence[Place]]) -> list[float]:
    """Recall at 1, 5 and 10 passages, and at 5,000 and 10,000 characters, in percent."""
    rows = []
    for question, places in zip(questions, found, strict=True):
        hits = [
            name == question.document and any(span.overlaps(gold) for gold in question.gold) for name, span in places
        ]
        first = hits.index(True) if True in hits else DEPTH
        characters = sum(len(span) for _, span in places[: first + 1])
        rows.append(
            [first < k for k in (1, 5, 10)]
            + [first < DEPTH and (characters <= most or first == 0) for most in (5_000, 10_000)]
        )
    return [100 * statistics.fmean(column) for column in zip(*rows, strict=True)]


class Memo:
    """An embedder that embeds no text twice, so that "first" questions can be asked by the thousand."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._known: dict[str, Matrix] = {}
        self.name, self.fingerprint = embedder.name, embedder.fingerprint
        self.dimensions, self.max_tokens = embedder.dimensions, embedder.max_tokens

    def embed(self, texts: Sequence[str], *, progress: Progress = ignore_progress) -> Matrix:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known |= dict(zip(new, self._embedder.embed(new, progress=progress), strict=True))
        return np.array([self._known[text] for text in texts], dtype=np.float32)


class WithoutVectors:
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


class Lcdoc:
    """This project over one library that holds the whole corpus."""

    def __init__(self, corpus: Corpus, embedder: Embedder, library: Library, *, together: bool) -> None:
        self._corpus = corpus
        self._embedder = embedder
        self._memo = Memo(embedder)
        self._library = library
        self._together = together
        self._names = {document.id: name for name, document in corpus.documents.items()}

    def results(self) -> Iterator[Result]:
        """Three lines of the table."""
        questions = self._corpus.questions
        begun = time.perf_counter()
        chunker = Chunker()
        for document in self._corpus.documents.values():
            self._library.add(document, chunker.chunks(document), recipe="benchmark")
        words_s = time.perf_counter() - begun
        index = Index(self._library, self._memo)
        for document in self._corpus.documents.values():
            index.fill(document.id)
        vectors_s = time.perf_counter() - begun
        self._memo.embed([question.text for question in questions])

        timed = [self._first(question, self._embedder)[1] for question in questions[:TIMED_FIRST_QUESTIONS]]
        first = [self._first(question, self._memo)[0] for question in questions]
        yield Result("lcdoc, first question", first, words_s, 1e3 * statistics.median(timed))

        full = [self._places(index, question) for question in questions]
        plain = Index(self._library, self._embedder)
        timed = []
        for question in questions[:50]:
            for _ in range(2):
                begun = time.perf_counter()
                self._places(plain, question)
                timed.append(time.perf_counter() - begun)
        yield Result("lcdoc, indexed", full, vectors_s, 1e3 * statistics.median(timed))
        yield Result("lcdoc, ranks fused", [self._by_ranks(index, q) for q in questions], vectors_s, float("nan"))

    def _within(self, question: Question) -> list[str] | None:
        return None if self._together else [self._corpus.documents[question.document].id]

    def _places(self, index: Index, question: Question) -> list[Place]:
        hits = index.search(question.text, DEPTH, within=self._within(question))
        return [(self._names[hit.chunk.document_id], hit.chunk.span) for hit in hits]

    def _first(self, question: Question, embedder: Embedder) -> tuple[list[Place], float]:
        """What the question gets when no vector is there, and how long it takes."""
        with tempfile.TemporaryDirectory() as empty:
            index = Index(WithoutVectors(self._library, empty), embedder)
            begun = time.perf_counter()
            return self._places(index, question), time.perf_counter() - begun

    def _by_ranks(self, index: Index, question: Question) -> list[Place]:
        documents = [(shelved, index.opened(shelved)) for shelved in self._library.shelved(self._within(question))]
        with self._library.reading() as connection:
            matches = lexical.search(connection, question.text, [shelved.chunk_ids for shelved, _ in documents], 200)
        asked = self._memo.embed([question.text])[0]
        cosines = np.concatenate([document.cosines(asked) for _, document in documents])
        ids = np.concatenate([np.arange(shelved.chunk_ids.start, shelved.chunk_ids.stop) for shelved, _ in documents])
        rankings = {
            "lexical": [chunk_id for chunk_id, _ in matches.scores],
            "dense": ids[np.argsort(-cosines)[:200]].tolist(),
        }
        scores = reciprocal_rank(rankings)
        places: list[Place] = []
        for chunk_id in sorted(scores, key=lambda chunk_id: -scores[chunk_id])[:DEPTH]:
            shelved, document = next(pair for pair in documents if chunk_id in pair[0].chunk_ids)
            places.append((self._names[shelved.document_id], document.chunks[chunk_id - shelved.chunk_ids.start].span))
        return places


def _peer_places(corpus: Corpus, *, together: bool) -> dict[str, list[Place]]:
    """The passages that a question about each document is asked of."""
    places: dict[str, list[Place]] = {}
    for name, document in corpus.documents.items():
        length = len(document.text)
        starts = range(0, length, PEER_CHARACTERS)
        places[name] = [(name, Span(start, min(start + PEER_CHARACTERS, length))) for start in starts]
    if together:
        every = [place for own in places.values() for place in own]
        return dict.fromkeys(places, every)
    return places


def plain_bm25(corpus: Corpus, *, together: bool) -> Result:
    """bm25s."""
    places = _peer_places(corpus, together=together)
    begun = time.perf_counter()
    indexes: dict[int, bm25s.BM25] = {}
    for own in places.values():
        if id(own) not in indexes:
            texts = [span.of(corpus.documents[name].text) for name, span in own]
            indexes[id(own)] = bm25s.BM25()
            indexes[id(own)].index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    index_s = time.perf_counter() - begun
    found, begun = [], time.perf_counter()
    for question in corpus.questions:
        own = places[question.document]
        tokens = bm25s.tokenize([question.text], stopwords="en", show_progress=False)
        ranked, _ = indexes[id(own)].retrieve(tokens, k=min(DEPTH, len(own)), show_progress=False)
        found.append([own[int(position)] for position in ranked[0]])
    return Result("bm25s", found, index_s, 1e3 * (time.perf_counter() - begun) / len(corpus.questions))


def plain_dense(corpus: Corpus, embedder: Embedder, cache: Path, *, together: bool) -> Result:
    """The same embedder over passages of 1,000 characters."""
    vectors: dict[str, Matrix] = {}
    index_s = 0.0
    for name, own in _peer_places(corpus, together=False).items():
        document = corpus.documents[name]
        key = hashlib.blake2b(f"{embedder.fingerprint} {PEER_CHARACTERS} {document.id}".encode(), digest_size=12)
        file = cache / f"{key.hexdigest()}.npz"
        if not file.exists():
            begun = time.perf_counter()
            made = embedder.embed([span.of(document.text) for _, span in own])
            np.savez(file, vectors=made, seconds=time.perf_counter() - begun)
        with np.load(file) as kept:
            vectors[name] = kept["vectors"]
            index_s += float(kept["seconds"])
    places = _peer_places(corpus, together=together)
    every = np.concatenate(list(vectors.values()))
    found, begun = [], time.perf_counter()
    for question in corpus.questions:
        cosines = (every if together else vectors[question.document]) @ embedder.embed([question.text])[0]
        found.append([places[question.document][position] for position in np.argsort(-cosines)[:DEPTH].tolist()])
    return Result("dense", found, index_s, 1e3 * (time.perf_counter() - begun) / len(corpus.questions))


def results(corpus: Corpus, embedder: Embedder, cache: Path, *, together: bool) -> Iterator[Result]:
    """The lines of one table."""
    with tempfile.TemporaryDirectory() as folder, Library.open(Path(folder) / "library.sqlite") as library:
        yield from Lcdoc(corpus, embedder, library, together=together).results()
    yield plain_bm25(corpus, together=together)
    yield plain_dense(corpus, embedder, cache, together=together)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--part", choices=("held-out", "tuning", "all"), default="held-out")
    parser.add_argument("--documents", type=int, default=0, help="of each set at most (default: all)")
    parser.add_argument("--limit", type=int, default=0, help="questions of each set at most (default: all)")
    parser.add_argument("--together", action="store_true", help="ask each question of all documents of the set at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "lcdoc-benchmark-retrieval")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    embedder = load_embedder()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, seed {arguments.seed}")
    for name in arguments.sets:
        if not (DATA / name).is_dir():
            print(f"\n{name}: skipped, {DATA / name} is not there (LCDOC_DATA names the folder of data sets)")
            continue
        corpus = selected(
            name,
            SETS[name](),
            part=arguments.part,
            documents=arguments.documents,
            limit=arguments.limit,
            seed=arguments.seed,
        )
        characters = sum(len(document.text) for document in corpus.documents.values())
        part = arguments.part if name in _TUNED_ON else "all"
        print(
            f"\n{name} ({part}): {len(corpus.questions):,} questions, {len(corpus.documents)} documents,"
            f" {characters / 1e6:.1f} M characters"
        )
        print(f"{'':24}{'@1':>7}{'@5':>7}{'@10':>7}{'@5k ch':>8}{'@10k ch':>8}{'index s':>9}{'search ms':>11}")
        for result in results(corpus, embedder, arguments.cache, together=arguments.together):
            one, five, ten, small, large = recalls(corpus.questions, result.found)
            print(
                f"{result.system:24}{one:7.1f}{five:7.1f}{ten:7.1f}{small:8.1f}{large:8.1f}"
                f"{result.index_s:9.1f}{result.search_ms:11.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
