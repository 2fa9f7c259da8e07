"""What a caller knows of a prompt's tokens, and what recipes make of it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lcdoc.local_engine.compression.marks import Marks
from lcdoc.local_engine.errors import InvalidRequestError

PLACES = torch.arange(12).view(1, 2, 6)
ALL = Marks(protected=[(2, 4), (3, 5)], headings=[(9, 11)], sentence_starts=[0, 8])


def kept(marks: Marks) -> list[int]:
    return PLACES[marks.kept(PLACES)].tolist()


def test_a_recipe_says_what_of_it_is_protected():
    assert kept(ALL.settled("named", 100)) == [2, 3, 4]
    assert kept(ALL.settled("headings", 100)) == [2, 3, 4, 9, 10]
    assert kept(ALL.settled("starts", 100)) == [0, 2, 3, 4, 8]
    assert kept(ALL.settled("none", 100)) == []
    assert all(ALL.settled(how, 100).begins(PLACES).sum() == 2 for how in ("named", "none"))


def test_half_of_a_budget_is_protected_at_most_what_matters_most_first():
    assert kept(ALL.settled("headings", 13)) == [2, 3, 4, 9, 10]
    assert kept(ALL.settled("headings", 11)) == [2, 3, 4]
    assert kept(ALL.settled("starts", 11)) == [0, 2, 3, 4]
    assert kept(ALL.settled("named", 7)) == [2, 3]
    assert kept(ALL.settled("starts", 3)) == [0]
    assert kept(ALL.settled("named", 1)) == []


def test_nothing_named_is_nothing_kept():
    for protect in ("named", "headings", "starts", "none"):
        assert kept(Marks().settled(protect, 100)) == []
    assert Marks().begins(PLACES) is None


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted), max_size=6))
def test_a_place_is_kept_if_a_range_has_it(ranges):
    places = torch.arange(25)
    found = Marks(protected=[tuple(each) for each in ranges]).kept(places)
    assert found.tolist() == [any(first <= place < end for first, end in ranges) for place in range(25)]


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        (Marks(protected=[(3, 9)]), "tokens 3 to 9 are to be kept, and the prompt has 0 to 8"),
        (Marks(headings=[(5, 4)]), "tokens 5 to 4 are to be kept"),
        (Marks(sentence_starts=[8]), "a sentence begins at token 8, and the prompt has 0 to 7"),
    ],
)
def test_places_outside_the_prompt_are_refused(marks, said):
    with pytest.raises(InvalidRequestError, match=said):
        marks.check(8)
