"""All workflows on one small planted document, asked through a simulated model on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from lcdoc.benchmarks.planted import Asking, Study, is_right, ratios
from lcdoc.benchmarks.planted_documents import (
    KINDS,
    Kind,
    Planted,
    PlantedDocument,
    asked,
    facts_in,
    list_of_outages,
    planted_document,
)
from lcdoc.benchmarks.planted_model import MOST_QUOTES, PlantedModel
from lcdoc.retrieval.embedders import Embedder, load_embedder
from lcdoc.tests.servers.chat_server import ChatServer

PAGES = 24
READS_ALL = ("chain", "map_reduce")


@cache
def planted() -> PlantedDocument:
    return planted_document(PAGES, each=1, most_counted=20)


@cache
def embedder() -> Embedder:
    return load_embedder()


def question_of(kind: Kind) -> Planted:
    return next(question for question in planted().questions if question.kind == kind)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        running.default = PlantedModel()
        yield running


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one library for all tests, so that the document is embedded once."""
    return tmp_path_factory.mktemp("planted")


def ask(server: ChatServer, folder: Path, workflow: str, *kinds: Kind, planned: bool = False) -> list[Asking]:
    """The questions of these kinds, one after the other."""

    async def main() -> list[Asking]:
        async with Study(folder, server.url, embedder()) as study:
            study.add(planted().document)
            return [await study.ask(workflow, question_of(kind), planted().document, planned=planned) for kind in kinds]

    return asyncio.run(main())


# Documents and the model


def test_a_document_is_the_same_each_time_and_holds_its_facts() -> None:
    again = planted_document(PAGES, each=1, most_counted=20)
    assert again.document.id == planted().document.id
    assert {question.kind for question in again.questions} == set(KINDS)
    facts = facts_in(again.document.text)
    for question in again.questions:
        wanted = asked(question.question)
        assert wanted is not None
        *_, last = wanted.trace(facts)
        values = {fact.value for fact in last}
        if question.kind == "absent":
            assert not values
        elif question.kind == "count":
            assert len(values) == int(question.expected)
        elif question.kind == "conflict":
            assert values == {question.expected, *question.wrong}
        else:
            assert values == {question.expected}
        assert all(again.document.text.count(sentence) == 1 for sentence in question.evidence)


def test_hops_stand_in_order_or_against_it() -> None:
    text = planted_document(80, each=3).document.text
    for question in planted_document(80, each=3).questions:
        places = [text.index(sentence) for sentence in question.evidence]
        if question.kind == "chain":
            assert places == sorted(places)
        if question.kind == "backward chain":
            assert places == sorted(places, reverse=True)


def test_a_list_of_dates_is_read_back_as_facts() -> None:
    said = list_of_outages("Otterby", ["3 May 1801", "4 June 1802"])
    assert [fact.value for fact in facts_in(said)] == ["3 May 1801", "4 June 1802"]
    assert facts_in("On 3 May 1801 the lamp of Otterby went out.") == facts_in(said)[:1]


# Workflows


def test_retrieval_finds_a_needle_and_reads_a_part_only(server: ChatServer, library: Path) -> None:
    (needle,) = ask(server, library, "retrieve", "needle")
    assert needle.right
    assert needle.answer.passages_read < needle.answer.passages
    assert needle.answer.claims[0].citations[0].quote == needle.planted.evidence[0]


def test_map_reduce_counts_what_is_spread_over_the_text(server: ChatServer, library: Path) -> None:
    count, absent = ask(server, library, "map_reduce", "count", "absent")
    assert count.right, count.answer.text
    assert not count.answer.partial
    assert count.answer.pages_read[0].unread == ()
    assert absent.right


def test_map_reduce_settles_for_the_side_that_corrects_the_other(server: ChatServer, library: Path) -> None:
    (conflict,) = ask(server, library, "map_reduce", "conflict")
    assert conflict.right, conflict.answer.text


def test_a_chain_of_readings_follows_hops_in_order(server: ChatServer, library: Path) -> None:
    hops, absent = ask(server, library, "chain", "chain", "absent")
    assert hops.right, hops.answer.text
    assert absent.right


def test_a_tree_finds_a_needle(server: ChatServer, library: Path) -> None:
    needle, absent = ask(server, library, "tree", "needle", "absent")
    assert needle.right
    assert absent.right


def test_auto_looks_up_a_needle_and_reads_everything_to_count(server: ChatServer, library: Path) -> None:
    needle, count = ask(server, library, "auto", "needle", "count")
    assert (needle.answer.workflow, count.answer.workflow) == ("retrieve", "map_reduce")
    assert needle.right
    assert count.right


@pytest.mark.parametrize("workflow", ["retrieve", *READS_ALL])
def test_no_quote_is_shown_that_the_text_does_not_have(server: ChatServer, library: Path, workflow: str) -> None:
    server.default = PlantedModel(false_claims=0.5, believes=1.0, malformed=0.5)
    body = " ".join(planted().document.body.split())
    for asking in ask(server, library, workflow, "needle", "absent"):
        quotes = [citation.quote for claim in asking.answer.claims for citation in claim.citations]
        assert all(" ".join(quote.split()) in body for quote in quotes)
        for claim in asking.answer.claims:
            assert claim.citations or claim.support == "unsupported"


@pytest.mark.parametrize("workflow", READS_ALL)
def test_a_plan_foresees_the_calls(server: ChatServer, library: Path, workflow: str) -> None:
    askings = ask(server, library, workflow, "needle", planned=True)
    assert all(0.75 <= ratio <= 1.25 for ratio in ratios(askings)["calls"]), ratios(askings)


def test_a_model_that_overlooks_everything_leaves_everything_unfound(server: ChatServer, library: Path) -> None:
    server.default = PlantedModel(finds=0.0)
    (needle,) = ask(server, library, "map_reduce", "needle")
    assert not needle.answer.found
    assert not needle.answer.partial


def test_what_is_wrong_is_not_counted_as_right(server: ChatServer, library: Path) -> None:
    (needle,) = ask(server, library, "retrieve", "needle")
    assert is_right(needle.planted, needle.answer)
    assert not is_right(question_of("absent"), needle.answer)
    assert not is_right(question_of("conflict"), needle.answer)
    claim = needle.answer.claims[0]
    unquoted = needle.answer.model_copy(update={"claims": (claim.model_copy(update={"citations": ()}),)})
    assert not is_right(needle.planted, unquoted)


def test_a_reading_gives_no_more_quotes_than_it_is_told_to(server: ChatServer, library: Path) -> None:
    ask(server, library, "retrieve", "count")
    answers = [request.behaviour.text for request in server.requests if request.behaviour is not None]
    assert answers
    assert all(answer.count('went out."') <= MOST_QUOTES + 1 for answer in answers)
