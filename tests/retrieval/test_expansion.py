"""Widening a passage to its neighbours or its section."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.documents import Document, Page, Section, Source, Span
from lcdoc.retrieval.chunker import Chunker
from lcdoc.retrieval.expansion import neighbours, parent_section
from lcdoc.retrieval.passages import Chunk
from lcdoc.retrieval.tokens import estimate_tokens

SENTENCES = [f"Sentence number {index} says that it is the one after number {index - 1}." for index in range(1, 41)]


def numbered_document() -> Document:
    """Two chapters, the first with two sections of ten sentences each, the second with twenty sentences."""
    text = ""
    starts = []
    for title, first, last in (("One", 0, 0), ("One A", 0, 10), ("One B", 10, 20), ("Two", 20, 40)):
        starts.append(len(text))
        text += f"{title}\n\n" + " ".join(SENTENCES[first:last]) + ("\n\n" if last else "")
    sections = (
        Section("One", 1, starts[0], starts[3]),
        Section("One A", 2, starts[1], starts[2]),
        Section("One B", 2, starts[2], starts[3]),
        Section("Two", 1, starts[3], len(text)),
    )
    source = Source("book.txt", "text/plain", len(text), "", "text", "1", "")
    return Document.create(text, (Page(1, "1", 0, len(text)),), sections, source)


DOCUMENT = numbered_document()
CHUNKS = Chunker(max_tokens=60, min_tokens=10).chunks(DOCUMENT)
ONE_SENTENCE = estimate_tokens(SENTENCES[20])


def chunk_of(text: str) -> Chunk:
    start = DOCUMENT.text.index(text)
    return Chunk(DOCUMENT.id, Span(start, start + len(text)))


@settings(deadline=None)
@given(st.integers(0, len(CHUNKS) - 1), st.integers(0, 600))
def test_neighbours_are_whole_chunks_within_the_budget(index: int, most: int) -> None:
    span = neighbours(DOCUMENT, CHUNKS, index, max_tokens=most)
    assert span.covers(CHUNKS[index].span)
    assert span.start in {chunk.span.start for chunk in CHUNKS}
    assert span.end in {chunk.span.end for chunk in CHUNKS}
    assert estimate_tokens(span.of(DOCUMENT.body)) <= most or span == CHUNKS[index].span


def test_neighbours_come_from_both_sides() -> None:
    index = len(CHUNKS) // 2
    span = neighbours(DOCUMENT, CHUNKS, index, max_tokens=180)
    assert span == Span(CHUNKS[index - 1].span.start, CHUNKS[index + 1].span.end)


def test_all_chunks_are_neighbours_in_a_large_budget() -> None:
    assert neighbours(DOCUMENT, CHUNKS, 0, max_tokens=10_000) == Span(0, len(DOCUMENT.text.rstrip()))


def test_a_chunk_that_does_not_exist_has_no_neighbours() -> None:
    for index in (-1, len(CHUNKS)):
        with pytest.raises(IndexError):
            neighbours(DOCUMENT, CHUNKS, index, max_tokens=100)


@settings(deadline=None)
@given(st.integers(0, len(CHUNKS) - 1), st.integers(0, 1200))
def test_a_parent_covers_its_chunk_within_the_budget(index: int, most: int) -> None:
    span = parent_section(DOCUMENT, CHUNKS[index], max_tokens=most)
    assert span.covers(CHUNKS[index].span)
    assert estimate_tokens(span.of(DOCUMENT.body)) <= most or span == CHUNKS[index].span


def test_the_outermost_section_that_fits_is_the_parent() -> None:
    chunk = chunk_of(SENTENCES[14])
    section = DOCUMENT.sections[2].span
    tokens = estimate_tokens(section.of(DOCUMENT.body))
    assert parent_section(DOCUMENT, chunk, max_tokens=tokens).of(DOCUMENT.text) == section.of(DOCUMENT.text).strip()
    chapter = parent_section(DOCUMENT, chunk, max_tokens=3 * tokens).of(DOCUMENT.text)
    assert chapter.startswith("One\n\nOne A")
    assert chapter.endswith(SENTENCES[19])
    assert parent_section(DOCUMENT, chunk, max_tokens=10_000) == Span(0, len(DOCUMENT.text.rstrip()))


def test_of_a_section_too_large_the_sentences_around_the_chunk_are_taken() -> None:
    span = parent_section(DOCUMENT, chunk_of(SENTENCES[29]), max_tokens=5 * ONE_SENTENCE)
    assert span.of(DOCUMENT.text) == " ".join(SENTENCES[27:32])


def test_a_window_stays_in_its_section() -> None:
    span = parent_section(DOCUMENT, chunk_of(SENTENCES[20]), max_tokens=5 * ONE_SENTENCE)
    assert span.of(DOCUMENT.text) == "Two\n\n" + " ".join(SENTENCES[20:24])


def test_a_document_without_sections_is_one_section() -> None:
    text = " ".join(SENTENCES)
    document = Document.create(text, (Page(1, "1", 0, len(text)),), (), DOCUMENT.source)
    start = text.index(SENTENCES[9])
    chunk = Chunk(document.id, Span(start, start + len(SENTENCES[9])))
    assert parent_section(document, chunk, max_tokens=10_000) == Span(0, len(text))
    window = parent_section(document, chunk, max_tokens=3 * ONE_SENTENCE)
    assert window.of(text) == " ".join(SENTENCES[8:11])
