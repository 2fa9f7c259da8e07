"""The reader without a model finds the sentence that answers, cites it, and says when there is none."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.agents.notes import Note
from lcdoc.agents.offline_reader import OfflineReader
from lcdoc.agents.reader import Passage, Reader
from lcdoc.documents import Document, Page, Source, Span
from lcdoc.retrieval.embedders import load_embedder

SOURCE = Source("annual-report.txt", "text/plain", 0, "", "text", "1", "0" * 32)
PARAGRAPHS = [
    "Halden Marine was founded in 1921 by Anna Brandt in the port of Bergen. She had inherited two fishing boats from "
    "her father. The first shipyard stood on the quay until a fire destroyed it.",
    "In 1954 the company moved its yard to Stavanger, because the harbour of Bergen had become too shallow for the new "
    "tankers. Four hundred families moved with it.",
    "The company employs approximately 9,200 people in fourteen countries. About 45% of them work at sea. Wages rose "
    "in every year of the last decade.",
    "The notice period for members of the board is six months. A member who has served for more than ten years "
    "receives a pension.",
    "Year ended December 31,\n2019 2018 2017\nNet income $ 1,503 $ 1,848 $ 273\n"
    "Capital expenditures (116) (131) (155)\nDividends paid (283) (259) (226)",
    "The rudder of a tanker is moved by two hydraulic pumps. If one of them fails, the other takes over within three "
    "seconds, so that the ship can be steered at all times.",
]


def document_of(paragraphs: list[str]) -> Document:
    text = "\n\n".join(paragraphs)
    return Document.create(text, (Page(1, "1", 0, len(text)),), (), SOURCE)


REPORT = document_of(PARAGRAPHS)


def passages_of(document: Document, paragraphs: list[str]) -> list[Passage]:
    starts = [document.text.index(paragraph) for paragraph in paragraphs]
    return [
        Passage(document, Span(start, start + len(paragraph)))
        for start, paragraph in zip(starts, paragraphs, strict=True)
    ]


@pytest.fixture(scope="module")
def reader() -> OfflineReader:
    return OfflineReader(load_embedder())


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Who founded Halden Marine?", "Anna Brandt"),
        ("Why did the company move to Stavanger?", "too shallow"),
        ("How many people does the company employ?", "9,200"),
        ("What percentage of the employees work at sea?", "45%"),
        ("How long is the notice period for board members?", "six months"),
        ("What destroyed the first shipyard?", "fire"),
        ("What was the capital expenditure in 2019?", "(116)"),
        ("How many pumps move the rudder of a tanker?", "two"),
    ],
)
def test_the_sentence_that_answers_is_quoted_first(reader: OfflineReader, question: str, answer: str) -> None:
    note = asyncio.run(reader.read_many(passages_of(REPORT, PARAGRAPHS), question))
    assert note.found
    best = note.quotes[0]
    assert answer in best.citation.quote
    assert answer in note.claim
    # A reason is the whole sentence.
    assert (note.claim == best.citation.quote) == question.startswith("Why")
    assert best.citation.parts[-1].of(REPORT.text).split() == best.citation.quote.split(" … ")[-1].split()
    assert 0 < note.confidence <= 5
    assert note.dropped == 0


@pytest.mark.parametrize(
    "question",
    [
        "What do penguins eat in winter?",
        "Who wrote Pride and Prejudice?",
        "What is the melting point of tungsten?",
        "",
        "?",
    ],
)
def test_what_the_document_is_not_about_is_not_found(reader: OfflineReader, question: str) -> None:
    note = asyncio.run(reader.read_many(passages_of(REPORT, PARAGRAPHS), question))
    assert not note.found
    assert note.quotes == ()
    assert asyncio.run(reader.answer(question, [note])).found is False


def test_a_table_row_is_quoted_with_its_years(reader: OfflineReader) -> None:
    note = asyncio.run(reader.read_many(passages_of(REPORT, PARAGRAPHS), "What dividends were paid in 2018?"))
    assert note.quotes[0].citation.quote == "2019 2018 2017 … Dividends paid (283) (259) (226)"


def test_a_sentence_that_ends_in_a_colon_comes_with_what_it_announces(reader: OfflineReader) -> None:
    text = (
        "Revenue of the ferries fell for this reason:\n\n• two ships were laid up for repairs.\n\nOther news is good."
    )
    document = document_of([text])
    note = asyncio.run(reader.read(Passage(document, Span(0, len(text))), "Why did the revenue of the ferries fall?"))
    assert note.quotes[0].citation.quote.endswith("two ships were laid up for repairs.")


def test_nothing_new_hands_the_carried_note_on_unchanged(reader: OfflineReader) -> None:
    passages = passages_of(REPORT, PARAGRAPHS)
    question = "Who founded Halden Marine?"
    first = asyncio.run(reader.read(passages[0], question))
    assert first.found
    other = document_of(["Penguins are birds. They eat krill and small fish in the cold sea."])
    carried = asyncio.run(reader.read(Passage(other, Span(0, len(other.text))), question, first))
    assert carried == first.model_copy(update={"unchanged": True})
    again = asyncio.run(reader.read(passages[0], question, first))
    assert (again.unchanged, again.citations) == (False, first.citations)


def test_merging_keeps_each_piece_of_evidence_once_and_the_best_first(reader: OfflineReader) -> None:
    question = "How many people does the company employ?"
    passages = passages_of(REPORT, PARAGRAPHS)
    notes = [asyncio.run(reader.read(passage, question)) for passage in passages]
    merged = asyncio.run(reader.merge([*notes, *notes], question))
    parts = [citation.parts[-1] for citation in merged.citations]
    assert len(parts) == len(set(parts)) <= 5
    assert "9,200" in merged.quotes[0].citation.quote
    confidences = [quote.confidence for quote in merged.quotes]
    assert confidences == sorted(confidences, reverse=True)
    assert merged.confidence == max(note.confidence for note in notes if note.found)
    assert asyncio.run(reader.merge([], question)) == Note(found=False)


def test_an_answer_is_claims_with_citations(reader: OfflineReader) -> None:
    question = "Who founded Halden Marine?"
    note = asyncio.run(reader.read_many(passages_of(REPORT, PARAGRAPHS), question))
    draft = asyncio.run(reader.answer(question, [note, Note(found=False)]))
    assert draft.found
    assert 1 <= len(draft.claims) <= 3
    assert all(claim.support == "quoted" for claim in draft.claims)
    assert "Anna Brandt" in draft.claims[0].text
    unquoted = asyncio.run(reader.answer(question, [Note(found=True, claim="Somebody did.", confidence=1)]))
    assert [claim.support for claim in unquoted.claims] == ["unsupported"]


def test_the_option_about_the_question_is_chosen(reader: OfflineReader) -> None:
    options = ["Pensions and notice periods of the board", "How ships are steered", "The founding of the company"]

    def choose(question: str, trail: list[str]) -> int | None:
        return asyncio.run(reader.choose(question, options, trail)).option

    assert choose("Who founded the company?", []) == 2
    assert choose("How is a tanker steered?", []) == 1
    assert choose("How is a tanker steered?", [options[1]]) != 1
    assert choose("zebra xylophone", []) is None
    assert asyncio.run(reader.choose("Who?", [], [])).option is None


def test_passages_of_several_documents_are_cited_in_their_own(reader: OfflineReader) -> None:
    other = document_of(["Karl Mohn founded the rival yard Nordlys in 1930. It built only sailing boats."])
    passages = [*passages_of(REPORT, PARAGRAPHS[:2]), Passage(other, Span(0, len(other.text)))]
    note = asyncio.run(reader.read_many(passages, "Who founded the yard Nordlys?"))
    assert note.citations[0].document_id == other.id


def test_it_is_a_reader(reader: OfflineReader) -> None:
    protocol: Reader = reader
    assert asyncio.run(protocol.read(Passage(REPORT, Span(0, 0)), "Who founded it?")) == Note(found=False)


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=60), st.text(max_size=400))
def test_any_question_may_be_asked_of_any_text(question: str, text: str) -> None:
    document = document_of([text])
    reader = OfflineReader(load_embedder_once())
    note = reader.note_of([Passage(document, Span(0, len(document.text)))], question)
    assert note.found == bool(note.quotes)
    for quote in note.quotes:
        assert quote.citation.span.end <= len(document.text)


_EMBEDDERS: list[object] = []


def load_embedder_once():  # type: ignore[no-untyped-def]
    """Fixtures of module scope do not go with hypothesis."""
    if not _EMBEDDERS:
        _EMBEDDERS.append(load_embedder())
    return _EMBEDDERS[0]
