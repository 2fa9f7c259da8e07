"""From answers to figures, worked out by hand."""

import pytest

from lcdoc.documents import Span
from lcdoc.evaluation.cases import Case, document_of
from lcdoc.evaluation.scoring import METRICS, Response, Statement, figures_of, figures_of_failure, ranking_figures

GOLD = (Span(10, 20), Span(50, 60))
CASE = Case("1", "Where?", ("the north pier",))
NOWHERE = Case("2", "Where?", ())


def test_the_first_claim_is_the_answer_and_the_whole_is_what_was_said() -> None:
    claims = (
        Statement("North pier", ((Span(12, 14),),), ("at the north pier, it is said",)),
        Statement("Elsewhere entirely", ((Span(70, 80),), (Span(0, 3), Span(55, 56)))),
        Statement("Nobody knows"),
    )
    ranking = (Span(0, 9), Span(15, 18), Span(80, 90))
    figures = figures_of(CASE, GOLD, Response(True, claims, 4.0, ranking, calls=2, tokens=30, usd=0.5, seconds=1.5))
    assert figures == {
        "exact": 1.0,
        "f1": 1.0,
        "f1_answerable": 1.0,
        "rouge_l": pytest.approx(2 * 2 / (6 + 3)),
        "contains": 1.0,
        "answered": 1.0,
        "calls": 2.0,
        "tokens": 30.0,
        "usd": 0.5,
        "seconds": 1.5,
        "claims_cited": pytest.approx(2 / 3),
        "gold_cited": 1.0,
        "citations_right": pytest.approx(2 / 3),
        "recall_1": 0.0,
        "recall_5": 0.5,
        "mrr": 0.5,
    }
    assert set(figures) <= set(METRICS)


def test_a_list_is_scored_as_a_whole() -> None:
    case = Case("3", "Which?", ("red, blue",), several=True)
    assert figures_of(case, (), Response(True, (Statement("blue"), Statement("red"))))["f1"] == 1.0


def test_contains_is_of_whole_words_in_answer_or_quotes() -> None:
    case = Case("4", "How many?", ("forty",))
    quoted = Statement("A lot", quotes=("carries Forty, only",))
    assert figures_of(case, (), Response(True, (quoted,)))["contains"] == 1.0
    assert figures_of(case, (), Response(True, (Statement("fortyfold"),)))["contains"] == 0.0


def test_a_refusal_is_right_where_there_is_no_answer_and_wrong_elsewhere() -> None:
    # What a reader that refuses would have said does not count.
    refused = Response(False, (Statement("the north pier"),))
    right = figures_of(NOWHERE, (), refused)
    assert [right[name] for name in ("exact", "f1", "rouge_l", "contains", "refused")] == [1.0] * 5
    assert not {"answered", "f1_answerable"} & set(right)
    wrong = figures_of(CASE, GOLD, refused)
    assert [wrong[name] for name in ("exact", "f1", "rouge_l", "contains", "answered", "gold_cited")] == [0.0] * 6
    assert "citations_right" not in wrong


def test_an_unknown_price_is_no_figure() -> None:
    assert "usd" not in figures_of(CASE, (), Response(False, usd=None))


def test_a_failure_is_wrong_whether_or_not_there_is_an_answer() -> None:
    assert figures_of_failure(NOWHERE, ()) == dict.fromkeys(("exact", "f1", "rouge_l", "contains", "refused"), 0.0)
    assert figures_of_failure(CASE, GOLD)["gold_cited"] == 0.0


def test_ranking_figures_without_a_hit() -> None:
    assert ranking_figures(GOLD, [Span(30, 40)], ks=(1, 10)) == {"recall_1": 0.0, "recall_10": 0.0, "mrr": 0.0}


def test_evidence_is_the_quotes_that_stand_there_else_the_pages() -> None:
    document = document_of("d", ["The first page.", "", "The third page."])
    pages = Case("5", "?", ("x",), pages=(2, 3, 9))
    assert [span.of(document.text).strip() for span in pages.evidence(document)] == ["The third page."]
    quoted = Case("6", "?", ("x",), pages=(3,), quotes=("first page", "not there at all, anywhere"))
    assert [span.of(document.text) for span in quoted.evidence(document)] == ["first page"]
