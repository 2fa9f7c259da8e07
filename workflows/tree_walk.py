"""Tree memory, walked: from the root, the reader chooses where to go, reads a leaf, turns back where it was wrong.

What was read on the way goes with it as working memory, which is worth more than any other part of the method. Source:
"Walking Down the Memory Maze: Beyond Context Limit through Interactive Reading" (MemWalker). Each step is a call that
waits for the one before; where a small model chooses badly, `tree` is surer.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.models.model import Request
from lcdoc.agents.notes import Choice
from lcdoc.agents.reader import Passage, Reader
from lcdoc.documents import Document
from lcdoc.workflows.events import Stepped
from lcdoc.workflows.session import Failure, Session
from lcdoc.workflows.tree import Tree
from lcdoc.workflows.tree_building import (
    BuildingState,
    SummaryTree,
    TreeBuilding,
    add_building,
    building_requests,
    leaf_tokens_for,
    likely_points,
    tree_of,
)
from lcdoc.workflows.tree_leads import found_leaves
from lcdoc.workflows.workflow import Plan, Requests

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

    from lcdoc.workflows.rehearsal import Stage

MOST_STEPS = 40
MOST_LEAVES = 8
"""Read before the answer is made of what was found."""
MOST_INVALID = 3
"""Choices that were none, before the walk is given up."""
ENOUGH = 4.0
"""Confidence of a note at which nothing more is looked for."""
_HITS = 24
"""Passages searched for the plan; the leaves they lie in are where the walk likely goes."""
_REMEMBERED = 8
"""Texts of working memory, the latest; a reader shortens them to what its window takes."""

_Node = tuple[int, int]
"""The index of a tree and the number of a node of it; -1 for both is where all trees begin."""
_START: _Node = (-1, -1)


class _State(BuildingState, total=False):
    path: list[_Node]
    """From the start to where the walk is."""
    closed: Annotated[list[_Node], operator.add]
    """What was read, or turned back from."""
    steps: int
    invalid: int
    leaves: int
    notes: Annotated[list[str], operator.add]
    over: bool


class TreeWalk(Tree):
    """Summarises the documents once, then walks down the tree to what answers."""

    name: ClassVar[str] = "tree_walk"
    about: ClassVar[str] = (
        "walks down the tree of summaries, a choice at a time; for strong models and where-is questions"
    )

    def graph(self, session: Session) -> StateGraph[Any, Any, Any, Any]:
        from langgraph.graph import END, START, StateGraph

        building = TreeBuilding(session)
        walk = _Walk(session, building)
        graph = StateGraph(_State)
        graph.add_edge(START, "outline")
        add_building(graph, building, then="step")
        graph.add_node("step", walk.step)
        graph.add_node("answer", walk.answer)
        graph.add_conditional_edges("step", walk.further, ["step", "answer"])
        graph.add_edge("answer", END)
        return graph

    async def plan(self, question: str, documents: Sequence[Document], stage: Stage | None) -> Plan:
        """The summaries that are not there yet, the choices and leaves of a walk to the leaves that the search finds
        best, until the offline reader is sure of one, and an answer. At most: every step and leaf that is admitted."""
        if stage is None:
            return await super().plan(question, documents, stage)
        leaf_tokens = leaf_tokens_for(stage.reader)
        trees = [tree_of(one, self.library, stage.reader, leaf_tokens=leaf_tokens) for one in documents]
        trees = [tree for tree in trees if tree.shape.nodes]
        building = await building_requests(trees, stage)
        best, _ = await self.search.best(question, documents, _HITS)
        for tree in trees:
            for number in tree.missing():
                tree.points[number] = likely_points(tree, tree.shape.nodes[number])
        index = {tree.document.id: number for number, tree in enumerate(trees)}
        leaves = [(index[document_id], number) for document_id, number in found_leaves(trees, best, question)]
        choices, reading = await _likely_walk(trees, leaves, question, stage)
        note = await stage.likely_note(best[:MOST_LEAVES], question)
        requests = Requests(
            reading=(*building, *choices, *reading),
            answering=await stage.answering(question, [note]),
            widening=(
                *choices[:1] * (MOST_STEPS - MOST_LEAVES - len(choices)),
                *reading[:1] * (MOST_LEAVES - len(reading)),
            ),
        )
        # The options of other nodes may be longer, and what is carried along, too.
        return stage.plan(requests, more_tokens_in=stage.reader.room(question) * (MOST_STEPS + 1))


async def _likely_walk(
    trees: list[SummaryTree], leaves: list[_Node], question: str, stage: Stage
) -> tuple[list[Request], list[Request]]:
    """The choices and the readings of a walk that goes for `leaves`, the first one first."""
    choices: list[Request] = []
    readings: list[Request] = []
    path, closed, read, steps = [_START], set[_Node](), 0, 0
    while path and steps < MOST_STEPS and read < MOST_LEAVES:
        here, steps = path[-1], steps + 1
        if here != _START and trees[here[0]].shape.nodes[here[1]].is_leaf:
            passage = trees[here[0]].passage(trees[here[0]].shape.nodes[here[1]])
            readings += await stage.sent(partial(_reading, passage, question))
            read += 1
            note = await stage.noted([passage], question)
            if note.found and note.confidence >= ENOUGH:
                break
            closed.add(path.pop())
            continue
        options = [child for child in _children(trees, here) if child not in closed]
        if not options:
            closed.add(path.pop())
            continue
        wanted = next(
            (leaf for leaf in leaves if leaf not in closed and any(_is_under(trees, leaf, o) for o in options)), None
        )
        ahead = [option for option in options if wanted is not None and _is_under(trees, wanted, option)]
        if len(options) > 1:
            trail = [_option(trees, node) for node in path if node != _START]
            choices += await stage.sent(partial(_choosing, question, [_option(trees, o) for o in options], trail))
        path.append((ahead or options)[0])
    return choices, readings


def _is_under(trees: list[SummaryTree], leaf: _Node, node: _Node) -> bool:
    return leaf[0] == node[0] and any(one.number == leaf[1] for one in trees[node[0]].shape.leaves_under(node[1]))


async def _choosing(question: str, options: list[str], trail: list[str], reader: Reader) -> object:
    return await reader.choose(question, options, trail)


async def _reading(passage: Passage, question: str, reader: Reader) -> object:
    return await reader.read(passage, question)


class _Walk:
    """The nodes after the building, for one session."""

    def __init__(self, session: Session, building: TreeBuilding) -> None:
        self._session = session
        self._building = building

    def further(self, state: _State) -> str:
        return "answer" if state["over"] else "step"

    async def step(self, state: _State) -> _State:
        """One move: into a child, back from one, or the reading of a leaf."""
        session = self._session
        trees = self._building.trees(state["leaf_tokens"])
        path = [(tree, number) for tree, number in state.get("path", [_START])]
        steps = state.get("steps", 0)
        here = path[-1]
        if reason := self._end(state, trees):
            return self._stop(_title(trees, here), reason)
        if here != _START and trees[here[0]].shape.nodes[here[1]].is_leaf:
            return await self._read(state, trees, path)
        closed = {(tree, number) for tree, number in state.get("closed", ())}
        options = [child for child in _children(trees, here) if child not in closed]
        moved = _State(steps=steps + 1, over=False)
        if not options:
            return moved | self._back(trees, path, "nothing is left there")
        if len(options) == 1:
            return moved | self._enter(trees, path, options[0], "the only way")
        try:
            choice = await session.reader.choose(
                session.question, [_option(trees, option) for option in options], self._trail(state, trees, path)
            )
        except ModelError as error:
            failure = session.failure(f"step/{steps:04}", error)
            return self._invalid(state, trees, path, failure)
        return moved | self._chosen(state, trees, path, options, choice)

    def _end(self, state: _State, trees: list[SummaryTree]) -> str:
        """Why the walk ends here; empty where it goes on."""
        steps, leaves = state.get("steps", 0), state.get("leaves", 0)
        if not trees:
            return "there is nothing to read"
        if self._building.stopped(state):
            return "nothing more may be asked"
        return f"{steps} steps, {leaves} leaves read" if steps >= MOST_STEPS or leaves >= MOST_LEAVES else ""

    def _chosen(
        self, state: _State, trees: list[SummaryTree], path: list[_Node], options: list[_Node], choice: Choice
    ) -> _State:
        if choice.option is None:
            return self._back(trees, path, choice.reason)
        if not 0 <= choice.option < len(options):
            return self._invalid(state, trees, path, None)
        return self._enter(trees, path, options[choice.option], choice.reason)

    def _enter(self, trees: list[SummaryTree], path: list[_Node], node: _Node, reason: str) -> _State:
        self._session.emit(Stepped("enter", _title(trees, node), reason))
        return _State(path=[*path, node])

    def _back(self, trees: list[SummaryTree], path: list[_Node], reason: str) -> _State:
        here = path[-1]
        if here == _START:
            return self._stop("", reason)
        self._session.emit(Stepped("back", _title(trees, here), reason))
        return _State(path=path[:-1], closed=[here])

    def _stop(self, title: str, reason: str) -> _State:
        self._session.emit(Stepped("stop", title, reason))
        return _State(over=True)

    def _invalid(self, state: _State, trees: list[SummaryTree], path: list[_Node], failure: Failure | None) -> _State:
        """After a choice that is none the same is asked again, a few times; a cap ends the walk."""
        invalid = state.get("invalid", 0) + 1
        failures = [failure] if failure else []
        if invalid >= MOST_INVALID or (failure and failure["cap"]):
            return self._stop(_title(trees, path[-1]), "no choice could be had") | _State(failures=failures)
        return _State(steps=state.get("steps", 0) + 1, invalid=invalid, failures=failures, over=False)

    async def _read(self, state: _State, trees: list[SummaryTree], path: list[_Node]) -> _State:
        session, here = self._session, path[-1]
        tree = trees[here[0]]
        leaf = tree.shape.nodes[here[1]]
        name = f"read/{here[0]:02}-{here[1]:04}"
        moved = _State(
            path=path[:-1],
            closed=[here],
            steps=state.get("steps", 0) + 1,
            leaves=state.get("leaves", 0) + 1,
            over=False,
        )
        session.emit(Stepped("read", leaf.title))
        if not session.has(name):
            try:
                note = await session.reader.read(tree.passage(leaf), session.question)
            except ModelError as error:
                return moved | _State(failures=[session.failure(name, error)])
            await session.keep(name, note, places=[tree.place(leaf)])
        note = session.note(name)
        moved["notes"] = [name]
        if note.found and note.quotes and note.confidence >= ENOUGH:
            return moved | self._stop(leaf.title, "what was found answers")
        if not note.found:
            session.emit(Stepped("back", leaf.title, "it says nothing about the question"))
        return moved

    def _trail(self, state: _State, trees: list[SummaryTree], path: list[_Node]) -> list[str]:
        """Working memory: what is said of the nodes on the path, and what was noted."""
        entered = [_option(trees, node) for node in path if node != _START]
        noted = [note.claim for note in map(self._session.note, state.get("notes", ())) if note.found and note.claim]
        return [*entered, *noted][-_REMEMBERED:]

    async def answer(self, state: _State) -> _State:
        # In the order of the text, not of the walk.
        notes = [self._session.note(name) for name in sorted(state.get("notes", ()))]
        draft, failure = await self._session.answer(notes)
        await self._session.keep_draft(draft)
        return {"failures": [failure] if failure else []}


def _children(trees: list[SummaryTree], node: _Node) -> list[_Node]:
    if node == _START:
        return [(index, tree.shape.root.number) for index, tree in enumerate(trees)]
    return [(node[0], child) for child in trees[node[0]].shape.nodes[node[1]].children]


def _title(trees: list[SummaryTree], node: _Node) -> str:
    return "" if node == _START else trees[node[0]].shape.nodes[node[1]].title


def _option(trees: list[SummaryTree], node: _Node) -> str:
    return f"{_title(trees, node)}: {trees[node[0]].summary(node[1])}"
