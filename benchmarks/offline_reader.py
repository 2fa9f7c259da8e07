"""How well the offline reader picks evidence, says "not found", and knows how sure it may be; and how its weights are made.

    python benchmarks/offline_reader.py report      # held-out figures with the weights of the package
    python benchmarks/offline_reader.py fit         # learn them anew on the calibration half; prints evidence_weights.py

Data: ../shared/data or $LCDOC_DATA (squad, tatqa, ohr_bench, covid_qa, policyqa, fairytaleqa, financebench). The paragraphs of
an article (of 8 filings' extracts for tatqa) are one document. Each set is halved by document: weights are learned on one half,
everything is reported on the other. Questions of three kinds: answerable; "adversarial", squad v2's near misses; "easy", a
question that belongs to another document of the set. Passages: the package's chunks, 8 of them, by reciprocal rank
fusion of cosine and tf-idf. A quote hits if it contains a gold answer as whole words (long golds: 90 % aligned).
Vectors are cached in --cache. `fit` needs scikit-learn and scipy.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import os
import pickle
import platform
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rapidfuzz.fuzz import partial_ratio

from lcdoc.agents import evidence_weights
from lcdoc.agents.candidates import candidates_of
from lcdoc.agents.evidence import FEATURES, VECTOR_FEATURES, Floats, Measured, measure_words, with_vectors
from lcdoc.agents.evidence_ranking import (
    SIGNALS,
    apply_weights,
    passage_cosines,
    preselect,
    rank_evidence,
    signals_of,
)
from lcdoc.agents.offline_reader import quoted_evidence
from lcdoc.agents.questions import Question
from lcdoc.agents.reader import Passage
from lcdoc.agents.stems import stems_of
from lcdoc.documents import Document, Page, Source, load
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
    """Tables as lines of cells, eight extracts to a document. Golds of arithmetic questions: the figures they are made of."""
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


LEARNED = ("squad", "tatqa", "covid_qa", "ohr_bench")
SETS: dict[str, tuple[Callable[[], Items], int, int, int]] = {
    # loader, documents at most, answerable questions a document, easy ones a document (adversarial: half as many)
    "squad": (squad, 35, 36, 8),
    "tatqa": (tatqa, 35, 16, 3),
    "covid_qa": (covid_qa, 24, 8, 4),
    "ohr_bench": (ohr_bench, 40, 8, 4),
    "policyqa": (policyqa, 20, 16, 0),
    "fairytaleqa": (fairytaleqa, 24, 16, 4),
}


def cases(names: Sequence[str]) -> Iterator[Case]:
    """The sample: the same each time."""
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
            for question, _, _ in rng.sample(others, easy):
                yield Case(name, "easy", document, question)


def is_hit(text: str, golds: Sequence[str]) -> bool:
    """Whether `text` contains a gold answer; see the head of this file."""
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


# --- fit -------------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """A case measured: features of its candidates, which of them hit, and what is needed for the signals."""

    case: Case
    values: Floats
    hits: np.ndarray
    measured: Measured
    best_cosines: list[tuple[float, float]]


def rows_of(names: Sequence[str], embedder: CachedEmbedder) -> list[Row]:
    rows: list[Row] = []
    for case, passages in with_passages(names, embedder):
        if case.held_out:
            continue
        question = Question.of(case.question)
        candidates = candidates_of(passages)
        measured = measure_words(question, passages, candidates)
        vectors = embedder.embed([question.text, *(candidate.text for candidate in candidates)])
        cosines = vectors[1:] @ vectors[0]
        values = with_vectors(measured, cosines, passage_cosines(passages, candidates, cosines))
        hits = np.array([is_hit(candidate.text, case.golds) for candidate in candidates])
        best = [
            (
                float(max(c for c, candidate in zip(cosines, candidates, strict=True) if candidate.passage == index)),
                given,
            )
            for index, passage in enumerate(passages)
            if (given := passage.cosine) is not None and any(candidate.passage == index for candidate in candidates)
        ]
        rows.append(Row(case, values, hits, measured, best))
    embedder.save()
    return rows


def conditional_logit(groups: Sequence[tuple[Floats, np.ndarray, float]], columns: Sequence[int]) -> dict[str, float]:
    """Weights w that maximise the probability, under softmax(X w), that the candidate drawn is one that hits."""
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    stacked = np.concatenate([values[:, columns] for values, _, _ in groups]).astype(np.float64)
    scale = stacked.std(axis=0) + 1e-9
    scaled = [(values[:, columns] / scale, hits, weight) for values, hits, weight in groups]
    total = sum(weight for _, _, weight in groups)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = 0.0, np.zeros_like(weights)
        for matrix, hits, weight in scaled:
            scores = matrix @ weights
            everything, hitting = logsumexp(scores), logsumexp(scores[hits])
            value += weight * (everything - hitting)
            pull = np.exp(scores - everything)
            pull[hits] -= np.exp(scores[hits] - hitting)
            gradient += weight * (matrix.T @ pull)
        return value / total + 5e-3 * weights @ weights, gradient / total + 1e-2 * weights

    found = minimize(loss, np.zeros(len(columns)), jac=True, method="L-BFGS-B")
    return {FEATURES[column]: weight for column, weight in zip(columns, found.x / scale, strict=True)}


def logistic(
    signals: Sequence[dict[str, float]], targets: Sequence[bool], weights: Sequence[float]
) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression

    matrix = np.array([[row[name] for name in SIGNALS] for row in signals])
    scale = matrix.std(axis=0) + 1e-9
    model = LogisticRegression(C=0.3, max_iter=5000).fit(matrix / scale, targets, sample_weight=weights)
    return {"intercept": float(model.intercept_[0])} | {
        name: float(weight) for name, weight in zip(SIGNALS, model.coef_[0] / scale, strict=True)
    }


KIND_SHARES = {"answerable": 0.70, "adversarial": 0.15, "easy": 0.15}
"""What confidence is calibrated for: how many of the questions asked are of each kind."""


def fit(embedder: CachedEmbedder) -> None:
    rows = rows_of(LEARNED, embedder)
    answered = [row for row in rows if row.case.kind == "answerable" and row.hits.any()]
    sizes = Counter(row.case.dataset for row in answered)
    groups = [(row.values, row.hits, len(answered) / (len(sizes) * sizes[row.case.dataset])) for row in answered]
    everything = range(len(FEATURES))
    ranking = with_priors(conditional_logit(groups, list(everything)))
    words = [column for column in everything if FEATURES[column] not in VECTOR_FEATURES]
    preselection = with_priors(conditional_logit(groups, words))
    line = np.polyfit(*zip(*(pair for row in rows for pair in row.best_cosines), strict=True), 1)

    signals, relevant, right, weights = [], [], [], []
    kinds = Counter(row.case.kind for row in rows)
    for row in rows:
        scores = apply_weights(row.values, ranking)
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        order = np.argsort(-scores, kind="stable")
        signals.append(signals_of(row.measured, row.values, scores))
        relevant.append(row.case.kind == "answerable")
        right.append(bool(row.hits[order[: quoted_evidence(shares[order])]].any()))
        weights.append(KIND_SHARES[row.case.kind] * len(rows) / kinds[row.case.kind])
    plain = [row.case.kind != "adversarial" for row in rows]
    relevance = logistic(
        [s for s, keep in zip(signals, plain, strict=True) if keep],
        [r for r, keep in zip(relevant, plain, strict=True) if keep],
        [0.5 * sum(plain) / sum(o == r for o, keep in zip(relevant, plain, strict=True) if keep)
         for r, keep in zip(relevant, plain, strict=True) if keep],
    )  # fmt: skip
    confidence = logistic(signals, right, weights)
    easy = [
        1 / (1 + np.exp(-relevance["intercept"] - sum(relevance[name] * s[name] for name in SIGNALS)))
        for s, row in zip(signals, rows, strict=True)
        if row.case.kind == "easy"
    ]
    print(render(preselection, ranking, line, relevance, confidence, float(np.quantile(easy, 0.95))))


HEADING_PRIOR = 0.5
"""No set has headings, so their weight is set, not learned: this share of what a neighbouring sentence's words weigh."""


def with_priors(weights: dict[str, float]) -> dict[str, float]:
    return weights | {"heading_recall": HEADING_PRIOR * weights["neighbour_recall"]}


def render(
    preselection: dict[str, float],
    ranking: dict[str, float],
    line: np.ndarray,
    relevance: dict[str, float],
    confidence: dict[str, float],
    threshold: float,
) -> str:
    def table(name: str, weights: dict[str, float], doc: str) -> str:
        rows = "\n".join(f'    "{key}": {value:.3f},' for key, value in weights.items())
        return f'{name}: Final[Weights] = {{\n{rows}\n}}\n"""{doc}"""\n'

    return "\n".join(
        [
            '"""Learned weights of the offline reader.',
            "",
            "Made by `python benchmarks/offline_reader.py fit`; its head says from what. Not to be edited by hand.",
            '"""',
            "",
            "from __future__ import annotations",
            "",
            "from collections.abc import Mapping",
            "from typing import Final",
            "",
            "Weights = Mapping[str, float]",
            "",
            table(
                "PRESELECTION", preselection, "Which candidates are worth a vector: conditional logit without vectors."
            ),
            table(
                "RANKING",
                ranking,
                "Which candidate answers: conditional logit, each set of questions weighing the same.",
            ),
            f"PASSAGE_COSINE_FROM_BEST: Final = ({line[0]:.3f}, {line[1]:.3f})",
            '"""Slope and intercept: a passage\'s cosine from that of its best candidate (least squares)."""',
            "",
            table("RELEVANCE", relevance, "Whether the question is about this document: answerable against easy ones."),
            table("CONFIDENCE", confidence, "Whether what is quoted answers the question."),
            f"FOUND_THRESHOLD: Final = {threshold:.3f}",
            '"""Relevance below which nothing is quoted: 95 % of the questions about other documents are below it."""',
        ]
    )


# --- report ----------------------------------------------------------------------------------------------------------


def report(embedder: CachedEmbedder) -> None:
    from sklearn.metrics import roc_auc_score

    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    results = []
    took: list[float] = []
    for case, passages in with_passages(list(SETS), embedder):
        if not case.held_out and case.dataset in LEARNED:
            continue
        started = time.perf_counter()
        ranking = rank_evidence(Question.of(case.question), passages, embedder)
        took.append(time.perf_counter() - started)
        hits = [is_hit(evidence.candidate.text, case.golds) for evidence in ranking.evidence]
        count = quoted_evidence(np.array([evidence.share for evidence in ranking.evidence]))
        reachable = any(is_hit(candidate.text, case.golds) for candidate in candidates_of(passages))
        results.append((case, ranking, hits, count, reachable))
    embedder.save()
    threshold = evidence_weights.FOUND_THRESHOLD
    print(
        f"\n{'answerable':14}{'n':>6}{'in passages':>13}{'hit@1':>8}{'hit@3':>8}{'quoted':>8}{'quotes':>8}{'not found':>11}"
    )
    for name in SETS:
        own = [result for result in results if result[0].dataset == name and result[0].kind == "answerable"]
        figures = (
            np.mean([reachable for *_, reachable in own]),
            np.mean([any(hits[:1]) for _, _, hits, _, _ in own]),
            np.mean([any(hits[:3]) for _, _, hits, _, _ in own]),
            np.mean([any(hits[:count]) for _, _, hits, count, _ in own]),
        )
        print(
            f"{name:14}{len(own):6}{figures[0]:13.3f}{figures[1]:8.3f}{figures[2]:8.3f}{figures[3]:8.3f}"
            f"{np.mean([count for *_, count, _ in own]):8.2f}"
            f"{np.mean([ranking.relevance < threshold for _, ranking, *_ in own]):11.3f}"
        )
    print(f"\n{'unanswerable':26}{'n':>6}{'not found':>11}{'ROC AUC':>9}{'balanced accuracy':>19}")
    for name in SETS:
        for kind in ("easy", "adversarial"):
            own = [r for r in results if r[0].dataset == name and r[0].kind in {kind, "answerable"}]
            negatives = [r for r in own if r[0].kind == kind]
            if not negatives:
                continue
            score = [r[1].relevance if kind == "easy" else r[1].confidence for r in own]
            positive = [r[0].kind == "answerable" for r in own]
            kept = np.array([r[1].relevance >= threshold for r in own])
            truth = np.array(positive)
            balanced = (kept[truth].mean() + (~kept[~truth]).mean()) / 2
            print(
                f"{name + ' ' + kind:26}{len(negatives):6}{(~kept[~truth]).mean():11.3f}"
                f"{roc_auc_score(positive, score):9.3f}{balanced:19.3f}"
            )
    print("\nsquad: the threshold's trade-off (share said to be not found)")
    own = [r for r in results if r[0].dataset == "squad"]
    print(f"{'relevance below':>16}{'answerable':>12}{'adversarial':>13}{'easy':>8}")
    for level in (0.05, 0.1, 0.2, threshold, 0.5, 0.7, 0.9, 0.95, 0.98):
        shares = [np.mean([r[1].relevance < level for r in own if r[0].kind == kind]) for kind in KIND_SHARES]
        print(f"{level:16.3f}{shares[0]:12.3f}{shares[1]:13.3f}{shares[2]:8.3f}")
    print("\nconfidence (0-5) and how often what is quoted answers, kinds weighed 70/15/15")
    counts = Counter((r[0].dataset in LEARNED, r[0].kind) for r in results)
    for learned in (True, False):
        print("sets the weights were learned on (other half)" if learned else "other sets")
        for low in range(5):
            inside = [
                (KIND_SHARES[r[0].kind] / counts[learned, r[0].kind], any(r[2][: r[3]]), r[1].confidence)
                for r in results
                if (r[0].dataset in LEARNED) == learned and low <= 5 * r[1].confidence < low + 1
            ]
            weight = sum(w for w, _, _ in inside)
            if weight:
                accuracy, mean = sum(w * h for w, h, _ in inside) / weight, sum(w * c for w, _, c in inside) / weight
                print(f"  {low}-{low + 1}: n={len(inside):5}  mean {5 * mean:.2f}  right {5 * accuracy:.2f} of 5")
    print(f"\nranking without vectors: median {1e3 * np.median(took):.1f} ms a question")
    financebench(embedder)


def financebench(embedder: CachedEmbedder) -> None:
    """Filings: whether a quote comes from a gold page, and how much more is asked of other companies' filings."""
    rows = [json.loads(line) for line in (DATA / "financebench/questions.jsonl").read_text().splitlines()]
    names = sorted({row["doc_name"] for row in rows})
    finders: dict[str, tuple[Document, Finder]] = {}
    for name in names:
        document = load(DATA / "financebench/pdfs" / f"{name}.pdf")
        finders[name] = document, Finder(document, embedder)
        embedder.save()
    page, text, found, foreign = [], [], [], []
    for number, row in enumerate(rows):
        document, finder = finders[row["doc_name"]]
        ranking = rank_evidence(Question.of(row["question"]), finder.passages(row["question"]), embedder)
        golds = {evidence["evidence_page_num"] + 1 for evidence in row["evidence"]}
        quoted = ranking.evidence[: quoted_evidence(np.array([e.share for e in ranking.evidence]))]
        page.append(any(p.number in golds for e in quoted for p in document.pages_of(e.candidate.span)))
        text.append(
            any(is_hit(e.candidate.text, [evidence["evidence_text"]]) for evidence in row["evidence"] for e in quoted)
        )
        found.append(ranking.relevance >= evidence_weights.FOUND_THRESHOLD)
        other = finders[names[(names.index(row["doc_name"]) + 1 + number) % len(names)]][1]
        elsewhere = rank_evidence(Question.of(row["question"]), other.passages(row["question"]), embedder)
        foreign.append(elsewhere.relevance < evidence_weights.FOUND_THRESHOLD)
    embedder.save()
    print(
        f"\nfinancebench, {len(rows)} questions: quote on a gold page {np.mean(page):.3f}, in the gold text {np.mean(text):.3f}, "
        f"found {np.mean(found):.3f}; asked of another filing: not found {np.mean(foreign):.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fit", "report"])
    parser.add_argument("--cache", type=Path, default=Path("/tmp/lcdoc-offline-reader.pickle"))
    arguments = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"{DATA} is not there; set LCDOC_DATA to the folder with the data sets")
    embedder = CachedEmbedder(arguments.cache)
    (fit if arguments.what == "fit" else report)(embedder)


if __name__ == "__main__":
    main()
