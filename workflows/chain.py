"""A chain of agents: workers read the documents piece by piece, each handing its notes on to the next.

Source: "Chain of Agents: Large Language Models Collaborating on Long-Context Tasks". What differs: the room for a piece
leaves out what the carried note and the answer may take, which the published budget forgets; a worker that finds
nothing says so in a field and code hands the note on, so that a refusal never enters it; the note carries quotes that
were checked. The manager is shown the last note only.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict

from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.models.model import Request
from lcdoc.agents.notes import Claim, Draft, Note
from lcdoc.agents.reader import Passage, Reader
from lcdoc.documents import Document
from lcdoc.memory import Library
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.events import Pieces, Place, Progress
from lcdoc.workflows.frame import GraphWorkflow
from lcdoc.workflows.pieces import pieces_of
from lcdoc.workflows.readers import Readers
from lcdoc.workflows.search import Search
from lcdoc.workflows.session import Failure, Session
from lcdoc.workflows.workflow import Plan, Requests

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

    from lcdoc.workflows.rehearsal import Stage

Order = Literal["forward", "backward", "shuffled"]
Prefetch = Callable[[Sequence[Request]], None]
"""Is told what is going to be sent, in order, as far as it does not depend on the carried note: the requests of all
pieces, each of which begins with the piece. Returns at once; a server or engine may read the pieces ahead."""

MOST_MISSES = 3
"""Failures in a row that end a path: the server is gone, or the text is what it cannot take."""
_PIECES = "pieces"
_LIKELY_PASSAGES = 12
"""Read for the plan, to know about how long a note is."""
_OFFLINE_SECONDS_PER_PIECE = 0.25


@dataclass(frozen=True, slots=True)
class ChainOptions:
    """How the pieces are gone through."""

    order: Order = "forward"
    """Of the pieces. `shuffled`: several ways at once, each in another random order; a judge picks the answer."""
    paths: int = 5
    """How many ways, if `shuffled`."""
    seed: int = 0
    """The same seed gives the same orders."""
    prefetch: Prefetch | None = None

    def __post_init__(self) -> None:
        if self.paths < 1:
            raise ValueError(f"a chain needs a path, not {self.paths}")

    def orders(self, pieces: int) -> list[list[int]]:
        """The order of the pieces (numbers from 0) on each path."""
        forward = list(range(pieces))
        if self.order != "shuffled":
            return [forward if self.order == "forward" else forward[::-1]]
        return [Random(f"{self.seed}/{path}").sample(forward, pieces) for path in range(self.paths)]


class _Path(TypedDict):
    """How far one path has come."""

    step: int
    """Pieces behind it, read or failed."""
    carried: str
    """Name of the note that the next worker is handed; empty while nothing was found."""
    misses: int
    """Failures in a row."""
    unread: list[int]
    """Pieces that failed."""


class _State(TypedDict, total=False):
    """Rewritten at every step, so nothing in it grows with the pieces but for those that failed."""

    paths: list[_Path]
    dropped: int
    failures: list[Failure]
    """The latest that no cap caused, and that of a cap."""


class Chain(GraphWorkflow):
    """Reads everything in order, each worker with the notes of those before it."""

    name: ClassVar[str] = "chain"
    about: ClassVar[str] = "reads everything in order, notes carried along; for answers that build on each other"

    def __init__(self, library: Library, search: Search, readers: Readers, options: ChainOptions | None = None) -> None:
        super().__init__(library, search, readers)
        self.options = options or ChainOptions()

    def graph(self, session: Session) -> StateGraph[Any, Any, Any, Any]:
        from langgraph.graph import END, START, StateGraph

        steps = _Steps(session, self.options)
        graph = StateGraph(_State)
        graph.add_node("cut", steps.cut)
        graph.add_node("read", steps.read)
        graph.add_node("answer", steps.answer)
        graph.add_edge(START, "cut")
        graph.add_conditional_edges("cut", steps.next, ["read", "answer"])
        graph.add_conditional_edges("read", steps.next, ["read", "answer"])
        graph.add_edge("answer", END)
        return graph

    def first_state(self, session: Session) -> dict[str, Any]:
        return dict(_State(paths=[], dropped=0, failures=[]))

    def conclude(self, session: Session, state: dict[str, Any]) -> Answer:
        pieces = _Pieces(session)
        orders = self.options.orders(len(pieces))
        read: set[int] = set()
        for path, order in zip(state["paths"], orders, strict=False):
            read.update(set(order[: path["step"]]) - set(path["unread"]))
        places = [pieces.place(index) for index in sorted(read)]
        return session.compose(
            self.name,
            session.draft(),
            read=places,
            passages_read=_passages_in(session, places),
            dropped=state["dropped"],
            problems=_problems(session, state, unread=len(pieces) - len(read), pieces=len(pieces)),
        )

    async def plan(self, question: str, documents: Sequence[Document], stage: Stage | None) -> Plan:
        """A call for each piece of each path, with a note as long as is likely, and one for each path's answer.

        Offline: no calls. Raises ModelConfigError where the window has no room for a piece.
        """
        chunks = {document.id: self.library.chunks(document.id) for document in documents}
        if stage is None:
            tokens = sum(len(document.body) for document in documents) / 4
            readings = tokens / 2_000 * len(self.options.orders(1))
            return Plan(
                calls=0,
                tokens_in=0,
                tokens_out=0,
                cost_usd=0.0,
                seconds=round(_OFFLINE_SECONDS_PER_PIECE * readings, 1),
            )
        reader = stage.reader
        room, beside_a_note = reader.room(question), reader.room(question, carrying=True)
        pieces = [
            piece
            for document in documents
            for piece in pieces_of(document, chunks[document.id], room_tokens=beside_a_note, count=reader.count)
        ]
        if not pieces:
            return stage.plan(Requests(reading=(), answering=(), widening=()))
        best, _ = await self.search.best(question, documents, _LIKELY_PASSAGES)
        likely = await stage.likely_note(best, question)
        reading: list[Request] = []
        answering: list[Request] = []
        for order in self.options.orders(len(pieces)):
            for index in order:
                reading += await stage.sent(_reading(pieces[index], question, likely))
            answering += await stage.answering(question, [likely])
        if len(answering) > 1:
            claims = [_as_claim(_draft_of_note(likely))] * len(answering)
            answering += await stage.sent(lambda reader: reader.judge(question, claims))
        requests = Requests(reading=tuple(reading), answering=tuple(answering), widening=())
        # A carried note takes what it may, and an answer all of the window's room, at most.
        longer = (room - beside_a_note) * len(reading) + room * len(answering)
        return stage.plan(requests, more_tokens_in=longer)


class _Pieces:
    """What the workers are given, as it was cut when the run began: kept, so that a resumed run has the same pieces."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @cached_property
    def _kept(self) -> list[tuple[Place, tuple[str, ...]]]:
        kept = self._session.library.notebook.note(self._session.run.id, _PIECES)
        if kept is None:
            return []
        return [((document_id, start, end), tuple(titles)) for document_id, start, end, titles in kept["pieces"]]

    async def keep(self, pieces: Sequence[Passage]) -> None:
        """Keep the pieces, for this run."""
        rows = [[one.document.id, one.span.start, one.span.end, list(one.heading_path)] for one in pieces]
        await self._session.library.notebook.keep(self._session.run.id, _PIECES, {"pieces": rows})
        self.__dict__.pop("_kept", None)

    def __len__(self) -> int:
        return len(self._kept)

    def place(self, index: int) -> Place:
        return self._kept[index][0]

    def passage(self, index: int) -> Passage:
        return self._session.passage(*self._kept[index])


class _Steps:
    """The nodes, for one session."""

    def __init__(self, session: Session, options: ChainOptions) -> None:
        self._session = session
        self._options = options
        self._pieces = _Pieces(session)

    @cached_property
    def _orders(self) -> list[list[int]]:
        return self._options.orders(len(self._pieces))

    async def cut(self, state: _State) -> _State:
        session, reader = self._session, self._session.reader
        room = reader.room(session.question, carrying=True)
        pieces = [
            piece
            for document in session.documents.values()
            for piece in pieces_of(document, session.library.chunks(document.id), room_tokens=room, count=reader.count)
        ]
        await self._pieces.keep(pieces)
        session.emit(Pieces(tuple(self._pieces.place(index) for index in range(len(pieces)))))
        if self._options.prefetch and pieces:
            self._options.prefetch(
                [
                    request
                    for index in self._orders[0]
                    for request in reader.requests(self._pieces.passage(index), session.question)
                ]
            )
        return {"paths": [_Path(step=0, carried="", misses=0, unread=[]) for _ in self._orders]}

    def next(self, state: _State) -> str:
        """Whether a path goes on."""
        stopped = _cap(state) or self._session.run.out_of_time()
        return "answer" if stopped or not any(map(self._goes_on, state["paths"])) else "read"

    def _goes_on(self, path: _Path) -> bool:
        return path["step"] < len(self._pieces) and path["misses"] < MOST_MISSES

    async def read(self, state: _State) -> _State:
        """One piece on each path."""
        session, total = self._session, len(self._orders) * len(self._pieces)
        results = await asyncio.gather(
            *(self._step(number, path) for number, path in enumerate(state["paths"]) if self._goes_on(path))
        )
        paths = list(state["paths"])
        failures = list(state["failures"])
        for number, path, _, failure in results:
            paths[number] = path
            if failure:
                failures = [one for one in failures if bool(one["cap"]) != bool(failure["cap"])] + [failure]
        session.emit(Progress("asking", session.run.model, sum(path["step"] for path in paths), total))
        dropped = state["dropped"] + sum(dropped for _, _, dropped, _ in results)
        return {"paths": paths, "dropped": dropped, "failures": failures}

    async def _step(self, number: int, path: _Path) -> tuple[int, _Path, int, Failure | None]:
        """The path one piece further, how many quotes were dropped, and what went wrong."""
        index = self._orders[number][path["step"]]
        name = f"read/{number + 1}/{index:04}"
        try:
            note = await self._read(name, index, path["carried"])
        except ModelError as error:
            failure = self._session.failure(name, error)
            if failure["cap"]:
                # Not behind us: a run that goes on reads it.
                return number, path, 0, failure
            missed = _Path(
                step=path["step"] + 1,
                carried=path["carried"],
                misses=path["misses"] + 1,
                unread=[*path["unread"], index],
            )
            return number, missed, 0, failure
        carried = path["carried"] if note.unchanged or not note.found else name
        return (
            number,
            _Path(step=path["step"] + 1, carried=carried, misses=0, unread=path["unread"]),
            note.dropped,
            None,
        )

    async def _read(self, name: str, index: int, carried_name: str) -> Note:
        """The note of one worker, under `name`: what it carries on, or that it has nothing to add."""
        session = self._session
        of = [carried_name] if carried_name else []
        kept = session.library.notebook.note(session.run.id, name)
        if kept is not None and kept["of"] == of:
            return Note.model_validate(kept["note"])
        carried = session.note(carried_name) if carried_name else None
        note = await session.reader.read(self._pieces.passage(index), session.question, carried)
        # What was dropped before is counted where it was dropped.
        dropped = max(0, note.dropped - (carried.dropped if carried else 0))
        note = (
            note.model_copy(update={"dropped": dropped})
            if note.found and not note.unchanged
            else Note(found=False, unchanged=note.unchanged, dropped=dropped)
        )
        await session.keep(name, note, places=[self._pieces.place(index)], of=of)
        return note

    async def answer(self, state: _State) -> _State:
        session = self._session
        notes = [session.note(path["carried"]) for path in state["paths"] if path["carried"]]
        failures: list[Failure] = []
        if len(notes) < 2:
            draft, failure = await session.answer(notes)
            # A cap that ended the reading needs no second mention.
            failures += [failure] if failure and not (failure["cap"] and _cap(state)) else []
        else:
            draft, failures = await self._judged(notes)
        await session.keep_draft(draft)
        return {"failures": [*state["failures"], *failures]}

    async def _judged(self, notes: Sequence[Note]) -> tuple[Draft, list[Failure]]:
        """The answer of the path whose answer is borne out best."""
        session = self._session
        answered = await asyncio.gather(*map(self._answered, notes))
        failures = [failure for _, failure in answered if failure]
        drafts = {draft.text: draft for draft, _ in answered if draft.found}
        candidates = sorted(drafts.values(), key=lambda draft: -draft.confidence)
        if len(candidates) < 2:
            return (candidates or [answered[0][0]])[0], failures
        try:
            judgement = await session.reader.judge(session.question, [_as_claim(draft) for draft in candidates])
        except ModelError as error:
            return candidates[0], [*failures, session.failure("judge", error)]
        if judgement.best is None:
            session.warnings.append(
                f"the judge found none of {len(candidates)} different answers borne out; the surest is given"
            )
        return candidates[judgement.best or 0], failures

    async def _answered(self, note: Note) -> tuple[Draft, Failure | None]:
        # Several answers that are written at once cannot be shown, so none is while it is written.
        try:
            return await self._session.reader.answer(self._session.question, [note]), None
        except ModelError as error:
            return _draft_of_note(note), self._session.failure("answer", error)


def _reading(piece: Passage, question: str, carried: Note) -> Callable[[Reader], Awaitable[Note]]:
    return lambda reader: reader.read(piece, question, carried)


def _problems(session: Session, state: dict[str, Any], *, unread: int, pieces: int) -> list[str]:
    """Why the answer is not all it could be."""
    problems: list[str] = [failure["message"] for failure in state["failures"]]
    if unread and any(path["misses"] >= MOST_MISSES for path in state["paths"]):
        problems.append(f"the chain ended after {MOST_MISSES} failures in a row")
    if unread and not problems and session.run.out_of_time():
        problems.append("the time set for the answer is over; raise --max-seconds to go on")
    if unread:
        problems.append(f"{unread} of {pieces} pieces of text were not read")
    return problems


def _cap(state: _State) -> bool:
    return any(failure["cap"] for failure in state["failures"])


def _draft_of_note(note: Note) -> Draft:
    claims = (Claim(text=note.claim, citations=note.citations, confidence=note.confidence),) if note.claim else ()
    return Draft(found=bool(claims), claims=claims, confidence=note.confidence)


def _as_claim(draft: Draft) -> Claim:
    """A whole answer as one claim, to be judged beside others."""
    citations = tuple(dict.fromkeys(citation for claim in draft.claims for citation in claim.citations))
    return Claim(text=draft.text, citations=citations, confidence=draft.confidence)


def _passages_in(session: Session, places: Sequence[Place]) -> int:
    """How many of the documents' passages lie in `places`."""
    starts = {
        document_id: [chunk.span.start for chunk in session.library.chunks(document_id)]
        for document_id in session.documents
    }
    return sum(bisect_left(starts[id_], end) - bisect_left(starts[id_], start) for id_, start, end in places)
