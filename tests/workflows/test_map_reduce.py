"""Map and reduce: everything is read, piece by piece; what was noted is put together in the order of the documents."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lcdoc.agents.models.errors import AuthenticationError, ModelConfigError
from lcdoc.agents.notes import Note, checked_note
from lcdoc.documents import Document, Page, Source, Span
from lcdoc.tests.servers.chat_server import Reply, Status
from lcdoc.tests.servers.truthful import blocks_of, skill_of
from lcdoc.tests.workflows.reading_desk import Desk, Lister, book, desk_for, page_of
from lcdoc.workflows import events
from lcdoc.workflows.collapse import merge_packs, note_tokens
from lcdoc.workflows.map_reduce import MOST_MISSES, MOST_MISSES_AGAIN, MapReduce
from lcdoc.workflows.workflow import Budget

QUESTION = "Why was the brass sextant of Wick sold?"
FACT = "The brass sextant of Wick was sold because the roof of the chapel leaked."


@pytest.fixture
def desk(configure: Callable[[str], None], tmp_path: Path) -> Iterator[Desk]:
    with desk_for(MapReduce, tmp_path, configure) as made:
        made.server.default = Lister(recall=0.6)
        yield made


def fact(number: int) -> str:
    return f"The brass sextant of Wick was sold, says witness number {number}, because of debt {number}."


def sent(desk: Desk, skill: str) -> list[str]:
    return [request.body["messages"][1]["content"] for request in desk.asked_for(skill)]


def refusing(*pages: int, status: int = 400, times: int = 1_000) -> Callable[[Any], Any]:
    """A model that cannot read these pages, so many times in all."""
    honest, left = Lister(recall=0.6), [times]

    def choose(recorded: Any) -> Any:
        user = recorded.body["messages"][1]["content"]
        reply = honest(recorded)
        on_page = any(f"page {page} of" in user for page in pages)
        if honest.read[-1] in ("read", "list") and on_page and left[0] > 0:
            left[0] -= 1
            return Status(status)
        return reply

    return choose


def test_every_piece_is_read_once_and_the_answer_cites_its_page(desk: Desk) -> None:
    documents = desk.documents(book(9, {6: FACT}))
    answer = desk.ask(documents, QUESTION)
    assert answer.text == FACT
    assert answer.claims[0].citations[0].pages == (6,)
    assert not answer.partial
    (pieces,) = desk.of(events.Pieces)
    assert len(sent(desk, "read")) == len(pieces.places) == 9
    assert answer.usage.calls == 9 + 1, "one note needs no merging"
    assert answer.pages_read[0].read == ((1, 9),)
    assert answer.passages_read == answer.passages > 9
    shown = "".join(block.text for message in sent(desk, "read") for block in blocks_of(message)[0])
    assert Counter("".join(shown.split())) == Counter("".join(documents[0].body.split())), "everything was read"
    assert desk.of(events.Progress)[-1].done == desk.of(events.Progress)[-1].total == 9


def test_notes_stand_in_the_order_of_the_documents_whatever_order_they_came_in(desk: Desk) -> None:
    desk.server.default = refusing(1, times=1)
    desk.ask(desk.documents(*(page_of(page, fact(page)) for page in range(1, 5))), QUESTION)
    assert desk.of(events.NoteTaken)[-1].name == "read/00000", "it was read again after all others"
    (asked,) = sent(desk, "answer")
    assert re.findall(r"quote: .*witness number (\d)", asked) == ["1", "2", "3", "4"]


def test_the_answer_is_told_how_sure_each_note_is(desk: Desk) -> None:
    desk.ask(desk.documents(book(2, {1: fact(1), 2: fact(2)})), QUESTION)
    blocks, _ = blocks_of(sent(desk, "answer")[0])
    assert [block.header["confidence"] for block in blocks] == ["4 of 5", "4 of 5"]


def test_nothing_found_is_not_found_and_no_answer_is_paid_for(desk: Desk) -> None:
    answer = desk.ask(desk.documents(book(3, {})), QUESTION)
    assert not answer.found
    assert not answer.partial
    assert not sent(desk, "answer")
    assert answer.pages_read[0].unread == ()


def test_a_note_that_says_nothing_was_found_is_kept_where_the_field_says_otherwise(desk: Desk) -> None:
    """The filter is the boolean: words such as NO INFORMATION in a claim throw nothing away."""
    claim = "It was sold because of debt [NO INFORMATION on the price]."
    honest = Lister(recall=0.6)

    def choose(recorded: Any) -> Any:
        reply = honest(recorded)
        text = reply.text.replace('"claim": "The brass', f'"claim": "{claim} The brass')
        return Reply(text) if honest.read[-1] == "read" else reply

    desk.server.default = choose
    assert desk.ask(desk.documents(book(3, {2: FACT})), QUESTION).found
    assert "NO INFORMATION" in sent(desk, "answer")[0]


def test_more_notes_than_an_answer_takes_are_merged_in_rounds(desk: Desk) -> None:
    facts = {
        page: " ".join(f"{fact(page * 10 + line)[:-1]}, and of ledger {page}{line}." for line in range(9))
        for page in range(1, 21)
    }
    answer = desk.ask(desk.documents(book(20, facts)), QUESTION)
    assert answer.found
    merges = [event for event in desk.of(events.NoteTaken) if event.of]
    assert merges
    assert all(event.name.startswith("merge/") for event in merges)
    merged = [name for event in merges for name in event.of]
    assert len(merged) == len(set(merged)), "no note goes into two"
    neighbours = [event.of for event in merges if event.of[0].startswith("read/")]
    assert all(list(of) == sorted(of) for of in neighbours)
    assert len(sent(desk, "merge")) >= len(merges)
    window = 4096
    assert all(request.usage["prompt_tokens"] < window for request in desk.asked_for("answer"))


def test_an_unreadable_piece_is_read_again_alone(desk: Desk) -> None:
    desk.server.default = refusing(2, times=1)
    answer = desk.ask(desk.documents(book(3, {2: FACT})), QUESTION)
    assert answer.text == FACT
    assert not answer.partial, "it was made good"
    assert len(desk.of(events.PartFailed)) == 1
    assert "page 2 of" in sent(desk, "read")[-1], "after all others"


def test_a_piece_that_stays_unreadable_is_counted_as_unread(desk: Desk) -> None:
    desk.server.default = refusing(2)
    documents = desk.documents(*(page_of(page, *([FACT] if page == 1 else [])) for page in range(1, 5)))
    answer = desk.ask(documents, QUESTION)
    assert answer.text == FACT
    assert answer.partial
    assert [pages.unread for pages in answer.pages_read] == [(), ((1, 1),), (), ()]
    assert "1 of 4 parts of the text were not read" in answer.warnings
    assert sum("page 2 of" in message for message in sent(desk, "read")) == 2
    assert 0 < answer.passages_read < answer.passages


def test_a_server_that_refuses_everything_is_left_alone_and_its_error_raised(desk: Desk) -> None:
    desk.server.default = Status(401)
    with pytest.raises(AuthenticationError):
        desk.ask(desk.documents(book(30, {})), QUESTION)
    assert len(desk.server.requests) <= MOST_MISSES + MOST_MISSES_AGAIN + 8, "not once for each piece"


def test_a_window_without_room_is_an_error_that_says_so(configure: Callable[[str], None], tmp_path: Path) -> None:
    with desk_for(MapReduce, tmp_path, configure, window=512) as desk, pytest.raises(ModelConfigError, match="window"):
        desk.ask(desk.documents(book(1, {})), QUESTION)


def test_a_cap_ends_the_reading_with_what_was_found(desk: Desk) -> None:
    documents = desk.documents(book(24, {1: FACT, 24: fact(2)}))
    answer = desk.ask(documents, QUESTION, budget=Budget(calls=5))
    assert answer.partial
    assert answer.found
    assert answer.claims[0].citations[0].pages == (1,)
    assert answer.usage.calls == 5
    (read,) = answer.pages_read[0].read
    assert read == (1, 5)
    assert answer.pages_read[0].unread == ((6, 24),)
    assert any("call" in warning for warning in answer.warnings)
    assert len(desk.of(events.PartFailed)) <= 8 + 1, "what was under way, and the answer; the rest is not tried"
    # Nothing that was paid for is paid for again.
    answer = desk.ask(documents, QUESTION)
    assert not answer.partial
    (pieces,) = desk.of(events.Pieces)
    assert answer.usage.calls == len(pieces.places) - 5 + 1


def test_time_that_is_over_ends_an_offline_reading(desk: Desk) -> None:
    answer = desk.ask(desk.documents(book(3, {1: FACT})), QUESTION, offline=True, budget=Budget(seconds=0.0))
    assert answer.partial
    assert not answer.found
    assert answer.pages_read[0].read == ()
    assert any("--max-seconds" in warning for warning in answer.warnings)


def test_offline_it_reads_everything_and_quotes_the_best(desk: Desk) -> None:
    answer = desk.ask(desk.documents(book(3, {3: FACT})), QUESTION, offline=True)
    assert "the roof of the chapel leaked" in answer.claims[0].text
    assert answer.claims[0].citations[0].quote == FACT
    assert answer.claims[0].citations[0].pages == (3,)
    assert answer.pages_read[0].read == ((1, 3),)
    assert not desk.server.requests


def test_a_document_without_passages_is_no_crash(desk: Desk) -> None:
    (document,) = desk.documents("Nothing.")
    empty = Document.create("", (Page(1, "1", 0, 0),), (), Source("e.txt", "text/plain", 0, "E", "text", "1", "0" * 32))
    desk.workspace.library.add(empty, [], recipe=desk.workspace.chunker.recipe)
    for documents in ([empty], [empty, document]):
        answer = desk.ask(documents, QUESTION)
        assert not answer.found
        assert not answer.partial


def test_a_failing_merge_leaves_its_notes_to_the_answer(desk: Desk) -> None:
    honest = Lister(recall=0.6)

    def choose(recorded: Any) -> Any:
        reply = honest(recorded)
        return Status(400) if honest.read[-1] == "merge" else reply

    desk.server.default = choose
    facts = {page: " ".join(fact(page * 10 + line) for line in range(9)) for page in range(1, 13)}
    answer = desk.ask(desk.documents(book(12, facts)), QUESTION)
    assert answer.found
    assert answer.partial
    assert answer.pages_read[0].unread == ()


def test_a_run_that_was_cut_off_reads_only_the_rest(desk: Desk) -> None:
    documents = desk.documents(book(8, {2: FACT}))
    desk.leave(documents, QUESTION, after=3)
    noted = len(desk.of(events.NoteTaken))
    answer = desk.ask(documents, QUESTION)
    (resumed,) = desk.of(events.Resumed)
    assert resumed.notes >= noted == 3
    assert answer.text == FACT
    assert not answer.partial
    assert answer.pages_read[0].unread == ()
    assert len(desk.of(events.NoteTaken)) == 8 - resumed.notes, "what was noted is not read again"


def test_going_on_from_notes_alone_names_the_documents_as_if_they_had_just_been_read(desk: Desk) -> None:
    texts = book(1, {1: FACT}), book(1, {1: fact(2)})
    documents = desk.documents(*texts)
    desk.leave(documents, QUESTION, after=2)
    read = len(desk.asked_for("read"))
    assert not desk.asked_for("answer")
    desk.ask(documents, QUESTION)
    assert len(desk.asked_for("read")) == read == 2
    (asked,) = sent(desk, "answer")
    assert "document: book0.txt" in asked
    assert "document: book1.txt" in asked
    assert len(sent(desk, "answer")) == 1


# Before anything is paid


def test_the_plan_is_what_is_done(desk: Desk) -> None:
    documents = desk.documents(page_of(1, FACT), page_of(2))
    plan = desk.plan(documents, QUESTION)
    assert not desk.server.requests
    answer = desk.ask(documents, QUESTION)
    assert plan.calls == answer.usage.calls == 3
    assert plan.requests is not None
    planned = [request.messages[1].content for request in plan.requests.reading]
    assert sorted(planned) == sorted(sent(desk, "read"))
    assert plan.at_most is not None
    assert plan.at_most.calls > plan.calls
    assert plan.at_most.tokens_in > answer.usage.tokens_in


def test_the_plan_of_a_listing_lists(desk: Desk) -> None:
    question = "How many ferries cross the Quill?"
    documents = desk.documents(book(2, {}))
    plan = desk.plan(documents, question)
    assert plan.requests is not None
    kinds = {skill_of(request.messages[0].content) for request in plan.requests.reading}
    assert kinds == {("list", "large")}
    desk.ask(documents, question)
    assert len(plan.requests.reading) == len(sent(desk, "list"))


def test_offline_a_plan_takes_time_only(desk: Desk) -> None:
    plan = desk.plan(desk.documents(book(6, {})), QUESTION, offline=True)
    assert (plan.calls, plan.cost_usd) == (0, 0.0)
    assert plan.seconds


# Which notes are merged with which


def test_notes_that_fit_are_not_merged() -> None:
    assert merge_packs([100] * 8, 1_000) == []
    assert merge_packs([], 1_000) == []
    assert merge_packs([5_000], 1_000) == []
    assert merge_packs([900, 900], 1_000) == [], "no two fit together"


def test_neighbours_are_merged_evenly_and_each_round_leaves_fewer() -> None:
    sizes = [300] * 9
    packs = merge_packs(sizes, 1_000)
    assert [index for pack in packs for index in pack] == list(range(9))
    assert {sum(sizes[index] for index in pack) for pack in packs} <= {300, 600}
    assert len(packs) < len(sizes)


def test_a_note_is_as_long_as_its_quotes_and_conclusions() -> None:
    text = "The king died. The queen reigned."
    document = Document.create(text, (Page(1, "1", 0, len(text)),), (), Source("s", "t", 0, "S", "t", "1", "0" * 32))
    place = [(document, Span(0, len(text)))]
    one = checked_note(place, found=True, quotes=["The king died."], claim="He died.")
    two = checked_note(place, found=True, quotes=["The king died.", "The queen reigned."], claim="He died.")
    assert len("The king died.He died.") < note_tokens(one, len) < note_tokens(two, len)
    assert note_tokens(Note(found=True, claim="He died."), len) > 0
