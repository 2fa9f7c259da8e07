"""Filling schemas: values held against their quotes, lists and tables from everywhere, conflicts, caps, going on."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from lcdoc.agents.quotes import check_quote
from lcdoc.documents import Document
from lcdoc.tests.servers.chat_server import Recorded, Reply, Status
from lcdoc.tests.servers.truthful import MADE_UP, Truthful, answering, skill_of
from lcdoc.tests.workflows.reading_desk import Desk, book, desk_for, embedder
from lcdoc.workflows import events
from lcdoc.workflows.errors import WorkflowError
from lcdoc.workflows.extract import Extract
from lcdoc.workflows.extract_answer import ExtractAnswer
from lcdoc.workflows.extract_request import ExtractRequest
from lcdoc.workflows.workflow import Budget

LEASE = """\
# Lease

This lease is made on 3 March 2021 between Mara Lind (the landlord) and Jonas Aas (the tenant).

The monthly rent is EUR 1.250,00. The deposit is EUR 3.750,00.

Pets allowed: no

| Due date | Amount |
|---|---|
| 01.04.2021 | 1.250,00 |
| 01.05.2021 | 1.300,00 |
"""
SCHEMA: Mapping[str, Any] = {
    "made": {"format": "date", "description": "when the lease is made"},
    "rent": {"type": "number", "title": "monthly rent"},
    "landlord": {"name": {"type": "string", "title": "landlord"}},
    "boiler": {"type": "string", "title": "boiler inspection certificate"},
}


@pytest.fixture
def desk(tmp_path: Path, configure: Callable[[str], None]) -> Iterator[Desk]:
    with desk_for(Extract, tmp_path, configure, window=6_144) as made:
        made.server.default = Truthful()
        made.workspace.embedder = embedder()
        yield made


def filled(desk: Desk, documents: list[Document], schema: Any, **options: Any) -> ExtractAnswer:
    answer = desk.ask(documents, ExtractRequest.of(schema).question, **options)
    assert isinstance(answer, ExtractAnswer)
    by_id = {document.id: document for document in documents}
    for claim in answer.claims:
        assert claim.citations
        for citation in claim.citations:
            found = check_quote(by_id[citation.document_id], citation.quote, near=citation.span)
            assert found is not None
            assert found.span == citation.span
    return answer


def form(*entries: tuple[int, str, str]) -> dict[str, Any]:
    """A form as a model fills it: number, value and quote of each field."""
    return {
        "fields": [
            {"field": number, "found": True, "value": value, "quotes": [quote], "confidence": 5}
            for number, value, quote in entries
        ]
    }


# With a model


def test_a_short_document_is_filled_in_one_call(desk: Desk) -> None:
    answer = filled(desk, desk.documents(LEASE), SCHEMA)
    assert answer.value == {
        "made": "2021-03-03",
        "rent": 1250,
        "landlord": {"name": "Mara Lind"},
        "boiler": None,
    }
    # What was not found was looked for once; everything had been read.
    assert answer.usage.calls == 1
    assert answer.found
    assert not answer.partial
    assert [field.state for field in answer.fields] == ["found", "found", "found", "not_found"]
    rent = answer.field("rent")
    assert [answer.claims[number].citations[0].quote for number in rent.claims] == ["The monthly rent is EUR 1.250,00."]
    (searched,) = answer.field("boiler").searched
    assert searched.unread == ()


@pytest.mark.parametrize(
    ("value", "quote", "refused"),
    [
        ("1350", "The monthly rent is EUR 1.250,00.", "1350"),
        ("1.350,00", "The monthly rent is EUR 1.250,00.", "1.350,00"),
        ("about a thousand", "The monthly rent is EUR 1.250,00.", "about a thousand"),
        ("1250", "The monthly rent is EUR 1.350,00.", ""),
    ],
)
def test_a_value_that_its_quote_does_not_show_is_refused(desk: Desk, value: str, quote: str, refused: str) -> None:
    desk.server.default = answering(extract=form((1, value, quote)))
    answer = filled(desk, desk.documents(LEASE), {"rent": {"type": "number"}})
    assert answer.value == {"rent": None}
    assert not answer.found
    assert answer.field("rent").refused == ((refused,) if refused else ())
    assert answer.field("rent").state == ("refused" if refused else "not_found")
    assert answer.quotes_dropped == (not refused)


def test_quotes_made_up_are_dropped_and_counted(desk: Desk) -> None:
    desk.server.default = Truthful(false_quotes=1.0)
    answer = filled(desk, desk.documents(LEASE), SCHEMA)
    assert not answer.found
    assert answer.quotes_dropped > 0
    assert MADE_UP not in json.dumps(answer.to_json())


def test_what_may_be_inferred_is_less_sure(desk: Desk) -> None:
    quote = "Pets allowed: no"
    desk.server.default = answering(extract=form((1, "no", quote), (2, "residential", quote), (3, "Nowhere", quote)))
    schema = {"pets": {"type": "boolean"}, "use": {"enum": ["office", "residential"]}, "place": ""}
    answer = filled(desk, desk.documents(LEASE), schema)
    assert answer.value == {"pets": False, "use": "residential", "place": None}
    assert answer.field("pets").confidence == answer.field("use").confidence == 3
    assert answer.field("place").refused == ("Nowhere",)


def test_a_long_document_is_looked_up_and_looked_for_wider(desk: Desk) -> None:
    documents = desk.documents(book(5, {4: "The monthly rent is EUR 940.50 for the mill."}))
    answer = filled(desk, documents, SCHEMA)
    assert answer.value["rent"] == 940.5
    rounds = {event.name.split("/")[1] for event in desk.of(events.NoteTaken)}
    assert rounds == {"1", "2"}
    first = {place for event in desk.of(events.NoteTaken) if "read/1/" in event.name for place in event.places}
    assert len(first) < answer.passages
    assert answer.field("rent").claims
    wider, narrow = (
        sum(b - a + 1 for one in answer.field(name).searched for a, b in one.read) for name in ("boiler", "rent")
    )
    assert wider >= narrow


def test_lists_and_tables_are_read_from_everywhere_and_joined(desk: Desk) -> None:
    facts = {
        2: "The ferry Otterling carries 90 passengers.",
        3: "The ferry Bittern carries 40 passengers.",
        4: "The ferry Otterling carries 90 passengers.",
    }
    ferries = {
        "type": "array",
        "title": "ferry carries passengers",
        "items": {
            "type": "object",
            "properties": {"ferry": {"type": "string"}, "passengers": {"type": "integer", "title": "carries"}},
        },
    }
    schema = {
        "type": "object",
        "properties": {
            "ferries": ferries,
            "numbers": {"type": "array", "title": "ferry carries passengers", "items": {"type": "integer"}},
        },
    }
    answer = filled(desk, desk.documents(book(4, facts)), schema)
    assert answer.value == {
        "ferries": [{"ferry": "Otterling", "passengers": 90}, {"ferry": "Bittern", "passengers": 40}],
        "numbers": [90, 40],
    }
    (otterling, _) = answer.field("ferries").claims
    assert {page for one in answer.claims[otterling].citations for page in one.pages} == {2}
    assert len(answer.field("ferries").claims) == 2
    assert all(not pages.unread for pages in answer.pages_read)


CONFLICT = LEASE + "\n\nAs agreed later, the monthly rent is EUR 1.400,00.\n"
BOTH = form((1, "1.250,00", "The monthly rent is EUR 1.250,00."), (1, "1.400,00", "the monthly rent is EUR 1.400,00."))
RENT = {"rent": {"type": "number", "title": "monthly rent"}}


def judging(supported: list[int]) -> Callable[[Recorded], Any]:
    judged = {"reason": "The later one holds.", "supported": supported, "contradicted": [], "best": 0, "confidence": 4}
    return answering(extract=BOTH, judge=judged)


def test_a_conflict_is_settled_by_reading_both_again(desk: Desk) -> None:
    desk.server.default = judging([2])
    answer = filled(desk, desk.documents(CONFLICT), RENT)
    rent = answer.field("rent")
    assert (answer.value, rent.state) == ({"rent": 1400}, "found")
    assert [answer.claims[number].text for number in rent.others] == ["rent: 1250"]
    assert answer.claims[rent.others[0]].confidence <= 1
    assert len(desk.asked_for("judge")) == 1
    asked = desk.asked_for("judge")[0].body["messages"][1]["content"]
    assert "What is the monthly rent?" in asked
    assert "properties" not in asked


def test_a_conflict_that_is_not_settled_takes_neither_and_tells_both(desk: Desk) -> None:
    desk.server.default = judging([])
    answer = filled(desk, desk.documents(CONFLICT), RENT)
    rent = answer.field("rent")
    assert (answer.value, rent.state, answer.found) == ({"rent": None}, "conflict", True)
    assert (answer.text, rent.confidence) == ("", 0)
    assert {answer.claims[number].text for number in rent.others} == {"rent: 1250", "rent: 1400"}
    assert any("1250 against 1400" in warning for warning in answer.warnings)


def test_a_cap_leaves_what_was_found(desk: Desk) -> None:
    many = {f"field{number}": {"type": "number", "title": f"monthly rent {number}"} for number in range(30)}
    answer = filled(desk, desk.documents(LEASE), many, budget=Budget(calls=1))
    assert answer.partial
    assert answer.usage.calls == 1
    found = [field.state for field in answer.fields].count("found")
    assert found == 12
    assert any("calls" in warning for warning in answer.warnings)


def test_a_run_that_was_left_goes_on_and_repeats_no_call(desk: Desk) -> None:
    many = {f"field{number}": {"type": "number", "title": f"monthly rent {number}"} for number in range(40)}
    question = ExtractRequest.of(many).question
    documents = desk.documents(LEASE)
    desk.leave(documents, question, after=2)
    before = len(desk.server.requests)
    answer = filled(desk, documents, many)
    assert len(desk.of(events.Resumed)) == 1
    assert not answer.partial
    assert set(answer.value.values()) == {1250}
    sent = [json.dumps(request.body["messages"]) for request in desk.server.requests]
    assert len(sent) == len(set(sent))
    assert before <= len(sent) == 4


def test_one_part_that_fails_is_told_and_the_rest_is_filled(desk: Desk) -> None:
    honest = Truthful()

    def fails_for_lists(recorded: Recorded) -> Reply | Status | Any:
        known = skill_of(recorded.body["messages"][0]["content"])
        if known and known[0] == "rows":
            return Status(400, body={"error": {"message": "not today"}})
        return honest(recorded)

    desk.server.default = fails_for_lists
    schema = {**SCHEMA, "payments": [{"due": {"format": "date"}, "amount": {"type": "number"}}]}
    answer = filled(desk, desk.documents(LEASE), schema)
    assert answer.partial
    assert answer.value["rent"] == 1250
    assert answer.value["payments"] == []
    assert any("not today" in warning for warning in answer.warnings)


def test_a_plan_counts_what_is_sent(desk: Desk) -> None:
    documents = desk.documents(book(5, {4: "The monthly rent is EUR 940.50 for the mill."}))
    schema = {**SCHEMA, "payments": [{"due": {"format": "date"}, "amount": {"type": "number"}}]}
    question = ExtractRequest.of(schema).question
    plan = desk.plan(documents, question)
    assert desk.server.requests == []
    answer = filled(desk, documents, schema)
    assert plan.at_most is not None
    assert plan.calls <= answer.usage.calls <= plan.at_most.calls
    assert plan.at_most.tokens_in >= answer.usage.tokens_in
    assert desk.plan(documents, question, offline=True).calls == 0


def test_small_models_are_asked_for_one_quote(desk: Desk, configure: Callable[[str], None]) -> None:
    configure(f'[models.honest]\nurl = "{desk.server.url}"\nprofile = "small"\n')
    answer = filled(desk, desk.documents(LEASE), SCHEMA)
    assert answer.value["rent"] == 1250
    (request,) = desk.asked_for("extract")
    schema = request.body["response_format"]["json_schema"]["schema"]
    assert "quotes" not in json.dumps(schema)


# Offline


def test_it_is_filled_without_a_model(desk: Desk) -> None:
    schema = {
        **SCHEMA,
        "pets": {"type": "boolean", "title": "pets allowed"},
        "payments": [{"due": {"format": "date", "title": "due date"}, "amount": {"type": "number"}}],
    }
    answer = filled(desk, desk.documents(LEASE), schema, offline=True)
    assert answer.value["rent"] == 1250
    assert answer.value["made"] == "2021-03-03"
    assert answer.value["pets"] is False
    assert answer.value["boiler"] is None
    assert answer.value["payments"] == [
        {"due": "2021-04-01", "amount": 1250},
        {"due": "2021-05-01", "amount": 1300},
    ]
    assert answer.usage.calls == 0
    assert desk.server.requests == []


def test_nothing_found_is_an_answer(desk: Desk) -> None:
    answer = filled(desk, desk.documents("The heron stood in the reeds."), {"rent": {"type": "number"}}, offline=True)
    assert (answer.found, answer.value, answer.claims) == (False, {"rent": None}, ())


# Asking


class Lease(BaseModel):
    rent: float
    tenant: str


def test_python_takes_a_mapping_text_or_a_model(desk: Desk, configure: Callable[[str], None]) -> None:
    documents = desk.documents(LEASE)
    for schema in (Lease, Lease.model_json_schema(), json.dumps(Lease.model_json_schema())):
        answer = desk.workspace.extract(documents, schema)
        assert isinstance(answer, ExtractAnswer)
        assert list(answer.value) == ["rent", "tenant"]
        assert answer.value["rent"] == 1250
        assert answer.to_json()["schema"] == "lcdoc.extract/1"


def test_a_question_that_is_no_schema_says_so(desk: Desk) -> None:
    documents = desk.documents(LEASE)
    with pytest.raises(WorkflowError, match="fills a schema; give one"):
        desk.ask(documents, "What is the rent?", offline=True)
