"""Quotes are found where they stand, however they were copied, and nothing else is."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lcdoc.agents.quotes import QuoteChecker, check_quote, citation_boxes, display_text
from lcdoc.documents import Document, Mark, Page, Source, Span
from lcdoc.documents.text import normalise

SOURCE = Source("story.txt", "text/plain", 0, "A story", "text", "1", "0" * 16)


def document_of(*pages: str, header: str = "") -> Document:
    """A document of these pages; with a `header`, each page begins with it, marked as a running header."""
    parts: list[str] = []
    spans: list[Page] = []
    marks: list[Mark] = []
    length = 0
    for number, page in enumerate(pages, 1):
        top = normalise(f"{header}\n\n" if header else "")
        body = normalise(page)
        if top:
            marks.append(Mark("header", length, length + len(top)))
        parts += [top, body]
        spans.append(Page(number, "i" * number, length, length + len(top) + len(body)))
        length += len(top) + len(body)
    return Document.create("".join(parts), tuple(spans), (), SOURCE, tuple(marks))


STORY = (
    "The company's revenue was $3.5 million in 2019, up 12% from 2018. It did not pay a dividend, because the "
    "directors wished to keep the cash for the acquisition of a smaller rival in Norway.\n\n"
    "“We were never asked,” said Mr. Hale—the chairman—“and we should have been.” The well-known archi-\ntect of the "
    "plan, Anna Müller, left in May. Total liabilities fell by -4.5% … to (1,250) thousand.\n\n"
)


def test_an_exact_quote_has_its_place_and_page() -> None:
    document = document_of("Nothing here.\n\n", STORY)
    quote = "It did not pay a dividend"
    citation = check_quote(document, quote)
    assert citation is not None
    assert citation.status == "exact"
    assert citation.span == Span(document.text.index(quote), document.text.index(quote) + len(quote))
    assert (citation.pages, citation.labels, citation.score, citation.occurrences) == ((2,), ("ii",), 100.0, 1)
    assert citation.document_id == document.id


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("IT DID NOT PAY A DIVIDEND", "It did not pay a dividend"),
        ("it  did\n not pay\ta dividend", "It did not pay a dividend"),
        ('"We were never asked," said Mr. Hale - the chairman', "“We were never asked,” said Mr. Hale—the chairman"),
        ("the well-known architect of the plan", "The well-known archi-\ntect of the plan"),
        ("The wellknown archi- tect", "The well-known archi-\ntect"),
        ("fell by −4.5% ... to (1,250) thousand", "fell by -4.5% … to (1,250) thousand"),
        ("Anna Mu\u0308ller, left in May", "Anna Müller, left in May"),
        ("**It did not** pay", "It did not pay"),
        ("It did not pay a dividend.", "It did not pay a dividend"),
        ("The company’s revenue", "The company's revenue"),
    ],
)
def test_copying_habits_are_normalised(quote: str, found: str) -> None:
    document = document_of(STORY)
    citation = check_quote(document, quote)
    assert citation is not None
    assert citation.status == "normalised"
    assert citation.span.of(document.text) == found


@pytest.mark.parametrize(
    "quote",
    [
        "It did not pay a dividend, because the directers wished to keep the cash for the acqusition of a rival",
        "The company's revenue was $3.5 million in 2019, up 12% from 2018, and so it did not pay a dividend",
    ],
)
def test_other_words_are_not_a_quote(quote: str) -> None:
    assert check_quote(document_of(STORY), quote) is None


def test_misprints_in_a_long_quote_are_fuzzy() -> None:
    document = document_of(STORY)
    citation = check_quote(
        document, "It did not pay a dividend, because the directers wished to keep the cash for the acqusition of"
    )
    assert citation is not None
    assert citation.status == "fuzzy"
    assert 95 <= citation.score < 100
    assert citation.span.of(document.text) == (
        "It did not pay a dividend, because the directors wished to keep the cash for the acquisition of"
    )


@pytest.mark.parametrize(
    "quote",
    [
        "The company's revenue was $3.6 million in 2019, up 12% from 2018.",
        "The company's revenue was $3.5 billion in 2019, up 12% from 2018.",
        "The company's revenue was €3.5 million in 2019, up 12% from 2018.",
        "The company's revenue was $35 million in 2019, up 12% from 2018.",
        "The company's revenue was $3,5 million in 2019, up 12% from 2018.",
        "The company's revenue was $3.5 million in 2019, down 12% from 2018.",
        "It did pay a dividend, because the directors wished to keep the cash for the acquisition of a smaller rival",
        "It did not pay a dividend, because the directors never wished to keep the cash for the acquisition of a",
        "It did not pay a dividend, because the directors wished to keep the cash for the acquisition of a smaller "
        "rival in Sweden",
        "Total liabilities fell by 4.5% … to (1,250) thousand",
        "Total liabilities fell by -4.5% … to 1,250 thousand",
        "It did not pay a dividend, because the indirectors wished to keep the cash for the acquisition of a smaller",
    ],
)
def test_changed_figures_negations_and_names_are_rejected(quote: str) -> None:
    assert check_quote(document_of(STORY), quote) is None


def test_numbers_are_not_cut_and_short_quotes_keep_whole_words() -> None:
    document = document_of("The price was 13.57 crowns. A party of artists came.")
    assert check_quote(document, "3.57") is None
    assert check_quote(document, "13.5") is None
    assert check_quote(document, "13") is None
    assert check_quote(document, "art") is None
    assert check_quote(document, "13.57") is not None


def test_spacing_does_not_make_a_negation() -> None:
    document = document_of("Her progress is notable and pages 10-20 show it.")
    assert check_quote(document, "is not able") is None
    assert check_quote(document, "pages 1020 show") is None
    assert check_quote(document, "pages 10–20 show") is not None


@pytest.mark.parametrize("quote", ["", "   ", "...", "—", "“”", "a", "\ud800", "\x00", "x" * 60_000, "qu" * 900])
def test_what_is_no_quote_is_not_found(quote: str) -> None:
    assert check_quote(document_of(STORY), quote) is None


def test_a_quote_may_run_over_a_page_break_and_its_running_header() -> None:
    document = document_of(
        "It was a long and tiring jour-\n", "ney to the coast, he said.\n\n", header="CHAPTER ONE  17"
    )
    citation = check_quote(document, "a long and tiring journey to the coast")
    assert citation is not None
    assert (citation.status, citation.pages, citation.labels) == ("normalised", (1, 2), ("i", "ii"))
    assert citation.quote == "a long and tiring jour-ney to the coast"


def test_an_ellipsis_joins_parts_that_stand_in_order_and_close_together() -> None:
    document = document_of(STORY)
    citation = check_quote(document, "It did not pay a dividend ... acquisition of a smaller rival")
    assert citation is not None
    assert [part.of(document.text) for part in citation.parts] == [
        "It did not pay a dividend",
        "acquisition of a smaller rival",
    ]
    assert citation.quote == "It did not pay a dividend … acquisition of a smaller rival"
    assert check_quote(document, "acquisition of a smaller rival … It did not pay a dividend") is None
    far = document_of("It did not pay a dividend. " + "Nothing to see. " * 500 + "An acquisition of a smaller rival.")
    assert check_quote(far, "It did not pay a dividend [...] acquisition of a smaller rival") is None
    assert check_quote(document, "It did ... 2019") is None


def test_of_several_places_the_nearest_is_taken() -> None:
    sentence = "All rights reserved by the author."
    document = document_of(f"{sentence} One.\n\n", f"{sentence} Two.\n\n", f"{sentence} Three.\n\n")
    first = check_quote(document, sentence)
    third = check_quote(document, sentence.lower(), near=document.pages[2].span)
    assert first is not None and third is not None
    assert (first.pages, first.occurrences) == ((1,), 3)
    assert (third.pages, third.occurrences, third.status) == ((3,), 3, "normalised")


def test_boxes_are_asked_of_the_citations_own_document() -> None:
    document, other = document_of(STORY), document_of("Something else.")
    citation = check_quote(document, "It did not pay a dividend")
    assert citation is not None
    assert citation_boxes(document, citation) == ()
    with pytest.raises(ValueError, match="is of document"):
        citation_boxes(other, citation)


def test_display_is_one_line() -> None:
    assert display_text(" a well-\nknown  fact\n\n of\tlife ") == "a well-known fact of life"


WORDS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "M", "S"]), min_size=1, max_size=9)
PLAIN_WORDS = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyzéßæ"), min_size=2, max_size=9)


@st.composite
def documents(draw: st.DrawFn, words: st.SearchStrategy[str] = WORDS) -> tuple[Document, Span]:
    """A document of a few pages, with or without running headers, and a range of whole words in it."""
    separator = st.sampled_from([" ", " ", " ", "\n", "\n\n", ", ", ". ", " — "])
    pages = draw(st.lists(st.lists(st.tuples(words, separator), min_size=3, max_size=20), min_size=1, max_size=4))
    header = draw(st.sampled_from(["", "Running Header 3"]))
    document = document_of(*("".join(word + after for word, after in page) for page in pages), header=header)
    body = document.body
    starts = [i for i in range(len(body)) if not body[i].isspace() and (i == 0 or body[i - 1].isspace())]
    ends = [i for i in range(1, len(body) + 1) if not body[i - 1].isspace() and (i == len(body) or body[i].isspace())]
    assume(starts)
    first = draw(st.integers(0, len(starts) - 1))
    last = draw(st.integers(first, min(first + 12, len(ends) - 1)))
    return document, Span(starts[first], ends[last])


def inner(document: Document, span: Span) -> Span:
    """The span without the punctuation at its ends, which a careless copy may lose or gain."""
    text = span.of(document.body)
    kept = [index for index, character in enumerate(text) if character.isalnum()]
    return Span(span.start + kept[0], span.start + kept[-1] + 1)


@settings(max_examples=80, deadline=None)
@given(documents())
def test_any_text_cut_from_a_document_is_found_at_its_place(case: tuple[Document, Span]) -> None:
    document, span = case
    quote = span.of(document.body)
    assume(sum(c.isalnum() for c in quote) >= 2)
    citation = check_quote(document, quote, near=span)
    assert citation is not None
    assert citation.status == "exact"
    assert citation.span == span
    pages = document.pages_of(span)
    assert citation.pages == tuple(page.number for page in pages)


@settings(max_examples=80, deadline=None)
@given(documents(words=PLAIN_WORDS), st.randoms(use_true_random=False))
def test_a_carelessly_copied_text_is_found_at_its_place(case: tuple[Document, Span], rng: random.Random) -> None:
    document, span = case
    quote = span.of(document.body)
    assume(sum(c.isalnum() for c in quote) >= 3)
    careless = "".join(rng.choice([c, c.upper() if c != "ß" else "SS"]) for c in quote)
    careless = "".join(rng.choice([" ", "\n", "  "]) if c.isspace() else c for c in careless)
    careless = careless.replace(" — ", rng.choice([" - ", "—", "–", " −− "]))
    letters = [i for i in range(1, len(careless)) if careless[i - 1].isalpha() and careless[i].isalpha()]
    if letters:
        at = rng.choice(letters)
        careless = careless[:at] + "-\n" + careless[at:]
    careless = rng.choice(["“{}”", "{}", "'{}'"]).format(careless)
    citation = check_quote(document, careless, near=span)
    assert citation is not None
    assert citation.status in {"exact", "normalised"}
    assert inner(document, citation.span) == inner(document, span)


@settings(max_examples=80, deadline=None)
@given(documents(words=PLAIN_WORDS), st.text(st.sampled_from("bcdfghjklmnpqrstvwxz "), min_size=12, max_size=200))
def test_random_text_is_not_found(case: tuple[Document, Span], text: str) -> None:
    document, _ = case
    assume(len(text.replace(" ", "")) >= 10)
    if check_quote(document, text) is not None:
        assert "".join(text.split()) in "".join(document.body.replace("—", "").split())


@settings(max_examples=100, deadline=None)
@given(documents(), st.text(max_size=80))
def test_any_string_may_be_asked_for(case: tuple[Document, Span], text: str) -> None:
    document, _ = case
    citation = check_quote(document, text)
    if citation is not None:
        assert 0 <= citation.span.start < citation.span.end <= len(document.text)
        assert all(citation.span.covers(part) for part in citation.parts)


def test_a_large_document_is_checked_quickly() -> None:
    rng = random.Random(1)
    vocabulary = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(20_000)]
    sentences = [" ".join(rng.choices(vocabulary, k=14)).capitalize() + "." for _ in range(32_000)]
    document = document_of("\n".join(sentences))
    assert len(document.text) > 2_900_000
    checker = QuoteChecker(document)
    checker.check("to fold the text once")
    started = time.perf_counter()
    for index in range(0, 20_000, 2_000):
        misprinted = sentences[index][:30] + "x" + sentences[index][31:]
        found = checker.check(misprinted)
        assert found is not None
        assert found.span.of(document.text) == sentences[index]
        assert checker.check("Nothing of this " + misprinted[40:80]) is None
    # Twenty fuzzy searches; ten times the usual time allowed, since test machines are busy.
    assert time.perf_counter() - started < 10
