"""Finding the right page or paragraph: recall and time, beside plain BM25 and plain dense search, in one run.

    python benchmarks/retrieval.py [--sets ohr_bench squad financebench] [--part held-out] [--documents N] [--limit N]

Each question is asked of its own document. A passage is a hit if it touches the gold page (ohr_bench, financebench) or
the gold paragraph (squad: the paragraphs of an article joined into one document). Reported are recall among the first
1, 5 and 10 passages, and, because passages differ in size, among the first 5,000 and 10,000 characters.

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
import ast
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
            pages = ast.literal_eval(row["pages"])  # written as Python, not as JSON
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


@dataclass
class Result:
    """A line of the table. Each of `found` is the spans one question got, best first."""

    system: str
    found: list[list[Span]]
    index_s: float
    search_ms: float


def recalls(questions: Sequence[Question], found: Sequence[Sequence[Span]]) -> list[float]:
    """Recall at 1, 5 and 10 passages, and at 5,000 and 10,000 characters, in percent."""
    rows = []
    for question, spans in zip(questions, found, strict=True):
        hits = [any(span.overlaps(gold) for gold in question.gold) for span in spans]
        first = hits.index(True) if True in hits else DEPTH
        characters = sum(len(span) for span in spans[: first + 1])
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


def lcdoc(corpus: Corpus, embedder: Embedder) -> Iterator[Result]:
    """This project: three lines."""
    memo = Memo(embedder)
    with tempfile.TemporaryDirectory() as folder, Library.open(Path(folder) / "library.sqlite") as library:
        begun = time.perf_counter()
        chunker = Chunker()
        for document in corpus.documents.values():
            library.add(document, chunker.chunks(document), recipe="benchmark")
        words_s = time.perf_counter() - begun
        index = Index(library, memo)
        for document in corpus.documents.values():
            index.fill(document.id)
        vectors_s = time.perf_counter() - begun
        memo.embed([question.text for question in corpus.questions])

        first: list[list[Span]] = []
        for question in corpus.questions:
            with tempfile.TemporaryDirectory() as empty:
                fresh = Index(WithoutVectors(library, empty), memo)
                first.append(_spans(fresh, corpus, question))
        timed = []
        for question in corpus.questions[:TIMED_FIRST_QUESTIONS]:
            with tempfile.TemporaryDirectory() as empty:
                fresh = Index(WithoutVectors(library, empty), embedder)
                timed.append(_timed(lambda fresh=fresh, question=question: _spans(fresh, corpus, question)))
        yield Result("lcdoc, first question", first, words_s, 1e3 * statistics.median(timed))

        full = [_spans(index, corpus, question) for question in corpus.questions]
        plain = Index(library, embedder)
        timed = [
            _timed(lambda question=question: _spans(plain, corpus, question))
            for question in [question for question in corpus.questions[:50] for _ in range(2)]
        ]
        yield Result("lcdoc, indexed", full, vectors_s, 1e3 * statistics.median(timed))
        yield Result("lcdoc, ranks fused", list(_by_ranks(corpus, library, index, memo)), vectors_s, float("nan"))


def _spans(index: Index, corpus: Corpus, question: Question) -> list[Span]:
    hits = index.search(question.text, DEPTH, within=[corpus.documents[question.document].id])
    return [hit.chunk.span for hit in hits]


def _by_ranks(corpus: Corpus, library: Library, index: Index, embedder: Embedder) -> Iterator[list[Span]]:
    for question in corpus.questions:
        (shelved,) = library.shelved([corpus.documents[question.document].id])
        document = index.opened(shelved)
        with library.reading() as connection:
            matches = lexical.search(connection, question.text, [shelved.chunk_ids], 200)
        cosines = document.cosines(embedder.embed([question.text])[0])
        scores = reciprocal_rank(
            {
                "lexical": [chunk_id - shelved.chunk_ids.start for chunk_id, _ in matches.scores],
                "dense": np.argsort(-cosines)[:200].tolist(),
            }
        )
        best = sorted(scores, key=lambda ordinal: -scores[ordinal])[:DEPTH]
        yield [document.chunks[ordinal].span for ordinal in best]


def _peer_spans(document: Document) -> list[Span]:
    length = len(document.text)
    return [Span(at, min(at + PEER_CHARACTERS, length)) for at in range(0, length, PEER_CHARACTERS)]


def plain_bm25(corpus: Corpus) -> Result:
    """bm25s."""
    spans = {name: _peer_spans(document) for name, document in corpus.documents.items()}
    begun = time.perf_counter()
    indexes = {}
    for name, document in corpus.documents.items():
        tokens = bm25s.tokenize([span.of(document.text) for span in spans[name]], stopwords="en", show_progress=False)
        indexes[name] = bm25s.BM25()
        indexes[name].index(tokens, show_progress=False)
    index_s = time.perf_counter() - begun
    found, begun = [], time.perf_counter()
    for question in corpus.questions:
        tokens = bm25s.tokenize([question.text], stopwords="en", show_progress=False)
        k = min(DEPTH, len(spans[question.document]))
        documents, _ = indexes[question.document].retrieve(tokens, k=k, show_progress=False)
        found.append([spans[question.document][int(position)] for position in documents[0]])
    return Result("bm25s", found, index_s, 1e3 * (time.perf_counter() - begun) / len(corpus.questions))


def plain_dense(corpus: Corpus, embedder: Embedder, cache: Path) -> Result:
    """The same embedder over passages of 1,000 characters."""
    vectors: dict[str, Matrix] = {}
    spans = {name: _peer_spans(document) for name, document in corpus.documents.items()}
    index_s = 0.0
    for name, document in corpus.documents.items():
        key = hashlib.blake2b(f"{embedder.fingerprint} {PEER_CHARACTERS} {document.id}".encode(), digest_size=12)
        file = cache / f"{key.hexdigest()}.npz"
        if not file.exists():
            begun = time.perf_counter()
            made = embedder.embed([span.of(document.text) for span in spans[name]])
            np.savez(file, vectors=made, seconds=time.perf_counter() - begun)
        with np.load(file) as kept:
            vectors[name] = kept["vectors"]
            index_s += float(kept["seconds"])
    found, begun = [], time.perf_counter()
    for question in corpus.questions:
        cosines = vectors[question.document] @ embedder.embed([question.text])[0]
        found.append([spans[question.document][position] for position in np.argsort(-cosines)[:DEPTH].tolist()])
    return Result("dense", found, index_s, 1e3 * (time.perf_counter() - begun) / len(corpus.questions))


def _timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--part", choices=("held-out", "tuning", "all"), default="held-out")
    parser.add_argument("--documents", type=int, default=0, help="of each set at most (default: all)")
    parser.add_argument("--limit", type=int, default=0, help="questions of each set at most (default: all)")
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
        for result in [*lcdoc(corpus, embedder), plain_bm25(corpus), plain_dense(corpus, embedder, arguments.cache)]:
            one, five, ten, small, large = recalls(corpus.questions, result.found)
            print(
                f"{result.system:24}{one:7.1f}{five:7.1f}{ten:7.1f}{small:8.1f}{large:8.1f}"
                f"{result.index_s:9.1f}{result.search_ms:11.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
