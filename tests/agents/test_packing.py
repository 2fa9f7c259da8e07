"""Passages packed into as few calls as fit: in order, evenly, cut at sentences."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.agents.packing import cut_passage, halves, packed, shortened
from lcdoc.agents.reader import Passage
from lcdoc.documents import Document, Page, Source, Span

SOURCE = Source("story.txt", "text/plain", 0, "", "text", "1", "0" * 32)


def passage_of(text: str) -> Passage:
    return Passage(Document.create(text, (Page(1, "1", 0, len(text)),), (), SOURCE), Span(0, len(text)), ("Story",))


def words(text: str) -> int:
    return len(text.split())


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(1, 50), max_size=40), st.integers(50, 120))
def test_packs_are_few_in_order_and_even(sizes: list[int], room: int) -> None:
    packs = packed(range(len(sizes)), sizes, room)
    assert [index for pack in packs for index in pack] == list(range(len(sizes)))
    loads = [sum(sizes[index] for index in pack) for pack in packs]
    assert all(load <= room for load in loads)
    # No fewer packs would do: greedy filling, which is optimal for runs in order, needs as many.
    greedy, left = 0, 0
    for size in sizes:
        greedy, left = (greedy, left - size) if size <= left else (greedy + 1, room - size)
    assert len(packs) == greedy


def test_the_last_pack_is_no_scrap() -> None:
    assert packed("abcdefghijk", [1] * 11, 10) == [list("abcdef"), list("ghijk")]
    assert packed([], [], 5) == []
    with pytest.raises(ValueError, match="does not fit"):
        packed("ab", [1, 6], 5)


def test_a_long_passage_is_cut_at_sentences() -> None:
    text = " ".join(f"Sentence number {index} has six words." for index in range(20))
    pieces = cut_passage(passage_of(text), 20, words)
    assert len(pieces) == 7
    assert all(piece.text.endswith("words.") and words(piece.text) <= 20 for piece in pieces)
    assert " ".join(piece.text for piece in pieces) == text
    assert {piece.heading_path for piece in pieces} == {("Story",)}
    assert pieces[1].text == text[pieces[1].span.start : pieces[1].span.end]


def test_a_sentence_longer_than_the_room_is_cut_at_words() -> None:
    text = "alpha " * 99 + "omega"
    pieces = cut_passage(passage_of(text), 20, words)
    assert [words(piece.text) for piece in pieces] == [20] * 5
    with pytest.raises(ValueError, match="no room"):
        cut_passage(passage_of(text), 0, words)


def test_halves_part_between_passages_then_sentences_then_words() -> None:
    one, two, three = (passage_of(f"{word} ends.") for word in ("First", "Second", "Third"))
    assert halves([one, two, three]) in (([one], [two, three]), ([one, two], [three]))
    parted = halves([passage_of("The first is short. The second is of like length.")])
    assert parted is not None
    assert [[piece.text for piece in part] for part in parted] == [
        ["The first is short."],
        ["The second is of like length."],
    ]
    parted = halves([passage_of("one two three four")])
    assert parted is not None
    assert [part[0].text for part in parted] == ["one two", "three four"]
    assert halves([passage_of("word")]) is None


def test_text_is_shortened_at_a_word() -> None:
    assert shortened("one two three", 3, words) == "one two three"
    assert shortened("one two three four five", 3, words) == "one two…"


def test_what_items_share_counts_once_for_a_run() -> None:
    items, sizes = ["a", "b", "c", "d"], [2, 2, 2, 2]
    claim = {"claim": 4}
    assert packed(items, sizes, 10, [claim, claim, claim, {}]) == [["a", "b"], ["c", "d"]]
    assert packed(items, sizes, 12, [claim, claim, claim, {}]) == [items]
    assert packed(items, sizes, 8, [claim, claim, claim, claim]) == [["a", "b"], ["c", "d"]]
    assert packed(items, sizes, 12, [claim, {"other": 4}, claim, {"other": 4}]) == [["a", "b"], ["c", "d"]]
    with pytest.raises(ValueError, match="6 tokens does not fit into 5"):
        packed(items, sizes, 5, [claim] * 4)


@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.dictionaries(st.sampled_from("xyz"), st.integers(0, 5), max_size=2)),
        min_size=1,
        max_size=30,
    ),
    st.integers(30, 60),
)
def test_runs_with_what_they_share_fit_and_stay(drawn: list[tuple[int, dict[str, int]]], room: int) -> None:
    sizes = [size for size, _ in drawn]
    # A thing has one size, whoever needs it.
    shared = [dict.fromkeys(names, 5) for _, names in drawn]
    runs = packed(range(len(drawn)), sizes, room, shared)
    assert [index for run in runs for index in run] == list(range(len(drawn)))
    for run in runs:
        needed = set().union(*(shared[index] for index in run))
        assert sum(sizes[index] for index in run) + 5 * len(needed) <= room
        assert packed(run, [sizes[i] for i in run], room, [shared[i] for i in run]) == [run]
