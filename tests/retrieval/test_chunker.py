"""Chunks: what must hold for any document, and what a reader of chunks expects of them."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.documents import Document, Mark, Page, Section, Source, Span
from lcdoc.documents.text import normalise
from lcdoc.retrieval.chunker import Chunker
from lcdoc.retrieval.long_sentences import cut_long_sentence
from lcdoc.retrieval.passages import Chunk
from lcdoc.retrieval.sentences import sentence_spans
from lcdoc.retrieval.tokens import estimate_tokens

SOURCE = Source("book.txt", "text/plain", 0, "", "text", "1", "")


def make_document(text: str, sections: tuple[Section, ...] = (), marks: tuple[Mark, ...] = ()) -> Document:
    return Document.create(text, (Page(1, "1", 0, len(text)),), sections, SOURCE, marks)


def from_sections(*parts: tuple[str, int, str]) -> Document:
    """A document of (title, level, body) sections; each ends where the next of its level or above begins."""
    text = ""
    starts = []
    for title, _, body in parts:
        starts.append(len(text))
        text += f"{title}\n\n{body}\n\n" if body else f"{title}\n\n"
    sections = []
    for index, (title, level, _) in enumerate(parts):
        later = (starts[other] for other in range(index + 1, len(parts)) if parts[other][1] <= level)
        sections.append(Section(title, level, starts[index], next(later, len(text))))
    return make_document(text, tuple(sections))


def texts(document: Document, chunks: list[Chunk]) -> list[str]:
    return [chunk.span.of(document.body) for chunk in chunks]


def words(count: int, word: str = "word") -> str:
    return " ".join([word] * count)


LEADERS = re.compile(r"(?: ?\.){4,60}")
SENTENCE = "The quick brown fox jumps over the lazy dog near the old mill."
WORDS = st.sampled_from(
    ["alpha", "beta", "of", "The", "Mr.", "U.S.", "3.5", "é", "我们", "。", "x" * 90, "(a)", "-", "•"]
)
SENTENCES = st.lists(WORDS, min_size=1, max_size=40).map(lambda parts: " ".join(parts) + ". ")
PARAGRAPHS = st.lists(SENTENCES, min_size=1, max_size=8).map("".join)
BODIES = st.one_of(st.text(max_size=300), st.lists(PARAGRAPHS, max_size=8).map("\n\n".join))


@st.composite
def documents(draw: st.DrawFn) -> Document:
    text = normalise(draw(BODIES))
    offsets = st.integers(0, len(text))
    starts = sorted(set(draw(st.lists(offsets, max_size=6))))
    sections = tuple(
        Section(f"title {index}", 1, start, end)
        for index, (start, end) in enumerate(pairwise([*starts, len(text)]))
        if start < end
    )
    edges = sorted(draw(st.lists(offsets, max_size=4, unique=True)))
    marks = tuple(Mark("header", start, end) for start, end in zip(edges[::2], edges[1::2], strict=False))
    return make_document(text, sections, marks)


CHUNKERS = st.builds(
    lambda most, share: Chunker(max_tokens=most, min_tokens=int(most * share)),
    st.integers(1, 120),
    st.sampled_from([0.0, 0.2, 0.5]),
)


@settings(deadline=None)
@given(documents(), CHUNKERS)
def test_chunks_are_ordered_disjoint_and_cover_the_body(document: Document, chunker: Chunker) -> None:
    chunks = chunker.chunks(document)
    covered = 0
    for chunk in chunks:
        assert chunk.document_id == document.id
        assert document.body[covered : chunk.span.start].strip() == ""
        assert chunk.span.of(document.body) == chunk.span.of(document.body).strip() != ""
        assert chunk.span.start >= covered
        covered = chunk.span.end
    assert document.body[covered:].strip() == ""


@settings(deadline=None)
@given(documents(), CHUNKERS)
def test_no_chunk_is_larger_than_the_limit(document: Document, chunker: Chunker) -> None:
    for text in texts(document, chunker.chunks(document)):
        assert estimate_tokens(LEADERS.sub(" .", text)) <= chunker.max_tokens or len(text) == 1


@settings(deadline=None)
@given(documents(), CHUNKERS)
def test_sentences_that_fit_are_never_cut(document: Document, chunker: Chunker) -> None:
    edges = sorted({0, *(section.start for section in document.sections), len(document.text)})
    cuts = {chunk.span.start for chunk in chunker.chunks(document)}
    for start, end in pairwise(edges):
        for sentence in sentence_spans(document.body, start, end):
            if estimate_tokens(LEADERS.sub(" .", sentence.of(document.body))) <= chunker.max_tokens:
                assert not any(sentence.start < cut < sentence.end for cut in cuts)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 12)), min_size=1, max_size=12), st.integers(0, 60))
def test_sections_of_some_length_start_chunks(sizes: list[tuple[int, int]], least: int) -> None:
    parts = [(f"Chapter {index}", level, " ".join([SENTENCE] * size)) for index, (level, size) in enumerate(sizes)]
    document = from_sections(*parts)
    starts = {chunk.span.start for chunk in Chunker(min_tokens=least).chunks(document)}

    def is_long(index: int) -> bool:
        title, _, body = parts[index]
        return bool(body) and estimate_tokens(f"{title}\n\n{body}") >= least

    for index, section in enumerate(document.sections[1:], 1):
        if is_long(index - 1) and any(is_long(later) for later in range(index, len(parts))):
            assert section.start in starts


@settings(deadline=None)
@given(documents())
def test_another_counter_sets_the_limits(document: Document) -> None:
    for text in texts(document, Chunker(max_tokens=50, min_tokens=0, count=len).chunks(document)):
        assert len("".join(text.split())) <= 50


def test_a_blank_document_has_no_chunks() -> None:
    assert Chunker().chunks(make_document(" \n\n \n")) == []
    assert Chunker().chunks(make_document("")) == []


def test_a_short_document_is_one_chunk() -> None:
    document = make_document(f"  {SENTENCE} {SENTENCE}\n\n{SENTENCE}\n")
    assert [chunk.span for chunk in Chunker().chunks(document)] == [Span(2, len(document.text) - 1)]


def test_chunks_are_filled_and_the_last_is_no_scrap() -> None:
    document = make_document(" ".join([SENTENCE] * 100))
    tokens = [estimate_tokens(text) for text in texts(document, Chunker(max_tokens=100).chunks(document))]
    assert min(tokens) > 50
    assert sum(tokens) / len(tokens) > 75


def test_a_chunk_ends_with_a_paragraph_where_one_ends_late_enough() -> None:
    paragraph = " ".join([SENTENCE] * 4)
    document = make_document("\n\n".join([paragraph] * 12))
    assert set(texts(document, Chunker(max_tokens=80).chunks(document))) == {paragraph}


def test_section_starts_are_chunk_starts_and_name_the_path() -> None:
    body = " ".join([SENTENCE] * 3)
    document = from_sections(("One", 1, body), ("One point one", 2, body), ("Two", 1, body))
    chunks = Chunker().chunks(document)
    assert [chunk.span.start for chunk in chunks] == [section.start for section in document.sections]
    assert [chunk.heading_path for chunk in chunks] == [("One",), ("One", "One point one"), ("Two",)]


def test_a_heading_stays_with_the_text_of_its_first_subsection() -> None:
    document = from_sections(("Part One", 1, ""), ("The first chapter", 2, " ".join([SENTENCE] * 30)))
    chunks = Chunker(max_tokens=60).chunks(document)
    first = chunks[0].span.of(document.body)
    assert first.startswith("Part One\n\nThe first chapter\n\nThe quick")
    assert chunks[0].heading_path == ("Part One", "The first chapter")


def test_a_heading_stays_with_a_sentence_that_must_be_cut() -> None:
    document = from_sections(("A heading", 1, words(300)))
    first = Chunker(max_tokens=60).chunks(document)[0].span.of(document.body)
    assert first.startswith("A heading\n\nword word")


def test_a_chunk_does_not_end_with_the_heading_of_the_next() -> None:
    paragraph = " ".join([SENTENCE] * 4)
    document = make_document("\n\n".join([paragraph, "A heading without an outline", paragraph, paragraph]))
    chunks = texts(document, Chunker(max_tokens=75, min_tokens=10).chunks(document))
    assert any(text.startswith("A heading without an outline") for text in chunks)


def test_short_sections_are_joined_with_what_follows() -> None:
    document = from_sections(("A", 1, "Short."), ("B", 1, "Also short."), ("C", 1, " ".join([SENTENCE] * 5)))
    assert len(Chunker(min_tokens=20).chunks(document)) == 1
    assert len(Chunker(min_tokens=0).chunks(document)) == 3


def test_a_short_last_section_is_joined_with_the_one_before() -> None:
    document = from_sections(("A", 1, " ".join([SENTENCE] * 5)), ("B", 1, "The end."))
    assert len(Chunker().chunks(document)) == 1


def test_running_headers_are_no_part_of_a_sentence_and_pages_no_boundary() -> None:
    before, header, after = "The bank raised the", "\nAnnual Report 2022 | 17\n", "rate of interest."
    text = before + header + after
    start = len(before)
    document = Document.create(
        text,
        (Page(1, "1", 0, start + 1), Page(2, "2", start + 1, len(text))),
        (),
        SOURCE,
        (Mark("header", start + 1, start + len(header)),),
    )
    (chunk,) = Chunker().chunks(document)
    assert chunk.span == Span(0, len(text))
    assert len(sentence_spans(document.body)) == 1


def test_tables_are_cut_between_rows() -> None:
    rows = [f"Revenue of segment {index} 1,{index:03d} 2,{index:03d} 3,{index:03d}" for index in range(60)]
    document = make_document("\n".join(rows))
    for text in texts(document, Chunker(max_tokens=100).chunks(document)):
        assert set(text.split("\n")) <= set(rows)


def test_a_table_of_contents_is_not_one_chunk_a_line() -> None:
    lines = [f"{number} The title of chapter {number} {'. ' * 40}{10 * number}" for number in range(1, 31)]
    chunks = Chunker(max_tokens=100).chunks(make_document("\n".join(lines)))
    assert len(chunks) < 6
    assert len(Chunker(max_tokens=100).chunks(make_document("." * 100_000))) > 5


def test_many_headings_without_text_take_linear_time() -> None:
    document = from_sections(*[(f"Heading {index}", 1, "") for index in range(5_000)])
    started = time.process_time()
    chunks = Chunker().chunks(document)
    assert time.process_time() - started < 3
    assert document.body[: chunks[-1].span.end].endswith("Heading 4999")


def test_limits_that_make_no_sense_are_refused() -> None:
    for most, least in ((0, 0), (10, 11), (10, -1)):
        with pytest.raises(ValueError, match="min_tokens"):
            Chunker(max_tokens=most, min_tokens=least)


LONG = st.lists(st.one_of(WORDS, st.text(max_size=8)), min_size=1, max_size=80).map(
    lambda parts: " ".join(parts).strip()
)


@settings(deadline=None)
@given(LONG.filter(bool), st.integers(1, 40), st.integers(1, 40))
def test_pieces_of_a_long_sentence(text: str, limit: int, room: int) -> None:
    text = normalise(text).strip()
    room = min(room, limit)
    pieces = cut_long_sentence(text, 0, len(text), limit=limit, count=estimate_tokens, room=room)
    position = 0
    for index, (start, end) in enumerate(pieces):
        piece = text[start:end]
        assert text[position:start].strip() == ""
        assert piece == piece.strip()
        assert estimate_tokens(piece) <= (limit if index else room) or len(piece) == 1
        position = end
    assert text[position:].strip() == ""


def test_long_sentences_are_cut_at_clauses_and_never_inside_words() -> None:
    clause = "the tenant shall keep the garden in good order"
    text = "; ".join([clause] * 20)
    pieces = cut_long_sentence(text, 0, len(text), limit=45, count=estimate_tokens)
    assert all(text[start:end].endswith("order;") for start, end in pieces[:-1])
    text = words(200, "antidisestablishmentarianism")
    pieces = cut_long_sentence(text, 0, len(text), limit=45, count=estimate_tokens)
    assert {word for start, end in pieces for word in text[start:end].split()} == {"antidisestablishmentarianism"}


def test_a_counter_that_no_text_satisfies_still_ends() -> None:
    assert cut_long_sentence("abc", 0, 3, limit=1, count=lambda _: 5) == [(0, 1), (1, 2), (2, 3)]


def test_the_recipe_names_the_parameters():
    assert Chunker().recipe == Chunker().recipe
    recipes = {Chunker().recipe, Chunker(max_tokens=90).recipe, Chunker(min_tokens=5).recipe, Chunker(count=len).recipe}
    assert len(recipes) == 4
