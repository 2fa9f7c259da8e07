"""The text metrics: values worked out by hand, and the published scores of published predictions."""

import json
import os
from pathlib import Path

import pytest

from lcdoc.evaluation.metrics import exact_match, normalised, rouge_l, token_f1

DATA = Path(os.environ.get("LCDOC_EVAL_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_squad = pytest.mark.skipif(
    not (DATA / "squad" / "sample_predictions").is_dir(), reason="squad/sample_predictions is not there"
)


def test_normalised_drops_case_ascii_punctuation_articles_and_space() -> None:
    assert normalised(" The  Cat-sat, on\na mat. ") == "catsat on mat"
    assert normalised("An answer (theatre)") == "answer theatre"
    assert normalised("\u201cResign\u201d") == "\u201cresign\u201d"


@pytest.mark.parametrize(
    ("answer", "references", "exact", "f1"),
    [
        ("The Denver Broncos", ["Denver Broncos"], 1.0, 1.0),
        # 2 of 3 words given are right, 2 of 2 wanted are there: 2 * (2/3 * 1) / (2/3 + 1)
        ("Denver Broncos team", ["Denver Broncos"], 0.0, 0.8),
        # the better of two references counts; 1 of 2 given, 1 of 1 wanted
        ("in Paris", ["London", "Paris"], 0.0, 2 / 3),
        # words count as often as they are there: 1 common of 3 and 1
        ("no no no", ["no"], 0.0, 0.5),
        ("Bergen", ["Oslo"], 0.0, 0.0),
        ("", [], 1.0, 1.0),
        ("something", [], 0.0, 0.0),
        ("", ["something"], 0.0, 0.0),
        # nothing but punctuation is no answer, and equals one
        ("", ["."], 1.0, 1.0),
        ("the", ["a fish"], 0.0, 0.0),
    ],
)
def test_exact_match_and_f1(answer: str, references: list[str], exact: float, f1: float) -> None:
    assert exact_match(answer, references) == exact
    assert token_f1(answer, references) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        # the examples of the paper: "police the gunman" keeps one order, "police kill" another
        ("police kill the gunman", "police killed the gunman", 0.75),
        ("the gunman kill police", "police killed the gunman", 0.5),
        # common subsequence "quick dog jumped" of 5 and 6 words
        ("The quick dog jumped away", "the quick brown dog jumped high", 2 * 4 / 11),
        ("don't", "don t", 1.0),
        ("\u041f\u0443\u0448\u043a\u0438\u043d", "\u041f\u0443\u0448\u043a\u0438\u043d", 1.0),
        ("", "words", 0.0),
    ],
)
def test_rouge_l(answer: str, reference: str, score: float) -> None:
    assert rouge_l(answer, [reference]) == pytest.approx(score)
    assert rouge_l(answer, ["nothing alike", reference]) == pytest.approx(score)


@needs_squad
@pytest.mark.parametrize(
    ("version", "predictions", "exact", "f1"),
    [("v1.1", "v1.1_bert_ensemble", 86.21, 92.20), ("v2.0", "v2.0_bert_single", 78.76, 81.79)],
)
def test_published_predictions_get_their_published_scores(
    version: str, predictions: str, exact: float, f1: float
) -> None:
    articles = json.loads((DATA / "squad" / f"dev-{version}.json").read_bytes())["data"]
    given = json.loads((DATA / "squad" / "sample_predictions" / f"{predictions}.json").read_bytes())
    pairs = [
        (given[question["id"]], [answer["text"] for answer in question["answers"]])
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    assert round(100 * sum(exact_match(*pair) for pair in pairs) / len(pairs), 2) == exact
    assert round(100 * sum(token_f1(*pair) for pair in pairs) / len(pairs), 2) == f1
