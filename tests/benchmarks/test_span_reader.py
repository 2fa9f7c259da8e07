"""What the span reader's benchmark makes of answers: calibration, baselines, parts."""

from __future__ import annotations

import random

import pytest

from lcdoc.agents.offline_reader import OfflineReader
from lcdoc.benchmarks.reader_cases import Case, Finder, document_of
from lcdoc.benchmarks.span_cases import part_of_case
from lcdoc.benchmarks.span_reader import (
    Shown,
    best_sentence,
    calibration_error,
    first_sentence,
    through,
)
from lcdoc.documents import Document
from lcdoc.evaluation.parts import part_of
from lcdoc.retrieval.embedders import load_embedder

TEXTS = (
    "The bakery opens at six. Bread is sold until noon. " + "The ovens are old, and nobody minds. " * 20,
    "The library has a cat. It closes at nine in the evening, and on Sundays at four. " + "Books smell of dust. " * 30,
)


def case_of(document: Document, question: str, *golds: str, kind: str = "answerable") -> Case:
    return Case("squad", kind, document, question, golds)


@pytest.fixture(scope="module")
def document() -> Document:
    return document_of("Town", TEXTS)


def test_confidence_that_is_right_as_often_as_it_says_has_no_error(document: Document) -> None:
    rng = random.Random(1)
    sure = [rng.random() for _ in range(4_000)]
    right = Shown("", ("It closes at nine.",), 0.0).quotes
    pairs = [
        (case_of(document, "When?", "nine"), Shown("", right if rng.random() < one else ("noon",), one)) for one in sure
    ]
    assert calibration_error(pairs) < 0.03
    boasting = [(case, Shown("", shown.quotes, 1.0)) for case, shown in pairs]
    assert calibration_error(boasting) == pytest.approx(0.5, abs=0.03)


def test_the_simpler_readers_show_a_sentence(document: Document) -> None:
    case = case_of(document, "When does the library close in the evening?", "nine")
    embedder = load_embedder()
    finder = Finder(document, embedder)  # type: ignore[arg-type]
    passage = finder.best_by_words(case.question)
    assert "It closes at nine" in passage.text
    assert "bakery" not in passage.text
    assert passage.text.startswith(f"{first_sentence(case, finder).claim} ")
    best = best_sentence(embedder)(case, finder)  # type: ignore[arg-type]
    assert best.claim == "It closes at nine in the evening, and on Sundays at four."
    ranked = through(OfflineReader(embedder))(case, finder)
    assert ranked.quotes[0] == best.claim
    assert 0 < ranked.confidence <= 1
    stranger = case_of(document, "Who wrote Pride and Prejudice?", kind="easy")
    assert through(OfflineReader(embedder))(stranger, finder).quotes == ()


def test_parts_are_those_of_the_training(document: Document) -> None:
    assert part_of_case(case_of(document, "?")) == part_of("squad", "Town")
    assert part_of_case(Case("policyqa", "answerable", document, "?")) == "test"
    assert part_of_case(Case("tatqa", "answerable", document, "?")) in {"tune", "test"}
