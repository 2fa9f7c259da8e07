"""A summary is sentences of the document, from every part of it, each cited, and no longer than asked."""

from __future__ import annotations

import pytest

from lcdoc.agents.extractive_summary import summarise
from lcdoc.agents.reader import Passage
from lcdoc.documents import Document, Page, Source, Span
from lcdoc.retrieval.embedders import Embedder, load_embedder

SOURCE = Source("book.txt", "text/plain", 0, "", "text", "1", "0" * 32)
CHAPTERS = {
    "Ships": "Tankers carry oil across the oceans of the world. A large tanker needs twenty minutes to come to a stop. "
    "Most tankers are built in Korean yards of great size. Tankers are steered by two hydraulic rudders.",
    "Bees": "Honey bees live in colonies of many thousand workers. The queen of the colony lays all of its eggs. "
    "Worker bees of the colony gather nectar from flowers. Bees dance in order to show where nectar is.",
    "Glaciers": "Glaciers are rivers of ice that flow very slowly. The ice of glaciers grinds the rock beneath it. "
    "Many glaciers have lost half of their ice since 1900. Glaciers feed the rivers of the dry valleys.",
}


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load_embedder()


def book() -> list[Passage]:
    text = "\n\n".join(CHAPTERS.values())
    document = Document.create(text, (Page(1, "1", 0, len(text)),), (), SOURCE)
    passages: list[Passage] = []
    for title, chapter in CHAPTERS.items():
        start = text.index(chapter)
        passages.append(Passage(document, Span(start, start + len(chapter)), (title,)))
    return passages


def test_every_section_is_covered_in_order(embedder: Embedder) -> None:
    passages = book()
    summary = summarise(passages[::-1], embedder, words=75)
    assert [point.heading_path for point in summary.points] == [("Ships",), ("Bees",), ("Glaciers",)]
    text = passages[0].document.text
    spans = [point.citations[0].span for point in summary.points]
    assert spans == sorted(spans)
    assert all(span.of(text) == point.text for span, point in zip(spans, summary.points, strict=True))
    assert len(summary.text.split("\n\n")) == 3


@pytest.mark.parametrize("words", [12, 30, 60, 120, 10_000])
def test_a_summary_is_no_longer_than_asked(embedder: Embedder, words: int) -> None:
    summary = summarise(book(), embedder, words=words)
    assert 0 < summary.words <= words
    texts = [point.text for point in summary.points]
    assert len(texts) == len(set(texts))


def test_more_words_say_more(embedder: Embedder) -> None:
    few, many = summarise(book(), embedder, words=25), summarise(book(), embedder, words=200)
    assert len(few.points) < len(many.points)


def test_headings_rows_and_questions_are_no_statements(embedder: Embedder) -> None:
    text = (
        "Results of the year\n\nNet income of the group 1,503 1,848 273\n\nWhat did the group do in the year?\n\n"
        "The group sold its ferries to a company in Denmark."
    )
    document = Document.create(text, (Page(1, "1", 0, len(text)),), (), SOURCE)
    summary = summarise([Passage(document, Span(0, len(text)))], embedder, words=100)
    assert summary.text == "The group sold its ferries to a company in Denmark."


def test_a_text_without_statements_has_no_summary(embedder: Embedder) -> None:
    document = Document.create("1 2 3", (Page(1, "1", 0, 5),), (), SOURCE)
    assert summarise([Passage(document, Span(0, 5))], embedder, words=100).points == ()
    assert summarise([], embedder, words=100).points == ()
    with pytest.raises(ValueError, match="at least one word"):
        summarise([], embedder, words=0)


def test_a_long_text_is_summarised_from_end_to_end(embedder: Embedder) -> None:
    chapters = [
        f"Chapter {number} tells of the town called Number{number} and of its people. "
        + 12 * "They went home at dusk. "
        for number in range(60)
    ]
    text = "\n\n".join(chapters)
    document = Document.create(text, (Page(1, "1", 0, len(text)),), (), SOURCE)
    passages = [
        Passage(document, Span(text.index(chapter), text.index(chapter) + len(chapter.strip())), (f"{number}",))
        for number, chapter in enumerate(chapters)
    ]
    summary = summarise(passages, embedder, words=150)
    starts = [point.citations[0].span.start for point in summary.points]
    assert starts[0] < len(text) / 4
    assert starts[-1] > 3 * len(text) / 4
