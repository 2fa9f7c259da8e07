"""How well the offline reader picks evidence, says "not found", knows how sure it may be; how its weights are made.

    python benchmarks/offline_reader.py report      # held-out figures with the weights of the package
    python benchmarks/offline_reader.py fit         # learn them anew; prints agents/evidence_weights.py

The questions are those of `reader_cases.py`. Each set is halved by document: weights are learned on one half,
everything is reported on the other; policyqa and financebench are not learned from at all. Passages: the package's
chunks, 8 of them, by reciprocal rank fusion of cosine and tf-idf. Vectors are cached in --cache. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lcdoc.agents import evidence_weights
from lcdoc.agents.candidates import candidates_of
from lcdoc.agents.evidence import FEATURES, VECTOR_FEATURES, Floats, Measured, measure_words, with_vectors
from lcdoc.agents.evidence_ranking import (
    SIGNALS,
    apply_weights,
    passage_cosines,
    rank_evidence,
    signals_of,
)
from lcdoc.agents.offline_reader import quoted_evidence
from lcdoc.agents.questions import Question
from lcdoc.agents.reader import Passage
from lcdoc.benchmarks.reader_cases import DATA, SETS, CachedEmbedder, Case, Finder, cases, is_hit
from lcdoc.documents import Document, load

RANKED = ("squad", "tatqa", "covid_qa", "ohr_bench")
"""Sets that the order of sentences is learned from: their golds are the source's words."""
LEARNED = (*RANKED, "fairytaleqa")
"""Sets that relevance and confidence are learned from."""
KIND_SHARES = {"answerable": 0.70, "adversarial": 0.15, "easy": 0.15}
"""What confidence is calibrated for: how many of the questions asked are of each kind."""
EASY_REFUSED = 0.93
"""Share of the questions about something else that the threshold refuses."""
HEADING_PRIOR = 0.5
"""No set has headings: their weight is not learned, but this share of what a neighbouring sentence's words weigh."""


def with_passages(names: Sequence[str], embedder: CachedEmbedder) -> Iterator[tuple[Case, list[Passage]]]:
    """Each case with the passages a reader is given."""
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
        vectors = embedder.embed([question.core, *(candidate.text for candidate in candidates)])
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


def conditional_logit(groups: Sequence[tuple[Floats, np.ndarray, float]], names: Sequence[str]) -> dict[str, float]:
    """Weights w that maximise the probability, under softmax(X w), that the candidate drawn is one that hits.

    Groups are (X, which candidates hit, weight of the group); the columns of X are `names`.
    """
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    stacked = np.concatenate([values for values, _, _ in groups]).astype(np.float64)
    scale = stacked.std(axis=0) + 1e-9
    scaled = [(values / scale, hits, weight) for values, hits, weight in groups]
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

    found = minimize(loss, np.zeros(len(names)), jac=True, method="L-BFGS-B")
    return dict(zip(names, found.x / scale, strict=True))


def logistic(
    signals: Sequence[dict[str, float]],
    targets: Sequence[bool],
    weights: Sequence[float],
    names: Sequence[str] = SIGNALS,
) -> dict[str, float]:
    """Weights and intercept of the logistic function that gives the probability of `targets` from `names`."""
    from sklearn.linear_model import LogisticRegression

    matrix = np.array([[row[name] for name in names] for row in signals])
    scale = matrix.std(axis=0) + 1e-9
    model = LogisticRegression(C=0.3, max_iter=5000).fit(matrix / scale, targets, sample_weight=weights)
    return {"intercept": float(model.intercept_[0])} | {
        name: float(weight) for name, weight in zip(names, model.coef_[0] / scale, strict=True)
    }


def fit(embedder: CachedEmbedder) -> None:
    """Print evidence_weights.py, learned on the calibration halves."""
    rows = rows_of(LEARNED, embedder)
    answered = [row for row in rows if row.case.dataset in RANKED and row.case.kind == "answerable" and row.hits.any()]
    sizes = Counter(row.case.dataset for row in answered)
    groups = [(row.values, row.hits, 1 / sizes[row.case.dataset]) for row in answered]
    ranking = with_priors(conditional_logit(groups, FEATURES))
    words = [column for column, name in enumerate(FEATURES) if name not in VECTOR_FEATURES]
    of_words = [(values[:, words], hits, weight) for values, hits, weight in groups]
    preselection = with_priors(conditional_logit(of_words, [FEATURES[column] for column in words]))
    line = np.polyfit(*zip(*(pair for row in rows for pair in row.best_cosines), strict=True), 1)

    signals: list[dict[str, float]] = []
    right: list[bool] = []
    for row in rows:
        scores = apply_weights(row.values, ranking)
        shares = np.exp(scores - scores.max())
        order = np.argsort(-scores, kind="stable")
        signals.append(signals_of(row.measured, row.values, scores))
        right.append(bool(row.hits[order[: quoted_evidence(shares[order] / shares.sum())]].any()))
    counts = Counter((row.case.dataset, row.case.kind) for row in rows)
    kinds = Counter(row.case.kind for row in rows)
    # Sets weigh alike inside each kind; kinds weigh as they are expected to be asked.
    weights = [
        KIND_SHARES[row.case.kind] / counts[row.case.dataset, row.case.kind] * len(rows) / len(LEARNED) for row in rows
    ]
    confidence = logistic(signals, right, weights)
    plain = [index for index, row in enumerate(rows) if row.case.kind != "adversarial"]
    relevance = logistic(
        [signals[index] for index in plain],
        [rows[index].case.kind == "answerable" for index in plain],
        [weights[index] / KIND_SHARES[rows[index].case.kind] / 2 for index in plain],
    )
    easy = [
        1 / (1 + np.exp(-relevance["intercept"] - sum(relevance[name] * signals[index][name] for name in SIGNALS)))
        for index in plain
        if rows[index].case.kind == "easy"
    ]
    print(
        f"# questions: {dict(kinds)}; level below which easy ones are:", np.quantile(easy, [0.5, 0.8, 0.9, 0.95, 0.98])
    )
    print(render(preselection, ranking, line, relevance, confidence, float(np.quantile(easy, EASY_REFUSED))))


def with_priors(weights: dict[str, float]) -> dict[str, float]:
    return weights | {"heading_recall": HEADING_PRIOR * weights["neighbour_recall"]}


def render(  # noqa: PLR0917
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
            '"""Relevance below which nothing is quoted; '
            f'{EASY_REFUSED:.0%} of the questions about something else are below it."""',
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
    columns = f"{'in passages':>13}{'hit@1':>8}{'hit@3':>8}{'quoted':>8}{'quotes':>8}{'not found':>11}"
    print(f"\n{'answerable':14}{'n':>6}{columns}")
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
        print("sets the weights were learned on (their other half)" if learned else "policyqa")
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
        f"\nfinancebench, {len(rows)} questions: quote on a gold page {np.mean(page):.3f}, "
        f"in the gold text {np.mean(text):.3f}, found {np.mean(found):.3f}; "
        f"asked of another filing: not found {np.mean(foreign):.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fit", "report"])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir(), "lcdoc-offline-reader.pickle"))
    arguments = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"{DATA} is not there; set LCDOC_DATA to the folder with the data sets")
    embedder = CachedEmbedder(arguments.cache)
    (fit if arguments.what == "fit" else report)(embedder)


if __name__ == "__main__":
    main()
