"""Intervals, differences and risk against coverage: values worked out by hand, and what must hold of them."""

import numpy as np
import pytest

from lcdoc.evaluation.statistics import mean_of, paired_difference, risk_coverage_area, risk_coverage_of


def test_the_interval_of_independent_questions_is_the_textbook_one() -> None:
    values = np.random.default_rng(1).binomial(1, 0.3, size=400).astype(float)
    estimate = mean_of(values, range(400))
    half = 1.96 * values.std() / 20
    assert estimate.value == values.mean()
    assert estimate.low == pytest.approx(values.mean() - half, abs=0.01)
    assert estimate.high == pytest.approx(values.mean() + half, abs=0.01)


def test_questions_of_one_document_count_as_one_draw() -> None:
    # Ten documents, all of their questions right or all wrong: as unsure as ten questions, not as a hundred.
    values = [float(document % 2) for document in range(10) for _ in range(10)]
    documents = [document for document in range(10) for _ in range(10)]
    together, apart = mean_of(values, documents), mean_of(values, range(100))
    assert together.documents == 10
    assert together.high - together.low > 2 * (apart.high - apart.low)


def test_one_document_is_drawn_question_by_question() -> None:
    estimate = mean_of([0.0, 1.0] * 20, ["only"] * 40)
    assert 0.3 < estimate.low < 0.5 < estimate.high < 0.7


def test_a_paired_difference_sees_what_two_intervals_hide() -> None:
    rng = np.random.default_rng(2)
    hard = rng.uniform(0, 0.9, size=100)
    better = paired_difference(hard, hard + 0.05, range(100))
    assert better.estimate.value == pytest.approx(0.05)
    assert better.estimate.low > 0
    assert better.p < 0.01
    noise = paired_difference(hard, hard + rng.permutation([0.1, -0.1] * 50), range(100))
    assert noise.estimate.low < 0 < noise.estimate.high
    assert noise.p > 0.5


def test_few_documents_cannot_show_more_than_they_could_by_their_signs() -> None:
    three = paired_difference([0.0] * 30, [1.0] * 30, [number // 10 for number in range(30)])
    assert (three.estimate.value, three.p) == (1.0, 0.25)


def test_equal_runs_do_not_differ() -> None:
    same = paired_difference([0.2, 0.8], [0.2, 0.8], "ab")
    assert (same.estimate.value, same.p) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("confidences", "scores", "area"),
    [
        # the right ones first: risks 0, 0, 1/3, 2/4
        ([4, 3, 2, 1], [1, 1, 0, 0], (1 / 3 + 1 / 2) / 4),
        # the wrong ones first: risks 1, 1, 2/3, 2/4
        ([1, 2, 3, 4], [1, 1, 0, 0], (1 + 1 + 2 / 3 + 1 / 2) / 4),
        # nothing known of the order: the mean error throughout
        ([5, 5, 5, 5], [1, 0, 0, 1], 0.5),
        ([1], [0.25], 0.75),
    ],
)
def test_risk_coverage_area(confidences: list[float], scores: list[float], area: float) -> None:
    assert risk_coverage_area(confidences, scores) == pytest.approx(area)
    assert risk_coverage_of(confidences, scores, range(len(scores))).value == pytest.approx(area)
