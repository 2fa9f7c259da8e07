"""Map and reduce: every piece of the documents is read on its own, what was noted is put together.

Sources: "LLMxMapReduce: Simplified Long-Sequence Processing using Large Language Models" (notes of evidence, rationale,
answer and confidence; collapsed to the same form while they are too long) and "SEGMENT+" (notes filtered by whether
they found anything). What differs: a boolean filters, never words; notes stand in the order of the documents, whatever
order they came in; contradictions are settled by reading both passages again (`conflicts`); questions of how many and
which are answered by listing, and code counts (`counting`).
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypedDict

from lcdoc.agents.items import Listing
from lcdoc.agents.listing import list_items, tells_things_apart
from lcdoc.agents.listing_questions import is_listing
from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.notes import Note
from lcdoc.documents import Document
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.collapse import after_round, merge_name, merge_packs, note_tokens
from lcdoc.workflows.conflicts import Settlement, settle, settlements
from lcdoc.workflows.counting import counted, listing_warning
from lcdoc.workflows.events import PartFailed, Pieces, Place, Progress
from lcdoc.workflows.frame import GraphWorkflow
from lcdoc.workflows.mapping import passages_in, pieces_to_read, plan_of
from lcdoc.workflows.pieces import common_titles
from lcdoc.workflows.session import Failure, Session
from lcdoc.workflows.sides import sides_of, without
from lcdoc.workflows.workflow import Plan

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

    from lcdoc.workflows.rehearsal import Stage

MOST_MISSES = 8
"""Failures in a row after which nothing more is sent, until a piece was read again by itself."""
MOST_MISSES_AGAIN = 3
"""The same for what is read again."""
_OUT_OF_TIME = "the time set for the answer is over; raise --max-seconds to go on"


def _updated(old: dict[str, Failure | None], new: dict[str, Failure | None]) -> dict[str, Failure | None]:
    return {name: failure for name, failure in {**old, **new}.items() if failure}


class _State(TypedDict, total=False):
    pieces: list[Place]
    read: Annotated[list[int], operator.add]
    """Numbers of the pieces whose notes are kept."""
    failures: Annotated[dict[str, Failure | None], _updated]
    """By step; None takes one away that was made good."""
    level: list[str]
    """Names of the notes to answer from, in the order of the pieces."""
    packs: list[list[str]]
    """Of those, what is merged in this round."""


class _Piece(TypedDict):
    """What one reading is sent."""

    index: int
    place: Place


class _Pack(TypedDict):
    """What one merging is sent."""

    names: list[str]


class MapReduce(GraphWorkflow):
    """Reads everything, each piece on its own, many at once."""

    name: ClassVar[str] = "map_reduce"
    about: ClassVar[str] = "reads everything at once, piece by piece; for what stands in many places, to count and list"

    def graph(self, session: Session) -> StateGraph[Any, Any, Any, Any]:
        from langgraph.graph import END, START, StateGraph

        steps = _Steps(session)
        graph = StateGraph(_State)
        graph.add_node("cut", steps.cut)
        graph.add_node("read", steps.read, input_schema=_Piece)
        graph.add_node("read_again", steps.read_again)
        graph.add_node("settle", steps.settle)
        graph.add_node("pack", steps.pack)
        graph.add_node("merge", steps.merge, input_schema=_Pack)
        graph.add_node("answer", steps.answer)
        graph.add_edge(START, "cut")
        graph.add_conditional_edges("cut", steps.readings, ["read", "read_again"])
        graph.add_edge("read", "read_again")
        graph.add_edge("read_again", "settle")
        graph.add_edge("settle", "pack")
        graph.add_conditional_edges("pack", steps.mergings, ["merge", "answer"])
        graph.add_edge("merge", "pack")
        graph.add_edge("answer", END)
        return graph

    def first_state(self, session: Session) -> dict[str, Any]:
        return dict(_State(pieces=[], read=[], failures={}, level=[], packs=[]))

    def conclude(self, session: Session, state: dict[str, Any]) -> Answer:
        """Raises the first ModelError where nothing at all could be read."""
        pieces: list[Place] = state["pieces"]
        read = sorted(set(state["read"]))
        if not read and session.first_error is not None:
            raise session.first_error
        names = list(map(_note_name, read))
        problems = [failure["message"] for failure in state["failures"].values()]
        if unread := len(pieces) - len(read):
            problems.append(f"{unread} of {len(pieces)} parts of the text were not read")
        documents = {document.id: document.name for document in session.documents.values()}
        warnings = [settlement.warning(documents) for settlement in settlements(session)]
        if is_listing(session.question):
            listings = [Listing.of(session.note(name)) for name in names]
            things = tells_things_apart(session.reader)
            warnings.append(listing_warning(session.question, listings, session.documents, things=things))
        session.warnings += filter(None, warnings)
        places = [pieces[index] for index in read]
        return session.compose(
            self.name,
            session.draft(),
            read=places,
            passages_read=passages_in(session.library, places),
            dropped=sum(session.note(name).dropped for name in names),
            problems=problems,
        )

    async def plan(self, question: str, documents: Sequence[Document], stage: Stage | None) -> Plan:
        """A call for each piece, the merges that notes of a likely length need, an answer: see `mapping.plan_of`."""
        return await plan_of(self.library, self.search, question, documents, stage)


class _Steps:
    """The nodes, for one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._listing = is_listing(session.question)
        self._capped = False
        self._misses = 0
        """Failures in a row."""
        self._read = 0
        self._pieces = 0

    # Map

    async def cut(self, state: _State) -> _State:
        session = self._session
        documents = list(session.documents.values())
        try:
            passages = await asyncio.to_thread(
                pieces_to_read, session.library, documents, session.question, session.reader
            )
        except ModelError as error:
            return {"failures": {"cut": session.failure("cut", error)}}
        places = [(passage.document.id, passage.span.start, passage.span.end) for passage in passages]
        session.emit(Pieces(tuple(places)))
        return {"pieces": places}

    def readings(self, state: _State) -> list[Any] | str:
        from langgraph.types import Send

        self._pieces = len(state["pieces"])
        sends = [Send("read", _Piece(index=index, place=place)) for index, place in enumerate(state["pieces"])]
        return sends or "read_again"

    async def read(self, state: _Piece) -> _State:
        if self._misses >= MOST_MISSES and not self._session.has(_note_name(state["index"])):
            return {}
        return await self._take(state["index"], state["place"])

    async def read_again(self, state: _State) -> _State:
        """Each piece that could not be read, once more and alone."""
        self._misses = 0
        read: list[int] = []
        failures: dict[str, Failure | None] = {}
        known = set(state["read"])
        for index, place in enumerate(state["pieces"]):
            if self._capped or self._misses >= MOST_MISSES_AGAIN:
                break
            if index in known:
                continue
            taken = await self._take(index, place)
            read += taken.get("read", [])
            failures |= taken.get("failures", {})
            if "read" in taken:
                failures[_note_name(index)] = None
        return {"read": read, "failures": failures} if failures else {"read": read}

    async def _take(self, index: int, place: Place) -> _State:
        """Read a piece and keep its note, unless that was done before or nothing may be done any more."""
        session, name = self._session, _note_name(index)
        if not session.has(name):
            if self._capped:
                return {}
            if failure := self._out_of_time(name):
                return {"failures": {name: failure}}
            passage = session.passage(place, common_titles(session.documents[place[0]], place))
            try:
                if self._listing:
                    note = (await list_items(session.reader, [passage], session.question)).as_note()
                else:
                    note = await session.reader.read(passage, session.question)
            except ModelError as error:
                return {"failures": {name: self._failure(name, error)}}
            await session.keep(name, note, places=[place])
            self._misses = 0
        self._read += 1
        session.emit(Progress("asking", session.run.model, self._read, self._pieces))
        return {"read": [index]}

    # Reduce

    async def settle(self, state: _State) -> _State:
        """The notes to answer from: without what a settled conflict leaves standing against it."""
        named = [(name, self._note(name)) for name in map(_note_name, sorted(set(state["read"])))]
        named = [(name, note) for name, note in named if note.found]
        names = [name for name, _ in named]
        sides = sides_of(self._session.question, named)
        if not sides or self._capped or self._session.run.out_of_time():
            return {"level": names}
        try:
            settlement = await settle(self._session, sides)
        except ModelError as error:
            return {"level": names, "failures": {"settle": self._failure("settle", error)}}
        return {"level": [kept for name, note in named if (kept := await self._standing(name, note, settlement))]}

    async def _standing(self, name: str, note: Note, settlement: Settlement) -> str:
        """The name of what stands of a note; empty where nothing does."""
        values = settlement.fallen().get(name)
        if values is None:
            return name
        rest = without(note, values)
        return await self._session.keep(f"settled/{name}", rest, of=[name]) if rest.found else ""

    async def pack(self, state: _State) -> _State:
        """What the last round left, and which of it to merge in the next."""
        session, level = self._session, state["level"]
        before, level = level, after_round(level, state["packs"], session.has)
        # A round in which nothing was merged would be followed by the same.
        tried = bool(state["packs"]) and level == before
        if tried or self._capped or session.run.out_of_time():
            return {"level": level, "packs": []}
        try:
            room = session.reader.room(session.question)
        except ModelError as error:
            return {"level": level, "packs": [], "failures": {"pack": self._failure("pack", error)}}
        sizes = [note_tokens(self._note(name), session.reader.count) for name in level]
        packs = [[level[index] for index in pack] for pack in merge_packs(sizes, room)]
        return {"level": level, "packs": [pack for pack in packs if len(pack) > 1]}

    def mergings(self, state: _State) -> list[Any] | str:
        from langgraph.types import Send

        return [Send("merge", _Pack(names=pack)) for pack in state["packs"]] or "answer"

    async def merge(self, state: _Pack) -> _State:
        session, names = self._session, state["names"]
        name = merge_name(names)
        if self._capped or session.has(name):
            return {}
        try:
            note = await session.reader.merge([self._note(one) for one in names], session.question)
        except ModelError as error:
            return {"failures": {name: self._failure(name, error)}}
        await session.keep(name, note, of=names)
        return {}

    async def answer(self, state: _State) -> _State:
        session = self._session
        draft, failure = await session.answer([self._note(name) for name in state["level"]])
        for settlement in settlements(session):
            draft = settlement.shown_in(draft)
        if self._listing:
            read = sorted(set(state["read"]))
            draft = counted(
                session.question,
                [Listing.of(session.note(_note_name(index))) for index in read],
                draft,
                session.documents,
                complete=len(read) == len(state["pieces"]),
                things=tells_things_apart(session.reader),
            )
        await session.keep_draft(draft)
        return {"failures": {"answer": failure}} if failure else {}

    # Notes and failures

    def _note(self, name: str) -> Note:
        """A note to answer from; of a listing, what is stated, since items are put together by code."""
        note = self._session.note(name)
        return Listing.of(note).stated_note() if self._listing and name.startswith("read/") else note

    def _failure(self, step: str, error: ModelError) -> Failure:
        failure = self._session.failure(step, error)
        self._misses += 1
        self._capped = self._capped or bool(failure["cap"])
        return failure

    def _out_of_time(self, step: str) -> Failure | None:
        """The end of the time as a failure, the first time it is met: readers that ask no model do not tell."""
        if not self._session.run.out_of_time():
            return None
        self._capped = True
        self._session.emit(PartFailed(_OUT_OF_TIME))
        return Failure(step=step, message=_OUT_OF_TIME, cap="seconds")


def _note_name(index: int) -> str:
    return f"read/{index:05}"
