"""Candidates put in order of how likely each answers the question, and how far the whole search can be trusted.

Words are measured for every candidate; only the most promising are embedded, since vectors cost a thousand times more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lcdoc.agents.candidates import Candidate, candidates_of
from lcdoc.agents.evidence import COLUMN, FEATURES, Floats, Measured, measure_words, with_vectors
from lcdoc.agents.evidence_weights import (
    CONFIDENCE,
    FOUND_THRESHOLD,
    PASSAGE_COSINE_FROM_BEST,
    PRESELECTION,
    RANKING,
    RELEVANCE,
    Weights,
)
from lcdoc.agents.questions import Question
from lcdoc.agents.reader import Passage
from lcdoc.documents import Span
from lcdoc.retrieval.embedders import Embedder

EMBEDDED_CHARACTERS = 4_500
"""Characters of candidates embedded for one question: about 1,000 tokens, 0.2 s on two cores. With 8 passages of 700
characters it keeps an answering sentence for 99 questions in 100 that have one."""

SIGNALS = (
    "score",
    "margin",
    "share",
    "cosine",
    "best_cosine",
    "recall",
    "nearby_recall",
    "pairs",
    "absent",
    "absent_names",
    "names_missing_nearby",
    "best_passage_cosine",
    "fits",
)
"""What is known of a question after ranking, by which relevance and confidence are judged."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """The words of a candidate that answer, on one line, and by how much they beat "no answer" (a log-odds)."""

    span: Span
    text: str
    margin: float


@dataclass(frozen=True)
class Evidence:
    """A candidate with its rank score and its share: the probability that it answers, if any of them does."""

    candidate: Candidate
    score: float
    share: float
    phrases: tuple[Phrase, ...] = ()
    """What the span reader found in it, where it was asked, best first: see `phrases`."""

    @property
    def phrase(self) -> Phrase | None:
        return self.phrases[0] if self.phrases else None


@dataclass(frozen=True)
class Ranking:
    """Candidates, best first; how probably they are about the question's subject, and the best of them answer it."""

    evidence: tuple[Evidence, ...]
    relevance: float
    confidence: float
    signals: dict[str, float]
    threshold: float = FOUND_THRESHOLD
    """Relevance below which nothing is quoted."""

    @property
    def found(self) -> bool:
        return bool(self.evidence) and self.relevance >= self.threshold


def rank_evidence(question: Question, passages: Sequence[Passage], embedder: Embedder) -> Ranking:
    """The best candidates of `passages` (most relevant passage first) for `question`.

    Passages may be of several documents. Raises what the embedder raises.
    """
    candidates = candidates_of(passages)
    if not candidates or not question.stems:
        return Ranking((), 0.0, 0.0, {})
    measured = measure_words(question, passages, candidates)
    chosen = preselect(measured, candidates)
    candidates = [candidates[index] for index in chosen]
    vectors = embedder.embed([question.core, *(candidate.text for candidate in candidates)])
    cosines = vectors[1:] @ vectors[0]
    kept = Measured(measured.values[chosen], measured.absent, measured.absent_names)
    values = with_vectors(kept, cosines, passage_cosines(passages, candidates, cosines))
    scores = apply_weights(values, RANKING)
    shares = np.exp(scores - scores.max())
    shares /= shares.sum()
    order = np.argsort(-scores, kind="stable")
    signals = signals_of(kept, values, scores)
    return Ranking(
        tuple(Evidence(candidates[index], float(scores[index]), float(shares[index])) for index in order),
        relevance=_probability(signals, RELEVANCE),
        confidence=_probability(signals, CONFIDENCE),
        signals=signals,
    )


def preselect(measured: Measured, candidates: Sequence[Candidate]) -> list[int]:
    """Indices, ascending, of the candidates worth a vector: the best by words that fit into `EMBEDDED_CHARACTERS`."""
    scores = apply_weights(measured.values, PRESELECTION)
    chosen: list[int] = []
    left = EMBEDDED_CHARACTERS
    for index in np.argsort(-scores, kind="stable").tolist():
        left -= len(candidates[index].text)
        if left < 0 and chosen:
            break
        chosen.append(index)
    return sorted(chosen)


def passage_cosines(passages: Sequence[Passage], candidates: Sequence[Candidate], cosines: Floats) -> Floats:
    """For each candidate, the cosine of its passage; where that is not known, an estimate from its best candidate."""
    best: dict[int, float] = {}
    for candidate, cosine in zip(candidates, cosines.tolist(), strict=True):
        best[candidate.passage] = max(best.get(candidate.passage, -1.0), cosine)
    slope, intercept = PASSAGE_COSINE_FROM_BEST
    known = {
        index: slope * value + intercept if (given := passages[index].cosine) is None else given
        for index, value in best.items()
    }
    return np.array([known[candidate.passage] for candidate in candidates], dtype=np.float32)


def signals_of(measured: Measured, values: Floats, scores: Floats) -> dict[str, float]:
    """The `SIGNALS` of a question whose candidates have these features and rank scores."""
    order = np.argsort(-scores, kind="stable")
    shares = np.exp(scores - scores.max())
    best = {name: float(values[order[0], column]) for name, column in COLUMN.items()}
    return {
        "score": float(scores[order[0]]),
        "margin": float(scores[order[0]] - scores[order[1]]) if len(order) > 1 else 0.0,
        "share": float(shares.max() / shares.sum()),
        "cosine": best["cosine"],
        "best_cosine": float(values[:, COLUMN["cosine"]].max()),
        "recall": best["recall"],
        "nearby_recall": best["recall"] + max(best["neighbour_recall"], best["heading_recall"]),
        "pairs": best["pairs"],
        "absent": measured.absent,
        "absent_names": measured.absent_names,
        "names_missing_nearby": best["names_missing_nearby"],
        "best_passage_cosine": float(values[:, COLUMN["passage_cosine"]].max()),
        "fits": best["figure_fits"] + best["name_fits"] + best["clause_fits"],
    }


def apply_weights(values: Floats, weights: Weights) -> Floats:
    """The weighted sum of each row of features."""
    return values @ np.array([weights.get(name, 0.0) for name in FEATURES], dtype=np.float32)


def _probability(signals: Mapping[str, float], weights: Weights) -> float:
    total = weights["intercept"] + sum(weights.get(name, 0.0) * value for name, value in signals.items())
    return float(1 / (1 + np.exp(-total)))
