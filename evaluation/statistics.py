"""How sure a mean is: bootstrap intervals, paired differences, risk against coverage.

Questions about one document are alike, so whole documents are drawn, not questions ("An Introduction to the Bootstrap",
1993, chapter 8); where there is but one document, its questions are. Intervals are percentile intervals of 95 %.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 2_000
_AT_ONCE = 200
"""So that the samples of ten thousand questions fit in memory."""
Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, and the 95 % interval around it."""

    value: float
    low: float
    high: float
    questions: int
    documents: int


@dataclass(frozen=True, slots=True)
class Difference:
    """How much more the second of two runs has than the first, on the questions that both have."""

    estimate: Estimate
    p: float
    """Two-sided: how often chance alone would give a difference as far from 0. Never below 1 / resamples, nor below
    2 ** (1 - documents), which is all that so many documents can show if every one of them points the same way."""


def mean_of(values: Sequence[float], documents: Sequence[Hashable], *, seed: int = 0) -> Estimate:
    """The mean of one figure a question; `documents` says of which document each question is. Not for no values."""
    figures = np.asarray(values, dtype=np.float64)
    return _estimate(float(figures.mean()), _resampled_means(figures, documents, seed), documents)


def risk_coverage_of(
    confidences: Sequence[float], scores: Sequence[float], documents: Sequence[Hashable], *, seed: int = 0
) -> Estimate:
    """`risk_coverage_area` with its interval."""
    sure, right = np.asarray(confidences, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    owners, _ = _numbered(documents)
    every = np.arange(len(owners))
    drawn = (np.repeat(every, row[owners]) for times in _times_drawn(documents, seed) for row in times)
    draws = np.array([risk_coverage_area(sure[places], right[places]) for places in drawn])
    return _estimate(risk_coverage_area(sure, right), draws, documents)


def paired_difference(
    first: Sequence[float], second: Sequence[float], documents: Sequence[Hashable], *, seed: int = 0
) -> Difference:
    """The mean of `second` minus that of `first`, question by question; both in the same order."""
    gains = np.asarray(second, dtype=np.float64) - np.asarray(first, dtype=np.float64)
    draws = _resampled_means(gains, documents, seed)
    tail = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    least = 2.0 ** (1 - _numbered(documents)[1])
    return Difference(
        _estimate(float(gains.mean()), draws, documents), min(1.0, max(least, 2 * (tail + 1) / (len(draws) + 1)))
    )


def risk_coverage_area(confidences: Sequence[float] | Floats, scores: Sequence[float] | Floats) -> float:
    """Area under the risk-coverage curve: the error (1 - score) of the k surest answers, averaged over every k.

    0 is perfect; sorting by chance gives the mean error.
    """
    return float(risk_by_coverage(confidences, scores).mean())


def risk_by_coverage(confidences: Sequence[float] | Floats, scores: Sequence[float] | Floats) -> Floats:
    """The mean error (1 - score) of the k surest answers, for k from 1 to all.

    Answers of equal confidence come in no order: each has the error of their mean ("Selective Classification for Deep
    Neural Networks", 2017).
    """
    sure, errors = np.asarray(confidences, dtype=np.float64), 1.0 - np.asarray(scores, dtype=np.float64)
    _, group = np.unique(-sure, return_inverse=True)
    shared = (np.bincount(group, errors) / np.bincount(group))[group]
    ordered = shared[np.argsort(group, kind="stable")]
    risks: Floats = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    return risks


def _resampled_means(figures: Floats, documents: Sequence[Hashable], seed: int) -> Floats:
    """Means of RESAMPLES samples of the questions, each of as many documents as there are."""
    owners, clusters = _numbered(documents)
    sums, counts = np.bincount(owners, figures, clusters), np.bincount(owners, minlength=clusters)
    return np.concatenate([(times @ sums) / (times @ counts) for times in _times_drawn(documents, seed)])


def _times_drawn(documents: Sequence[Hashable], seed: int) -> Iterator[Places]:
    """How often each document is in each of RESAMPLES samples: (samples, documents), some samples at a time."""
    _, clusters = _numbered(documents)
    rng = np.random.default_rng(seed)
    for _ in range(0, RESAMPLES, _AT_ONCE):
        yield rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=_AT_ONCE)


def _numbered(documents: Sequence[Hashable]) -> tuple[Places, int]:
    """What each question is drawn with, by number, and how many there are to draw from."""
    numbers = {document: number for number, document in enumerate(dict.fromkeys(documents))}
    if len(numbers) == 1:
        return np.arange(len(documents)), len(documents)
    return np.array([numbers[document] for document in documents], dtype=np.intp), len(numbers)


def _estimate(value: float, draws: Floats, documents: Sequence[Hashable]) -> Estimate:
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(value, float(low), float(high), len(documents), len(set(documents)))
