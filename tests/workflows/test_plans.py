"""What plans foresee: how long answers are, whether more is read than the best passages, how far a walk goes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lcdoc.tests.workflows.reading_desk import Desk, book, desk_for
from lcdoc.workflows.rehearsal import LIKELY_TOKENS_OUT, Pace
from lcdoc.workflows.retrieve import Retrieve
from lcdoc.workflows.tree_walk import TreeWalk

FACT = "The brass sextant was kept by captain Amara Holm."
QUESTION = "Which captain kept the brass sextant?"
NOWHERE = "Which bishop consecrated the cathedral organ?"


@pytest.fixture
def desk(tmp_path: Path, configure: Callable[[str], None]) -> Iterator[Desk]:
    with desk_for(Retrieve, tmp_path, configure) as opened:
        yield opened


@pytest.fixture
def walker(tmp_path: Path, configure: Callable[[str], None]) -> Iterator[Desk]:
    with desk_for(TreeWalk, tmp_path, configure) as opened:
        yield opened


# Pace


def test_a_model_that_was_never_asked_answers_as_long_as_others() -> None:
    pace = Pace({})
    assert {skill: pace.tokens_of(skill) for skill in LIKELY_TOKENS_OUT} == LIKELY_TOKENS_OUT
    assert pace.tokens_of("a skill to come") > 0


def test_what_was_seen_counts_more_the_more_of_it_there_is() -> None:
    few, many = Pace({("read", True): (1_000.0, 1)}), Pace({("read", True): (1_000.0, 500)})
    assert LIKELY_TOKENS_OUT["read"] < few.tokens_of("read") <= many.tokens_of("read")
    assert many.tokens_of("read") == pytest.approx(1_000, rel=0.01)


def test_skills_differ_and_one_not_seen_is_off_as_the_others_are() -> None:
    half = {(skill, None): (LIKELY_TOKENS_OUT[skill] / 2, 100) for skill in ("merge", "choose")}
    pace = Pace(half)
    assert pace.tokens_of("choose") < pace.tokens_of("merge")
    assert pace.tokens_of("answer") == pytest.approx(LIKELY_TOKENS_OUT["answer"] / 2)


def test_readings_that_find_something_are_told_apart() -> None:
    pace = Pace({("read", True): (200.0, 50), ("read", False): (20.0, 950)})
    none, some, all_ = (pace.tokens_of("read", share) for share in (0.0, 0.5, 1.0))
    assert none == pytest.approx(20, rel=0.02)
    assert all_ == pytest.approx(200, rel=0.05)
    assert some == pytest.approx((none + all_) / 2)
    assert pace.tokens_of("read") == pytest.approx(29, rel=0.02)


def test_that_most_readings_found_nothing_does_not_make_other_answers_short() -> None:
    guessed = Pace({}).tokens_of("answer")
    assert Pace({("read", False): (25.0, 500)}).tokens_of("answer") == pytest.approx(guessed)


def test_where_no_answer_is_kept_the_runs_tell() -> None:
    assert Pace({}, tokens_out=2 * LIKELY_TOKENS_OUT["read"]).tokens_of("merge") == 2 * LIKELY_TOKENS_OUT["merge"]


# Plans


def test_answers_are_planned_as_long_as_earlier_ones_were(desk: Desk) -> None:
    documents = desk.documents(book(8, {3: FACT, 6: "The tunnel under the harbour was dug by Ivo Rauch."}))
    before = desk.plan(documents, QUESTION)
    assert before.seconds is None
    answer = desk.ask(documents, QUESTION)
    after = desk.plan(documents, "Who dug the tunnel under the harbour?")
    actual = answer.usage.tokens_out
    assert abs(after.tokens_out - actual) < abs(before.tokens_out - actual)
    assert after.seconds is not None


def test_a_wider_search_is_planned_where_the_best_passages_say_nothing(desk: Desk) -> None:
    documents = desk.documents(book(10, {3: FACT}))
    plan = desk.plan(documents, NOWHERE)
    answer = desk.ask(documents, NOWHERE)
    assert not answer.found
    assert plan.requests is not None
    assert plan.requests.widening
    assert plan.calls == len(plan.requests.reading) + len(plan.requests.widening) == answer.usage.calls
    assert plan.tokens_in == pytest.approx(answer.usage.tokens_in, rel=0.25)
    assert plan.at_most is not None
    assert plan.at_most.calls >= plan.calls


def test_a_walk_is_planned_with_its_choices_and_its_leaves(walker: Desk) -> None:
    documents = walker.documents(book(12, {7: FACT}))
    plan = walker.plan(documents, QUESTION)
    assert walker.server.requests == []
    answer = walker.ask(documents, QUESTION)
    assert plan.requests is not None
    skills = [request.prompt.partition("/")[0] for request in plan.requests.reading]
    assert skills.count("summarize") == len(walker.asked_for("summarize"))
    assert skills.count("choose") >= 1
    assert skills.count("read") >= 1
    shown = {request.messages[1].content for request in plan.requests.reading if request.prompt.startswith("read/")}
    assert any(FACT in message for message in shown)
    assert plan.at_most is not None
    assert plan.at_most.calls >= answer.usage.calls


def test_a_walk_that_is_sure_of_a_leaf_is_planned_shorter(walker: Desk) -> None:
    documents = walker.documents(book(8, {4: FACT}))
    sure, lost = walker.plan(documents, QUESTION), walker.plan(documents, NOWHERE)
    assert lost.calls > sure.calls
    assert walker.plan(documents, NOWHERE, offline=True).calls == 0
