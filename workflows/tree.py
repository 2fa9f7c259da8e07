"""Tree memory, collapsed: one ranking over the text and the summaries of it, then the best leaves are read.

Summaries are of what a chapter says as a whole, which no single passage does; what is quoted is always the text itself.
Source: "RAPTOR: Recursive Abstractive Processing for Tree-Organized Retrieval", collapsed tree retrieval, which its
authors found better than descending layer by layer. It is the default here for that reason, and since it asks no model
where to go: `tree_walk` does, a call a step.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypedDict

from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.reader import Passage
from lcdoc.documents import Document
from lcdoc.memory import Library
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.events import PassagesFound, Place, Progress
from lcdoc.workflows.frame import GraphWorkflow
from lcdoc.workflows.readers import Readers
from lcdoc.workflows.search import Search
from lcdoc.workflows.session import Failure, Session
from lcdoc.workflows.tree_building import (
    BuildingState,
    TreeBuilding,
    add_building,
    building_requests,
    leaf_tokens_for,
    passages_in,
    tree_of,
)
from lcdoc.workflows.tree_leads import Leaf, found_leaves, leads_of, ranked_leaves
from lcdoc.workflows.tree_themes import themes_of
from lcdoc.workflows.workflow import Plan, Requests

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

    from lcdoc.workflows.rehearsal import Stage

READ_TOKENS = 8_000
"""Of leaves, read in each of `_ROUNDS`: about seven full ones."""
_ROUNDS = 2
"""The first, and one more before saying that nothing was found."""
_HITS = 64
"""Passages that the search ranks; a leaf is as good as its best one."""
_LIKELY = 12
"""Passages that the notes of an estimate are from."""
_SECONDS_PER_LEAF = 0.4
"""To summarise it offline, two cores."""


class _State(BuildingState, total=False):
    rounds: int
    chosen: Annotated[list[Leaf], operator.add]
    """Leaves that were read."""
    parts: list[list[Place]]
    """What is to be read in this round, a call each."""
    notes: Annotated[list[str], operator.add]
    found: bool


class _Part(TypedDict):
    """What one reading is sent."""

    name: str
    places: list[Place]


class Tree(GraphWorkflow):
    """Summarises the documents once, then reads the leaves that are likeliest to answer."""

    name: ClassVar[str] = "tree"
    about: ClassVar[str] = "builds a tree of summaries once, then reads what they lead to; for many questions on a book"

    def __init__(self, library: Library, search: Search, readers: Readers, *, themes: bool = False) -> None:
        """With `themes`, leaves of like meaning are summarised together, too, wherever they are: see `tree_themes`."""
        super().__init__(library, search, readers)
        self.themes = themes

    def graph(self, session: Session) -> StateGraph[Any, Any, Any, Any]:
        from langgraph.graph import END, START, StateGraph

        building = TreeBuilding(session)
        steps = _Steps(session, building, self)
        graph = StateGraph(_State)
        graph.add_edge(START, "outline")
        add_building(graph, building, then="rank")
        graph.add_node("rank", steps.rank)
        graph.add_node("read", steps.read, input_schema=_Part)
        graph.add_node("answer", steps.answer)
        graph.add_conditional_edges("rank", steps.parts, ["read", "answer"])
        graph.add_edge("read", "answer")
        graph.add_conditional_edges("answer", steps.widen, ["rank", END])
        return graph

    def conclude(self, session: Session, state: dict[str, Any]) -> Answer:
        names = sorted(state.get("notes", ()))
        places = [place for name in names for place in session.places_of(name)]
        problems = [failure["message"] for failure in state.get("failures", ())]
        if session.run.out_of_time() and not session.draft().found:
            problems.append("the time set for the answer is over; raise --max-seconds to go on")
        return session.compose(
            self.name,
            session.draft(),
            read=places,
            passages_read=passages_in(session, places),
            dropped=sum(session.note(name).dropped for name in names),
            problems=problems,
        )

    async def plan(self, question: str, documents: Sequence[Document], stage: Stage | None) -> Plan:
        """The summaries that are not there yet, the leaves read first, and an answer."""
        if stage is None:
            leaves = sum(len(self.library.chunks(document.id)) for document in documents) / 6
            return Plan(calls=0, tokens_in=0, tokens_out=0, cost_usd=0.0, seconds=round(_SECONDS_PER_LEAF * leaves, 1))
        leaf_tokens = leaf_tokens_for(stage.reader)
        trees = [tree_of(one, self.library, stage.reader, leaf_tokens=leaf_tokens) for one in documents]
        building = await building_requests(trees, stage)
        best, _ = await self.search.best(question, documents, _HITS)
        # Which summaries lead to others is not known before they are made.
        by_document = {tree.document.id: tree for tree in trees}
        likely = [
            by_document[document_id].passage(by_document[document_id].shape.nodes[number])
            for document_id, number in found_leaves(trees, best, question)
        ]
        read = within(READ_TOKENS, likely, stage.reader.count)
        more = within(READ_TOKENS, likely[len(read) :], stage.reader.count)
        requests = Requests(
            reading=(*building, *await stage.reading(read, question)),
            answering=await stage.answering(question, [await stage.likely_note(best[:_LIKELY], question)]),
            widening=await stage.reading(more, question),
        )
        return stage.plan(requests)


class _Steps:
    """The nodes after the building, for one session."""

    def __init__(self, session: Session, building: TreeBuilding, workflow: Tree) -> None:
        self._session = session
        self._building = building
        self._workflow = workflow

    async def rank(self, state: _State) -> _State:
        session = self._session
        trees = self._building.trees(state["leaf_tokens"])
        hits = await session.best_passages(_HITS)
        embedder = self._workflow.search.index.embedder
        leads = leads_of(trees)
        failures: list[Failure] = []
        if self._workflow.themes and not self._building.stopped(state):
            for tree in trees:
                themes, failed = await themes_of(session, tree, embedder)
                leads += themes
                failures += failed
        found = found_leaves(trees, hits, session.question)
        ranked = await ranked_leaves(trees, leads, found, session.question, embedder=embedder, library=session.library)
        read = {(document_id, number) for document_id, number in state.get("chosen", ())}
        by_document = {tree.document.id: tree for tree in trees}
        unread = {
            _place(passage): (passage, leaf)
            for leaf in ranked
            if leaf not in read
            for passage in [by_document[leaf[0]].passage(by_document[leaf[0]].shape.nodes[leaf[1]])]
        }
        order = {document_id: index for index, document_id in enumerate(session.documents)}
        passages = within(READ_TOKENS, [passage for passage, _ in unread.values()], session.reader.count)
        passages.sort(key=lambda passage: (order[passage.document.id], passage.span))
        parts = [[_place(passage) for passage in part] for part in session.reader.parts(passages, session.question)]
        if passages:
            session.emit(PassagesFound(tuple(map(_place, passages)), searched=session.passages))
        return {
            "rounds": state.get("rounds", 0) + 1,
            "chosen": [unread[_place(passage)][1] for passage in passages],
            "parts": parts,
            "failures": failures,
        }

    def parts(self, state: _State) -> list[Any] | str:
        from langgraph.types import Send

        if self._building.stopped(state):
            return "answer"
        number = state["rounds"]
        return [
            Send("read", _Part(name=f"read/{number}/{index:04}", places=places))
            for index, places in enumerate(state["parts"])
        ] or "answer"

    async def read(self, state: _Part) -> _State:
        session, name = self._session, state["name"]
        if not session.has(name):
            places = [(document_id, start, end) for document_id, start, end in state["places"]]
            try:
                note = await session.reader.read_many([session.passage(place) for place in places], session.question)
            except ModelError as error:
                return {"failures": [session.failure(name, error)]}
            await session.keep(name, note, places=places)
            session.emit(Progress("asking", session.run.model, len(places), len(places)))
        return {"notes": [name]}

    async def answer(self, state: _State) -> _State:
        notes = [self._session.note(name) for name in sorted(state.get("notes", ()))]
        draft, failure = await self._session.answer(notes)
        await self._session.keep_draft(draft)
        return {"found": draft.found, "failures": [failure] if failure else []}

    def widen(self, state: _State) -> str:
        from langgraph.graph import END

        more = state["rounds"] < _ROUNDS and bool(state["parts"])
        stopped = bool(state.get("failures")) or self._session.run.out_of_time()
        return "rank" if more and not state["found"] and not stopped else END


def within(budget_tokens: int, leaves: Iterable[Passage], count: Callable[[str], int]) -> list[Passage]:
    """The first of `leaves` that together have at most so many tokens; one at least, where there is one."""
    taken: list[Passage] = []
    left = budget_tokens
    for leaf in leaves:
        left -= count(leaf.text)
        if taken and left < 0:
            break
        taken.append(leaf)
    return taken


def _place(passage: Passage) -> Place:
    return (passage.document.id, passage.span.start, passage.span.end)
