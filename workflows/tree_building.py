"""Building the trees of summaries that workflows use: leaves from the text, parents from their children.

Part of a graph: `add_building` gives a graph the nodes that summarise what has no summary yet, level by level as far as
children are there. Each summary is kept in the library when it is made, so a tree is built once, whatever ends the run.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.models.model import Request
from lcdoc.agents.notes import Summary, SummaryPoint
from lcdoc.agents.quotes import Citation, check_quote
from lcdoc.agents.reader import Passage, Reader
from lcdoc.documents import Document, Span
from lcdoc.memory import Library
from lcdoc.memory.trees import LEAF_TOKENS, TreeNode, TreeShape, tree_recipe, tree_shape
from lcdoc.workflows.events import Pieces, Place, Progress
from lcdoc.workflows.session import Failure, Session

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

    from lcdoc.workflows.rehearsal import Stage

Points = tuple[SummaryPoint, ...]


class BuildingState(TypedDict, total=False):
    """What the state of a graph has for building."""

    leaf_tokens: int
    """Set once: a reader may learn that its window is smaller, but a tree is of one size."""
    failures: Annotated[list[Failure], operator.add]


class _Job(TypedDict):
    """What one summary is of."""

    document_id: str
    number: int
    leaf_tokens: int


@dataclass
class SummaryTree:
    """A document's tree, with the summaries made so far by the numbers of their nodes."""

    shape: TreeShape
    recipe: str
    points: dict[int, Points] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)
    """The nodes whose summaries are in the library: all but empty ones, and those made of empty ones."""

    @property
    def document(self) -> Document:
        return self.shape.document

    def summary(self, number: int) -> str:
        """What is said of a node, on one line; its title where nothing is."""
        return " ".join(point.text for point in self.points.get(number, ())) or self.shape.nodes[number].title

    def missing(self) -> list[int]:
        """The nodes that have no summary, children first."""
        return [node.number for node in self.shape.nodes if node.number not in self.points]

    def possible(self) -> list[int]:
        """The missing nodes that can be summarised: leaves, and parents all of whose children are."""
        return [n for n in self.missing() if all(child in self.points for child in self.shape.nodes[n].children)]

    def below(self, number: int) -> list[SummaryPoint]:
        """What is said of a node's children."""
        return [point for child in self.shape.nodes[number].children for point in self.points.get(child, ())]

    def place(self, node: TreeNode) -> Place:
        return (self.document.id, node.span.start, node.span.end)

    def passage(self, node: TreeNode) -> Passage:
        return Passage(self.document, node.span, node.heading_path)


def leaf_tokens_for(reader: Reader) -> int:
    """How long leaves are for this reader. Raises ModelConfigError where its window has no room for a sentence."""
    return min(LEAF_TOKENS, reader.room(""))


def tree_of(
    document: Document, library: Library, reader: Reader, *, leaf_tokens: int, kept_before: bool = True
) -> SummaryTree:
    """The document's tree, with the summaries that the library has of it, or of the same text in another document.

    Without any where `kept_before` is false.
    """
    shape = tree_shape(document, library.chunks(document.id), count=reader.count, leaf_tokens=leaf_tokens)
    tree = SummaryTree(shape, tree_recipe(reader.fingerprint, leaf_tokens=leaf_tokens))
    if not kept_before:
        return tree
    kept = library.trees.nodes(document.id, tree.recipe, [node.name for node in shape.nodes])
    for node in shape.nodes:
        if node.name not in kept:
            continue
        value = kept[node.name].value
        points = tuple(SummaryPoint.model_validate(point) for point in value["points"])
        before = Span(*value["span"])
        if kept[node.name].document_id == document.id:
            tree.kept.add(node.number)
        if (kept[node.name].document_id, before) != (document.id, node.span):
            shift = node.span.start - before.start
            points = tuple(_moved(point, document, shift) for point in points)
        tree.points[node.number] = points
    return tree


def _moved(point: SummaryPoint, document: Document, shift: int) -> SummaryPoint:
    """The point with its quotes found in `document`, where the text it was made of now stands."""
    found = [check_quote(document, one.quote, near=_shifted(one, shift)) for one in point.citations]
    return point.model_copy(update={"citations": tuple(one for one in found if one is not None)})


def _shifted(citation: Citation, shift: int) -> Span:
    return Span(max(0, citation.span.start + shift), max(0, citation.span.end + shift))


class TreeBuilding:
    """The nodes of a graph that build the trees of its session's documents, and the trees."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._trees: dict[str, SummaryTree] = {}

    def trees(self, leaf_tokens: int) -> list[SummaryTree]:
        """The trees of all documents that have passages, in order, as far as they are built."""
        session = self._session
        for document in session.documents.values():
            if document.id not in self._trees:
                self._trees[document.id] = tree_of(
                    document,
                    session.library,
                    session.reader,
                    leaf_tokens=leaf_tokens,
                    kept_before=session.run.store == "use",
                )
        return [self._trees[id_] for id_ in session.documents if self._trees[id_].shape.nodes]

    def stopped(self, state: BuildingState) -> bool:
        """Whether no more may be asked: a cap was hit, or the time is over."""
        return any(failure["cap"] for failure in state.get("failures", ())) or self._session.run.out_of_time()

    async def outline(self, state: BuildingState) -> BuildingState:
        session = self._session
        try:
            leaf_tokens = state.get("leaf_tokens") or leaf_tokens_for(session.reader)
        except ModelError as error:
            return {"leaf_tokens": LEAF_TOKENS, "failures": [session.failure("outline", error)]}
        trees = self.trees(leaf_tokens)
        for tree in trees:
            # What another document's tree had: that one may be removed.
            new = {n: points for n, points in tree.points.items() if n not in tree.kept}
            await self._keep(tree, new)
        missing = [tree.place(leaf) for tree in trees for leaf in tree.shape.leaves if leaf.number not in tree.points]
        if missing:
            session.emit(Pieces(tuple(missing)))
        return {"leaf_tokens": leaf_tokens}

    def next(self, then: str) -> Callable[[BuildingState], list[Any] | str]:
        """What is summarised next, all at once; `then` when nothing is left that can be."""

        def jobs(state: BuildingState) -> list[Any] | str:
            from langgraph.types import Send

            failed = {failure["step"] for failure in state.get("failures", ())}
            if self.stopped(state) or "outline" in failed:
                return then
            tokens = state["leaf_tokens"]
            return [
                Send("summarize", _Job(document_id=tree.document.id, number=number, leaf_tokens=tokens))
                for tree in self.trees(tokens)
                for number in tree.possible()
                if _step(tree, number) not in failed
            ] or then

        return jobs

    async def summarize(self, state: _Job) -> BuildingState:
        session = self._session
        trees = self.trees(state["leaf_tokens"])
        tree = next(tree for tree in trees if tree.document.id == state["document_id"])
        node = tree.shape.nodes[state["number"]]
        try:
            summary = await summarized(tree, node, session.reader)
        except ModelError as error:
            return {"failures": [session.failure(_step(tree, node.number), error)]}
        tree.points[node.number] = summary.points
        if summary.points and all(child in tree.kept for child in node.children):
            await self._keep(tree, {node.number: summary.points})
        done, total = (sum(counts) for counts in zip(*map(_counts, trees), strict=True))
        session.emit(Progress("asking", session.run.model, done, total))
        return {}

    async def grow(self, state: BuildingState) -> BuildingState:
        """One level is there."""
        return {}

    async def _keep(self, tree: SummaryTree, points: dict[int, Points]) -> None:
        values = {
            tree.shape.nodes[number].name: {
                "span": [tree.shape.nodes[number].span.start, tree.shape.nodes[number].span.end],
                "points": [point.model_dump(mode="json") for point in made],
            }
            for number, made in points.items()
        }
        if values and self._session.run.store != "off":
            await self._session.library.trees.keep(tree.document.id, tree.recipe, values)
            tree.kept.update(points)


def add_building(graph: StateGraph[Any, Any, Any, Any], building: TreeBuilding, *, then: str) -> None:
    """Add the nodes that build, from `outline` on; the graph goes on with its node `then`."""
    graph.add_node("outline", building.outline)
    graph.add_node("summarize", building.summarize, input_schema=_Job)
    graph.add_node("grow", building.grow)
    for node in ("outline", "grow"):
        graph.add_conditional_edges(node, building.next(then), ["summarize", then])
    graph.add_edge("summarize", "grow")


async def summarized(tree: SummaryTree, node: TreeNode, reader: Reader) -> Summary:
    """What is said of a node: of its text, or of what is said of its children. Raises ModelError."""
    if node.is_leaf:
        return await reader.summarize([tree.passage(node)], words=node.words)
    below = tree.below(node.number)
    return await reader.condense(below, words=node.words) if below else Summary()


async def building_requests(trees: Iterable[SummaryTree], stage: Stage) -> list[Request]:
    """What building the rest of the trees would send, with likely summaries for those that parents are made of."""
    requests: list[Request] = []
    for tree in trees:
        likely = SummaryTree(tree.shape, tree.recipe, dict(tree.points))
        for number in tree.missing():
            node = tree.shape.nodes[number]
            requests += await stage.sent(partial(summarized, likely, node))
            likely.points[number] = likely_points(tree, node)
    return requests


def likely_points(tree: SummaryTree, node: TreeNode) -> Points:
    """The beginnings of the leaves under a node, as long as its summary would be."""
    leaves = tree.shape.leaves_under(node.number)
    share = max(1, node.words // len(leaves))
    return tuple(SummaryPoint(text=" ".join(tree.passage(leaf).text.split()[:share])) for leaf in leaves)


def places_summarised(trees: Sequence[SummaryTree]) -> list[Place]:
    """The leaves that a reader has summarised."""
    return [tree.place(leaf) for tree in trees for leaf in tree.shape.leaves if leaf.number in tree.points]


def passages_in(session: Session, places: Iterable[Place]) -> int:
    """How many of the documents' passages begin inside of `places`."""
    count = 0
    by_document: dict[str, list[Place]] = {}
    for place in places:
        by_document.setdefault(place[0], []).append(place)
    for document_id, inside in by_document.items():
        starts = [chunk.span.start for chunk in session.library.chunks(document_id)]
        count += sum(any(start <= at < end for _, start, end in inside) for at in starts)
    return count


def _counts(tree: SummaryTree) -> tuple[int, int]:
    return len(tree.points), len(tree.shape.nodes)


def _step(tree: SummaryTree, number: int) -> str:
    return f"summarize/{tree.document.id[:12]}/{number:04}"
