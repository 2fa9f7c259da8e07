"""Questions answered through a model on a server, and everything such a server can do wrong."""

import dataclasses
import json

import pytest

from lcdoc.agents.models.budget import Budget
from lcdoc.agents.models.errors import AuthenticationError, ModelError, RetriesExhaustedError
from lcdoc.tests.servers.behaviours import error_body
from lcdoc.tests.servers.chat_server import (
    ChatServer,
    Cut,
    EmptyChoices,
    Garbage,
    Hang,
    HangMid,
    Recorded,
    Refuse,
    Reply,
    Status,
)
from lcdoc.tests.servers.truthful import Truthful
from lcdoc.tests.workflows.conftest import CAPACITY, HANDBOOK
from lcdoc.workflows import events

OVERFLOW = error_body(
    "This model's maximum context length is 4096 tokens. However, your messages resulted in 5321 tokens.",
    code="context_length_exceeded",
)


def requests(server: ChatServer) -> list[Recorded]:
    return [each for each in server.requests if each.path.endswith("/chat/completions")]


def test_the_answer_is_cited_checked_and_counted(asked, server):
    seen: list[events.Event] = []
    answer = asked(on_event=seen.append)
    assert answer.found
    assert not answer.partial
    (citation,) = answer.claims[0].citations
    assert "74 passengers" in citation.quote
    assert citation.status == "exact"
    assert answer.model == "honest"
    assert answer.usage.calls == len(requests(server)) == 2
    assert answer.usage.tokens_in == sum(each.usage["prompt_tokens"] for each in requests(server))
    cost = (answer.usage.tokens_in * 1.0 + answer.usage.tokens_out * 4.0) / 1e6
    assert answer.usage.cost_usd == pytest.approx(cost)
    written = [event.text for event in seen if isinstance(event, events.Partial)]
    assert len(written) > 1
    assert written[-1] == answer.text


def test_what_was_answered_is_not_asked_again(asked, server):
    first = asked()
    sent = len(requests(server))
    second = asked()
    assert len(requests(server)) == sent
    assert second.claims == first.claims
    assert (second.usage.calls, second.usage.stored_calls, second.usage.cost_usd) == (0, 2, 0.0)
    assert asked(store="refresh").usage.calls == 2
    assert asked(store="off").usage.calls == 2
    assert len(requests(server)) == sent + 4


def test_what_is_not_there_is_not_found_and_no_answer_is_paid_for(asked, server):
    answer = asked("Which enzyme unwinds the DNA helix?")
    assert not answer.found
    assert not answer.claims
    assert "answer" not in server.default.read
    assert answer.passages_read > 12, "the search was widened first"


def test_made_up_quotes_are_dropped_and_counted(asked, server):
    server.default = Truthful(false_quotes=1.0)
    answer = asked()
    assert answer.found
    assert answer.quotes_dropped >= 1
    assert all("admiral" not in citation.quote for claim in answer.claims for citation in claim.citations)


def test_what_overflows_is_read_in_smaller_parts(asked, server):
    server.script(Status(400, body=OVERFLOW))
    answer = asked()
    assert answer.found
    assert not answer.partial
    assert answer.passages_read == 12
    overflowed, *smaller = [len(each.body["messages"][1]["content"]) for each in requests(server)]
    assert len(smaller) >= 3
    assert max(smaller) < overflowed


def thinking(recorded: Recorded):
    reply = Truthful()(recorded)
    return dataclasses.replace(reply, text=f"<think>The passages say {{...}} so</think>\n{reply.text}")


def dripping(recorded: Recorded):
    return dataclasses.replace(Truthful()(recorded), pieces=6, drip_s=0.02)


def chatty(recorded: Recorded):
    return Truthful(fenced_json=True)(recorded)


def misreporting(usage):
    def reply(recorded: Recorded):
        return dataclasses.replace(Truthful()(recorded), usage=usage)

    return reply


@pytest.mark.parametrize(
    "fault",
    [
        Status(429),
        Status(429, retry_after="0.2"),
        Status(500),
        Status(503),
        Status(408),
        Status(409),
        Refuse(),
        Hang(),
        HangMid('{"found": true, "quo'),
        Cut('{"found": true, "quo'),
        Cut('{"found": true, "quo', clean=True),
        EmptyChoices(),
        Garbage(b"data: {broken\n\n"),
        Reply('{"found": true, "quotes": ["That the Bitt', finish="length"),
        Reply('{"found": true, "quotes": ["That the Bitt'),
        Reply('{"colour": "green"}'),
        Reply("I would rather not say."),
        Reply(""),
    ],
    ids=lambda fault: f"{type(fault).__name__} {getattr(fault, 'code', '')}{getattr(fault, 'text', '')[:20]}",
)
def test_one_fault_costs_no_answer(asked, server, fault):
    server.script(fault)
    answer = asked()
    assert answer.found
    assert not answer.partial
    assert "74 passengers" in answer.claims[0].citations[0].quote
    assert answer.usage.calls == len(requests(server)), "every request sent is counted"
    assert asked().usage.calls == 0, "what validated was kept, and nothing else"


@pytest.mark.parametrize("model", [thinking, dripping, chatty], ids=lambda model: model.__name__)
def test_habits_of_models_are_borne(asked, server, model):
    server.default = model
    seen: list[events.Event] = []
    answer = asked(on_event=seen.append)
    assert answer.found
    assert "74 passengers" in answer.claims[0].citations[0].quote
    assert not any("think" in event.text or "{" in event.text for event in seen if isinstance(event, events.Partial))


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": -5, "completion_tokens": 3, "total_tokens": -2},
        {"prompt_tokens": 10**12, "completion_tokens": 10**12, "total_tokens": 2 * 10**12},
    ],
    ids=["none", "zero", "negative", "absurd"],
)
def test_usage_that_cannot_be_believed_is_counted_here(asked, server, usage):
    server.default = misreporting(usage)
    answer = asked()
    assert answer.found
    assert answer.usage.estimated
    assert 500 < answer.usage.tokens_in < 20_000
    assert 0 < answer.usage.tokens_out < 2_000


def test_a_wrong_key_is_explained_and_not_tried_again(asked, server):
    server.default = Status(401, body=error_body("Incorrect API key provided: sk-not-this-one-0123456789abcdef"))
    with pytest.raises(AuthenticationError) as error:
        asked()
    assert len(requests(server)) == 1
    assert "sk-not-this-one" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_server_that_is_not_there_is_said_so_soon(asked, server):
    server.default = Refuse()
    with pytest.raises(RetriesExhaustedError):
        asked()
    run = asked.workspace.library.runs.list(1)[0]
    assert run.status == "failed"
    assert run.error


def test_an_answer_that_never_fits_leaves_the_quotes(asked, server):
    honest = Truthful()

    def reads_only(recorded: Recorded):
        reply = honest(recorded)
        return Reply("no JSON at all") if honest.read[-1] == "answer" else reply

    server.default = reads_only
    answer = asked()
    assert answer.found
    assert answer.partial
    assert "74 passengers" in answer.claims[0].citations[0].quote
    assert any("honest" in warning for warning in answer.warnings)


@pytest.mark.parametrize(
    "budget",
    [Budget(calls=1), Budget(calls=0), Budget(tokens=100), Budget(usd=0.0000001), Budget(seconds=0.0)],
    ids=str,
)
def test_a_cap_is_never_passed_and_gives_what_there_is(asked, server, budget):
    answer = asked(budget=budget)
    assert answer.partial
    assert answer.warnings
    assert len(requests(server)) == answer.usage.calls <= (budget.calls if budget.calls is not None else 0)
    if budget.calls == 1:
        assert answer.found, "what was read is not lost"
        assert answer.pages_read[0].read
    else:
        assert not answer.found
        assert answer.pages_read[0].unread


def test_a_money_cap_needs_a_price(configure, server, tmp_path):

    from lcdoc.workflows.ask import ask

    with pytest.raises(ModelError, match="prices"):
        ask(HANDBOOK, CAPACITY, model=server.url, budget=Budget(usd=1.0), library=tmp_path / "other.sqlite")
    assert not requests(server)


def test_a_rehearsal_sends_nothing_and_comes_close(asked, server):
    # With all vectors made, the same search finds the same passages.
    asked.workspace.fill(asked.documents[0])
    plan = asked.workspace.plan(CAPACITY, asked.documents, workflow="retrieve")
    assert not requests(server)
    answer = asked()
    assert plan.calls == answer.usage.calls
    assert plan.tokens_in == pytest.approx(answer.usage.tokens_in, rel=0.25)
    assert plan.at_most.tokens_in >= answer.usage.tokens_in
    assert plan.at_most.cost_usd > plan.cost_usd > 0
    sent = [message["content"] for message in requests(server)[0].body["messages"]]
    assert [message.content for message in plan.requests.reading[0].messages] == sent, "shown is what is sent"


def test_runs_are_recorded_with_their_cost(asked):
    answer = asked()
    runs = asked.workspace.library.runs
    run = runs.find(answer.run_id)
    assert run.status == "answered"
    assert run.total.cost_usd == pytest.approx(answer.usage.cost_usd)
    assert run.answer["claims"] == json.loads(json.dumps(answer.to_json()))["claims"]
    (line,) = runs.cost(by="model")
    assert (line.name, line.usage.calls) == ("honest", 2)
