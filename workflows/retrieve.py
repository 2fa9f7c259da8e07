"""Retrieve, then read: the best passages for a question, checked quotes from them, an answer from those quotes only.

Source of the shape: "ALR2: A Retrieve-then-Reason Framework for Long-context Question Answering".
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypedDict

from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.notes import Note
from lcdoc.agents.reader import Passage
from lcdoc.documents import Document
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.events import PassagesFound, Progress
from lcdoc.workflows.frame import GraphWorkflow
from lcdoc.workflows.question_kinds import kind_of
from lcdoc.workflows.session import Failure, Session
from lcdoc.workflows.workflow import Plan, Requests

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

    from lcdoc.workflows.rehearsal import Stage

PASSAGES = 12
WIDER = 48
"""Passages read when the best ones hold no answer, before saying that there is none."""
_SECONDS_PER_PASSAGE = 0.04
_SURE = 4.0
"""Confidence of the offline reader from which on a model likely finds the answer in the same passages."""


_Found = tuple[str, int, int, float | None]
"""A passage that was found: its place, and its similarity to the question where that was computed."""


class _State(TypedDict, total=False):
    rounds: int
    """Searches made: the first, and a wider one."""
    parts: list[list[_Found]]
    """What is to be read in this round, a call each."""
    notes: Annotated[list[str], operator.add]
    failures: Annotated[list[Failure], operator.add]
    found: bool


class _Part(TypedDict):
    """What one reading is sent."""

    name: str
    found: list[_Found]
    carried: str
    """The note to go on from; empty where nothing was noted."""


class Retrieve(GraphWorkflow):
    """Looks up: reads the best passages, and more of them before it says that nothing was found."""

    name: ClassVar[str] = "retrieve"
    about: ClassVar[str] = "reads the best passages only; for questions whose answer stands in one place"

    def graph(self, session: Session) -> StateGraph[Any, Any, Any, Any]:
        from langgraph.graph import END, START, StateGraph

        steps = _Steps(session)
        graph = StateGraph(_State)
        graph.add_node("search", steps.search)
        graph.add_node("read", steps.read, input_schema=_Part)
        graph.add_node("answer", steps.answer)
        graph.add_edge(START, "search")
        graph.add_conditional_edges("search", steps.parts, ["read", "answer"])
        graph.add_edge("read", "answer")
        graph.add_conditional_edges("answer", steps.widen, ["search", END])
        return graph

    async def prepare(self, session: Session) -> None:
        await session.best_passages(WIDER)

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
            passages_read=len(places),
            dropped=sum(session.note(name).dropped for name in names),
            problems=problems,
        )

    async def plan(self, question: str, documents: Sequence[Document], stage: Stage | None) -> Plan:
        """Offline: no calls. With a model: those for the passages that are read first, and an answer.

        What the offline reader makes of the passages tells whether more of them are likely read.
        """
        if stage is None:
            return Plan(calls=0, tokens_in=0, tokens_out=0, cost_usd=0.0, seconds=_SECONDS_PER_PASSAGE * WIDER)
        passages, _ = await self.search.best(question, documents, WIDER)
        first, more = passages[:PASSAGES], passages[PASSAGES:]
        note = await stage.noted(first, question)
        requests = Requests(
            reading=await stage.reading(first, question),
            answering=await stage.answering(question, [note.model_copy(update={"found": True})]),
            widening=await stage.reading(more, question),
        )
        # A count or a list is begun with whatever there is.
        if (note.found and (note.confidence >= _SURE or kind_of(question) == "list")) or not more:
            return stage.plan(requests, finding=1)
        noted = note.found or (await stage.noted(more, question)).found
        likely = (*requests.reading, *requests.widening, *(requests.answering if noted else ()))
        return stage.plan(requests, likely=likely, finding=int(noted))


class _Steps:
    """The nodes, for one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def search(self, state: _State) -> _State:
        """The best passages; then more of them, those for what was noted first, where that is not yet the answer."""
        session, done = self._session, state.get("rounds", 0)
        carried = self._carried(state)
        wanted = f"{session.question} {carried.claim}" if carried else session.question
        read = {place for name in state.get("notes", ()) for place in session.places_of(name)}
        passages = [one for one in await session.best_passages(WIDER, wanted) if _found(one)[:3] not in read]
        passages = passages[: (PASSAGES, WIDER - PASSAGES)[done]]
        parts = [list(map(_found, part)) for part in session.reader.parts(passages, session.question, carried)]
        places = tuple((document_id, start, end) for part in parts for document_id, start, end, _ in part)
        if places:
            session.emit(PassagesFound(places, searched=session.passages))
        return {"rounds": done + 1, "parts": parts}

    def parts(self, state: _State) -> list[Any] | str:
        from langgraph.types import Send

        if self._session.run.out_of_time():
            return "answer"
        number, carried = state["rounds"], self._carried_name(state)
        return [
            Send("read", _Part(name=f"read/{number}/{index:04}", found=found, carried=carried))
            for index, found in enumerate(state["parts"])
        ] or "answer"

    async def read(self, state: _Part) -> _State:
        session = self._session
        places = [(document_id, start, end) for document_id, start, end, _ in state["found"]]
        passages = [
            replace(session.passage(place), cosine=cosine)
            for place, (*_, cosine) in zip(places, state["found"], strict=True)
        ]
        carried = session.note(state["carried"]) if state.get("carried") else None
        try:
            note = await session.reader.read_many(passages, session.question, carried)
        except ModelError as error:
            return {"failures": [session.failure(state["name"], error)]}
        await session.keep(state["name"], note, places=places, of=[state["carried"]] if carried else [])
        session.emit(Progress("asking", session.run.model, len(places), len(places)))
        return {"notes": [state["name"]]}

    async def answer(self, state: _State) -> _State:
        # In the order of the passages, not of the answers, so that equal runs ask equal questions.
        names, carried = sorted(state.get("notes", ())), self._carried_name(state)
        if state["rounds"] > 1 and carried:
            # What went on from a note has what was in it.
            names = [name for name in names if name != carried and not self._session.note(name).unchanged] or [carried]
        notes = [self._session.note(name) for name in names]
        draft, failure = await self._session.answer(notes)
        await self._session.keep_draft(draft)
        return {"found": draft.found, "failures": [failure] if failure else []}

    def _carried_name(self, state: _State) -> str:
        """The note of the first round that says most; empty in that round, and where nothing was found."""
        first = [name for name in sorted(state.get("notes", ())) if name.startswith("read/1/")]
        found = [name for name in first if self._session.note(name).found]
        return max(found, key=lambda name: self._session.note(name).confidence, default="")

    def _carried(self, state: _State) -> Note | None:
        name = self._carried_name(state)
        return self._session.note(name) if name else None

    def widen(self, state: _State) -> str:
        from langgraph.graph import END

        more = state["rounds"] < 2 and self._session.passages > PASSAGES
        stopped = bool(state.get("failures")) or self._session.run.out_of_time()
        return "search" if more and not state["found"] and not stopped else END


def _found(passage: Passage) -> _Found:
    return (passage.document.id, passage.span.start, passage.span.end, passage.cosine)
