"""Notes that contradict each other: which do, how it is settled, and what the user is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lcdoc.agents.notes import Note, checked_note
from lcdoc.documents import Document, Page, Source, Span
from lcdoc.tests.servers.chat_server import Status
from lcdoc.tests.workflows.reading_desk import Desk, Lister, book, desk_for, page_of
from lcdoc.workflows import events
from lcdoc.workflows.conflicts import MAX_REREADINGS, Settlement
from lcdoc.workflows.map_reduce import MapReduce
from lcdoc.workflows.sides import Side, sides_of, without

QUESTION = "What is the height of the Wick lighthouse?"
TRUE = "The height of the Wick lighthouse is 41 metres."
FALSE = "The height of the Wick lighthouse is 37 metres."
SOURCE = Source("story.txt", "text/plain", 0, "The Story", "text", "1", "0" * 32)


@pytest.fixture
def desk(configure: Callable[[str], None], tmp_path: Path) -> Iterator[Desk]:
    with desk_for(MapReduce, tmp_path, configure) as made:
        yield made


class Judge(Lister):
    """Settles every conflict in favour of claims with certain words, and notes claims in words of its own."""

    def __init__(self, favour: str, *, certain: float = 5) -> None:
        super().__init__(recall=0.6)
        self.favour, self.certain = favour, certain

    def _read(self, blocks: Any, question: str, chance: Any) -> dict[str, Any]:
        note = super()._read(blocks, question, chance)
        return {**note, "claim": note["claim"].replace("The height of the", "Reported height: the"), "confidence": 5}

    def _judge(self, blocks: Any, question: str, chance: Any) -> dict[str, Any]:
        claims = {int(block.header["claim"]): block.text for block in blocks if "claim" in block.header}
        good = [number for number, text in claims.items() if self.favour in text]
        bad = [number for number in claims if number not in good] if good else []
        best = good[0] if good else 0
        judged = {"supported": good, "contradicted": bad, "best": best, "confidence": self.certain}
        return {"reason": "The survey says so.", **judged}


# What is taken for a conflict


def note_of(claim: str, *, confidence: float = 5, quoted: str | None = None) -> Note:
    text = quoted or f"{claim.removesuffix('.')}, as was told."
    document = Document.create(text, (Page(1, "1", 0, len(text)),), (), SOURCE)
    place = [(document, Span(0, len(text)))]
    return checked_note(place, found=True, quotes=[text], claim=claim, confidence=confidence)


def sides(question: str, *claims: str) -> list[set[str]]:
    named = [(f"read/{index}", note_of(claim)) for index, claim in enumerate(claims)]
    return [set(side.names) for side in sides_of(question, named)]


@pytest.mark.parametrize(
    ("question", "claims"),
    [
        (QUESTION, [TRUE, "Wick lighthouse has a height of 37 metres."]),
        (
            "How many keepers had the Wick light?",
            ["The Wick light had three keepers.", "Wick had 4 keepers."],
        ),
        ("When was the Wick light lit?", ["The Wick light was lit on 4 March 1871.", "Wick was lit on 5 March 1871."]),
        ("When was the Wick light lit?", ["The Wick light was lit at 06:02.", "The Wick light was lit at 07:02."]),
        ("Who kept the Wick light?", ["Mara Lind kept the Wick light.", "The Wick light was kept by Jon Aas."]),
        ("Is the Wick light red?", ["The Wick light is red.", "The Wick light is not red."]),
        ("Wie hoch ist der Turm?", ["Der Turm ist 41 Meter hoch.", "Der Turm ist 37 Meter hoch."]),
    ],
)
def test_different_answers_to_one_question_are_sides(question: str, claims: list[str]) -> None:
    assert sides(question, *claims) == [{"read/0"}, {"read/1"}]


@pytest.mark.parametrize(
    ("question", "claims"),
    [
        (QUESTION, ["The Wick lighthouse has a height of 41 metres.", "The Wick lighthouse: a height of 41.0 metres."]),
        (
            QUESTION,
            [TRUE, "The height of the Ness lighthouse is 37 metres."],
        ),
        (
            QUESTION,
            ["The Wick lighthouse: height 41 metres, see section 3.2.", TRUE],
        ),
        (
            QUESTION,
            ["The Wick lighthouse: height 41 metres since 1904.", "Wick lighthouse: height 41 metres in 1871."],
        ),
        ("How many keepers had Wick?", ["Wick had three keepers and 12 goats.", "The 3 keepers of Wick had 14 rooms."]),
        ("Who kept the Wick light?", ["Mara Lind kept the Wick light.", "Lind kept the Wick light."]),
        (
            "Why was the Wick light put out?",
            ["The Wick light was put out in 1904.", "The light cost Wick 12 crowns."],
        ),
        ("When was the Wick light lit?", ["The Wick light was lit in 1871.", "In March 1871 the Wick light was lit."]),
    ],
)
def test_what_agrees_or_is_about_something_else_is_none(question: str, claims: list[str]) -> None:
    assert sides(question, *claims) == []


def test_only_confident_notes_with_quotes_take_sides() -> None:
    sure, other = note_of(TRUE), note_of(FALSE, confidence=2)
    unquoted = Note(found=True, claim=FALSE, confidence=5)
    assert sides_of(QUESTION, [("a", sure), ("b", other), ("c", unquoted)]) == ()
    assert len(sides_of(QUESTION, [("a", sure), ("b", note_of(FALSE, confidence=3))])) == 2


def test_sides_come_surest_first_whatever_their_number() -> None:
    named = [(f"read/{index}", note_of(FALSE, confidence=4)) for index in range(3)] + [("read/9", note_of(TRUE))]
    first, second = sides_of(QUESTION, named)
    assert (first.names, second.names) == (("read/9",), ("read/0", "read/1", "read/2"))


def test_what_fell_is_taken_out_of_a_note() -> None:
    text = "The Wick lighthouse is 37 metres high. It was built of granite."
    document = Document.create(text, (Page(1, "1", 0, len(text)),), (), SOURCE)
    quotes = ["The Wick lighthouse is 37 metres high.", "It was built of granite."]
    note = checked_note([(document, Span(0, len(text)))], found=True, quotes=quotes, claim="37 m.", confidence=4)
    rest = without(note, frozenset({"37"}))
    assert [quote.citation.quote for quote in rest.quotes] == ["It was built of granite."]
    assert (rest.found, rest.claim) == (True, "")
    assert not without(note_of(FALSE), frozenset({"37"})).found


CHRONICLE = f"{TRUE} Rain fell. {FALSE} It was built of granite."


def note_with(*quotes: str, claim: str, confidence: float = 5) -> Note:
    document = Document.create(CHRONICLE, (Page(1, "1", 0, len(CHRONICLE)),), (), SOURCE)
    place = [(document, Span(0, len(CHRONICLE)))]
    return checked_note(place, found=True, quotes=quotes, claim=claim, confidence=confidence)


def test_quotes_of_one_note_that_exclude_each_other_are_sides() -> None:
    note = note_with(TRUE, FALSE, "It was built of granite.", claim=f"{TRUE} {FALSE}")
    found = sides_of(QUESTION, [("read/0", note)])
    assert [(side.names, side.claim, side.values) for side in found] == [
        (("read/0",), TRUE, frozenset({"41"})),
        (("read/0",), FALSE, frozenset({"37"})),
    ]
    joined = sides_of(QUESTION, [("read/0", note), ("read/1", note_of(FALSE))])
    assert [side.names for side in joined] == [("read/0",), ("read/0", "read/1")]


def test_a_quote_says_its_own_claim_where_it_has_one() -> None:
    note = note_with(TRUE, FALSE, claim="Two heights.")
    claims = ["Wick lighthouse: height 41 metres.", "Wick lighthouse: height 37 metres."]
    own = tuple(quote.model_copy(update={"claim": claim}) for quote, claim in zip(note.quotes, claims, strict=True))
    found = sides_of(QUESTION, [("read/0", note.model_copy(update={"quotes": own}))])
    assert [side.claim for side in found] == claims


def test_quotes_that_agree_leave_a_note_whole() -> None:
    note = note_with(TRUE, "It was built of granite.", claim=f"{TRUE} It was built of granite.")
    assert sides_of(QUESTION, [("read/0", note)]) == ()
    (first, second) = sides_of(QUESTION, [("read/0", note), ("read/1", note_of(FALSE))])
    assert first.claim == note.claim
    assert second.names == ("read/1",)


def test_a_note_that_misreads_its_quote_is_on_the_side_of_the_quote() -> None:
    misread = note_with(FALSE, claim="The height of the Wick lighthouse is 73 metres.")
    found = sides_of(QUESTION, [("read/0", misread), ("read/1", note_of(TRUE, confidence=4))])
    assert [(side.claim, side.values) for side in found] == [(FALSE, frozenset({"37"})), (TRUE, frozenset({"41"}))]


def test_all_that_fell_of_a_note_is_taken_out() -> None:
    sides = tuple(
        Side(names=("read/0",), claim="c", citations=note_of(TRUE).citations, confidence=5, values=frozenset({value}))
        for value in ("41", "37", "38")
    )
    settlement = Settlement(sides=sides, standing=("stands", "falls", "falls"))
    assert settlement.fallen() == {"read/0": frozenset({"37", "38"})}


# Settling


class Chronicler(Judge):
    """Quotes both heights where both stand, and concludes from both."""

    def _read(self, blocks: Any, question: str, chance: Any) -> dict[str, Any]:
        quotes = [fact for fact in (TRUE, FALSE) if any(fact in block.text for block in blocks)]
        return {"found": bool(quotes), "quotes": quotes, "claim": " ".join(quotes), "rationale": "", "confidence": 5}


def test_both_sides_in_one_piece_are_settled(desk: Desk) -> None:
    desk.server.default = Chronicler(favour="41")
    answer = desk.ask(desk.documents(page_of(1, TRUE, "The rain fell for a week.", FALSE, lines=12)), QUESTION)
    assert len(desk.asked_for("judge")) == 1
    assert len(desk.asked_for("read")) == 1
    first, against = answer.claims
    assert first.citations[0].quote == TRUE
    assert against.text == f"Contradicted elsewhere in the text: {FALSE}"
    assert against.confidence <= 1
    assert "the text disagrees" in answer.warnings[0]
    (asked,) = desk.asked_for("answer")
    assert "37 metres" not in asked.body["messages"][1]["content"]


def test_a_minority_with_evidence_wins_and_the_other_side_is_shown(desk: Desk) -> None:
    desk.server.default = Judge(favour="41")
    answer = desk.ask(desk.documents(book(6, {1: FALSE, 3: FALSE, 5: TRUE, 6: FALSE})), QUESTION)
    first, *others = answer.claims
    assert "41 metres" in first.text
    assert first.citations[0].pages == (5,)
    (against,) = others
    assert against.text == "Contradicted elsewhere in the text: Reported height: the Wick lighthouse is 37 metres."
    assert against.citations[0].quote == FALSE
    assert against.confidence <= 1
    (warning,) = answer.warnings
    assert "the text disagrees" in warning
    assert "(page 5)" in warning
    assert warning.endswith("stands: The survey says so.")
    assert not answer.partial
    (conflict,) = desk.of(events.Conflict)
    assert conflict.pages == ((1,), (5,)), "one page of each side"
    (settled,) = desk.of(events.Settled)
    assert settled.claim is not None
    assert "41" in settled.claim
    # Three notes said the other thing: only what stands is answered from.
    (asked,) = desk.asked_for("answer")
    assert "37 metres" not in asked.body["messages"][1]["content"]


def test_sides_in_different_documents_are_told_by_name(desk: Desk) -> None:
    desk.server.default = Judge(favour="37")
    answer = desk.ask(desk.documents(book(1, {1: TRUE}), book(1, {1: FALSE})), QUESTION)
    (warning,) = answer.warnings
    assert "(book0.txt, page 1)" in warning
    assert "(book1.txt, page 1)" in warning


def test_the_passages_of_both_sides_are_read_again_together(desk: Desk) -> None:
    desk.server.default = Judge(favour="37")
    answer = desk.ask(desk.documents(book(5, {2: TRUE, 4: FALSE})), QUESTION)
    assert "37 metres" in answer.claims[0].text
    (judged,) = desk.asked_for("judge")
    shown = judged.body["messages"][1]["content"]
    claims = shown.index("claim: 1")
    assert TRUE in shown[:claims]
    assert FALSE in shown[:claims]
    assert "the mill turned" in shown[:claims], "with what stands around them"


def test_claims_that_are_both_true_are_no_contradiction(desk: Desk) -> None:
    desk.server.default = Judge(favour="metres")
    answer = desk.ask(desk.documents(book(4, {1: TRUE, 3: FALSE})), QUESTION)
    assert answer.warnings == ()
    assert not any("Contradicted" in claim.text for claim in answer.claims)
    assert sorted(page for claim in answer.claims for citation in claim.citations for page in citation.pages) == [1, 3]
    assert desk.of(events.Settled)[0].claim is None


def test_what_cannot_be_settled_is_shown_with_both_sides(desk: Desk) -> None:
    desk.server.default = Judge(favour="nothing of the kind")
    answer = desk.ask(desk.documents(book(4, {1: TRUE, 3: FALSE})), QUESTION)
    assert sorted(page for claim in answer.claims for citation in claim.citations for page in citation.pages) == [1, 3]
    assert "did not settle it" in answer.warnings[0]
    assert desk.of(events.Settled)[0].claim is None


def test_rereading_is_bounded(desk: Desk) -> None:
    desk.server.default = Judge(favour="nothing of the kind")
    facts = {page: f"The height of the Wick lighthouse is {page + 20} metres." for page in range(1, 9)}
    answer = desk.ask(desk.documents(book(8, facts)), QUESTION)
    assert len(desk.asked_for("judge")) == MAX_REREADINGS
    assert len(desk.of(events.Conflict)[0].claims) > MAX_REREADINGS + 1
    assert answer.found


def test_a_judge_that_fails_leaves_both_sides_and_says_so(desk: Desk) -> None:
    honest = Judge(favour="41")

    def choose(recorded: Any) -> Any:
        reply = honest(recorded)
        return Status(400) if honest.read[-1] == "judge" else reply

    desk.server.default = choose
    answer = desk.ask(desk.documents(book(4, {1: TRUE, 3: FALSE})), QUESTION)
    assert answer.found
    assert answer.partial
    assert len(desk.of(events.PartFailed)) == 1
    assert not any("Contradicted" in claim.text for claim in answer.claims)


def side(claim: str, page: int) -> Side:
    note = note_of(claim)
    return Side(names=(f"read/{page}",), claim=claim, citations=note.citations, confidence=5, values=frozenset({"1"}))


def test_nothing_is_added_to_an_answer_that_was_not_found() -> None:
    from lcdoc.agents.notes import Draft

    settlement = Settlement(sides=(side(TRUE, 1), side(FALSE, 2)), standing=("stands", "falls"))
    assert settlement.shown_in(Draft(found=False)) == Draft(found=False)
    assert settlement.holds == settlement.sides[0]
    assert settlement.fallen() == {"read/2": frozenset({"1"})}
    assert Settlement(sides=settlement.sides, standing=("stands", "stands")).warning({}) is None
