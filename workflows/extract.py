"""Filling a schema from documents: every value with quotes that were found in the source, or null.

Code checks what a reader gives: its quotes stand in the source, and the value stands in its quotes. What is not found
where it is likely is looked for wider; what is given differently in different places is read again, both together.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypedDict

from lcdoc.agents.extract_fields import Field, Path, Table
from lcdoc.agents.extract_findings import Extraction
from lcdoc.agents.extracting import extract
from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.models.model import Request
from lcdoc.agents.notes import Claim, Draft
from lcdoc.agents.prompted_reader import PromptedReader
from lcdoc.agents.reader import Passage
from lcdoc.documents import Document, Span
from lcdoc.workflows.answer import PagesRead
from lcdoc.workflows.conflicts import settlements
from lcdoc.workflows.events import PassagesFound, Pieces, Place, Progress
from lcdoc.workflows.extract_answer import ExtractAnswer, ExtractedField
from lcdoc.workflows.extract_readings import Reading, first_readings, wider_readings
from lcdoc.workflows.extract_request import extract_request
from lcdoc.workflows.extract_schema import Schema
from lcdoc.workflows.extract_settling import (
    MOST_SETTLED,
    Named,
    Outcome,
    conflict_of,
    list_of,
    outcome_of,
    settle_field,
)
from lcdoc.workflows.frame import GraphWorkflow
from lcdoc.workflows.session import Failure, Session
from lcdoc.workflows.workflow import Plan, Requests

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

    from lcdoc.workflows.rehearsal import Stage

MOST_MISSES = 8
"""Failures in a row after which nothing more is sent."""
_SECONDS_PER_FIELD = 0.5
"""To fill it offline, two cores."""
_OUT_OF_TIME = "the time set for the answer is over; raise --max-seconds to go on"


class _Reading(TypedDict):
    """What one reading is sent."""

    name: str
    wanted: list[list[str]]
    """Paths of the fields."""
    places: list[Place]


class _State(TypedDict, total=False):
    rounds: int
    """Searches made: the first, and a wider one."""
    readings: Annotated[list[_Reading], operator.add]
    notes: Annotated[list[str], operator.add]
    failures: Annotated[list[Failure], operator.add]


class Extract(GraphWorkflow):
    """Fills a schema. The question has it: see `extract_request`."""

    name: ClassVar[str] = "extract"
    about: ClassVar[str] = "fills a JSON schema, every value with its quotes; what is not found is null"

    def graph(self, session: Session) -> StateGraph[Any, Any, Any, Any]:
        from langgraph.graph import END, START, StateGraph

        steps = _Steps(session)
        graph = StateGraph(_State)
        graph.add_node("search", steps.search)
        graph.add_node("read", steps.read, input_schema=_Reading)
        graph.add_node("look", steps.look)
        graph.add_node("settle", steps.settle)
        graph.add_edge(START, "search")
        graph.add_conditional_edges("search", steps.readings, ["read", "settle"])
        graph.add_edge("read", "look")
        graph.add_conditional_edges("look", steps.widen, ["search", "settle"])
        graph.add_edge("settle", END)
        return graph

    async def prepare(self, session: Session) -> None:
        """Raises SchemaError for a question that is no schema."""
        extract_request(session.question)

    def conclude(self, session: Session, state: dict[str, Any]) -> ExtractAnswer:
        found = _Found(session, state)
        settled = settlements(session)
        outcomes = [
            outcome_of(one, found.of(one.path), settled)
            if isinstance(one, Field) and not one.many
            else list_of(one, found.of(one.path))
            for one in found.schema.fields
        ]
        claims: list[Claim] = []
        fields = tuple(_field(outcome, claims, found) for outcome in outcomes)
        problems = [failure["message"] for failure in state.get("failures", ())]
        if unread := len(state.get("readings", ())) - len(found.names):
            problems.append(f"{unread} of {len(state['readings'])} readings were not made")
        session.warnings += [outcome.warning for outcome in outcomes if outcome.warning]
        given = [field.confidence for field in fields if field.claims]
        draft = Draft(
            found=bool(claims), claims=tuple(claims), confidence=round(sum(given) / len(given), 2) if given else 0.0
        )
        places = sorted({place for name in found.names for place in session.places_of(name)})
        answer = session.compose(
            self.name,
            draft,
            read=places,
            passages_read=_passages_in(session, places),
            dropped=sum(session.note(name).dropped for name in found.names),
            problems=problems,
        )
        return ExtractAnswer(
            **{name: getattr(answer, name) for name in type(answer).model_fields},
            value=found.schema.filled({outcome.wanted.path: outcome.value for outcome in outcomes}),
            fields=fields,
        )

    async def plan(self, question: str, documents: Sequence[Document], stage: Stage | None) -> Plan:
        """The first forms and pieces; at most, a wider search for every field and conflicts read again."""
        schema = extract_request(question).schema
        if stage is None:
            seconds = round(_SECONDS_PER_FIELD * len(schema.fields), 1)
            return Plan(calls=0, tokens_in=0, tokens_out=0, cost_usd=0.0, seconds=seconds)

        async def best(query: str, count: int) -> Sequence[Passage]:
            return (await self.search.best(query, documents, count))[0]

        first = await first_readings(schema, documents, self.library, stage.reader, best)
        reading = await _requests(first, stage)
        read = {
            path: {place for one in first if _is_about(one, path) for place in one.places}
            for path in (field.path for field in schema.scalars)
        }
        wider = await wider_readings(schema.scalars, read.__getitem__, stage.reader, best)
        judging: tuple[Request, ...] = ()
        if first and schema.scalars:
            claims = [Claim(text=one.text[:200]) for one in first[0].passages[:2]] * 2
            passages = first[0].passages[:6]
            judging = await stage.sent(
                lambda reader: reader.judge(schema.scalars[0].question, claims[:2], passages=passages)
            )
        most = min(MOST_SETTLED, len(schema.scalars))
        widening = (*await _requests(wider, stage), *judging[:1] * most)
        return stage.plan(Requests(reading=tuple(reading), answering=(), widening=widening))


class _Steps:
    """The nodes, for one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._misses = 0
        """Failures in a row."""
        self._read = self._planned = 0

    @cached_property
    def _schema(self) -> Schema:
        return extract_request(self._session.question).schema

    async def search(self, state: _State) -> _State:
        """What is read next, and for which fields."""
        session, done = self._session, state.get("rounds", 0)

        async def best(query: str, count: int) -> Sequence[Passage]:
            told = len(session.warnings)
            passages = await session.best_passages(count, query)
            # That no word of one field is in the documents is no news: its answer is null.
            session.warnings[told:] = [one for one in session.warnings[told:] if "question" not in one]
            return passages

        try:
            if done:
                found = _Found(session, dict(state))
                readings = await wider_readings(self._missing(found), found.places, session.reader, best)
            else:
                documents = list(session.documents.values())
                readings = await first_readings(self._schema, documents, session.library, session.reader, best)
        except ModelError as error:
            return {"rounds": done + 1, "failures": [session.failure("search", error)]}
        made = [_sent(reading, done + 1, index) for index, reading in enumerate(readings)]
        places = tuple(dict.fromkeys(place for reading in made for place in reading["places"]))
        if places and any(isinstance(one, Table) or one.many for one in self._schema.fields):
            session.emit(Pieces(places))
        elif places:
            session.emit(PassagesFound(places, searched=session.passages))
        return {"rounds": done + 1, "readings": made}

    def readings(self, state: _State) -> list[Any] | str:
        from langgraph.types import Send

        self._planned = len(state.get("readings", ()))
        now = [one for one in state.get("readings", ()) if one["name"].startswith(f"read/{state['rounds']}/")]
        return [Send("read", one) for one in now] or "settle"

    async def read(self, state: _Reading) -> _State:
        session, name = self._session, state["name"]
        if not session.has(name):
            if self._misses >= MOST_MISSES:
                return {}
            if session.run.out_of_time():
                return {"failures": [Failure(step=name, message=_OUT_OF_TIME, cap="seconds")]}
            by_path = {one.path: one for one in self._schema.fields}
            passages = [session.passage(place) for place in state["places"]]
            try:
                extraction = await extract(session.reader, passages, [by_path[tuple(path)] for path in state["wanted"]])
            except ModelError as error:
                self._misses += 1
                return {"failures": [session.failure(name, error)]}
            self._misses = 0
            await session.keep(name, extraction.as_note(), places=state["places"])
        self._read += 1
        session.emit(Progress("asking", session.run.model, self._read, max(self._read, self._planned)))
        return {"notes": [name]}

    async def look(self, state: _State) -> _State:
        """What was found follows from the notes; there is nothing to keep."""
        return {}

    def widen(self, state: _State) -> str:
        stopped = bool(state.get("failures")) or self._session.run.out_of_time()
        more = state["rounds"] < 2 and not stopped and self._missing(_Found(self._session, dict(state)))
        return "search" if more else "settle"

    def _missing(self, found: _Found) -> list[Field]:
        return [one for one in self._schema.scalars if not any(f.citations for _, f in found.of(one.path))]

    async def settle(self, state: _State) -> _State:
        """Conflicts read again, those of the first fields; what is left is told as it is."""
        session, found = self._session, _Found(self._session, dict(state))
        failures: list[Failure] = []
        left = MOST_SETTLED
        for one in self._schema.scalars:
            sides = conflict_of(one, found.of(one.path))
            if sides is None or left == 0 or failures or state.get("failures") or session.run.out_of_time():
                continue
            left -= 1
            try:
                await settle_field(session, one, sides)
            except ModelError as error:
                failures.append(session.failure(f"settle/{one.name}", error))
        return {"failures": failures}


class _Found:
    """The findings of a run by field, and what was read for each."""

    def __init__(self, session: Session, state: dict[str, Any]) -> None:
        self.session = session
        self.schema = extract_request(session.question).schema
        kept = set(state.get("notes", ()))
        self._readings: list[_Reading] = [one for one in state.get("readings", ()) if one["name"] in kept]
        self.names = [one["name"] for one in self._readings]
        self._findings: dict[Path, list[Named]] = {}
        for name in self.names:
            for finding in Extraction.of(session.note(name)).findings:
                self._findings.setdefault(finding.path, []).append((name, finding))

    def of(self, path: Path) -> list[Named]:
        return self._findings.get(path, [])

    def places(self, path: Path) -> list[Place]:
        """What was read for a field."""
        about = [one for one in self._readings if list(path) in one["wanted"]]
        return [(document_id, start, end) for one in about for document_id, start, end in one["places"]]

    def searched(self, path: Path) -> tuple[PagesRead, ...]:
        """The pages of that, for each document of which some was read."""
        places = self.places(path)
        return tuple(
            PagesRead.of(document, [Span(start, end) for id_, start, end in places if id_ == document.id])
            for document in self.session.documents.values()
            if any(id_ == document.id for id_, _, _ in places)
        )


def _sent(reading: Reading, stage: int, index: int) -> _Reading:
    wanted = [list(one.path) for one in reading.wanted]
    return _Reading(name=reading.name(stage, index), wanted=wanted, places=reading.places)


def _is_about(reading: Reading, path: Path) -> bool:
    return any(one.path == path for one in reading.wanted)


async def _requests(readings: Sequence[Reading], stage: Stage) -> list[Request]:
    made: list[Request] = []
    for reading in readings:
        made += await stage.sent(partial(_extract, reading))
    return made


async def _extract(reading: Reading, reader: PromptedReader) -> object:
    return await extract(reader, reading.passages, reading.wanted)


def _field(outcome: Outcome, claims: list[Claim], found: _Found) -> ExtractedField:
    """The field as the answer has it; its claims are added to `claims`."""
    first = len(claims)
    claims += [finding.claim for finding in outcome.chosen]
    second = len(claims)
    claims += [finding.claim for finding in outcome.others]
    return ExtractedField(
        path=outcome.wanted.path,
        state=outcome.state,
        value=outcome.value,
        claims=tuple(range(first, second)),
        others=tuple(range(second, len(claims))),
        confidence=outcome.confidence,
        refused=outcome.refused,
        searched=found.searched(outcome.wanted.path),
    )


def _passages_in(session: Session, places: Sequence[Place]) -> int:
    """How many of the library's passages lie in any of the places."""
    count = 0
    for document_id in session.documents:
        mine = [Span(start, end) for id_, start, end in places if id_ == document_id]
        count += sum(any(chunk.span.overlaps(span) for span in mine) for chunk in session.library.chunks(document_id))
    return count
