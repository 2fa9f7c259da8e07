"""What `auto` takes: the full cache where it fits, else by what the cache is for."""

import pytest

from lcdoc.local_engine.compression.allowance import Allowance
from lcdoc.local_engine.compression.auto import RULES, USES, auto_recipe, longest_prompt
from lcdoc.local_engine.compression.recipe import Recipe
from lcdoc.local_engine.errors import RequestTooLargeError

CHUNK = 512


@pytest.mark.parametrize("use", USES)
def test_the_full_cache_is_kept_where_it_fits(use):
    choice = auto_recipe(use, 1000, 4000, answer=500)
    assert choice.recipe is None
    assert choice.kv == "full"
    assert "1,500 entries a row" in choice.reason


def test_the_full_cache_is_kept_up_to_the_last_entry_of_the_room():
    assert auto_recipe("question", 3500, 4000, answer=500).kv == "full"
    assert auto_recipe("question", 3501, 4000, answer=500).kv != "full"
    # Two questions at once have a document's entries twice.
    assert auto_recipe("document", 2000, 4000).kv == "full"
    assert auto_recipe("document", 2001, 4000).kv != "full"


def test_a_question_and_a_document_take_methods_of_their_own():
    assert auto_recipe("question", 10_000, 8192).kv == "task@0.5"
    assert auto_recipe("question", 20_000, 8192).kv == "task@0.25"
    assert auto_recipe("document", 8_000, 8192).kv == "kvzip:leverage=2.0+global@0.5"
    # Where the whole can be held while it is read, it is cut once, when all of it was seen.
    assert auto_recipe("document", 5_000, 8192).kv == "kvzip:leverage=2.0+global+when=end@0.5"


@pytest.mark.parametrize("use", list(RULES))
@pytest.mark.parametrize("tokens", [4_200, 5_000, 9_000, 12_345, 14_000])
def test_what_is_chosen_fits(use, tokens):
    choice = auto_recipe(use, tokens, 8192, answer=4_000 if use == "question" else 0, chunk=CHUNK)
    assert choice.recipe is not None
    allowance = Allowance(choice.recipe, tokens, CHUNK)
    assert allowance.most(tokens + (4_000 if use == "question" else 0)) <= 8192
    if use == "document":
        assert 2 * allowance.budget(tokens) <= 8192
    assert Recipe.parse(choice.kv) == choice.recipe
    assert choice.recipe.amount.ratio in RULES[use].shares


def test_more_is_kept_where_there_is_more_room():
    shares = [auto_recipe("document", 10_000, room).recipe for room in (8_000, 10_500, 19_000)]
    assert [recipe and recipe.amount.ratio for recipe in shares] == [0.25, 0.5, 0.5]
    assert [recipe and recipe.when for recipe in shares] == ["during", "during", "end"]


def test_nothing_is_dropped_of_a_chat():
    with pytest.raises(RequestTooLargeError, match="drops nothing of a chat") as raised:
        auto_recipe("chat", 9_000, 8192)
    assert "9,000" in str(raised.value)


def test_a_long_answer_has_a_budget_that_does_not_grow():
    choice = auto_recipe("output", 500, 4096, answer=20_000)
    assert choice.kv == "chunkkv@2048tok"
    assert auto_recipe("output", 700, 4096, answer=30_000).kv == choice.kv
    with pytest.raises(RequestTooLargeError, match="raise max_memory"):
        auto_recipe("output", 500, 400, answer=20_000)


@pytest.mark.parametrize("room", [600, 4096, 8192, 100_000])
def test_the_longest_prompt_is_the_longest_that_has_a_recipe(room):
    longest = longest_prompt(room, answer=300)
    assert auto_recipe("question", longest, room, answer=300)
    with pytest.raises(RequestTooLargeError, match="cut the text into parts"):
        auto_recipe("question", longest + 1, room, answer=300)


def test_a_prompt_that_keeps_half_is_shorter_than_one_that_keeps_less():
    longest = longest_prompt(8192, share=0.5)
    assert 8192 < longest < longest_prompt(8192)
    assert auto_recipe("question", longest, 8192).kv == "task@0.5"
    assert auto_recipe("question", longest + 1, 8192).kv == "task@0.25"


def test_no_room_at_all_is_no_prompt():
    assert longest_prompt(0) == 0
