"""Summarising whole documents: a tree of summaries, cut where it is as long as asked for, a paragraph for each section.

A short document is summarised in one call. With something to be about (the question), every leaf is read for it
instead, since a summary of everything may pass over it. Only sentences with a quote that stands in the source are
shown; each top-level section should have one, and those that have none are named.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypedDict

from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.models.model import Request
from lcdoc.agents.notes import Claim, Draft, SummaryPoint
from lcdoc.agents.prompts.checks import unquoted_figures
from lcdoc.agents.reader import Reader
from lcdoc.documents import Document
from lcdoc.memory.trees import LEAF_TOKENS
from lcdoc.workflows.events import Pieces, Place, Progress
from lcdoc.workflows.frame import GraphWorkflow
from lcdoc.workflows.session import Session
from lcdoc.workflows.summary_answer import SummaryAnswer, SummarySection
from lcdoc.workflows.summary_length import Part, Section, Sections, fit, word_count
from lcdoc.workflows.summary_parts import Stretch, material, note_of, points_of, stretches_of
from lcdoc.workflows.summary_request import SummaryRequest, summary_request
from lcdoc.workflows.tree_building import (
    BuildingState,
    SummaryTree,
    TreeBuilding,
    add_building,
    building_requests,
    leaf_tokens_for,
    likely_points,
    passages_in,
    places_summarised,
    tree_of,
)
from lcdoc.workflows.workflow import Plan, Requests

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

    from lcdoc.workflows.rehearsal import Stage

ONE_CALL_TOKENS = 4_000
"""Documents that have no more together are summarised in one call, if the reader takes as much."""
_LONG = 1.15
"""Points this many times longer than wanted are put into fewer words."""
_SECONDS_PER_LEAF = 0.4
"""To summarise it offline, two cores."""
_WHOLE = "whole"
_ATTEMPTS = 2
"""At putting a part into the words it should have."""


class _State(BuildingState, total=False):
    leaves: list[Place]
    """What is read for the focus."""
    whole: bool
    """Whether one call does for everything."""
    read: list[Place]
    notes: Annotated[list[str], operator.add]
    dropped: Annotated[int, operator.add]
    """Points that have no quote."""


class _Reading(TypedDict):
    """A leaf that is read for the focus."""

    name: str
    place: Place


class _Writing(TypedDict):
    """A part that is put into words."""

    part: int
    leaf_tokens: int


class Summarize(GraphWorkflow):
    """Summarises documents to a length, section by section. The question says what about: see `summary_request`."""

    name: ClassVar[str] = "summarize"
    about: ClassVar[str] = "says what whole documents say, section by section, in as many words as asked for"

    def graph(self, session: Session) -> StateGraph[Any, Any, Any, Any]:
        from langgraph.graph import END, START, StateGraph

        building = TreeBuilding(session)
        steps = _Steps(session, building)
        graph = StateGraph(_State)
        graph.add_node("measure", steps.measure)
        graph.add_node("whole", steps.whole)
        graph.add_node("read", steps.read, input_schema=_Reading)
        graph.add_node("divide", steps.divide)
        graph.add_node("write", steps.write, input_schema=_Writing)
        graph.add_node("fit", steps.fit)
        graph.add_edge(START, "measure")
        graph.add_conditional_edges("measure", steps.way, ["whole", "read", "outline", "divide"])
        add_building(graph, building, then="divide")
        graph.add_edge("whole", "fit")
        graph.add_edge("read", "divide")
        graph.add_conditional_edges("divide", steps.writings, ["write", "fit"])
        graph.add_edge("write", "fit")
        graph.add_edge("fit", END)
        return graph

    def conclude(self, session: Session, state: dict[str, Any]) -> SummaryAnswer:
        trees = TreeBuilding(session).trees(state["leaf_tokens"])
        read = [(document_id, start, end) for document_id, start, end in state.get("read", ())]
        draft = session.draft()
        problems = [failure["message"] for failure in state.get("failures", ())]
        if session.run.out_of_time():
            problems.append("the time set for the summary is over; raise --max-seconds to go on")
        answer = session.compose(
            self.name,
            draft,
            read=read,
            passages_read=passages_in(session, read),
            dropped=sum(session.note(name).dropped for name in state.get("notes", ())),
            problems=problems,
        )
        return SummaryAnswer(
            **{name: getattr(answer, name) for name in type(answer).model_fields},
            words=sum(len(claim.text.split()) for claim in draft.claims),
            words_asked=summary_request(session.question).words,
            sections=_sections(trees, draft.claims),
            points_dropped=state.get("dropped", 0),
        )

    async def plan(self, question: str, documents: Sequence[Document], stage: Stage | None) -> Plan:
        """The summaries that are not there yet, or the leaves read for the focus, and the writing of each part."""
        if stage is None:
            leaves = sum(len(self.library.chunks(document.id)) for document in documents) / 6
            return Plan(calls=0, tokens_in=0, tokens_out=0, cost_usd=0.0, seconds=round(_SECONDS_PER_LEAF * leaves, 1))
        request, reader = summary_request(question), stage.reader
        leaf_tokens = leaf_tokens_for(reader)
        trees = [tree_of(document, self.library, reader, leaf_tokens=leaf_tokens) for document in documents]
        trees = [tree for tree in trees if tree.shape.nodes]
        passages = [tree.passage(leaf) for tree in trees for leaf in tree.shape.leaves]
        if not request.focus and _is_short(trees, reader):
            sent = await stage.sent(lambda asked: asked.summarize(passages, words=request.words))
            return stage.plan(Requests(reading=sent, answering=(), widening=()))
        if request.focus:
            reading = [one for passage in passages for one in await stage.reading([passage], request.focus)]
        else:
            reading = await building_requests(trees, stage)
        for tree in trees:
            for node in tree.shape.nodes:
                tree.points.setdefault(node.number, likely_points(tree, node))
        writing: list[Request] = []
        for stretch in stretches_of(trees, request.words):
            points = material(trees, stretch, only_cited=False)
            if word_count(points) > _LONG * stretch.words:
                writing += await stage.sent(partial(_condensing, points, round(stretch.words)))
        return stage.plan(Requests(reading=tuple(reading), answering=tuple(writing), widening=()))


class _Steps:
    """The nodes beside the building, for one session."""

    def __init__(self, session: Session, building: TreeBuilding) -> None:
        self._session = session
        self._building = building

    @cached_property
    def _request(self) -> SummaryRequest:
        return summary_request(self._session.question)

    async def measure(self, state: _State) -> _State:
        """How the summary is made, by length and focus."""
        session = self._session
        try:
            leaf_tokens = leaf_tokens_for(session.reader)
        except ModelError as error:
            return {"leaf_tokens": LEAF_TOKENS, "failures": [session.failure("measure", error)]}
        trees = self._building.trees(leaf_tokens)
        whole = bool(trees) and not self._request.focus and _is_short(trees, session.reader)
        leaves = [tree.place(leaf) for tree in trees for leaf in tree.shape.leaves]
        if leaves and (whole or self._request.focus):
            session.emit(Pieces(tuple(leaves)))
        return {"leaf_tokens": leaf_tokens, "whole": whole, "leaves": leaves if self._request.focus else []}

    def way(self, state: _State) -> list[Any] | str:
        from langgraph.types import Send

        if self._building.stopped(state) or state.get("failures") or not self._building.trees(state["leaf_tokens"]):
            return "divide"
        if state["whole"]:
            return "whole"
        return [
            Send("read", _Reading(name=f"read/{index:04}", place=place)) for index, place in enumerate(state["leaves"])
        ] or "outline"

    async def whole(self, state: _State) -> _State:
        session = self._session
        passages = [
            tree.passage(leaf) for tree in self._building.trees(state["leaf_tokens"]) for leaf in tree.shape.leaves
        ]
        if session.has(_WHOLE):
            return {}
        try:
            summary = await session.reader.summarize(passages, words=self._request.words)
        except ModelError as error:
            return {"failures": [session.failure(_WHOLE, error)]}
        places = [(one.document.id, one.span.start, one.span.end) for one in passages]
        await session.keep(_WHOLE, note_of(summary.points), places=places)
        return {"dropped": _uncited(summary.points)}

    async def read(self, state: _Reading) -> _State:
        session, name = self._session, state["name"]
        document_id, start, end = state["place"]
        if not session.has(name):
            passage = session.passage((document_id, start, end))
            try:
                note = await session.reader.read(passage, self._request.focus)
            except ModelError as error:
                return {"failures": [session.failure(name, error)]}
            await session.keep(name, note, places=[(document_id, start, end)])
            session.emit(Progress("asking", session.run.model, 1, 1))
        return {"notes": [name]}

    async def divide(self, state: _State) -> _State:
        """The parts follow from the trees and the notes; there is nothing to keep."""
        return {}

    def writings(self, state: _State) -> list[Any] | str:
        from langgraph.types import Send

        if self._building.stopped(state):
            return "fit"
        return [
            Send("write", _Writing(part=index, leaf_tokens=state["leaf_tokens"]))
            for index, _ in enumerate(self._stretches(state["leaf_tokens"]))
        ] or "fit"

    async def write(self, state: _Writing) -> _State:
        """A part in as many words as it should have; no call where what is said of it is short enough."""
        session = self._session
        stretch = self._stretches(state["leaf_tokens"])[state["part"]]
        points = self._material(stretch, state["leaf_tokens"])
        words = round(stretch.words)
        dropped = 0
        try:
            for _ in range(_ATTEMPTS):
                if word_count(points) <= _LONG * words:
                    break
                condensed = (await session.reader.condense(points, words=words)).points
                dropped += _uncited(condensed)
                points = [point for point in condensed if point.citations]
        except ModelError as error:
            return {"failures": [session.failure(_name(state["part"]), error)]}
        await session.keep(_name(state["part"]), note_of(points), of=self._noted())
        return {"dropped": dropped}

    async def fit(self, state: _State) -> _State:
        """The parts together, in the length asked for."""
        session, leaf_tokens = self._session, state["leaf_tokens"]
        trees = self._building.trees(leaf_tokens)
        parts: list[Part] = []
        if state.get("whole"):
            points = points_of(session.note(_WHOLE)) if session.has(_WHOLE) else []
            parts.append(Part(self._request.words, points, []))
            read = [tree.place(leaf) for tree in trees for leaf in tree.shape.leaves] if session.has(_WHOLE) else []
        else:
            for index, stretch in enumerate(self._stretches(leaf_tokens)):
                points = points_of(session.note(_name(index))) if session.has(_name(index)) else []
                used = {citation for point in points for citation in point.citations}
                spare = [
                    point
                    for point in self._everything(stretch, leaf_tokens)
                    if used.isdisjoint(point.citations) and point.citations
                ]
                parts.append(Part(stretch.words, points, spare))
            if self._request.focus:
                read = [place for name in self._noted() for place in session.places_of(name)]
            else:
                read = places_summarised(trees)
        shapes = [tree.shape for tree in trees]
        points = fit(parts, self._request.words, Sections(shapes))
        claims = tuple(map(_claim, points))
        await session.keep_draft(Draft(found=bool(claims), claims=claims))
        uncited = sum(_uncited(tree.points.get(leaf.number, ())) for tree in trees for leaf in tree.shape.leaves)
        return {"read": read, "dropped": uncited}

    def _noted(self) -> list[str]:
        """The notes that were taken on the focus, in the order of the text."""
        return sorted(self._session.library.notebook.notes(self._session.run.id, "read/"))

    def _stretches(self, leaf_tokens: int) -> list[Stretch]:
        trees, words = self._building.trees(leaf_tokens), self._request.words
        if not self._request.focus:
            return stretches_of(trees, words)
        noted = [point for name in self._noted() for point in points_of(self._session.note(name))]
        sections = Sections([tree.shape for tree in trees])
        weights: Counter[Section] = Counter()
        for point in noted:
            for section in sections.of(point):
                weights[section] += word_count([point])
        return stretches_of(trees, words, weights)

    def _material(self, stretch: Stretch, leaf_tokens: int) -> list[SummaryPoint]:
        if self._request.focus:
            return self._everything(stretch, leaf_tokens)
        return material(self._building.trees(leaf_tokens), stretch)

    def _everything(self, stretch: Stretch, leaf_tokens: int) -> list[SummaryPoint]:
        """All that is said of the text of a part, at its most detailed."""
        trees = self._building.trees(leaf_tokens)
        if not self._request.focus:
            tree = trees[stretch.tree]
            tops = [tree.shape.tops[number] for number in stretch.sections]
            leaves = [leaf for top in tops for leaf in tree.shape.leaves_under(top)]
            return [point for leaf in leaves for point in tree.points.get(leaf.number, ())]
        sections = Sections([tree.shape for tree in trees])
        inside = {(trees[stretch.tree].document.id, number) for number in stretch.sections}
        noted = [point for name in self._noted() for point in points_of(self._session.note(name))]
        return [point for point in noted if inside & set(sorted(sections.of(point))[:1])]


def _is_short(trees: Sequence[SummaryTree], reader: Reader) -> bool:
    tokens = sum(reader.count(tree.passage(leaf).text) for tree in trees for leaf in tree.shape.leaves)
    return tokens <= min(ONE_CALL_TOKENS, reader.room(""))


def _claim(point: SummaryPoint) -> Claim:
    quoted = [" ".join([one.quote, *one.headings]) for one in point.citations]
    figures = unquoted_figures(point.text, quoted)
    return Claim(text=point.text, citations=point.citations, unquoted_figures=figures)


def _sections(trees: Sequence[SummaryTree], claims: Sequence[Claim]) -> tuple[SummarySection, ...]:
    """All sections with the claims whose first quote stands there."""
    sections = Sections([tree.shape for tree in trees])
    about = [sections.of(SummaryPoint(text=claim.text, citations=claim.citations)) for claim in claims]
    first = [sections.of(SummaryPoint(text=claim.text, citations=claim.citations[:1])) for claim in claims]
    covered = {section for one in about for section in one}
    found: list[SummarySection] = []
    for tree in trees:
        for number, section in enumerate(tree.shape.sections):
            own = (tree.document.id, number)
            numbers = tuple(index for index, one in enumerate(first) if own in one)
            pages = {page for index in numbers for citation in claims[index].citations for page in citation.pages}
            found.append(
                SummarySection(
                    document_id=tree.document.id,
                    title=section.title,
                    pages=tuple(sorted(pages)),
                    claims=numbers,
                    covered=own in covered,
                )
            )
    return tuple(found)


async def _condensing(points: Sequence[SummaryPoint], words: int, reader: Reader) -> None:
    await reader.condense(points, words=words)


def _uncited(points: Iterable[SummaryPoint]) -> int:
    return sum(not point.citations for point in points)


def _name(part: int) -> str:
    return f"write/{part:04}"
