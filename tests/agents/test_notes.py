"""Notes hold only quotes that were found; what is not in the source is dropped and counted."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from lcdoc.agents.notes import Claim, Draft, Note, Summary, SummaryPoint, checked_note
from lcdoc.agents.reader import Passage
from lcdoc.documents import Document, Page, Source, Span
from lcdoc.retrieval.passages import Chunk, Hit

SOURCE = Source("story.txt", "text/plain", 0, "", "text", "1", "0" * 32)
TEXT = "The king died in May. The queen reigned for ten years. The king died in May."


def document_of(text: str) -> Document:
    return Document.create(text, (Page(1, "1", 0, len(text)),), (), SOURCE)


def test_quotes_that_are_not_in_the_source_are_dropped_and_counted() -> None:
    document = document_of(TEXT)
    note = checked_note(
        [(document, Span(0, 21))],
        found=True,
        quotes=["the Queen reigned for ten years", "The queen reigned for twenty years", "The queen was kind"],
        claim="She reigned for ten years.",
        confidence=4,
    )
    assert [quote.citation.quote for quote in note.quotes] == ["The queen reigned for ten years"]
    assert note.dropped == 2
    assert note.citations[0].status == "normalised"


def test_a_quote_is_cited_in_the_passage_that_was_read() -> None:
    document = document_of(TEXT)
    note = checked_note([(document, Span(55, 76))], found=True, quotes=["The king died in May."] * 2)
    assert [citation.span for citation in note.citations] == [Span(55, 76)]
    other = document_of("Nothing. The king died in May.")
    note = checked_note([(other, Span(0, 8)), (document, Span(0, 21))], found=True, quotes=["The king died in May."])
    assert note.citations[0].document_id == document.id


def test_notes_survive_json() -> None:
    note = checked_note([(document_of(TEXT), Span(0, 21))], found=True, quotes=["The king died in May."], confidence=3)
    assert list(Note.model_fields)[:4] == ["found", "quotes", "claim", "confidence"]
    assert Note.model_validate_json(note.model_dump_json()) == note


def test_confidence_is_from_0_to_5_and_notes_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Note(found=True, confidence=5.1)
    with pytest.raises(ValidationError):
        Note(found=False).found = True  # type: ignore[misc]


def test_a_claim_without_citations_is_unsupported() -> None:
    note = checked_note([(document_of(TEXT), Span(0, 21))], found=True, quotes=["The king died in May."])
    assert Claim(text="He died.").support == "unsupported"
    assert Claim(text="He died in May.", citations=note.citations).support == "quoted"
    assert Draft(found=True, claims=(Claim(text="One."), Claim(text="Two."))).text == "One.\nTwo."


def test_a_summary_is_paragraphs_by_heading() -> None:
    points = [("One.", "A"), ("Two.", "A"), ("Three.", "B")]
    summary = Summary(points=tuple(SummaryPoint(text=text, heading_path=(heading,)) for text, heading in points))
    assert summary.text == "One. Two.\n\nThree."
    assert summary.words == 3


def test_a_passage_is_a_slice_of_its_document() -> None:
    document = document_of(TEXT)
    chunk = Chunk(document.id, Span(22, 54), ("Reigns",))
    passage = Passage.of_hit(document, Hit(chunk, 1.0, cosine=0.5))
    assert (passage.text, passage.heading_path, passage.cosine) == (TEXT[22:54], ("Reigns",), 0.5)
    with pytest.raises(ValueError, match="not of"):
        Passage.of_chunk(document_of("Other."), chunk)
