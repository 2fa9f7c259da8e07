"""Questions and sentences, as far as words alone tell: stems, answer types, what a sentence offers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcdoc.agents.answer_offers import offer
from lcdoc.agents.answer_types import answer_type
from lcdoc.agents.claims import claim_of
from lcdoc.agents.questions import Question
from lcdoc.agents.stems import stem, stems_of, tokens_of


@pytest.mark.parametrize(
    "forms",
    [
        "produce produces produced producing producer",
        "acquire acquired acquires acquiring",
        "company companies",
        "govern government governed governor",
        "payment payments",
        "nation nations national",
        "run running runner ran",
        "easy easily easier",
        "married marries marry",
    ],
)
def test_forms_of_a_word_have_one_stem(forms: str) -> None:
    assert len({stem(word) for word in forms.split()}) == 1


@pytest.mark.parametrize(("one", "other"), [("news", "new"), ("2019", "2018"), ("was", "wa"), ("union", "unit")])
def test_other_words_have_other_stems(one: str, other: str) -> None:
    assert stem(one) != stem(other)


def test_numbers_and_fiscal_years_are_one_token() -> None:
    assert tokens_of("FY2019 sales: $1,234.50; FY19 too") == ["fy", "2019", "sales", "1234.50", "2019", "too"]
    assert stems_of("Who was the author of the books?") == [stem("author"), stem("books")]


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Who founded the firm?", "person"),
        ("When did the war end?", "date"),
        ("In what year was it built?", "date"),
        ("How long does the lease run?", "duration"),
        ("How many years did he stay?", "duration"),
        ("How many people live there?", "number"),
        ("What was the population of Warsaw?", "number"),
        ("How much did the ship cost?", "money"),
        ("What is the FY2019 capital expenditure?", "money"),
        ("What percentage of farmland grows beans?", "percent"),
        ("Where was she born?", "place"),
        ("Why did she leave?", "reason"),
        ("What does EBITDA mean?", "definition"),
        ("What is photosynthesis?", "definition"),
        ("How do plants make sugar?", "manner"),
        ("Is it raining?", "other"),
        ("Wo wohnt er?", "other"),
        ("", "other"),
    ],
)
def test_question_words_tell_the_answer_type(question: str, kind: str) -> None:
    assert answer_type(question) == kind


@pytest.mark.parametrize(
    ("question", "better", "worse"),
    [
        ("Who founded the firm?", "It was founded by Anna Hale.", "The firm was founded in a barn."),
        ("When did it open?", "It opened on 3 May 1921.", "It opened with a band and speeches."),
        ("How many ships sank?", "Seventeen ships sank.", "The ships sank."),
        ("How much did it cost?", "It cost $3.5 million.", "It cost too much."),
        ("What percentage voted?", "About 45% voted.", "The citizens voted."),
        ("Why did he leave?", "He left because of the noise.", "He left on a Monday."),
        ("How long is the lease?", "The lease runs for ten years.", "The lease is long."),
        ("Where was he born?", "He was born in Lisbon.", "He was born to poor parents."),
    ],
)
def test_a_sentence_that_can_answer_fits_better(question: str, better: str, worse: str) -> None:
    asked = Question.of(question)
    assert offer(asked.kind, better, asked.known).fits > offer(asked.kind, worse, asked.known).fits


def test_what_the_question_says_is_no_answer() -> None:
    asked = Question.of("How much was spent in 2019 on the 14 ships?")
    assert offer("number", "In 2019 the 14 ships were painted.", asked.known).fits == 0
    assert offer("number", "In 2019 the 14 ships took 300 tons.", asked.known).fits == 1


def test_instructions_around_a_question_weigh_less_than_what_is_asked() -> None:
    asked = Question.of("What is the quick ratio of Amcor? Round your answer to two decimal places.")
    assert asked.core == "What is the quick ratio of Amcor?"
    weights = asked.weights(dict.fromkeys(asked.stems, 1.0))
    assert weights[stem("ratio")] > 3 * weights[stem("decimal")]
    assert asked.names == {stem("amcor")}


LONG = (
    "The board met four times during the year; the committee on remuneration, which had been formed in the spring, "
    "met twice and heard a report on salaries; the audit committee, led by Mrs. Brandt, met on 14 June 2019 and "
    "approved the accounts of the year, which were then sent to the shareholders."
)


def test_a_long_claim_keeps_the_clauses_that_answer() -> None:
    claim = claim_of(LONG, Question.of("When did the audit committee approve the accounts?"))
    assert "met on 14 June 2019 and approved the accounts" in claim
    assert len(claim) < 0.7 * len(LONG)
    for part in claim.split("…"):
        assert part.strip() in LONG


@pytest.mark.parametrize(
    ("quote", "claim"),
    [
        ("• First  item\nhere.", "First item here."),
        ("(a) the buyer shall pay", "the buyer shall pay"),
        ("Founded in 1900.[3]", "Founded in 1900."),
        ("3.5 million was paid", "3.5 million was paid"),
        ("A man came.", "A man came."),
        ("—", "—"),
    ],
)
def test_a_claim_is_the_quote_without_its_trappings(quote: str, claim: str) -> None:
    assert claim_of(quote, Question.of("What happened?")) == claim


@given(st.text(max_size=300), st.text(max_size=60))
def test_any_text_may_be_asked_and_claimed(quote: str, question: str) -> None:
    asked = Question.of(question)
    claim = claim_of(quote, asked)
    squeezed = " ".join(quote.split())
    for part in claim.split("…"):
        assert part.strip() in squeezed or "[" in quote
    assert 0 <= offer(asked.kind, quote, asked.known).fits <= 1
