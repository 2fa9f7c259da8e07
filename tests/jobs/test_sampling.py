"""Totals from samples."""

import random

import pytest

from lcdoc.jobs.sampling import Amount, Sample


def shares(made, size):
    return size * made.uniform(0.5, 1.5)


def of_two_kinds(made, size):
    """Plain text has more pages for its bytes than scans have."""
    return size * (made.uniform(5, 8) if made.random() < 0.4 else made.uniform(0.2, 0.5))


def whatever_the_size(made, _size):
    return made.lognormvariate(2, 0.7)


@pytest.mark.parametrize("figure", [shares, of_two_kinds, whatever_the_size])
def test_a_range_holds_the_truth_about_as_often_as_it_says(figure):
    held = off = 0.0
    trials = 200
    for trial in range(trials):
        made = random.Random(trial)
        sizes = sorted(made.lognormvariate(3, 1.2) for _ in range(400))
        figures = [figure(made, size) for size in sizes]
        sample = Sample(sizes, 20)
        amount = sample.total([figures[index] for index in sample.indexes])
        held += amount.low <= sum(figures) <= amount.high
        off += amount.likely / sum(figures) - 1
    assert held / trials >= 0.85
    assert abs(off / trials) < 0.1


def test_what_was_all_seen_has_no_range():
    whole = Sample([1, 2, 3], None)
    assert whole.indexes == [0, 1, 2]
    assert whole.total([1, 2, 3]) == Amount(6, 6, 6)
    assert Sample([1, 2, 3], 9).total([1, 2, 3]) == Amount(6, 6, 6)
    assert Sample([5, 5, 5, 5], 1).total([10]) == Amount(40, 10, 80)
    assert Sample([7] * 300, 3).total([5, 5, 5]) == Amount(1500, 1500, 1500)
    assert Amount(4, 2, 6).over(2) == Amount(2, 1, 3)


def test_what_is_not_known_of_some_is_reckoned_from_the_others():
    sample = Sample([10.0 * number for number in range(1, 101)], 10)
    assert sample.total([None] * 10) is None
    values = [2.0 * 10 * (index + 1) for index in sample.indexes]
    assert sample.total(values).likely == pytest.approx(2 * 50_500)
    some = [None if number % 3 else value for number, value in enumerate(values)]
    assert sample.total(some).likely == pytest.approx(2 * 50_500)


def test_files_without_bytes_and_figures_of_nothing_do():
    sample = Sample([0.0] * 10, 2)
    assert sample.total([0, 0]) == Amount(0, 0, 0)
    assert sample.total([1, 0]).likely == 5
