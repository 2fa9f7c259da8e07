"""Evaluations from the first question to the results: offline and through a model, cut off, capped, failing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lcdoc.agents.models.budget import Budget
from lcdoc.agents.models.errors import ModelNameError
from lcdoc.evaluation.errors import EvaluationError
from lcdoc.evaluation.evaluate import Asked, Outcome, evaluated, planned, questions_of
from lcdoc.evaluation.running import Progress
from lcdoc.memory import Library
from lcdoc.tests.servers.chat_server import ChatServer, Status
from lcdoc.workflows.errors import UnknownWorkflowError

Evaluate = Callable[..., Outcome]


@pytest.fixture
def evaluate(own: Path, library: Library) -> Evaluate:
    """Put one's own questions to whom the keyword arguments of `Asked` name."""

    def run(
        budget: Budget | None = None, on_progress: Callable[[Progress], None] = lambda _: None, **asked: object
    ) -> Outcome:
        questions = questions_of(str(own))
        return evaluated(library, questions, Asked(**asked), budget=budget or Budget(), on_progress=on_progress)

    return run


def test_offline_answers_are_scored_beside_the_simplest_readers(evaluate: Evaluate) -> None:
    told: list[Progress] = []
    outcome = evaluate(workflow="retrieve", on_progress=told.append)
    assert [result.title for result in outcome.results] == [
        "retrieve, offline",
        "BM25 + first sentence",
        "vectors + best sentence",
    ]
    assert (told[0].done, told[-1].done, told[-1].total) == (0, 12, 12)
    read, _, vectors = outcome.results
    for name in ("1", "3"):
        figures = read.items[name]["figures"]
        assert [figures[one] for one in ("contains", "answered", "gold_cited", "recall_1", "mrr")] == [1.0] * 5
    assert read.estimates["refused"].value == 1.0
    assert vectors.estimates["refused"].value == 0.0
    assert read.estimates["f1"].documents == 2
    item = read.items["3"]
    assert item["question"].startswith("How many passengers")
    assert "forty" in item["answer"]
    assert (item["found"], item["pages"], item["error"]) == (True, [1], "")


def test_what_was_answered_is_not_asked_again(evaluate: Evaluate, library: Library, server: ChatServer) -> None:
    def stop(told: Progress) -> None:
        if told.done == 3:
            raise RuntimeError("broken off")

    ways = {"workflow": "retrieve", "model": "honest", "baselines": False, "store": "off"}
    with pytest.raises(RuntimeError, match="broken off"):
        evaluate(on_progress=stop, budget=Budget(calls=1_000), **ways)
    (begun,) = library.evaluations.list()
    kept = library.evaluations.items(begun.id)
    assert len(kept) == 3
    sent = len(server.default.read)
    (result,) = evaluate(**ways).results
    assert result.evaluation.id == begun.id
    assert {name: result.items[name] for name in kept} == kept
    assert len(result.items) == 4
    assert 0 < len(server.default.read) - sent <= sent
    # One that came to its end is begun anew.
    assert evaluate(**ways).results[0].evaluation.id != begun.id


def test_a_model_is_asked_without_the_document_too(evaluate: Evaluate, server: ChatServer) -> None:
    read, closed, *_ = evaluate(workflow="retrieve", model="honest").results
    assert closed.title == "closed book, honest"
    assert closed.estimates["f1"].value == pytest.approx(2 / 4)  # "Forty.", and no answer where there is none
    assert closed.estimates["answered"].value == pytest.approx(1 / 3)
    assert closed.estimates["calls"].value == 1.0
    assert read.estimates["contains"].value > closed.estimates["contains"].value
    assert read.estimates["tokens"].value > closed.estimates["tokens"].value > 0
    assert read.estimates["usd"].value > closed.estimates["usd"].value > 0
    assert server.default.read.count("closed_book") == 4


def test_a_cap_holds_for_all_questions_together_and_is_gone_on_from(evaluate: Evaluate, server: ChatServer) -> None:
    asked = {"workflow": "closed_book", "model": "honest", "baselines": False}
    outcome = evaluate(budget=Budget(calls=3), **asked)
    assert "the cap is reached; give the same command with a higher one" in outcome.stopped
    assert len(server.default.read) == len(outcome.results[0].items) == 3
    again = evaluate(budget=Budget(calls=3), **asked)
    assert (again.stopped, len(again.results[0].items), len(server.default.read)) == ("", 4, 4)
    with pytest.raises(EvaluationError, match="the cap admits no question at all"):
        evaluate(budget=Budget(usd=0.0), **asked)


def test_a_question_that_fails_is_a_row_and_wrong(evaluate: Evaluate, server: ChatServer) -> None:
    knows = server.default

    def choose(recorded):
        wanted = "Otterling" if "Bittern" in str(recorded.body) else ""
        return Status(400, body={"error": {"message": "no ferries"}}) if wanted else knows(recorded)

    server.default = choose
    asked = {"workflow": "closed_book", "model": "honest", "baselines": False}
    (result,) = evaluate(**asked).results
    assert result.failed == 1
    assert "no ferries" in result.items["3"]["error"]
    assert result.items["3"]["figures"]["f1"] == 0.0
    assert result.estimates["f1"].questions == 4


def test_failures_in_a_row_end_it_and_are_tried_again(own: Path, library: Library, server: ChatServer) -> None:
    own.write_text(own.read_text(encoding="utf-8") * 3, encoding="utf-8")
    questions = questions_of(str(own))
    asked = Asked("closed_book", "honest", baselines=False)
    knows, server.default = server.default, lambda _: Status(400, body={"error": {"message": "out of order"}})
    with pytest.raises(EvaluationError, match=r"5 questions in a row failed, the last with: .*out of order"):
        evaluated(library, questions, asked, budget=Budget(), on_progress=lambda _: None)
    server.default = knows
    (result,) = evaluated(library, questions, asked, budget=Budget(), on_progress=lambda _: None).results
    assert (len(library.evaluations.list()), len(result.items), result.failed) == (1, 12, 0)


@pytest.mark.parametrize("way", ["closed_book", "retrieve"])
def test_what_failed_counts_against_the_cap(own: Path, library: Library, server: ChatServer, way: str) -> None:
    own.write_text(own.read_text(encoding="utf-8") * 3, encoding="utf-8")
    server.default = lambda _: Status(400, body={"error": {"message": "out of order"}})
    asked = Asked(way, "honest", baselines=False)
    outcome = evaluated(library, questions_of(str(own)), asked, budget=Budget(calls=3), on_progress=lambda _: None)
    assert "cap is reached" in outcome.stopped
    assert len(server.requests) == 3


def test_baselines_do_not_hide_that_the_model_fails(own: Path, library: Library, server: ChatServer) -> None:
    rows = []
    for number in range(6):
        own.with_name(f"{number}.md").write_text("The ferry Otterling carries six carts.", encoding="utf-8")
        rows.append(json.dumps({"file": f"{number}.md", "question": "What does the ferry carry?", "answer": "carts"}))
    own.write_text("\n".join(rows), encoding="utf-8")
    server.default = lambda _: Status(400, body={"error": {"message": "out of order"}})
    with pytest.raises(EvaluationError, match="5 questions in a row failed"):
        evaluated(
            library,
            questions_of(str(own)),
            Asked("closed_book", "honest"),
            budget=Budget(calls=100),
            on_progress=lambda _: None,
        )


def test_stored_answers_count_for_no_cap(evaluate: Evaluate, server: ChatServer) -> None:
    asked = {"workflow": "closed_book", "model": "honest", "baselines": False}
    evaluate(**asked)
    outcome = evaluate(budget=Budget(calls=1), **asked)
    assert (outcome.stopped, len(outcome.results[0].items), len(server.default.read)) == ("", 4, 4)
    assert outcome.results[0].estimates["calls"].value == 1.0


def test_a_file_that_cannot_be_read_fails_its_questions_only(own: Path, evaluate: Evaluate) -> None:
    (own.parent / "lamp.md").write_bytes(b"")
    own.write_text(own.read_text(encoding="utf-8") * 3, encoding="utf-8")
    (result,) = evaluate(workflow="first_sentence", baselines=False).results
    assert result.failed == 6
    assert "lamp.md" in result.items["1"]["error"]
    assert result.items["3"]["answer"]


def test_hundreds_of_questions_are_not_sent_to_a_server_without_a_cap(
    own: Path, library: Library, server: ChatServer
) -> None:
    own.write_text(own.read_text(encoding="utf-8") * 126, encoding="utf-8")
    with pytest.raises(EvaluationError, match="504 questions to honest, and no cap; give --limit"):
        evaluated(library, questions_of(str(own)), Asked(model="honest"), budget=Budget(), on_progress=lambda _: None)
    assert not server.default.read


def test_an_estimate_asks_no_model(own: Path, library: Library, server: ChatServer) -> None:
    plans = planned(library, questions_of(str(own)), Asked("retrieve", "honest"))
    assert list(plans) == ["retrieve", "closed_book", "first_sentence", "best_sentence"]
    assert plans["closed_book"].calls == 4
    assert plans["retrieve"].calls >= 4
    assert plans["retrieve"].cost_usd > plans["closed_book"].cost_usd > 0
    assert plans["first_sentence"] is None
    assert not server.default.read


def test_who_cannot_be_asked_is_told_before_anything_is_read(evaluate: Evaluate) -> None:
    with pytest.raises(UnknownWorkflowError, match="did you mean map_reduce"):
        evaluate(workflow="mapreduce")
    with pytest.raises(EvaluationError, match="closed_book asks a model"):
        evaluate(workflow="closed_book")
    with pytest.raises(ModelNameError):
        evaluate(model="nosuch")
