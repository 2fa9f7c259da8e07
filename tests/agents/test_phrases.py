"""Phrases in sentences: which sentence comes first, what is claimed of it, when nothing is found."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import pytest

from lcdoc.agents.evidence_ranking import rank_evidence
from lcdoc.agents.offline_reader import OfflineReader
from lcdoc.agents.phrase_weights import CLAIM_MARGINS
from lcdoc.agents.phrases import HOPELESS, phrase_of, read_phrases, wanted, wants_yes_or_no
from lcdoc.agents.questions import Question
from lcdoc.agents.reader import Passage
from lcdoc.agents.span_reader.spans import Answer
from lcdoc.documents import Document, Page, Source, Span
from lcdoc.retrieval.embedders import load_embedder
from lcdoc.retrieval.minilm import MiniLM

SOURCE = Source("ferries.txt", "text/plain", 0, "", "text", "1", "0" * 32)
PARAGRAPHS = [
    "The ferry Ingrid was launched at Bergen in 1921. The ferry Ingrid was sold to a yard in 1954.",
    "Her captain was Anna Brandt, a pilot's daughter. Nobody knew the fjord better.",
    "Year ended December 31,\n2019 2018 2017\nFerry tickets sold 1,503 1,848 273",
]


class Finder:
    """Finds what a pattern matches, and reads nothing into it; it keeps what it was given to read.

    An answer's margin is `margin`, less `fall` for each character before it.
    """

    def __init__(self, pattern: str, margin: float, *, fall: float = 0.0) -> None:
        self._pattern, self._margin, self._fall = pattern, margin, fall
        self.texts: list[str] = []

    def answers(self, question: str, texts: Sequence[str], *, each: int = 1) -> list[list[Answer]]:
        self.texts += texts
        return [
            [
                Answer(*match.span(), self._margin - self._fall * match.start())
                for match in re.finditer(self._pattern, text)
            ][:each]
            for text in texts
        ]


@pytest.fixture(scope="module")
def embedder() -> MiniLM:
    return load_embedder()  # type: ignore[return-value]


def passages() -> list[Passage]:
    text = "\n\n".join(PARAGRAPHS)
    document = Document.create(text, (Page(1, "1", 0, len(text)),), (), SOURCE)
    starts = [text.index(paragraph) for paragraph in PARAGRAPHS]
    return [Passage(document, Span(at, at + len(one))) for at, one in zip(starts, PARAGRAPHS, strict=True)]


def test_the_phrase_is_claimed_and_its_sentence_quoted(embedder: MiniLM) -> None:
    reader = OfflineReader(embedder, lambda: Finder("Anna Brandt", 6.0))
    note = asyncio.run(reader.read_many(passages(), "Who was the captain of the ferry Ingrid?"))
    assert note.found
    assert note.claim == "Anna Brandt"
    assert note.quotes[0].citation.quote == "Her captain was Anna Brandt, a pilot's daughter."
    draft = asyncio.run(reader.answer("Who was the captain of the ferry Ingrid?", [note]))
    assert draft.claims[0].text == "Anna Brandt"
    assert draft.claims[0].citations[0].quote.startswith("Her captain")


def test_a_sentence_with_an_answer_goes_before_one_without(embedder: MiniLM) -> None:
    question = Question.of("When was the ferry Ingrid sold?")
    ranking = rank_evidence(question, passages(), embedder)
    for year in ("1921", "1954"):
        best = read_phrases(question, passages(), ranking, Finder(year, 20.0)).evidence[0]
        assert best.phrase is not None
        assert best.phrase.text == year
        assert year in best.candidate.text


def test_shares_sum_to_one_and_come_best_first(embedder: MiniLM) -> None:
    question = Question.of("When was the ferry Ingrid sold?")
    ranking = rank_evidence(question, passages(), embedder)
    read = read_phrases(question, passages(), ranking, Finder(r"\d{4}", 1.0))
    shares = [evidence.share for evidence in read.evidence]
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    assert {e.candidate.span for e in read.evidence} == {e.candidate.span for e in ranking.evidence}


def test_where_no_answer_is_likelier_the_question_counts_less(embedder: MiniLM) -> None:
    question = Question.of("When was the ferry Ingrid sold?")
    ranking = rank_evidence(question, passages(), embedder)
    sure, unsure = (read_phrases(question, passages(), ranking, Finder("1954", margin)) for margin in (9.0, -9.0))
    assert sure.found
    assert sure.relevance > unsure.relevance
    assert sure.confidence > unsure.confidence


@pytest.mark.parametrize("text", ["When was the ferry Ingrid sold?", "Why was the ferry Ingrid sold?"])
def test_no_phrase_is_claimed_that_is_too_unlikely_for_what_is_asked(embedder: MiniLM, text: str) -> None:
    question = Question.of(text)
    ranking = rank_evidence(question, passages(), embedder)
    least = CLAIM_MARGINS[wanted(question)]
    for margin, claimed in ((least + 0.5, "1954"), (least - 0.5, None)):
        read = read_phrases(question, passages(), ranking, Finder("1954", margin))
        (best,) = (one for one in read.evidence if one.phrase is not None)
        assert phrase_of(best, question) == claimed


def test_a_subject_is_told_of_by_the_sentence(embedder: MiniLM) -> None:
    reader = OfflineReader(embedder, lambda: Finder("1954", 9.0))
    assert (
        reader.note_of(passages(), "the sale of the ferry Ingrid").claim
        == "The ferry Ingrid was sold to a yard in 1954."
    )


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("What happens if the ferry is late?", "account"),
        ("What did the captain say about the fog?", "account"),
        ("Why was it sold?", "account"),
        ("When was it sold?", "words"),
        ("What did the captain carry?", "words"),
    ],
)
def test_what_is_told_takes_a_clause(text: str, length: str) -> None:
    assert wanted(Question.of(text)) == length


def test_hopeless_questions_are_not_read(embedder: MiniLM) -> None:
    finder = Finder("1954", 9.0)
    question = Question.of("Which enzyme unwinds the double helix of a gene?")
    ranking = rank_evidence(question, passages(), embedder)
    assert ranking.relevance < HOPELESS
    assert read_phrases(question, passages(), ranking, finder) == ranking
    assert finder.texts == []


@pytest.mark.parametrize(
    ("year", "claim"), [("2018", "1,848"), ("all years", "2019 2018 2017 Ferry tickets sold 1,503 1,848 273")]
)
def test_of_a_row_the_figure_under_the_year_is_claimed(embedder: MiniLM, year: str, claim: str) -> None:
    reader = OfflineReader(embedder, lambda: Finder("1,848", 9.0))
    note = reader.note_of(passages(), f"How many ferry tickets were sold in {year}?")
    assert note.claim == claim
    assert note.quotes[0].citation.quote == "2019 2018 2017 Ferry tickets sold 1,503 1,848 273"


def test_asked_for_all_of_a_kind_the_claim_has_them_all(embedder: MiniLM) -> None:
    text = "The ferries of the fjord are the Ingrid, the red Sigrid and the Astrid. It is deep."
    document = Document.create(text, (Page(1, "1", 0, len(text)),), (), SOURCE)
    given = [Passage(document, Span(0, len(text)))]
    for fall, best in ((-0.05, "Astrid"), (0.05, "Ingrid")):
        reader = OfflineReader(embedder, lambda fall=fall: Finder("Astrid|Ingrid|red Sigrid", 5.0, fall=fall))  # type: ignore[misc]
        assert reader.note_of(given, "List all ferries of the fjord.").claim == "Ingrid; red Sigrid; Astrid"
        assert reader.note_of(given, "What is the ferry of the fjord?").claim == best
    unsure = OfflineReader(embedder, lambda: Finder("Astrid|Ingrid|red Sigrid", 1.0, fall=0.04))
    assert unsure.note_of(given, "List all ferries of the fjord.").claim == "Ingrid"


def test_asked_how_many_there_are_one_number_is_claimed(embedder: MiniLM) -> None:
    text = "4. The ferry Ingrid may carry 74 passengers, and 20 of them may stand on its deck."
    document = Document.create(text, (Page(1, "1", 0, len(text)),), (), SOURCE)
    reader = OfflineReader(embedder, lambda: Finder(r"74|20|\d", 5.0, fall=-0.01))
    note = reader.note_of([Passage(document, Span(0, len(text)))], "How many passengers may the ferry Ingrid carry?")
    assert note.claim == "20"


@pytest.mark.parametrize(
    ("question", "so"),
    [
        ("Was the ferry sold in 1954?", True),
        ("Does it float?", True),
        ("What was it?", False),
        ("Whose was it?", False),
    ],
)
def test_whether_something_is_so_is_told_by_the_sentence(embedder: MiniLM, question: str, so: bool) -> None:
    assert wants_yes_or_no(Question.of(question)) is so
    if "sold" in question:
        reader = OfflineReader(embedder, lambda: Finder("1954", 9.0))
        assert reader.note_of(passages(), question).claim == "The ferry Ingrid was sold to a yard in 1954."


def test_two_sentences_that_say_the_same_are_one_claim(embedder: MiniLM) -> None:
    text = "The ferry Ingrid was sold in 1954. In the year 1954 the ferry Ingrid was sold to a yard."
    document = Document.create(text, (Page(1, "1", 0, len(text)),), (), SOURCE)
    reader = OfflineReader(embedder, lambda: Finder("1954", 9.0))
    draft = asyncio.run(reader.answer_from([Passage(document, Span(0, len(text)))], "When was the ferry Ingrid sold?"))
    (claim,) = draft.claims
    assert claim.text == "1954"
    assert len({citation.quote for citation in claim.citations}) == 2


def test_without_a_span_reader_sentences_are_claimed_whole(embedder: MiniLM) -> None:
    note = OfflineReader(embedder, None).note_of(passages(), "When was the ferry Ingrid sold?")
    assert note.claim == "The ferry Ingrid was sold to a yard in 1954."


def test_a_phrase_ends_with_its_sentence(embedder: MiniLM) -> None:
    question = Question.of("Where was the ferry Ingrid launched?")
    ranking = rank_evidence(question, passages(), embedder)
    best = read_phrases(question, passages(), ranking, Finder(r"Bergen in 1921\. The ferry", 9.0)).evidence[0]
    assert best.phrase is not None
    assert best.phrase.text == "Bergen in 1921."


def test_only_the_passages_of_the_best_sentences_are_read(embedder: MiniLM) -> None:
    text = "\n\n".join(
        f"The ferry Ingrid was painted in colour {number}. " + "It rained. " * 60 for number in range(40)
    )
    document = Document.create(text, (Page(1, "1", 0, len(text)),), (), SOURCE)
    parts = text.split("\n\n")
    starts = [text.index(part) for part in parts]
    given = [Passage(document, Span(at, at + len(part))) for at, part in zip(starts, parts, strict=True)]
    finder = Finder("colour", 3.0)
    question = Question.of("In what colour was the ferry Ingrid painted?")
    read_phrases(question, given, rank_evidence(question, given, embedder), finder)
    assert 1 <= len(finder.texts) < 12
    assert len(set(finder.texts)) == len(finder.texts)


def test_no_passages_no_reading(embedder: MiniLM) -> None:
    finder = Finder("x", 1.0)
    question = Question.of("Who?")
    assert not read_phrases(question, [], rank_evidence(question, [], embedder), finder).found
    assert finder.texts == []
