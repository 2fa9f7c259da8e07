"""Questions of how many and which: told by code, listed by readers, counted by code."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lcdoc.agents.item_evidence import is_named
from lcdoc.agents.items import Item, Listing, distinct
from lcdoc.agents.listing_questions import is_listing, listing_question
from lcdoc.agents.notes import checked_note
from lcdoc.documents import Document, Page, Source, Span
from lcdoc.tests.servers.chat_server import Reply
from lcdoc.tests.servers.truthful import MADE_UP, blocks_of, skill_of
from lcdoc.tests.workflows.reading_desk import Desk, Lister, book, desk_for
from lcdoc.workflows import events
from lcdoc.workflows.counting import MOST_SENTENCES, SENTENCES_WARNING
from lcdoc.workflows.map_reduce import MapReduce
from lcdoc.workflows.workflow import Budget

HOW_MANY = "How many ferries cross the Quill?"
FERRY = r"(?:the ferry |The )(\w+) crosses"
PASSENGERS = "How many passengers may the Bittern carry?"


@pytest.fixture
def desk(configure: Callable[[str], None], tmp_path: Path) -> Iterator[Desk]:
    with desk_for(MapReduce, tmp_path, configure, window=4800) as made:
        made.server.default = Lister(FERRY)
        yield made


# Which questions they are


@pytest.mark.parametrize(
    "question",
    [
        HOW_MANY,
        PASSENGERS,
        "List all lights.",
        "Please list all ferries with their capacity",
        "Name every keeper of Otter Rock",
        "Which ferries carry ambulances?",
        "Which two vessels collided?",
        "Which red ferries cross the Quill?",
        "Which of the ferries cross at night?",
        "In which years was a night landing made at Gannet Stone?",
        "What are the duties of the harbour master?",
        "What signals does she give in fog?",
        "Who were the keepers of the light?",
        "Which people were drowned?",
        "What is the total number of lights?",
        "Give me a list of the drills",
    ],
)
def test_questions_that_want_a_list_or_a_number(question: str) -> None:
    wanted = listing_question(question)
    assert wanted is not None
    assert wanted.language == "en"


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("Wie viele Fähren gibt es?", "de"),
        ("Nenne alle Leuchttürme.", "de"),
        ("Welche Fähren sind für Krankenwagen zugelassen?", "de"),
        ("Combien de bacs y a-t-il ?", "fr"),
        ("Quels sont les feux rouges ?", "fr"),
        ("Énumérez tous les passeurs", "fr"),
    ],
)
def test_other_languages(question: str, language: str) -> None:
    wanted = listing_question(question)
    assert wanted is not None
    assert wanted.language == language


@pytest.mark.parametrize(
    "question",
    [
        "Which word stops a drill?",
        "Why do the bell-ringers travel free?",
        "How many years did it take?",
        "How many thousand crowns did insurance cost in 2018?",
        "How many metres high is the tower?",
        "What is the character of the light on Gannet Stone?",
        "Which bus runs to Oddersley?",
        "Which analysis was used to compute this?",
        "What happens in the end?",
        "What is the list price of a ticket?",
        "Who was the first keeper?",
        "Wie viele Jahre dauerte es?",
        "Combien de temps faut-il ?",
        "",
        "s " * 100_000,
    ],
)
def test_other_questions(question: str) -> None:
    assert not is_listing(question)


# What is counted once

SOURCE = Source("story.txt", "text/plain", 0, "The Story", "text", "1", "0" * 32)
STORY = (
    "The Bittern and the Drover cross. The Long Anvil crosses. The ferry Bittern is old. Number 3 and Number 4 burn."
)
DOCUMENT = Document.create(STORY, (Page(1, "1", 0, len(STORY)),), (), SOURCE)


def item(name: str, quote: str, confidence: float = 4) -> Item:
    note = checked_note([(DOCUMENT, Span(0, len(STORY)))], found=True, quotes=[quote])
    return Item(name, note.citations, confidence=confidence)


def names(question: str, *listings: list[Item]) -> list[str]:
    return [one.name for one in distinct([Listing(tuple(items)) for items in listings], question)]


CROSS, OLD = "The Bittern and the Drover cross.", "The ferry Bittern is old."


def test_a_name_is_counted_once_whatever_stands_around_it() -> None:
    again = [item("the ferry Bittern", OLD), item("BITTERN", OLD), item("The Bittern", OLD)]
    assert names(HOW_MANY, [item("Bittern", CROSS), item("Drover", CROSS)], again) == ["Bittern", "Drover"]
    (kept, _) = distinct([Listing((item("Bittern", CROSS), item("Drover", CROSS))), Listing(tuple(again))], HOW_MANY)
    assert [citation.quote for citation in kept.citations] == [CROSS, OLD]


def test_things_of_one_sentence_are_told_apart() -> None:
    assert names(HOW_MANY, [item("Bittern", CROSS), item("Drover", CROSS)]) == ["Bittern", "Drover"]
    assert names("Which lights burn?", [item("Number 3", STORY), item("Number 4", STORY)]) == ["Number 3", "Number 4"]


def test_two_readings_of_the_same_words_are_one_thing() -> None:
    assert names(
        HOW_MANY, [item("Anvil", "The Long Anvil crosses.")], [item("Long Anvil", "The Long Anvil crosses.")]
    ) == ["Anvil"]
    apart = [item("Anvil", "The Long Anvil crosses."), item("Long Anvil", "The Long Anvil crosses.")]
    assert names(HOW_MANY, apart) == ["Anvil", "Long Anvil"], "one reading that tells them apart knows better"
    assert names(HOW_MANY, [item("Light 3", STORY)], [item("Light 3 b 4", STORY)]) == ["Light 3", "Light 3 b 4"]


def test_names_that_are_the_questions_word_stay() -> None:
    assert names("Which ferries cross?", [item("ferry", CROSS)], [item("chain ferry", OLD)]) == ["ferry", "chain ferry"]


def test_a_listing_comes_back_from_the_notebook_as_it_was() -> None:
    items = (item("Bittern", CROSS), Item("Drover", item("x", CROSS).citations, "old — and slow", 3.0))
    stated = Listing(items, "There are two.", item("x", OLD).citations[0], 4.0, 2)
    assert Listing.of(stated.as_note()) == stated
    assert Listing.of(Listing(items, confidence=3).as_note()) == Listing(items, confidence=3)
    assert Listing.of(Listing(dropped=1).as_note()) == Listing(dropped=1)
    assert not Listing(items).stated_note().found


# Asking


def test_items_are_listed_with_their_pages_and_counted_by_code(desk: Desk) -> None:
    facts = {
        1: "The Bittern crosses the Quill daily.",
        2: "At Wick the ferry Drover crosses the Quill.",
        4: "In summer the ferry Bittern crosses the Quill twice.",
        5: "The Anvil crosses the Quill on a chain.",
    }
    answer = desk.ask(desk.documents(book(6, facts)), HOW_MANY)
    assert answer.found
    total, *items = answer.claims
    assert total.text == "3 in all: Bittern, Drover, Anvil."
    assert len(total.citations) == 3
    assert [claim.text for claim in items] == ["Bittern", "Drover", "Anvil"]
    assert [[citation.pages for citation in claim.citations] for claim in items] == [[(1,), (4,)], [(2,)], [(5,)]]
    (pieces,) = desk.of(events.Pieces)
    assert len(desk.asked_for("list")) == len(pieces.places) == answer.usage.calls, "each piece is asked about once"
    assert not desk.asked_for("answer"), "no model is asked to count"


def test_a_number_that_is_stated_is_answered_as_it_stands(desk: Desk) -> None:
    fact = "The Bittern may carry 74 passengers."
    desk.server.default = Lister(stated="74 passengers")
    answer = desk.ask(desk.documents(book(3, {2: fact})), PASSENGERS)
    (claim,) = answer.claims
    assert claim.text == fact
    assert claim.citations[0].pages == (2,)
    assert claim.unquoted_figures == ()


def test_what_is_stated_comes_before_what_was_counted(desk: Desk) -> None:
    facts = {1: "Four ferries cross the Quill.", 3: "The Bittern crosses the Quill. The Drover crosses the Quill."}
    desk.server.default = Lister(FERRY, stated="Four ferries")
    answer = desk.ask(desk.documents(book(3, facts)), HOW_MANY)
    assert [claim.text for claim in answer.claims] == [
        "Four ferries cross the Quill.",
        "Named in the text: 2: Bittern, Drover.",
        "Bittern",
        "Drover",
    ]


def test_things_beside_a_quantity_are_not_what_it_counts(desk: Desk) -> None:
    facts = {1: "The Bittern may carry 74 passengers.", 3: "The Drover crosses the Quill."}
    desk.server.default = Lister(FERRY, stated="74 passengers")
    answer = desk.ask(desk.documents(book(3, facts)), PASSENGERS)
    assert [claim.text for claim in answer.claims] == ["The Bittern may carry 74 passengers."]


def test_different_numbers_that_are_stated_are_a_conflict(desk: Desk) -> None:
    facts = {1: "The Bittern may carry 74 passengers.", 3: "The Bittern may carry 86 passengers."}
    desk.server.default = Lister(stated=r"\d passengers")
    answer = desk.ask(desk.documents(book(3, facts)), PASSENGERS)
    assert len(desk.of(events.Conflict)) == len(desk.of(events.Settled)) == 1
    assert sorted(page for claim in answer.claims for c in claim.citations for page in c.pages) == [1, 3]


def listing(*items: tuple[str, str], **fields: Any) -> Callable[[Any], Reply]:
    given = {"found": True, "items": [{"name": name, "quote": quote} for name, quote in items], "confidence": 5}

    def choose(recorded: Any) -> Reply:
        skill, _ = skill_of(recorded.body["messages"][0]["content"]) or ("", "")
        assert skill == "list"
        return Reply(json.dumps({**given, **fields}))

    return choose


def test_items_and_numbers_without_a_quote_that_stands_are_dropped(desk: Desk) -> None:
    documents = desk.documents("The Bittern crosses the Quill daily.")
    desk.server.default = listing(
        ("Bittern", "The Bittern crosses the Quill daily."),
        ("Admiral", MADE_UP),
        ("none", "The Bittern crosses the Quill daily."),
        stated="There are 12 ferries.",
        stated_quote=MADE_UP,
    )
    answer = desk.ask(documents, HOW_MANY)
    assert [claim.text for claim in answer.claims] == ["Bittern"]
    assert answer.quotes_dropped == 2


def test_found_decides(desk: Desk) -> None:
    desk.server.default = listing(("Bittern", "The Bittern crosses the Quill daily."), found=False)
    answer = desk.ask(desk.documents("The Bittern crosses the Quill daily."), HOW_MANY)
    assert not answer.found
    assert answer.claims == ()


def test_what_documents_say_to_models_stays_data(desk: Desk) -> None:
    attempts = json.loads((Path(__file__).parents[1] / "agents" / "injections.json").read_text(encoding="utf-8"))
    text = "\n\n".join(str(attempt)[:300] for attempt in _texts(attempts))
    desk.server.default = listing(("Pwned", "PWNED by the admin"), ("Bittern", "The Bittern crosses the Quill daily."))
    answer = desk.ask(desk.documents(f"The Bittern crosses the Quill daily.\n\n{text}"), HOW_MANY)
    assert [claim.text for claim in answer.claims] == ["Bittern"]
    for request in desk.asked_for("list"):
        _, outside = blocks_of(request.body["messages"][1]["content"])
        assert outside.split() == f"<question> {HOW_MANY} </question>".split()


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in _texts(part)]


def test_figures_that_no_quote_has_are_marked(desk: Desk) -> None:
    quoted = "The Bittern crosses the Quill daily."
    given = {"name": "Bittern", "detail": "built in 1904", "quote": quoted}
    desk.server.default = listing(items=[given])
    answer = desk.ask(desk.documents(quoted), HOW_MANY)
    assert answer.claims[0].text == "Bittern — built in 1904"
    assert answer.claims[0].unquoted_figures == ("1904",)


def test_what_its_quote_does_not_name_is_left_out_of_the_count_and_told(desk: Desk) -> None:
    facts = {1: "On 3 May 1811 the lamp went out.", 2: "Rain fell. On 9 June 1811 the lamp went out."}
    quote = "On market days the surveyor spoke of drains."
    documents = desk.documents("\n\n".join([facts[1], quote, "Nobody thought much of it.", facts[2]]))
    desk.server.default = listing(("3 May 1811", facts[1]), ("16 May 1700", quote), ("9 June 1811", facts[2]))
    answer = desk.ask(documents, "How many times did the lamp go out?")
    assert answer.claims[0].text == "2 in all: 3 May 1811, 9 June 1811."
    assert len(answer.claims) == 3
    (warning,) = answer.warnings
    assert warning.startswith("left out of the list")
    assert "16 May 1700 (page 1)" in warning


def test_nothing_is_found_where_no_quote_names_what_was_listed(desk: Desk) -> None:
    desk.server.default = listing(("Admiral", "The Bittern crosses the Quill daily."))
    answer = desk.ask(desk.documents("The Bittern crosses the Quill daily."), HOW_MANY)
    assert not answer.found
    assert "Admiral" in answer.warnings[0]


def test_a_thing_named_by_another_quote_is_no_doubtful_one(desk: Desk) -> None:
    quoted = "The Bittern crosses the Quill daily."
    documents = desk.documents(f"{quoted} One thing is sure. Two things are not. Rain fell on the mill at dusk.")
    desk.server.default = listing(("Bittern", quoted), ("Bittern", "Rain fell on the mill at dusk."))
    answer = desk.ask(documents, HOW_MANY)
    assert [claim.text for claim in answer.claims] == ["Bittern"]
    assert [citation.quote for citation in answer.claims[0].citations] == [quoted]
    assert answer.warnings == ()


TEXT = (
    "The ferry Heron lay at the pier. She crosses at noon. Then came rain. It was the third of the two boats built,"
    " No. 4 of 1,250 tons. On the 16th of May twelve keepers left."
)


@pytest.mark.parametrize(
    ("name", "quote", "named"),
    [
        ("Heron", "The ferry Heron lay at the pier.", True),
        ("Heron", "She crosses at noon.", True),
        ("Heron", "Then came rain.", False),
        ("ferry Bittern", "The ferry Heron lay at the pier.", False),
        ("1250 tons", "No. 4 of 1,250 tons.", True),
        ("boat 2", "It was the third of the two boats built, No. 4 of 1,250 tons.", True),
        ("boat 5", "It was the third of the two boats built, No. 4 of 1,250 tons.", False),
        ("16 May", "On the 16th of May twelve keepers left.", True),
        ("17 May", "On the 16th of May twelve keepers left.", False),
        ("12 keepers", "On the 16th of May twelve keepers left.", True),
        ("ferry", "Then came rain.", False),
    ],
)
def test_what_identifies_a_thing_stands_in_its_quote_or_beside_it(name: str, quote: str, named: bool) -> None:
    document = Document.create(TEXT, (Page(1, "1", 0, len(TEXT)),), (), SOURCE)
    note = checked_note([(document, Span(0, len(TEXT)))], found=True, quotes=[quote])
    assert is_named(Item(name, note.citations), document, "Which ferry came?") is named


def test_passages_whose_list_does_not_fit_are_listed_in_parts(desk: Desk) -> None:
    ferries = " ".join(f"The Boat{number} crosses the Quill." for number in range(40))
    honest = Lister(r"The (Boat\d+) crosses")

    def choose(recorded: Any) -> Reply:
        reply = honest(recorded)
        too_long = reply.text.count("Boat") > 60
        return Reply(reply.text[:900], finish="length") if too_long else reply

    desk.server.default = choose
    answer = desk.ask(desk.documents(ferries), HOW_MANY)
    assert len(answer.claims) == 41
    assert answer.claims[0].text.startswith("40 in all: Boat0, Boat1,")
    assert not answer.partial


def test_part_of_the_text_gives_a_least_number(desk: Desk) -> None:
    facts = {page: f"The Boat{page} crosses the Quill." for page in range(1, 7)}
    desk.server.default = Lister(r"The (Boat\d+) crosses")
    answer = desk.ask(desk.documents(book(6, facts)), HOW_MANY, budget=Budget(calls=3))
    assert answer.partial
    assert answer.claims[0].text == "At least 3: Boat1, Boat2, Boat3."
    assert answer.pages_read[0].read == ((1, 3),)
    assert answer.pages_read[0].unread == ((4, 6),)


def test_the_number_is_said_in_the_questions_language(desk: Desk) -> None:
    facts = {1: "The Bittern crosses the Quill.", 2: "The Drover crosses the Quill."}
    answer = desk.ask(desk.documents(book(2, facts)), "Wie viele Fähren queren den Quill?")
    assert answer.claims[0].text == "Insgesamt 2: Bittern, Drover."


def test_offline_sentences_are_listed_and_it_is_said_that_they_are_no_list_of_things(desk: Desk) -> None:
    facts = {1: "The red ferry Bittern crosses the Quill.", 3: "The red ferry Drover crosses the Quill."}
    answer = desk.ask(desk.documents(book(3, facts)), "Which red ferries cross the Quill?", offline=True)
    assert [claim.citations[0].pages for claim in answer.claims] == [(1,), (3,)]
    assert [claim.text for claim in answer.claims] == list(facts.values())
    assert SENTENCES_WARNING in answer.warnings
    assert not desk.server.requests


def test_offline_a_sentence_has_to_name_more_than_the_kind(desk: Desk) -> None:
    text = "\n\n".join(
        [
            "3.3 The chain ferry . . . . . . . . . . . . . . . . . . . 12",
            "The chain ferry.",
            "The ferries are far older than the lights, but they were private.",
            "The ferry is out of service every fifth year.",
            "In 1961 the ferry Long Anvil was built for the crossing.",
            "In 1961 the ferry Long Anvil was built for this crossing.",
            "People still speak of the Marigold, a ferry with two decks.",
        ]
    )
    answer = desk.ask(desk.documents(text), "List all ferries.", offline=True)
    assert [claim.text for claim in answer.claims] == [
        "In 1961 the ferry Long Anvil was built for the crossing.",
        "People still speak of the Marigold, a ferry with two decks.",
    ]


def test_offline_nothing_is_found_where_the_kind_is_only_spoken_of(desk: Desk) -> None:
    text = "The ferries are far older than the lights. A ferry is a slow thing. Nobody likes the ferry in winter."
    answer = desk.ask(desk.documents(text), "List all ferries.", offline=True)
    assert not answer.found
    assert answer.claims == ()
    assert SENTENCES_WARNING not in answer.warnings


def test_offline_the_best_sentences_are_shown_and_the_others_numbered(desk: Desk) -> None:
    boats = ["Heron", "Otter", "Curlew", "Teal", "Gannet", "Plover", "Dunlin", "Petrel", "Merlin", "Osprey", "Bittern"]
    boats += ["Drover", "Anvil", "Marigold", "Swan"]
    told = [f"In {1900 + n} {boat.lower()}ing men of {boat}ley built the ferry {boat}." for n, boat in enumerate(boats)]
    answer = desk.ask(desk.documents("\n\n".join(told)), "List all ferries.", offline=True)
    assert len(answer.claims) == MOST_SENTENCES
    (warning,) = [one for one in answer.warnings if one.startswith(SENTENCES_WARNING)]
    assert warning.endswith(f"; {len(boats) - MOST_SENTENCES} more sentences matched less well")


def test_offline_a_line_of_contents_states_no_number(desk: Desk) -> None:
    text = "2.1 The lights in order . . . . . . . . . . . . . 5\n\n2 The Lights\n\nThe service keeps seven lights."
    answer = desk.ask(desk.documents(text), "How many lights are there?", offline=True)
    assert [claim.text for claim in answer.claims] == ["The service keeps seven lights."]


def test_offline_a_stated_number_is_quoted(desk: Desk) -> None:
    fact = "The Bittern may carry 74 passengers."
    answer = desk.ask(desk.documents(book(3, {2: fact})), PASSENGERS, offline=True)
    assert answer.claims[0].text == fact
    assert answer.claims[0].citations[0].pages == (2,)
    assert SENTENCES_WARNING not in answer.warnings
