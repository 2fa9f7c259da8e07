"""Texts grouped by meaning."""

import warnings

import numpy as np
import pytest

from lcdoc.agents.clusters import clusters_of


def blobs(sizes: list[int], *, dimensions: int = 64, spread: float = 0.05) -> np.ndarray:
    """Unit vectors around as many directions, taken in turns, so that neighbours are of different groups."""
    chance = np.random.default_rng(7)
    centres = np.eye(dimensions)[: len(sizes)]
    rows = [(turn, group) for group, size in enumerate(sizes) for turn in range(size)]
    made = np.array([centres[group] + spread * chance.standard_normal(dimensions) for _, group in sorted(rows)])
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def test_what_is_alike_is_in_one_group() -> None:
    vectors = blobs([8, 8, 8])
    groups = clusters_of(vectors, largest=8)
    assert groups == [list(range(first, 24, 3)) for first in range(3)]
    assert clusters_of(vectors, largest=8) == groups


@pytest.mark.parametrize("count", range(8))
def test_few_texts_do_not_fail(count: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        groups = clusters_of(blobs([count]) if count else np.zeros((0, 64), dtype=np.float32), largest=8)
    assert sorted(row for group in groups for row in group) == list(range(count))


@pytest.mark.parametrize("largest", [1, 3, 8])
def test_no_group_is_larger_than_asked_for_and_every_text_is_in_one(largest: int) -> None:
    for vectors in (blobs([20, 5]), np.ones((20, 64), dtype=np.float32)):
        groups = clusters_of(vectors, largest=largest)
        assert max(map(len, groups)) <= largest
        assert sorted(row for group in groups for row in group) == list(range(len(vectors)))


def test_a_group_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        clusters_of(blobs([4]), largest=0)
