"""Finding the right page or paragraph: recall and time, beside plain BM25 and plain dense search, in one run.

    python benchmarks/retrieval.py [--sets ohr_bench squad financebench] [--part held-out] [--documents N] [--limit N]

Each question is asked of its own document. A passage is a hit if it touches the gold page (ohr_bench, financebench) or
the gold paragraph (squad: the paragraphs of an article joined into one document). Reported are recall among the first
1, 5 and 10 passages, and, because passages differ in size, among the first 5,000 and 10,000 characters. For recall with
intervals, on any set and without peers, there is `lcdoc eval retrieval`.

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
import hashlib
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import bm25s
import numpy as np

from lcdoc.documents import Document, Span
from lcdoc.evaluation.rankings import Rankings
from lcdoc.evaluation.sets import readings, set_named
from lcdoc.memory import Library
from lcdoc.retrieval import Chunker, Embedder, Index, load_embedder
from lcdoc.retrieval.indexed import Matrix

DATA = Path(os.environ.get("LCDOC_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data"))
PEER_CHARACTERS = 1_000
DEPTH = 40
"""Passages asked for: enough for 10,000 characters of lcdoc's."""
SPLITS = {"ohr_bench": "all", "squad": "v1.1-article", "financebench": "open"}
SYSTEMS = {"first": "lcdoc, first question", "search": "lcdoc, indexed", "ranks": "lcdoc, ranks fused"}
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


def corpus_of(name: str) -> Corpus:
    """The whole set."""
    corpus = Corpus()
    for reading in readings(set_named(name), DATA, SPLITS[name]):
        document = corpus.documents[reading.name] = reading.document()
        corpus.questions += [Question(case.question, reading.name, case.evidence(document)) for case in reading.cases]
    return corpus


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
    """A line of the table. Each of `found` is what one question got, best first."""

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


def lcdoc(corpus: Corpus, embedder: Embedder, library: Library) -> Iterator[Result]:
    """This project, with one library that holds the whole corpus: a line of the table for each of SYSTEMS."""
    begun = time.perf_counter()
    chunker = Chunker()
    for document in corpus.documents.values():
        library.add(document, chunker.chunks(document), recipe=chunker.recipe)
    words_s = time.perf_counter() - begun
    index = Index(library, embedder)
    for document in corpus.documents.values():
        index.fill(document.id)
    indexed_s = time.perf_counter() - begun
    rankings = Rankings(library, embedder, index)
    for method, system in SYSTEMS.items():
        found, taken = [], []
        for question in corpus.questions:
            begun = time.perf_counter()
            ranked = rankings.ranked(method, question.text, corpus.documents[question.document], DEPTH)
            taken.append(time.perf_counter() - begun)
            found.append([span for span, _ in ranked])
        yield Result(system, found, words_s if method == "first" else indexed_s, 1e3 * statistics.median(taken))


def _peer_places(document: Document) -> list[Span]:
    """The passages that the peers search."""
    length = len(document.text)
    return [Span(start, min(start + PEER_CHARACTERS, length)) for start in range(0, length, PEER_CHARACTERS)]


def plain_bm25(corpus: Corpus) -> Result:
    """bm25s."""
    places = {name: _peer_places(document) for name, document in corpus.documents.items()}
    begun = time.perf_counter()
    indexes: dict[str, bm25s.BM25] = {}
    for name, own in places.items():
        texts = [span.of(corpus.documents[name].text) for span in own]
        indexes[name] = bm25s.BM25()
        indexes[name].index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    index_s = time.perf_counter() - begun

    def ranked(question: Question) -> list[int]:
        tokens = bm25s.tokenize([question.text], stopwords="en", show_progress=False)
        k = min(DEPTH, len(places[question.document]))
        best, _ = indexes[question.document].retrieve(tokens, k=k, show_progress=False)
        return [int(position) for position in best[0]]

    return _peer("bm25s", corpus, places, ranked, index_s)


def plain_dense(corpus: Corpus, embedder: Embedder, cache: Path) -> Result:
    """The same embedder over passages of 1,000 characters."""
    places = {name: _peer_places(document) for name, document in corpus.documents.items()}
    vectors: dict[str, Matrix] = {}
    index_s = 0.0
    for name, own in places.items():
        document = corpus.documents[name]
        key = hashlib.blake2b(f"{embedder.fingerprint} {PEER_CHARACTERS} {document.id}".encode(), digest_size=12)
        file = cache / f"{key.hexdigest()}.npz"
        if not file.exists():
            begun = time.perf_counter()
            made = embedder.embed([span.of(document.text) for span in own])
            np.savez(file, vectors=made, seconds=time.perf_counter() - begun)
        with np.load(file) as kept:
            vectors[name] = kept["vectors"]
            index_s += float(kept["seconds"])

    def ranked(question: Question) -> list[int]:
        cosines = vectors[question.document] @ embedder.embed([question.text])[0]
        best: list[int] = np.argsort(-cosines)[:DEPTH].tolist()
        return best

    return _peer("dense", corpus, places, ranked, index_s)


def _peer(
    system: str,
    corpus: Corpus,
    places: dict[str, list[Span]],
    ranked: Callable[[Question], list[int]],
    index_s: float,
) -> Result:
    begun = time.perf_counter()
    found = [[places[question.document][position] for position in ranked(question)] for question in corpus.questions]
    return Result(system, found, index_s, 1e3 * (time.perf_counter() - begun) / len(corpus.questions))


def results(corpus: Corpus, embedder: Embedder, cache: Path) -> Iterator[Result]:
    """The lines of one table."""
    with tempfile.TemporaryDirectory() as folder, Library.open(Path(folder) / "library.sqlite") as library:
        yield from lcdoc(corpus, embedder, library)
    yield plain_bm25(corpus)
    yield plain_dense(corpus, embedder, cache)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SPLITS, default=list(SPLITS))
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
            corpus_of(name),
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
        for result in results(corpus, embedder, arguments.cache):
            one, five, ten, small, large = recalls(corpus.questions, result.found)
            print(
                f"{result.system:24}{one:7.1f}{five:7.1f}{ten:7.1f}{small:8.1f}{large:8.1f}"
                f"{result.index_s:9.1f}{result.search_ms:11.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
