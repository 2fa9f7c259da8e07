"""What may be quoted: sentences and rows, as spans that cover their passages."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.agents.candidates import MAX_CANDIDATE_CHARACTERS, candidates_of, column_header, cut_long, is_row
from lcdoc.agents.reader import Passage
from lcdoc.documents import Document, Page, Source, Span

SOURCE = Source("report.txt", "text/plain", 0, "", "text", "1", "0" * 32)


def document_of(text: str) -> Document:
    return Document.create(text, (Page(1, "1", 0, len(text)),), (), SOURCE)


TABLE = """Cash flows are shown below.

(in millions) 2019 2018 2017
Net income $ 1,503 $ 1,848 $ 273
Capital expenditures (116) (131) (155)

The company spent less on equipment than in the year before."""


def test_rows_are_told_from_sentences() -> None:
    document = document_of(TABLE)
    candidates = candidates_of([Passage(document, Span(0, len(TABLE)))])
    rows = [candidate for candidate in candidates if candidate.is_row]
    assert "Capital expenditures (116) (131) (155)" in [row.text for row in rows]
    assert not is_row("It was founded in 1921 by 3 men.")
    assert not is_row("Cash flows are shown below.")


def test_a_row_knows_the_years_above_it() -> None:
    document = document_of(TABLE)
    row = next(c for c in candidates_of([Passage(document, Span(0, len(TABLE)))]) if c.text.startswith("Capital"))
    assert row.header is not None
    assert row.header.of(TABLE) == "(in millions) 2019 2018 2017"
    assert "2019" in row.header_stems
    assert column_header("No years here\n\nCapital expenditures 1 2", Span(15, 39)) is None


def test_the_same_sentence_in_two_passages_is_one_candidate() -> None:
    text = "One stands here. Two stands here. Three stands here."
    document = document_of(text)
    candidates = candidates_of([Passage(document, Span(0, 33)), Passage(document, Span(17, len(text)))])
    assert [(c.text, c.passage) for c in candidates] == [
        ("One stands here.", 0),
        ("Two stands here.", 0),
        ("Three stands here.", 1),
    ]


def test_a_heading_is_no_evidence() -> None:
    text = "Notice period\n\nEither party may give notice of 30 days."
    candidates = candidates_of([Passage(document_of(text), Span(0, len(text)), ("Terms", "Notice Period"))])
    assert [candidate.text for candidate in candidates] == ["Either party may give notice of 30 days."]


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from("ab1; .\n\n—é"), max_size=4_000))
def test_candidates_are_ordered_disjoint_and_bounded(text: str) -> None:
    document = document_of(text)
    covered = 0
    for candidate in candidates_of([Passage(document, Span(0, len(text)))]):
        assert covered <= candidate.span.start < candidate.span.end
        assert not any(map(str.isalnum, text[covered : candidate.span.start]))
        assert len(candidate.span) <= MAX_CANDIDATE_CHARACTERS
        assert candidate.raw == candidate.raw.strip() == candidate.span.of(text)
        covered = candidate.span.end
    assert not any(map(str.isalnum, text[covered:]))


def test_long_sentences_are_cut_where_they_may_be() -> None:
    text = "; ".join(f"item {number} of the list" for number in range(100))
    parts = cut_long(text, Span(0, len(text)))
    assert all(part.of(text).endswith((";", "list")) for part in parts)
    unbroken = "x" * 2_000
    assert [len(part) for part in cut_long(unbroken, Span(0, 2_000))] == [700, 700, 600]
