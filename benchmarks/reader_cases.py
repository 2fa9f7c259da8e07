"""Questions with gold answers over long documents, from the public sets of ../shared/data or $LCDOC_DATA.

The paragraphs of a squad article, of a policy, of a paper, and the extracts of eight filings (tatqa), are joined to
one document each. A question is answerable; or "adversarial", squad v2's near misses; or "easy": one that belongs to
another document, of the same set, or of another set where the documents of one set are too alike (tatqa, policyqa).
A text hits if it contains a gold answer as whole words, or, for answers above 40 characters, at 90 % in alignment.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import pickle
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rapidfuzz.fuzz import partial_ratio

from lcdoc.agents.evidence import Floats
from lcdoc.agents.reader import Passage
from lcdoc.agents.stems import stems_of
from lcdoc.documents import Document, Page, Source
from lcdoc.documents.text import normalise
from lcdoc.retrieval.chunker import Chunker
from lcdoc.retrieval.embedders import load_embedder

DATA = Path(os.environ.get("LCDOC_DATA", Path(__file__).parents[2] / "shared" / "data"))
PASSAGES = 8


@dataclass(frozen=True)
class Case:
    """A question put to a document. `golds` is empty unless it is answerable."""

    dataset: str
    kind: str
    document: Document
    question: str
    golds: tuple[str, ...] = ()
    answer_type: str = ""

    @property
    def held_out(self) -> bool:
        digest = hashlib.md5(f"{self.dataset} {self.document.source.path}".encode(), usedforsecurity=False)
        return digest.digest()[0] % 2 == 1


def document_of(name: str, paragraphs: Sequence[str]) -> Document:
    """One document of these paragraphs, on one page."""
    text = "\n\n".join(normalise(paragraph).strip() for paragraph in paragraphs)
    source = Source(name, "text/plain", len(text), "", "benchmark", "1", "0" * 32)
    return Document.create(text, (Page(1, "1", 0, len(text)),), (), source)


Items = list[tuple[Document, list[tuple[str, tuple[str, ...], str]]]]
"""Documents, each with its questions: (question, golds, kind)."""


def squad() -> Items:
    items: Items = []
    for article in json.loads((DATA / "squad/dev-v2.0.json").read_bytes())["data"]:
        document = document_of(article["title"], [paragraph["context"] for paragraph in article["paragraphs"]])
        questions = [
            (
                question["question"].strip(),
                tuple(sorted({answer["text"] for answer in question["answers"]})),
                "adversarial" if question["is_impossible"] else "answerable",
            )
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
        items.append((document, questions))
    return items


def tatqa() -> Items:
    """Tables as lines of cells, eight extracts to a document. Golds of arithmetic questions: the figures they need."""
    extracts = json.loads((DATA / "tatqa/tatqa_dataset_dev.json").read_bytes())
    items: Items = []
    for start in range(0, len(extracts), 8):
        paragraphs: list[str] = []
        questions: list[tuple[str, tuple[str, ...], str]] = []
        for extract in extracts[start : start + 8]:
            before, after = extract["paragraphs"][:1], extract["paragraphs"][1:]
            rows = [" ".join(cell.strip() for cell in row if cell.strip()) for row in extract["table"]["table"]]
            paragraphs += [paragraph["text"] for paragraph in before]
            paragraphs.append("\n".join(row for row in rows if row))
            paragraphs += [paragraph["text"] for paragraph in after]
            for question in extract["questions"]:
                answer, derivation = question["answer"], question["derivation"]
                if question["answer_type"] == "arithmetic":
                    golds = tuple(figure for figure in re.findall(r"\d[\d,.]*\d", derivation) if len(figure) > 2)
                elif question["answer_type"] == "span":
                    golds = tuple(str(part) for part in answer)
                else:
                    continue
                if golds:
                    questions.append((question["question"], golds, "answerable"))
        items.append((document_of(f"tatqa {start}", paragraphs), questions))
    return items


def covid_qa() -> Items:
    items: Items = []
    for number, paper in enumerate(json.loads((DATA / "covid_qa/200421_covidQA.json").read_bytes())["data"]):
        paragraph = paper["paragraphs"][0]
        questions = [
            (question["question"], tuple(answer["text"].strip() for answer in question["answers"]), "answerable")
            for question in paragraph["qas"]
        ]
        items.append((document_of(f"covid {number}", paragraph["context"].split("\n")), questions))
    return items


def policyqa() -> Items:
    items: Items = []
    for article in json.loads(gzip.decompress((DATA / "policyqa/dev.json.gz").read_bytes()))["data"]:
        questions = [
            (question["question"], tuple(answer["text"] for answer in question["answers"]), "answerable")
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
        document = document_of(article["title"], [paragraph["context"] for paragraph in article["paragraphs"]])
        items.append((document, questions))
    return items


def ohr_bench() -> Items:
    """Questions whose evidence is running text; the gold is that evidence."""
    asked: dict[str, list[tuple[str, tuple[str, ...], str]]] = defaultdict(list)
    for row in json.loads(gzip.decompress((DATA / "ohr_bench/questions.json.gz").read_bytes())):
        if row["evidence_source"] == "text":
            asked[row["doc_name"]].append((row["questions"], (row["evidence_context"],), "answerable"))
    items: Items = []
    for line in gzip.decompress((DATA / "ohr_bench/pages.jsonl.gz").read_bytes()).decode().splitlines():
        row = json.loads(line)
        pages = [page["text"] for page in row["pages"]]
        if row["doc_name"] in asked and sum(map(len, pages)) < 60_000:
            items.append((document_of(row["doc_name"], pages), asked[row["doc_name"]]))
    return items


def fairytaleqa() -> Items:
    """Stories; explicit questions only. The answer is an annotator's wording: a hit has 80 % of its stems."""
    items: Items = []
    for story in sorted((DATA / "fairytaleqa/section-stories").rglob("*-story.csv")):
        name = story.name.removesuffix("-story.csv")
        found = list((DATA / "fairytaleqa/questions").rglob(f"{name}-questions.csv"))
        if not found:
            continue
        with story.open(encoding="utf-8", errors="replace") as lines:
            paragraphs = [row["text"] for row in csv.DictReader(lines)]
        with found[0].open(encoding="utf-8", errors="replace") as lines:
            questions = [
                (row["question"], (f"~{row['answer1']}",), "answerable")
                for row in csv.DictReader(lines)
                if "explicit" in (row.get("ex-or-im1"), row.get("ex-or-im"))
            ]
        items.append((document_of(name, paragraphs), questions))
    return items


SETS: dict[str, tuple[Callable[[], Items], int, int, int]] = {
    # loader, documents at most, answerable questions a document, easy ones a document (adversarial: half as many)
    "squad": (squad, 35, 36, 8),
    "tatqa": (tatqa, 35, 16, 4),
    "covid_qa": (covid_qa, 36, 10, 4),
    "ohr_bench": (ohr_bench, 60, 8, 4),
    "fairytaleqa": (fairytaleqa, 24, 16, 6),
    "policyqa": (policyqa, 20, 16, 6),
}
ALIKE = ("tatqa", "policyqa")
"""Sets whose documents answer each other's questions, or do not name their subject."""


def cases(names: Sequence[str]) -> Iterator[Case]:
    """The sample of these sets: the same each time."""
    strangers = [question for _, asked in squad() for question in asked]
    for name in names:
        loader, documents, answerable, easy = SETS[name]
        rng = random.Random(f"offline reader {name}")
        items = loader()
        items = rng.sample(items, min(documents, len(items)))
        for document, questions in items:
            for kind, number in (("answerable", answerable), ("adversarial", answerable // 2)):
                own = [question for question in questions if question[2] == kind]
                for question, golds, _ in rng.sample(own, min(number, len(own))):
                    yield Case(name, kind, document, question, golds)
            others = [question for other, asked in items if other is not document for question in asked]
            for question, _, _ in rng.sample(strangers if name in ALIKE else others, easy):
                yield Case(name, "easy", document, question)


def is_hit(text: str, golds: Sequence[str]) -> bool:
    """Whether `text` contains one of `golds`."""
    folded = " ".join(text.casefold().split())
    for gold in golds:
        if gold.startswith("~"):
            wanted = set(stems_of(gold))
            if wanted and len(wanted & set(stems_of(text))) >= 0.8 * len(wanted):
                return True
            continue
        wanted_text = " ".join(gold.casefold().split())
        if wanted_text and re.search(rf"(?<![\w]){re.escape(wanted_text)}(?![\w])", folded):
            return True
        shorter = min(len(folded), len(wanted_text))
        if shorter > 40 and partial_ratio(folded, wanted_text, score_cutoff=90):
            return True
    return False


class CachedEmbedder:
    """The default embedder, keeping its vectors in a file between runs."""

    def __init__(self, path: Path) -> None:
        self._inner = load_embedder()
        self.name, self.fingerprint = self._inner.name, self._inner.fingerprint
        self.dimensions, self.max_tokens = self._inner.dimensions, self._inner.max_tokens
        self._path = path
        # The file is this script's own; it is not shared.
        self._vectors: dict[str, Floats] = pickle.loads(path.read_bytes()) if path.exists() else {}
        self._new = 0

    def embed(self, texts: Sequence[str], *, progress: object = None) -> Floats:
        new = list(dict.fromkeys(text for text in texts if text not in self._vectors))
        if new:
            self._vectors.update(zip(new, self._inner.embed(new).astype(np.float16), strict=True))
            self._new += len(new)
        return np.stack([self._vectors[text] for text in texts]).astype(np.float32)

    def save(self) -> None:
        if self._new:
            self._path.write_bytes(pickle.dumps(self._vectors))
            self._new = 0


class Finder:
    """Finds the passages of one document for a question."""

    def __init__(self, document: Document, embedder: CachedEmbedder) -> None:
        self._document, self._embedder = document, embedder
        self._chunks = Chunker().chunks(document)
        texts = [chunk.span.of(document.body) for chunk in self._chunks]
        self._vectors = embedder.embed(texts)
        counts = [Counter(stems_of(text)) for text in texts]
        self._frequency = Counter(s for count in counts for s in count)
        self._counts = counts

    def best_by_words(self, question: str) -> Passage:
        """The best passage by BM25 ("Okapi at TREC-3", k1 = 1.2, b = 0.75)."""
        lengths = np.array([count.total() for count in self._counts])
        scores = np.zeros(len(self._chunks))
        for s in set(stems_of(question)):
            frequency = self._frequency[s]
            rarity = np.log(1 + (len(self._chunks) - frequency + 0.5) / (frequency + 0.5))
            times = np.array([count[s] for count in self._counts])
            scores += rarity * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * lengths / max(1, lengths.mean())))
        return Passage.of_chunk(self._document, self._chunks[int(np.argmax(scores))])

    def passages(self, question: str) -> list[Passage]:
        cosines = self._vectors @ self._embedder.embed([question])[0]
        words = np.zeros(len(self._chunks))
        for s in set(stems_of(question)):
            rarity = np.log(1 + len(self._chunks) / (1 + self._frequency[s]))
            words += np.array([rarity * count[s] / (count[s] + 1.2) for count in self._counts])
        fused = np.zeros(len(self._chunks))
        for scores in (cosines, words):
            order = np.argsort(-scores, kind="stable")
            fused[order] += 1 / (60 + np.arange(len(order)))
        best = np.argsort(-fused, kind="stable")[:PASSAGES]
        return [
            replace(Passage.of_chunk(self._document, self._chunks[index]), cosine=float(cosines[index]))
            for index in best.tolist()
        ]


def with_passages(names: Sequence[str], embedder: CachedEmbedder) -> Iterator[tuple[Case, list[Passage]]]:
    finders: dict[str, Finder] = {}
    for number, case in enumerate(cases(names)):
        if case.document.id not in finders:
            finders[case.document.id] = Finder(case.document, embedder)
        yield case, finders[case.document.id].passages(case.question)
        if number % 500 == 499:
            embedder.save()
    embedder.save()
