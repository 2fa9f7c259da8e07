"""Summaries of whole documents: of the length asked for, from every section, each sentence with its quote."""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lcdoc.agents.notes import SummaryPoint
from lcdoc.agents.quotes import check_quote
from lcdoc.documents import Document
from lcdoc.memory.trees import tree_shape
from lcdoc.retrieval.chunker import Chunker
from lcdoc.retrieval.tokens import estimate_tokens
from lcdoc.tests.servers.chat_server import Recorded, Status
from lcdoc.tests.servers.truthful import MADE_UP, Block, skill_of
from lcdoc.tests.workflows.abridger import Abridger
from lcdoc.tests.workflows.conftest import HANDBOOK
from lcdoc.tests.workflows.reading_desk import Desk, desk_for, embedder
from lcdoc.workflows import events
from lcdoc.workflows.summarize import Summarize
from lcdoc.workflows.summary_answer import SummaryAnswer
from lcdoc.workflows.summary_length import Part, Sections, fit, word_count
from lcdoc.workflows.summary_request import DEFAULT_WORDS, SummaryRequest, summary_request
from lcdoc.workflows.workflow import Budget

SHORT = """\
# The Lamp

The lamp was lit on 4 March 1871. It was paid for by the guild of carters.

# The Ferries

The ferry Otterling carries ninety passengers and six carts. The ferry Bittern carries forty passengers only.
"""


@pytest.fixture
def desk(tmp_path: Path, configure: Callable[[str], None]) -> Iterator[Desk]:
    with desk_for(Summarize, tmp_path, configure, window=16_384) as made:
        made.server.default = Abridger()
        made.workspace.embedder = embedder()
        yield made


def read(desk: Desk, tmp_path: Path, text: str, name: str = "lamp.md") -> list[Document]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return desk.workspace.read([path])


def summary(desk: Desk, documents: list[Document], request: str, **options: Any) -> SummaryAnswer:
    answer = desk.ask(documents, request, **options)
    assert isinstance(answer, SummaryAnswer)
    by_id = {document.id: document for document in documents}
    for claim in answer.claims:
        assert claim.citations
        for citation in claim.citations:
            document = by_id[citation.document_id]
            found = check_quote(document, citation.quote, near=citation.span)
            assert found is not None
            assert found.span == citation.span
    return answer


# Length and coverage


def test_a_short_document_takes_one_call(desk: Desk, tmp_path: Path) -> None:
    answer = summary(desk, read(desk, tmp_path, SHORT), "")
    assert answer.usage.calls == 1
    assert answer.found
    assert [section.title for section in answer.sections] == ["The Lamp", "The Ferries"]
    assert answer.coverage == 1.0
    assert "ninety passengers" in answer.text
    assert answer.text.count("\n\n") == 1


def test_the_length_is_what_was_asked_for(desk: Desk) -> None:
    documents = desk.workspace.read([HANDBOOK])
    for words in (100, 400, 1000, 2000):
        answer = summary(desk, documents, f"Summarize in {words} words")
        assert answer.words_asked == words
        assert 0.8 * words <= answer.words <= 1.2 * words, words
        assert answer.words == len(answer.text.split())
        assert not answer.partial
        assert answer.passages_read == answer.passages
        if words >= 400:
            assert answer.coverage >= 0.9
        order = [claim.citations[0].span.start for claim in answer.claims]
        assert order == sorted(order)
    # The tree was built for the first; the others wrote only.
    shape = tree_shape(documents[0], Chunker().chunks(documents[0]), count=estimate_tokens)
    assert len(desk.asked_for("summarize")) <= 1.5 * len(shape.leaves)


def test_every_section_is_told_of_or_named(desk: Desk) -> None:
    documents = desk.workspace.read([HANDBOOK])
    answer = summary(desk, documents, "Summarize in 60 words")
    assert 0 < answer.coverage < 1
    told = {
        citation.headings[1] for claim in answer.claims for citation in claim.citations if len(citation.headings) > 1
    }
    assert told <= {section.title for section in answer.sections if section.covered}
    assert not told & set(answer.uncovered)
    assert len(answer.uncovered) + sum(section.covered for section in answer.sections) == 18
    value = answer.to_json()
    assert value["schema"] == "lcdoc.summary/1"
    assert value["uncovered"] == list(answer.uncovered)
    assert value["coverage"] == pytest.approx(answer.coverage, abs=0.001)
    assert value["words"] == answer.words
    numbers = [number for section in value["sections"] for number in section["claims"]]
    assert sorted(numbers) == list(range(len(value["claims"])))


def test_several_documents_are_all_in_it(desk: Desk, tmp_path: Path) -> None:
    documents = [*desk.workspace.read([HANDBOOK]), *read(desk, tmp_path, SHORT)]
    answer = summary(desk, documents, "Summarize in 500 words")
    assert {section.document_id for section in answer.sections if section.covered} == {d.id for d in documents}
    assert [claim.citations[0].document_id for claim in answer.claims][-1] == documents[1].id


def test_offline_it_is_made_of_the_sentences_of_the_text(desk: Desk, tmp_path: Path) -> None:
    answer = summary(desk, read(desk, tmp_path, SHORT), "Summarize in 40 words", offline=True)
    assert answer.found
    assert answer.words <= 48
    assert answer.coverage == 1.0
    assert desk.server.requests == []


# Focus


def test_with_a_focus_every_leaf_is_read_for_it(desk: Desk) -> None:
    documents = desk.workspace.read([HANDBOOK])
    answer = summary(desk, documents, "Summarize in 120 words: bell-ringers of Oddersley")
    assert answer.found
    assert "bell-ringers" in answer.text
    assert len(desk.asked_for("read")) > 15
    assert not desk.asked_for("summarize")
    assert answer.words <= 1.2 * 120
    assert answer.passages_read == answer.passages
    assert "9 Upkeep and Stores" in answer.uncovered
    nothing = summary(desk, documents, "Summarize in 120 words: enzymes unwinding helices")
    assert not nothing.found
    assert nothing.claims == ()
    assert not nothing.partial


# What goes wrong


def test_sentences_without_a_quote_in_the_source_are_left_out_and_counted(desk: Desk, tmp_path: Path) -> None:
    class Inventor(Abridger):
        def _summarize(self, blocks: list[Block], task: str, chance: Random) -> dict[str, Any]:
            points = super()._summarize(blocks, task, chance)["points"]
            return {"points": [{"text": MADE_UP, "quote": MADE_UP}, *points]}

    desk.server.default = Inventor()
    answer = summary(desk, read(desk, tmp_path, SHORT), "")
    assert answer.found
    assert "admiral" not in answer.text
    assert answer.points_dropped == 1


def test_a_cap_gives_what_there_is_and_names_what_is_not_told_of(desk: Desk) -> None:
    documents = desk.workspace.read([HANDBOOK])
    answer = summary(desk, documents, "Summarize in 300 words", budget=Budget(calls=6))
    assert answer.partial
    assert answer.found
    assert answer.usage.calls == 6
    assert any("calls" in warning for warning in answer.warnings)
    assert "Appendix B: Words of the River" in answer.uncovered
    assert answer.passages_read < answer.passages
    assert answer.words <= 360
    again = summary(desk, documents, "Summarize in 300 words")
    assert not again.partial
    assert again.coverage > answer.coverage
    sent = [request.body["messages"][1]["content"] for request in desk.asked_for("summarize")]
    assert len(sent) == len(set(sent))


def test_a_part_that_cannot_be_put_into_words_is_told_in_its_leaves_words(desk: Desk) -> None:
    honest = Abridger()

    def condenses_nothing(recorded: Recorded) -> Any:
        known = skill_of(recorded.body["messages"][0]["content"])
        if known and known[0] == "condense":
            return Status(400, body={"error": {"message": "not today"}})
        return honest(recorded)

    desk.server.default = condenses_nothing
    answer = summary(desk, desk.workspace.read([HANDBOOK]), "Summarize in 300 words")
    assert answer.partial
    assert any("not today" in warning for warning in answer.warnings)
    assert 240 <= answer.words <= 360
    assert answer.coverage >= 0.6


def test_blank_documents_have_no_summary(desk: Desk, tmp_path: Path) -> None:
    documents = read(desk, tmp_path, "# Title\n\n* * *\n")
    answer = summary(desk, documents, "")
    assert answer.coverage in (0.0, 1.0)
    assert answer.words <= 5


def test_a_plan_counts_what_is_sent(desk: Desk, tmp_path: Path) -> None:
    short = read(desk, tmp_path, SHORT)
    assert desk.plan(short, "").calls == 1
    documents = desk.workspace.read([HANDBOOK])
    plan = desk.plan(documents, "Summarize in 300 words")
    assert desk.server.requests == []
    answer = summary(desk, documents, "Summarize in 300 words")
    assert plan.calls == pytest.approx(answer.usage.calls, rel=0.15)
    assert plan.at_most is not None
    assert plan.at_most.tokens_in >= answer.usage.tokens_in
    after = desk.plan(documents, "Summarize in 300 words")
    assert after.calls < plan.calls / 2
    focused = desk.plan(documents, "Summarize in 300 words: light dues")
    assert focused.calls > after.calls
    assert desk.plan(documents, "", offline=True).calls == 0


def test_events_say_what_is_read(desk: Desk, tmp_path: Path) -> None:
    documents = desk.workspace.read([HANDBOOK])
    summary(desk, documents, "Summarize in 200 words")
    (pieces,) = desk.of(events.Pieces)
    assert len(pieces.places) > 20
    last = [event for event in desk.of(events.Progress) if event.stage == "asking"][-1]
    assert last.done == last.total > len(pieces.places)


# Requests


@pytest.mark.parametrize(
    ("question", "focus", "words"),
    [
        ("", "", DEFAULT_WORDS),
        ("Summarize this book.", "", DEFAULT_WORDS),
        ("Please give me a brief overview of the whole report", "", DEFAULT_WORDS),
        ("What is this document about?", "", DEFAULT_WORDS),
        ("Summarise the paper in about 1,500 words", "", 1500),
        ("Fasse das Buch in 200 Wörtern zusammen", "", 200),
        ("Write a 250-word summary", "", 250),
        ("What does the report say about light dues?", "What does the report say about light dues?", DEFAULT_WORDS),
        ("Summarize in 120 words: fares and freight", "fares and freight", 120),
        ("Summarize in 3 words", "", 20),
    ],
)
def test_a_request_says_how_long_and_what_about(question: str, focus: str, words: int) -> None:
    assert summary_request(question) == SummaryRequest(focus, words)


@pytest.mark.parametrize(
    "question",
    [
        "Summarise the handbook",
        "Summarise the employee handbook.",
        "Please summarise the annual report",
        "Can you write an executive summary?",
        "What are the key points of the meeting?",
        "What are the main findings of this study?",
        "What is the rental agreement about?",
        "Write a summary in five bullet points",
        "What happens in the novel?",
        "tl;dr",
        "TLDR please",
        "In a nutshell?",
        "Worum geht es in diesem Vertrag?",
        "Wovon handelt der Roman?",
        "Kannst du mir bitte einen kurzen Überblick über das Dokument geben?",
        "Fasse den Bericht kurz zusammen.",
        "De quoi parle ce livre ?",
        "De quoi s'agit-il dans ce rapport ?",
        "Pouvez-vous résumer le contrat ?",
        "Quels sont les points principaux du rapport ?",
    ],
)
def test_a_plain_request_asks_for_everything(question: str) -> None:
    assert summary_request(question) == SummaryRequest("", DEFAULT_WORDS)
    assert summary_request(f"{question.rstrip('.?! ')} in 100 words").focus == ""


@pytest.mark.parametrize(
    "question",
    [
        "Summarise chapter 3",
        "Summarise the last letter",
        "Summarise the Boeing report",
        "Summarise what the report says about the meeting",
        "What does the lease say about policies?",
        "What are the key points of the meeting on fares?",
        "Give me an overview of the tenant's duties",
        "Worum geht es im dritten Kapitel?",
        "Was sagt der Vertrag über den Bericht?",
        "De quoi parle le premier chapitre ?",
        "Résume les obligations du locataire",
    ],
)
def test_what_a_request_names_is_its_focus(question: str) -> None:
    assert summary_request(question).focus == question


@pytest.mark.parametrize(
    "request_", [SummaryRequest(), SummaryRequest("fares: all of them", 90), SummaryRequest("", 2000)]
)
def test_a_request_in_words_is_that_request_again(request_: SummaryRequest) -> None:
    assert summary_request(request_.question) == request_


# Fitting


@pytest.mark.parametrize(("words", "begun"), [(30, 18), (60, 18), (100, 18), (200, 18), (400, 2)])
def test_fitting_adds_and_leaves_out_whole_points(tmp_path: Path, words: int, begun: int) -> None:
    from lcdoc.documents import load

    path = tmp_path / "days.md"
    days = [f"Day {day} brought {day * 7} barrels and no wind to speak of at all." for day in range(60)]
    chapters = [f"# Chapter {n}\n\n{' '.join(days[n * 10 : n * 10 + 10])}\n\n" for n in range(6)]
    path.write_text("".join(chapters), encoding="utf-8")
    document = load(path)
    shape = tree_shape(document, Chunker().chunks(document), count=estimate_tokens, leaf_tokens=200)
    citations = [check_quote(document, day) for day in days]
    points = [SummaryPoint(text=day, citations=(one,)) for day, one in zip(days, citations, strict=True) if one]
    assert len(points) == 60
    first = Part(words / 2, points[:begun], points[begun:30])
    second = Part(words / 2, [], points[30:])
    fitted = fit([first, second], words, Sections([shape]))
    assert 0.8 * words <= word_count(fitted) <= 1.2 * words
    assert [points.index(point) for point in fitted] == sorted(points.index(point) for point in fitted)
    covered = {point.citations[0].headings for point in fitted}
    assert len(covered) == min(6, len(fitted))
