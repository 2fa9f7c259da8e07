"""The chain of agents: one note carried from worker to worker, over a whole document."""

import asyncio
import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from lcdoc.agents.models.counting import counter_for
from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.models.model import MESSAGE_OVERHEAD_TOKENS, ModelSpec, Request
from lcdoc.agents.notes import UNQUOTED_ANSWER
from lcdoc.agents.stems import stems_of
from lcdoc.benchmarks.planted_model import PlantedModel
from lcdoc.documents import Document
from lcdoc.retrieval.embedders import Embedder, load_embedder
from lcdoc.tests.servers.chat_server import Behaviour, ChatServer, Recorded, Reply, Status
from lcdoc.tests.servers.truthful import Block, Truthful, blocks_of, skill_of
from lcdoc.workflows import events
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.chain import Chain, ChainOptions
from lcdoc.workflows.chain_path import MOST_MISSES
from lcdoc.workflows.readers import OfflineReaders, ReadingDesk
from lcdoc.workflows.search import Search
from lcdoc.workflows.workflow import Budget, Plan, run
from lcdoc.workflows.workspace import Workspace

WINDOW = 4096
QUESTION = "Which captain kept the brass sextant?"
FACT = "The brass sextant was kept by captain Amara Holm."
SECOND = "Later the captain left the brass sextant to the museum at Wick."
_FILLER = (
    "Rain fell on page {page} of the journal and the mill turned {line} times before dusk.",
    "Nobody in the valley numbered {page} had seen a heron in week {line}, and the hedges were bare.",
    "A loaf cost {line} pennies at stall {page}, which the baker said was more than last year.",
)


@cache
def embedder() -> Embedder:
    return load_embedder()


def page_of(page: int, *facts: str) -> str:
    filler = [_FILLER[line % 3].format(page=page, line=line) for line in range(24)]
    return " ".join([*filler[:12], *facts, *filler[12:]])


def book(pages: int, facts: dict[int, str]) -> str:
    """A text of so many pages, with facts on some of them (from 1)."""
    return "\f".join(page_of(page, *filter(None, [facts.get(page)])) for page in range(1, pages + 1))


class Desk:
    """A library, a server and a model with a short window."""

    def __init__(self, workspace: Workspace, folder: Path, server: ChatServer) -> None:
        self.workspace = workspace
        self.server = server
        self.events: list[events.Event] = []
        self._folder = folder

    def documents(self, *texts: str) -> list[Document]:
        paths = [self._folder / f"book{number}.txt" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        return self.workspace.read(paths)

    def ask(
        self,
        documents: list[Document],
        question: str = QUESTION,
        *,
        options: ChainOptions | None = None,
        budget: Budget | None = None,
        offline: bool = False,
        resumed: str | None = None,
    ) -> Answer:
        async def asked(chain: Chain) -> Answer:
            if resumed is None:
                return await run(chain, question, documents, budget=budget, on_event=self.events.append)
            record = self.workspace.library.runs.find(resumed)
            last = [event async for event in chain.stream(question, documents, budget=budget, resumed=record)][-1]
            assert isinstance(last, events.Answered)
            return last.answer

        return self._with_chain(asked, options, offline=offline)

    def plan(self, documents: list[Document], *, options: ChainOptions | None = None, offline: bool = False) -> Plan:
        async def planned(chain: Chain) -> Plan:
            desk = ReadingDesk(self.workspace.library, "offline" if offline else "honest")
            stage = await desk.stage(embedder(), profile=None)
            try:
                return await chain.plan(QUESTION, documents, stage)
            finally:
                await desk.aclose()

        return self._with_chain(planned, options, offline=offline)

    def _with_chain(self, use: Callable, options: ChainOptions | None, *, offline: bool) -> object:
        library = self.workspace.library

        async def main() -> object:
            desk = ReadingDesk(library, "honest")
            try:
                readers = (
                    OfflineReaders(embedder(), library.runs)
                    if offline
                    else await desk.readers(embedder(), store="use", profile=None)
                )
                return await use(Chain(library, Search(self.workspace.index), readers, options))
            finally:
                await desk.aclose()

        return asyncio.run(main())

    # What was sent

    def sent(self, skill: str) -> list[str]:
        """The user messages of the requests for a skill, in order."""
        bodies = [request.body["messages"] for request in self.server.requests]
        return [user["content"] for system, user in bodies if skill_of(system["content"])[0] == skill]

    def told(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def desk(server: ChatServer, configure: Callable[[str], None], tmp_path: Path) -> Iterator[Desk]:
    server.models = [{"id": "honest", "max_model_len": WINDOW}]
    configure(f'[models.honest]\nurl = "{server.url}"\nprices = {{ input = 1.0, output = 4.0 }}\n')
    with Workspace.open(tmp_path / "library.sqlite", background=False, model="honest") as workspace:
        yield Desk(workspace, tmp_path, server)


def carried_in(message: str) -> Block | None:
    found = [block for block in blocks_of(message)[0] if "notes so far" in block.header]
    assert len(found) < 2
    return found[0] if found else None


def text_in(message: str) -> str:
    (block,) = [block for block in blocks_of(message)[0] if "notes so far" not in block.header]
    return block.text


def read_pages(answer: Answer) -> set[int]:
    return {page for first, last in answer.pages_read[0].read for page in range(first, last + 1)}


def test_every_piece_is_read_once_in_order_and_the_answer_cites_its_page(desk: Desk) -> None:
    documents = desk.documents(book(14, {5: FACT}))
    answer = desk.ask(documents)
    (document,) = documents
    (pieces,) = desk.told(events.Pieces)
    assert len(pieces.places) > 4
    assert [text_in(message) for message in desk.sent("read")] == [
        document.body[start:end] for _, start, end in pieces.places
    ]
    assert answer.found
    assert not answer.partial
    assert answer.workflow == "chain"
    assert answer.claims[0].citations[0].quote == FACT
    assert answer.claims[0].citations[0].pages == (5,)
    assert answer.pages_read[0].unread == ()
    assert answer.passages_read == answer.passages > len(pieces.places)


def test_what_was_found_is_carried_on_unchanged_by_workers_with_nothing_new(desk: Desk) -> None:
    desk.ask(desk.documents(book(14, {2: FACT, 11: SECOND})))
    messages = desk.sent("read")
    first = next(index for index, message in enumerate(messages) if FACT in text_in(message))
    second = next(index for index, message in enumerate(messages) if SECOND in text_in(message))
    assert first + 2 < second < len(messages) - 1
    assert all(carried_in(message) is None for message in messages[: first + 1])
    between = {carried_in(message).text for message in messages[first + 1 : second + 1]}
    assert len(between) == 1
    assert FACT in between.pop()
    after = carried_in(messages[-1]).text
    assert FACT in after
    assert SECOND in after
    (answering,) = desk.sent("answer")
    # The manager is shown the last note: each piece of evidence once.
    assert answering.count(f'quote: "{FACT}"') == answering.count(f'quote: "{SECOND}"') == 1
    notes = desk.told(events.NoteTaken)
    assert [note.found for note in notes].count(True) == 2
    assert sum(note.unchanged for note in notes) == len(messages) - first - 2
    assert notes[second].of == (notes[first].name,)


@pytest.mark.parametrize(("found", "quotes"), [(False, 0), (True, 0), (True, 1)])
@pytest.mark.parametrize("claim", ["Not mentioned.", "The passage does not mention the brass sextant."])
def test_a_refusal_never_enters_the_carried_note(desk: Desk, claim: str, found: bool, quotes: int) -> None:
    honest = Truthful()

    def grudging(recorded: Recorded) -> Behaviour:
        system, user = (message["content"] for message in recorded.body["messages"])
        refuses = skill_of(system)[0] == "read" and FACT not in user.partition("notes so far")[0]
        if not refuses:
            return honest(recorded)
        quoted = [f"{sentence}." for sentence in text_in(user).split(". ")[1 : 1 + quotes]]
        said = {"found": found, "quotes": quoted, "rationale": "", "claim": claim, "confidence": 3}
        return Reply(json.dumps(said))

    desk.server.default = grudging
    answer = desk.ask(desk.documents(book(10, {2: FACT})))
    carried = [block.text for message in desk.sent("read") if (block := carried_in(message))]
    assert len(carried) > 2
    assert not [text for text in [*carried, *desk.sent("answer")] if "not mention" in text.lower()]
    assert answer.claims[0].citations[0].quote == FACT


def test_what_has_no_quote_is_neither_carried_nor_an_answer(desk: Desk) -> None:
    rumour = {"found": True, "quotes": ["It is whispered."], "rationale": "", "claim": "Perhaps Holm.", "confidence": 5}
    honest = Truthful()

    def whispering(recorded: Recorded) -> Behaviour:
        system, user = (message["content"] for message in recorded.body["messages"])
        if skill_of(system)[0] == "read" and FACT not in text_in(user):
            return Reply(json.dumps(rumour))
        claim = {"text": "Perhaps Holm.", "evidence": []}
        unsure = skill_of(system)[0] == "answer" and FACT not in user
        return Reply(json.dumps({"found": True, "claims": [claim]})) if unsure else honest(recorded)

    desk.server.default = whispering
    answer = desk.ask(desk.documents(book(6, {2: FACT})))
    assert "Perhaps" not in "".join(desk.sent("read") + desk.sent("answer"))
    assert answer.claims[0].support == "quoted"
    answer = desk.ask(desk.documents(book(6, {})))
    assert (answer.found, answer.claims) == (False, ())
    assert UNQUOTED_ANSWER in answer.warnings


def test_every_request_fits_a_small_window_with_the_longest_note(desk: Desk) -> None:
    long_claim = "The captain kept the brass sextant. " * 200

    def talkative(recorded: Recorded) -> Behaviour:
        system, user = (message["content"] for message in recorded.body["messages"])
        if skill_of(system)[0] != "read":
            return Truthful()(recorded)
        sentences = [f"{sentence.strip()}." for sentence in text_in(user).split(". ")[1:9]]
        said = {"found": True, "quotes": sentences, "rationale": "", "claim": long_claim, "confidence": 5}
        return Reply(json.dumps(said))

    desk.server.default = talkative
    answer = desk.ask(desk.documents(book(14, {})), options=ChainOptions(order="forward"))
    count = counter_for(ModelSpec("honest", WINDOW))
    sizes = [
        sum(count(message["content"]) + MESSAGE_OVERHEAD_TOKENS for message in request.body["messages"])
        + request.body["max_tokens"]
        for request in desk.server.requests
    ]
    assert max(sizes) <= WINDOW
    carried = [count(block.text) for message in desk.sent("read") if (block := carried_in(message))]
    # As long as its share of the window, and yet no piece had to be parted for it.
    assert max(carried) > 200
    assert len(desk.sent("read")) == len(desk.told(events.Pieces)[0].places) > 5
    assert not answer.partial


def test_backward_reads_the_last_piece_first(desk: Desk) -> None:
    (document,) = documents = desk.documents(book(9, {3: FACT}))
    answer = desk.ask(documents, options=ChainOptions(order="backward"))
    places = desk.told(events.Pieces)[0].places
    assert [text_in(message) for message in desk.sent("read")] == [
        document.body[start:end] for _, start, end in reversed(places)
    ]
    assert answer.claims[0].citations[0].quote == FACT


CLUE, SOLUTION = "The brass sextant went to the keeper of Wick.", "The keeper of Wick was captain Amara Holm."


def deducing(recorded: Recorded) -> Behaviour:
    """The solution means something only to a reader who knows the clue."""
    system, user = (message["content"] for message in recorded.body["messages"])
    if skill_of(system)[0] == "read":
        known = carried_in(user)
        knows = known is not None and CLUE in known.text
        quotes = [one for one in (CLUE, SOLUTION) if one in text_in(user) and (one == CLUE or knows)]
        return Reply(json.dumps({"found": bool(quotes), "quotes": quotes, "claim": "A clue.", "confidence": 4}))
    if skill_of(system)[0] == "answer":
        solved = SOLUTION in user
        claim = {"text": "Amara Holm kept it.", "evidence": [1, 2]}
        return Reply(json.dumps({"found": solved, "claims": [claim] if solved else []}))
    return Truthful()(recorded)


def test_both_ways_find_what_builds_on_what_stands_behind_it(desk: Desk) -> None:
    desk.server.default = deducing
    documents = desk.documents(book(10, {2: SOLUTION, 9: CLUE}))
    assert not desk.ask(documents, options=ChainOptions(order="forward")).found
    answer = desk.ask(documents, options=ChainOptions(order="both"))
    assert answer.claims[0].text == "Amara Holm kept it."
    assert {citation.quote for citation in answer.claims[0].citations} == {CLUE, SOLUTION}
    # Only one of the ways had an answer.
    assert desk.sent("judge") == []


# The way back


def test_where_the_notes_do_not_answer_the_workers_go_back_with_them(desk: Desk) -> None:
    desk.server.default = deducing
    (document,) = documents = desk.documents(book(10, {2: SOLUTION, 9: CLUE}))
    answer = desk.ask(documents)
    assert answer.claims[0].text == "Amara Holm kept it."
    assert {citation.quote for citation in answer.claims[0].citations} == {CLUE, SOLUTION}
    assert not answer.partial
    places = desk.told(events.Pieces)[0].places
    there = [document.body[start:end] for _, start, end in places]
    assert [text_in(message) for message in desk.sent("read")] == [*there, *there[-2::-1]]
    first_back = desk.sent("read")[len(there)]
    assert CLUE in carried_in(first_back).text
    assert len(desk.sent("answer")) == 2
    assert answer.passages_read == answer.passages
    last = desk.told(events.Progress)[-1]
    assert last.done == last.total == 2 * len(there) - 1
    plan = desk.plan(documents)
    assert answer.usage.calls == plan.at_most.calls == 2 * len(there) + 1


def test_a_way_back_that_brings_nothing_asks_for_no_second_answer(desk: Desk) -> None:
    desk.server.default = deducing
    answer = desk.ask(desk.documents(book(6, {5: CLUE})))
    assert not answer.found
    assert not answer.partial
    assert len(desk.sent("read")) == 2 * len(desk.told(events.Pieces)[0].places) - 1
    assert len(desk.sent("answer")) == 1


@pytest.mark.parametrize("facts", [{}, {2: FACT}, {2: CLUE, 4: SOLUTION}])
def test_nobody_goes_back_without_notes_or_with_an_answer(desk: Desk, facts: dict[int, str]) -> None:
    desk.server.default = deducing if CLUE in facts.values() else Truthful()
    answer = desk.ask(desk.documents(book(6, facts)))
    assert answer.found == bool(facts)
    assert len(desk.sent("read")) == len(desk.told(events.Pieces)[0].places)


def test_an_answer_without_a_checked_quote_is_no_reason_to_stay(desk: Desk) -> None:
    def guessing(recorded: Recorded) -> Behaviour:
        system, user = (message["content"] for message in recorded.body["messages"])
        if skill_of(system)[0] == "answer" and SOLUTION not in user:
            return Reply(json.dumps({"found": True, "claims": [{"text": "Perhaps Holm.", "evidence": []}]}))
        return deducing(recorded)

    desk.server.default = guessing
    answer = desk.ask(desk.documents(book(6, {2: SOLUTION, 5: CLUE})))
    assert [(claim.text, claim.support) for claim in answer.claims] == [("Amara Holm kept it.", "quoted")]


def test_a_cap_on_the_way_back_gives_what_there_is_and_says_so(desk: Desk) -> None:
    desk.server.default = deducing
    documents = desk.documents(book(8, {2: SOLUTION, 7: CLUE}))
    pieces = desk.plan(documents).calls - 1
    answer = desk.ask(documents, budget=Budget(calls=pieces + 2))
    assert answer.partial
    assert not answer.found
    assert f"on the way back, 1 of {pieces - 1} pieces of text were read again" in answer.warnings
    assert answer.pages_read[0].unread == ()
    whole = desk.ask(documents, resumed=answer.run_id)
    assert whole.found
    assert not whole.partial
    assert len(desk.sent("read")) == len(set(desk.sent("read"))) == 2 * pieces - 1


def test_what_failed_on_the_way_there_may_be_read_on_the_way_back(desk: Desk) -> None:
    failed: list[str] = []

    def failing_once(recorded: Recorded) -> Behaviour:
        system, user = (message["content"] for message in recorded.body["messages"])
        if skill_of(system)[0] == "read" and "Rain fell on page 3 of" in user and not carried_in(user):
            failed.append(user)
            return Status(422)
        return deducing(recorded)

    desk.server.default = failing_once
    answer = desk.ask(desk.documents(book(8, {2: SOLUTION, 7: CLUE})))
    assert failed
    assert answer.found
    assert answer.partial
    assert answer.pages_read[0].unread == ()
    assert not [warning for warning in answer.warnings if warning.endswith("were not read")]


def test_hops_against_the_order_of_the_text_are_followed(desk: Desk) -> None:
    hops = [
        "The keeper of Otterby was Ada Finch.",
        "Ada Finch learnt the trade from Hugo Lark.",
        "Hugo Lark was born in Stenwick.",
    ]
    desk.server.default = PlantedModel()
    question = "Where was the teacher of the keeper of Otterby born?"
    documents = desk.documents(book(9, dict(zip((8, 5, 2), hops, strict=True))))
    assert not desk.ask(documents, question, options=ChainOptions(order="forward")).found
    answer = desk.ask(documents, question)
    assert "Stenwick" in answer.claims[0].text
    assert {citation.quote for claim in answer.claims for citation in claim.citations} == set(hops)


def hasty(recorded: Recorded) -> Behaviour:
    """An honest reader that answers with the first quote it is shown: it was found first."""
    system, user = (message["content"] for message in recorded.body["messages"])
    if skill_of(system)[0] != "answer":
        return Truthful()(recorded)
    quote = next(block for block in blocks_of(user)[0] if "evidence" in block.header).text
    claim = {"text": quote.partition('"')[2].rstrip('"'), "evidence": [1]}
    return Reply(json.dumps({"found": True, "claims": [claim]}))


def test_shuffled_paths_are_answered_each_and_judged(desk: Desk) -> None:
    documents = desk.documents(book(9, {2: FACT, 7: SECOND}))
    desk.server.default = hasty
    answer = desk.ask(documents, options=ChainOptions(order="shuffled", paths=3, seed=7))
    pieces = len(desk.told(events.Pieces)[0].places)
    names = [note.name for note in desk.told(events.NoteTaken)]
    assert sorted(names) == [f"read/{path}/{piece:04}" for path in (1, 2, 3) for piece in range(pieces)]
    # Two of the paths ended with the same note.
    assert len(desk.sent("answer")) == 2
    (judged,) = desk.sent("judge")
    # Equal answers are judged once.
    assert len([block for block in blocks_of(judged)[0] if "claim" in block.header]) == 2
    assert answer.found
    assert not answer.partial
    assert answer.pages_read[0].unread == ()
    # The honest judge prefers what has more of the question's words.
    shares = {fact: len(set(stems_of(QUESTION)) & set(stems_of(fact))) for fact in (FACT, SECOND)}
    best = max(shares, key=shares.__getitem__)
    assert answer.claims[0].text == best
    (settled,) = desk.told(events.Settled)
    assert (set(settled.claims), settled.claim) == ({FACT, SECOND}, best)


def test_a_judge_that_fails_leaves_the_surest_answer_and_says_so(desk: Desk) -> None:
    def failing(recorded: Recorded) -> Behaviour:
        judges = skill_of(recorded.body["messages"][0]["content"])[0] == "judge"
        return Status(422) if judges else hasty(recorded)

    desk.server.default = failing
    documents = desk.documents(book(9, {2: FACT, 7: SECOND}))
    answer = desk.ask(documents, options=ChainOptions(order="shuffled", paths=3, seed=7))
    assert answer.found
    assert answer.partial
    assert any("422" in warning for warning in answer.warnings)


def test_orders_are_the_same_for_the_same_seed_and_hold_every_piece() -> None:
    options = ChainOptions(order="shuffled", paths=4, seed=3)
    orders = options.orders(30)
    assert orders == options.orders(30)
    assert orders != ChainOptions(order="shuffled", paths=4, seed=4).orders(30)
    assert len({tuple(order) for order in orders}) == 4
    assert all(sorted(order) == list(range(30)) for order in orders)
    assert ChainOptions().orders(3) == [[0, 1, 2]]
    assert ChainOptions(order="both").orders(3) == [[0, 1, 2], [2, 1, 0]]
    assert ChainOptions().orders(0) == [[]]
    with pytest.raises(ValueError, match="a path"):
        ChainOptions(order="shuffled", paths=0)


@pytest.mark.parametrize("order", ["forward", "shuffled"])
def test_a_server_can_be_told_of_every_piece_before_the_first_is_read(desk: Desk, order: str) -> None:
    told: list[Request] = []
    before: list[int] = []

    def prefetch(requests: list[Request]) -> None:
        told.extend(requests)
        before.append(len(desk.server.requests))

    answer = desk.ask(desk.documents(book(8, {2: FACT})), options=ChainOptions(order=order, paths=2, prefetch=prefetch))
    pieces = desk.told(events.Pieces)[0].places
    assert before == [0]
    assert len(told) == len(pieces)
    ahead = [request.messages[1].content.partition("\n\n<question>")[0] for request in told]
    sent = desk.sent("read")
    assert all(any(message.startswith(prompt) for message in sent) for prompt in ahead)
    assert all(any(message.startswith(prompt) for prompt in ahead) for message in sent)
    assert answer.found


def refusing(page: int, *more: int) -> Callable[[Recorded], Behaviour]:
    """An honest model on a server that refuses the pieces with these pages."""
    honest = Truthful()

    def choose(recorded: Recorded) -> Behaviour:
        system, user = (message["content"] for message in recorded.body["messages"])
        refused = any(f"Rain fell on page {one} of" in user for one in (page, *more))
        return Status(422) if skill_of(system)[0] == "read" and refused else honest(recorded)

    return choose


def test_a_failed_worker_is_skipped_and_its_pages_are_unread(desk: Desk) -> None:
    desk.server.default = refusing(6)
    answer = desk.ask(desk.documents(book(12, {2: FACT, 11: SECOND})))
    assert answer.found
    assert answer.partial
    assert any("422" in warning for warning in answer.warnings)
    assert any(warning.endswith("pieces of text were not read") for warning in answer.warnings)
    unread = answer.pages_read[0].unread
    assert 1 <= len(unread) <= 2
    assert 6 not in read_pages(answer) or answer.passages_read < answer.passages
    assert {1, 2, 11, 12} <= read_pages(answer)
    # What was found before the gap was carried over it.
    assert FACT in carried_in(desk.sent("read")[-1]).text
    assert len(desk.told(events.PartFailed)) == 1


def test_three_failures_in_a_row_end_the_chain(desk: Desk) -> None:
    desk.server.default = refusing(6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
    answer = desk.ask(desk.documents(book(20, {2: FACT, 19: SECOND})))
    pieces = len(desk.told(events.Pieces)[0].places)
    assert answer.partial
    assert answer.claims[0].citations[0].quote == FACT
    assert f"the chain ended after {MOST_MISSES} failures in a row" in answer.warnings
    assert len(desk.told(events.PartFailed)) == MOST_MISSES
    assert len(desk.sent("read")) < pieces
    assert {19, 20}.isdisjoint(read_pages(answer))


def test_where_nothing_can_be_read_the_error_is_raised(desk: Desk) -> None:
    desk.server.default = Status(422)
    with pytest.raises(ModelError, match="422"):
        desk.ask(desk.documents(book(12, {2: FACT})))
    assert len(desk.server.requests) == MOST_MISSES


def test_a_cap_ends_it_with_what_was_found_and_it_can_be_gone_on_with(desk: Desk) -> None:
    documents = desk.documents(book(14, {2: FACT, 12: SECOND}))
    answer = desk.ask(documents, budget=Budget(calls=4))
    assert answer.partial
    assert answer.found
    assert answer.claims[0].citations[0].quote == FACT
    assert answer.usage.calls == 4
    assert any("calls" in warning for warning in answer.warnings)
    assert 14 not in read_pages(answer)
    whole = desk.ask(documents, resumed=answer.run_id)
    pieces = len(desk.told(events.Pieces)[0].places)
    assert not whole.partial
    assert whole.run_id == answer.run_id
    assert whole.pages_read[0].unread == ()
    # No piece was sent twice.
    assert len(desk.sent("read")) == len(set(desk.sent("read"))) == pieces
    assert all(f'quote: "{fact}"' in desk.sent("answer")[-1] for fact in (FACT, SECOND))


def test_no_time_reads_nothing_and_says_so(desk: Desk) -> None:
    for offline in (True, False):
        answer = desk.ask(desk.documents(book(3, {2: FACT})), budget=Budget(seconds=0.0), offline=offline)
        assert answer.partial
        assert not answer.found
        assert answer.passages_read == 0
        assert any("time" in warning for warning in answer.warnings)
    assert desk.server.requests == []


def test_several_documents_are_one_chain_in_their_order(desk: Desk) -> None:
    documents = desk.documents(book(4, {2: FACT}), book(5, {4: SECOND}).replace("valley", "harbour"))
    answer = desk.ask(documents)
    places = desk.told(events.Pieces)[0].places
    assert list(dict.fromkeys(place[0] for place in places)) == [document.id for document in documents]
    assert [text_in(message) for message in desk.sent("read")] == [
        next(one for one in documents if one.id == document_id).body[start:end] for document_id, start, end in places
    ]
    assert FACT in carried_in(desk.sent("read")[-1]).text
    assert [pages.unread for pages in answer.pages_read] == [(), ()]


def test_what_is_not_there_is_not_found_and_asks_nobody_for_an_answer(desk: Desk) -> None:
    answer = desk.ask(desk.documents(book(6, {})))
    assert not answer.found
    assert not answer.partial
    assert answer.claims == ()
    assert desk.sent("answer") == []


def test_quotes_that_stand_nowhere_are_counted_once_each(desk: Desk) -> None:
    desk.server.default = Truthful(false_quotes=1.0)
    answer = desk.ask(desk.documents(book(9, {2: FACT, 5: SECOND, 8: "The captain polished the brass sextant."})))
    assert answer.quotes_dropped == 3
    assert answer.found


def test_a_document_without_passages_is_no_chain(desk: Desk) -> None:
    (document,) = desk.documents(book(1, {}))
    empty = Document.create("", (), (), document.source)
    desk.workspace.library.add(empty, [], recipe=desk.workspace.chunker.recipe)
    answer = desk.ask([empty])
    assert not answer.found
    assert answer.passages == 0
    assert desk.server.requests == []
    assert desk.plan([empty]).calls == 0


def test_offline_it_is_the_same_chain(desk: Desk) -> None:
    documents = desk.documents(book(12, {3: FACT, 10: SECOND}))
    answer = desk.ask(documents, offline=True)
    assert desk.server.requests == []
    assert answer.found
    assert FACT in {citation.quote for claim in answer.claims for citation in claim.citations}
    assert answer.pages_read[0].unread == ()
    assert len(desk.told(events.NoteTaken)) == len(desk.told(events.Pieces)[0].places) > 1
    assert desk.plan(documents, offline=True).calls == 0


def test_the_plan_foresees_the_calls_and_nearly_the_tokens(desk: Desk) -> None:
    documents = desk.documents(book(16, {4: FACT, 12: SECOND}))
    plan = desk.plan(documents)
    assert desk.server.requests == []
    answer = desk.ask(documents)
    assert plan.calls == answer.usage.calls
    assert plan.tokens_in == pytest.approx(answer.usage.tokens_in, rel=0.25)
    assert plan.at_most.tokens_in > plan.tokens_in
    assert plan.at_most.cost_usd > plan.cost_usd > 0
    pieces = len(desk.told(events.Pieces)[0].places)
    shuffled = desk.plan(documents, options=ChainOptions(order="shuffled", paths=3))
    assert shuffled.calls == 3 * (pieces + 1) + 1


def test_the_state_does_not_grow_with_the_pieces(desk: Desk) -> None:
    chain = Chain(desk.workspace.library, Search(desk.workspace.index), OfflineReaders(embedder(), None))
    sizes = []
    for pieces in (10, 1000):
        path = {"step": pieces, "carried": f"read/1/{pieces - 1:04}", "turned": None, "misses": 0, "unread": []}
        sizes.append(len(json.dumps({**chain.first_state(None), "paths": [path]})))
    assert sizes[1] - sizes[0] < 10
