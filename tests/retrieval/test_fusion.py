"""Rankings made one, and kept from repeating themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcdoc.retrieval.diversity import most_relevant_and_different
from lcdoc.retrieval.fusion import COSINE_WEIGHT, blend, reciprocal_rank
from lcdoc.retrieval.numbers import numeracy, wants_number

NAN = float("nan")


def test_reciprocal_rank_is_the_formula_of_the_paper():
    scores = reciprocal_rank({"a": ["x", "y"], "b": ["y", "z"]})
    assert scores == pytest.approx({"x": 1 / 61, "y": 1 / 62 + 1 / 61, "z": 1 / 62})
    assert reciprocal_rank({}) == {}


def test_weights_say_what_a_ranking_counts():
    scores = reciprocal_rank({"a": ["x"], "b": ["y"]}, weights={"a": 1.0, "b": 3.0}, constant=0)
    assert scores == {"x": 1.0, "y": 3.0}


@given(st.lists(st.integers(0, 30), unique=True, min_size=1), st.lists(st.integers(0, 30), unique=True))
def test_an_item_ahead_in_every_ranking_stays_ahead(first, second):
    scores = reciprocal_rank({"a": first, "b": second})
    assert set(scores) == {*first, *second}
    for earlier in first:
        for later in first[first.index(earlier) + 1 :]:
            if later not in second or (earlier in second and second.index(earlier) < second.index(later)):
                assert scores[earlier] > scores[later]


def test_a_blend_adds_words_and_meaning():
    relevance = blend(np.array([0.5, 0.0]), np.array([0.2, 0.9]))
    assert relevance == pytest.approx([(0.5 + COSINE_WEIGHT * 0.2) / (1 + COSINE_WEIGHT), COSINE_WEIGHT * 0.9 / 1.6])


def test_without_a_vector_a_passage_is_as_far_off_as_the_farthest():
    assert list(blend(np.array([0.5, 0.5, 0.5]), np.array([0.7, NAN, 0.1]))) == pytest.approx(
        list(blend(np.array([0.5, 0.5, 0.5]), np.array([0.7, 0.1, 0.1])))
    )
    assert list(blend(np.array([0.4, 0.8]), np.array([NAN, NAN]))) == pytest.approx([0.25, 0.5])


def test_what_was_said_already_comes_later():
    vectors = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    relevance = np.array([0.9, 0.89, 0.8])
    assert most_relevant_and_different(relevance, vectors, 3, trade_off=0.7) == [0, 2, 1]
    assert most_relevant_and_different(relevance, vectors, 3, trade_off=1.0) == [0, 1, 2]
    assert most_relevant_and_different(relevance, vectors, 1, trade_off=0.7) == [0]


def test_passages_without_vectors_are_like_nothing():
    vectors = np.zeros((3, 2), dtype=np.float32)
    assert most_relevant_and_different(np.array([0.1, 0.3, 0.2]), vectors, 9, trade_off=0.5) == [1, 2, 0]
    assert most_relevant_and_different(np.zeros(0), np.zeros((0, 2), dtype=np.float32), 5, trade_off=0.5) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(1, 15), st.floats(0, 1))
def test_every_candidate_is_chosen_at_most_once(relevance, k, trade_off):
    vectors = np.random.default_rng(0).normal(size=(len(relevance), 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    chosen = most_relevant_and_different(np.array(relevance), vectors, k, trade_off=trade_off)
    assert len(chosen) == len(set(chosen)) == min(k, len(relevance))
    assert relevance[chosen[0]] == max(relevance) or trade_off < 1e-9


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("How many shares were sold?", True),
        ("What is the gross margin?", True),
        ("What percentage of patients recovered?", True),
        ("Is it more than 5 %?", True),
        ("Who signed the lease?", False),
        ("Why did she leave?", False),
        ("Is the operator accurate?", False),
        ("", False),
    ],
)
def test_which_questions_want_a_number(question, wanted):
    assert wants_number(question) is wanted


def test_a_table_of_figures_has_more_numeracy_than_prose():
    assert numeracy("") == 0
    assert numeracy("She left in the spring.") == 0
    assert 0 < numeracy("In 1931 the last ship called at the pier and left again.") < 1
    assert numeracy("Net sales 1,234 1,180\nCost of sales (802) (771)") == 1
