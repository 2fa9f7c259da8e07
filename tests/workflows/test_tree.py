"""Tree memory: built once, reused where the text is the same, read by ranking or by walking."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lcdoc.agents.models.errors import InvalidOutputError
from lcdoc.documents import Document
from lcdoc.tests.servers.chat_server import Recorded, Reply, Status
from lcdoc.tests.servers.truthful import Block, skill_of
from lcdoc.tests.workflows.abridger import Abridger
from lcdoc.tests.workflows.reading_desk import Desk, desk_for, embedder
from lcdoc.workflows import events
from lcdoc.workflows.readers import ReadingDesk
from lcdoc.workflows.tree import Tree
from lcdoc.workflows.tree_building import leaf_tokens_for, tree_of
from lcdoc.workflows.tree_walk import MOST_INVALID, MOST_STEPS, TreeWalk
from lcdoc.workflows.workflow import Budget

FACTS = {
    0: "The abbot of Skelling kept seventeen hives behind the chapel.",
    3: "The brass sextant was kept by captain Amara Holm.",
    7: "A tunnel under the harbour was dug by miners from Falun.",
    10: "The lighthouse at Pell was painted green by mistake.",
}
SEXTANT = "Which captain kept the brass sextant?"
ABSENT = "Which enzyme unwinds the helix during replication?"


def chapter(number: int, sentences: int = 6) -> str:
    filler = [f"On day {day} of year {number} the boat crossed the river {day * 3} times." for day in range(sentences)]
    fact = FACTS.get(number, "Nothing else was written down in all of this year.")
    return f"# Year {number}\n\n{fact} {' '.join(filler)}\n\n"


def saga(chapters: int, sentences: int = 6) -> str:
    return "".join(chapter(number, sentences) for number in range(chapters))


@pytest.fixture
def desk(tmp_path: Path, configure: Callable[[str], None]) -> Iterator[Desk]:
    with desk_for(Tree, tmp_path, configure, window=8192) as made:
        made.server.default = Abridger()
        made.workspace.embedder = embedder()
        yield made


@pytest.fixture
def walker(tmp_path: Path, configure: Callable[[str], None]) -> Iterator[Desk]:
    with desk_for(TreeWalk, tmp_path, configure, window=8192) as made:
        made.server.default = Abridger()
        made.workspace.embedder = embedder()
        yield made


def read(desk: Desk, tmp_path: Path, text: str, name: str = "saga.md") -> list[Document]:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return desk.workspace.read([path])


def summaries(desk: Desk) -> int:
    """Requests for summaries that the server got."""
    return len(desk.asked_for("summarize")) + len(desk.asked_for("condense"))


class Chooser(Abridger):
    """Chooses by the word of one's own."""

    def __init__(self, choose: Callable[[dict[int, str]], int]) -> None:
        super().__init__()
        self.choosing = choose
        self.offers: list[dict[int, str]] = []
        self.trails: list[list[str]] = []

    def _choose(self, blocks: list[Block], question: str, _: Random) -> dict[str, Any]:
        options = {int(block.header["option"]): block.text for block in blocks if "option" in block.header}
        self.offers.append(options)
        self.trails.append([block.text for block in blocks if "option" not in block.header])
        return {"reason": "so it is told", "option": self.choosing(options), "confidence": 3}


# Building


def test_the_answer_is_quoted_from_the_text_and_the_tree_is_built_once(desk: Desk, tmp_path: Path) -> None:
    documents = read(desk, tmp_path, saga(10, sentences=14))
    answer = desk.ask(documents, SEXTANT)
    assert answer.found
    assert not answer.partial
    assert answer.workflow == "tree"
    citation = answer.claims[0].citations[0]
    assert citation.quote == FACTS[3]
    assert citation.headings == ("Year 3",)
    assert citation.span.of(documents[0].text) == FACTS[3]
    built = summaries(desk)
    assert len(desk.asked_for("summarize")) == 10
    assert 1 <= len(desk.asked_for("condense")) <= 3
    other = desk.ask(documents, "By whom was the tunnel under the harbour dug?")
    assert other.claims[0].citations[0].quote == FACTS[7]
    assert summaries(desk) == built
    assert other.usage.stored_calls == 0


def test_a_document_that_grew_has_only_what_is_new_summarised(desk: Desk, tmp_path: Path) -> None:
    desk.ask(read(desk, tmp_path, saga(9)), SEXTANT)
    before = summaries(desk)
    grown = read(desk, tmp_path, saga(11))
    answer = desk.ask(grown, "By whose mistake was the lighthouse at Pell painted green?")
    # Two leaves and what is above them: the other leaves and the first eight's parent are as they were.
    assert len(desk.asked_for("summarize")) == 9 + 2
    assert summaries(desk) - before <= 2 + 2
    assert answer.usage.stored_calls == 0
    assert answer.claims[0].citations[0].quote == FACTS[10]


def test_what_was_taken_over_from_another_document_has_its_quotes_there(desk: Desk, tmp_path: Path) -> None:
    preface = f"# Preface\n\n{'The editor thanks the harbour office for its patience. ' * 12}\n\n"
    first = read(desk, tmp_path, saga(9))
    desk.ask(first, SEXTANT)
    moved = read(desk, tmp_path, preface + saga(9))
    desk.ask(moved, SEXTANT)
    assert len(desk.asked_for("summarize")) == 9 + 1
    library = desk.workspace.library
    library.remove(first[0].id)
    seen = []

    def look(reader: Any, tokens: int) -> None:
        tree = tree_of(moved[0], library, reader, leaf_tokens=tokens)
        seen.extend(point for points in tree.points.values() for point in points)
        # Also where the same sentence stands in other chapters.
        for leaf in tree.shape.leaves:
            assert all(leaf.span.covers(one.span) for point in tree.points[leaf.number] for one in point.citations)
        assert not tree.missing()

    _with_reader(desk, look)
    assert len(seen) >= 10
    for point in seen:
        (citation, *_) = point.citations
        assert citation.document_id == moved[0].id
        assert citation.span.of(moved[0].body) == citation.quote


def _with_reader(desk: Desk, use: Callable[[Any, int], None]) -> None:
    """Use the model's reader as workflows have it."""

    async def main() -> None:
        models = ReadingDesk(desk.workspace.library, "honest")
        try:
            stage = await models.stage(desk.workspace.embedder, profile=None)
            assert stage is not None
            use(stage.reader, leaf_tokens_for(stage.reader))
        finally:
            await models.aclose()

    asyncio.run(main())


def test_a_cap_ends_the_building_and_the_next_run_goes_on_with_it(desk: Desk, tmp_path: Path) -> None:
    documents = read(desk, tmp_path, saga(10))
    answer = desk.ask(documents, SEXTANT, budget=Budget(calls=5))
    assert answer.partial
    assert not answer.found
    assert any("calls" in warning for warning in answer.warnings)
    assert len(desk.asked_for("summarize")) == 5
    again = desk.ask(documents, SEXTANT)
    assert again.found
    assert not again.partial
    assert len(desk.asked_for("summarize")) == 10
    sent = [request.body["messages"][1]["content"] for request in desk.asked_for("summarize")]
    assert len(set(sent)) == 10


def test_a_leaf_that_cannot_be_summarised_leaves_the_others(desk: Desk, tmp_path: Path) -> None:
    honest = Abridger()

    def fails_once(recorded: Recorded) -> Any:
        text = recorded.body["messages"][1]["content"]
        known = skill_of(recorded.body["messages"][0]["content"])
        if known and known[0] == "summarize" and FACTS[7] in text:
            return Status(400, body={"error": {"message": "the content was filtered", "code": "content_filter"}})
        return honest(recorded)

    desk.server.default = fails_once
    answer = desk.ask(read(desk, tmp_path, saga(10)), SEXTANT)
    assert answer.found
    assert answer.partial
    assert len(desk.of(events.PartFailed)) == 1


def test_nothing_found_is_said_after_a_second_look(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcdoc.workflows.tree.READ_TOKENS", 500)
    answer = desk.ask(read(desk, tmp_path, saga(10)), ABSENT)
    assert not answer.found
    assert not answer.partial
    assert len(desk.of(events.PassagesFound)) == 2
    first, second = (set(event.passages) for event in desk.of(events.PassagesFound))
    assert not first & second


def test_several_documents_have_a_tree_each(desk: Desk, tmp_path: Path) -> None:
    documents = read(desk, tmp_path, saga(3), "one.md") + read(desk, tmp_path, chapter(3) + chapter(4), "two.md")
    answer = desk.ask(documents, SEXTANT)
    assert answer.claims[0].citations[0].document_id == documents[1].id
    assert len(desk.asked_for("summarize")) == 5


def test_offline_a_tree_is_built_and_kept_too(desk: Desk, tmp_path: Path) -> None:
    documents = read(desk, tmp_path, saga(5))
    answer = desk.ask(documents, SEXTANT, offline=True)
    assert answer.found
    assert answer.claims[0].citations[0].quote == FACTS[3]
    assert [event for event in desk.of(events.Progress) if event.stage == "asking"]
    desk.ask(documents, SEXTANT, offline=True)
    assert not desk.of(events.Pieces)
    assert desk.server.requests == []


def test_a_plan_counts_what_is_sent_and_less_once_the_tree_is_there(desk: Desk, tmp_path: Path) -> None:
    documents = read(desk, tmp_path, saga(10))
    plan = desk.plan(documents, SEXTANT)
    assert desk.server.requests == []
    answer = desk.ask(documents, SEXTANT)
    assert plan.at_most is not None
    assert plan.calls - 1 <= answer.usage.calls <= plan.at_most.calls
    assert plan.calls >= summaries(desk)
    after = desk.plan(documents, "By whom was the tunnel under the harbour dug?")
    assert after.calls <= plan.calls - summaries(desk)
    assert after.cost_usd is not None
    assert 0 < after.cost_usd < (plan.cost_usd or 0)
    assert desk.plan(documents, SEXTANT, offline=True).calls == 0


def test_themes_are_of_leaves_that_stand_apart(tmp_path: Path, configure: Callable[[str], None]) -> None:
    bees = "The hive gave honey, and the bees of swarm {n} fed on clover and heather near their combs."
    ships = "The schooner {n} put to sea under full sail, and her anchor and rigging were new."
    chapters = [f"# Part {n}\n\n{' '.join([(ships if n % 2 else bees).format(n=n)] * 15)}\n\n" for n in range(12)]

    def themed(*arguments: Any) -> Tree:
        return Tree(*arguments, themes=True)

    with desk_for(themed, tmp_path, configure, window=8192) as made:  # type: ignore[arg-type]
        made.server.default = Abridger()
        made.workspace.embedder = embedder()
        documents = read(made, tmp_path, "".join(chapters))
        made.ask(documents, "Which schooner put to sea?")
        texts = [request.body["messages"][1]["content"] for request in made.asked_for("condense")]
        assert any("schooner" in text and "hive" not in text for text in texts)
        before = len(texts)
        answer = made.ask(documents, "What did the bees feed on?")
        assert answer.found
        assert not answer.partial
        assert len(made.asked_for("condense")) == before


# Walking


def test_a_walk_goes_down_to_the_leaf_that_answers(walker: Desk, tmp_path: Path) -> None:
    documents = read(walker, tmp_path, saga(10))
    answer = walker.ask(documents, SEXTANT)
    assert answer.claims[0].citations[0].quote == FACTS[3]
    assert answer.workflow == "tree_walk"
    steps = [(step.action, step.node) for step in walker.of(events.Stepped)]
    assert steps[-2:] == [("read", "Year 3"), ("stop", "Year 3")]
    assert ("enter", "Year 3") in steps
    assert answer.passages_read < answer.passages / 4


def test_a_wrong_turn_is_taken_back_and_not_offered_again(walker: Desk, tmp_path: Path) -> None:
    wrong = iter([1])

    def first_wrong(options: dict[int, str]) -> int:
        sextant = [number for number, text in options.items() if "sextant" in text]
        return next(wrong, None) or (sextant[0] if sextant else 0)

    model = Chooser(first_wrong)
    walker.server.default = model
    answer = walker.ask(read(walker, tmp_path, saga(5)), SEXTANT)
    assert answer.found
    steps = [(step.action, step.node) for step in walker.of(events.Stepped)]
    assert ("read", "Year 0") in steps
    assert steps[steps.index(("read", "Year 0")) + 1] == ("back", "Year 0")
    assert steps[-1] == ("stop", "Year 3")
    first, second = model.offers[:2]
    assert len(second) == len(first) - 1
    assert first[1] not in second.values()
    # Working memory: what is said of where the walk is.
    assert all(trail for trail in model.trails)


def test_a_model_that_never_chooses_ends_the_walk(walker: Desk, tmp_path: Path) -> None:
    walker.server.default = Chooser(lambda _options: 0)
    answer = walker.ask(read(walker, tmp_path, saga(10)), SEXTANT)
    assert not answer.found
    assert not answer.partial
    assert walker.of(events.Stepped)[-1].action == "stop"


def test_choices_that_are_none_are_borne_a_few_times(walker: Desk, tmp_path: Path) -> None:
    honest = Abridger()

    def babbling(recorded: Recorded) -> Any:
        known = skill_of(recorded.body["messages"][0]["content"])
        return Reply("I would rather not say.") if known and known[0] == "choose" else honest(recorded)

    walker.server.default = babbling
    # Nothing was read, so there is no answer to give.
    with pytest.raises(InvalidOutputError, match="larger model"):
        walker.ask(read(walker, tmp_path, saga(20)), SEXTANT)
    assert len(walker.of(events.PartFailed)) == MOST_INVALID


def test_a_walk_has_an_end_whatever_is_chosen(walker: Desk, tmp_path: Path) -> None:
    walker.server.default = Chooser(max)
    answer = walker.ask(read(walker, tmp_path, saga(20)), ABSENT)
    assert not answer.found
    assert len(walker.of(events.Stepped)) <= 2 * MOST_STEPS
    visited = [step.node for step in walker.of(events.Stepped) if step.action == "read"]
    assert len(visited) == len(set(visited)) > 1


def test_offline_walks_too(walker: Desk, tmp_path: Path) -> None:
    documents = read(walker, tmp_path, saga(5, sentences=14))
    answer = walker.ask(documents, SEXTANT, offline=True)
    assert answer.claims[0].citations[0].quote == FACTS[3]
    assert walker.of(events.Stepped)[0].action == "enter"
