"""A chain of agents: workers read the documents piece by piece, each handing its notes on to the next.

Source: "Chain of Agents: Large Language Models Collaborating on Long-Context Tasks". What differs: the room for a piece
leaves out what the carried note and the answer may take, which the published budget forgets; a worker that finds
nothing says so in a field and code hands the note on, so that a refusal never enters it; the note carries quotes that
were checked. The manager is shown the last note only. Where that does not answer, the workers go back through the text
with it, since what a fact leads to may stand before the fact.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
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
from lcdoc.workflows.chain_path import MOST_MISSES, KeptPieces, Path, Step, take_step, turned, way_back
from lcdoc.workflows.events import Pieces, Progress, Settled
from lcdoc.workflows.frame import GraphWorkflow
from lcdoc.workflows.pieces import chain_room, cut, pieces_found
from lcdoc.workflows.readers import Readers
from lcdoc.workflows.search import Search
from lcdoc.workflows.session import Failure, Session, draft_of
from lcdoc.workflows.workflow import Plan, Requests

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

    from lcdoc.workflows.rehearsal import Stage

Order = Literal["returning", "forward", "backward", "both", "shuffled"]
Prefetch = Callable[[Sequence[Request]], None]
"""Is told what is going to be sent, in order, as far as it does not depend on the carried note: the requests of all
pieces, each of which begins with the piece. Returns at once; a server or engine may read the pieces ahead."""

_LIKELY_PASSAGES = 12
"""Read for the plan, to know about how long a note is."""
_OFFLINE_SECONDS_PER_PIECE = 0.25


@dataclass(frozen=True, slots=True)
class ChainOptions:
    """How the pieces are gone through."""

    order: Order = "returning"
    """Of the pieces. `returning`: forward, and where what was noted does not answer, backward with it: twice the calls,
    for those questions only. `both`: forward and backward at once. `shuffled`: several ways at once, each in another
    random order. Where ways end with different answers, a judge picks one."""
    paths: int = 5
    """How many ways, if `shuffled`."""
    seed: int = 0
    """The same seed gives the same orders."""
    prefetch: Prefetch | None = None

    def __post_init__(self) -> None:
        if self.paths < 1:
            raise ValueError(f"a chain needs a path, not {self.paths}")

    def orders(self, pieces: int) -> list[list[int]]:
        """The order of the pieces (numbers from 0) on each path, as long as it does not turn."""
        forward = list(range(pieces))
        if self.order != "shuffled":
            backward = forward[::-1]
            ways = {"backward": [backward], "both": [forward, backward]}
            return ways.get(self.order, [forward])
        return [Random(f"{self.seed}/{path}").sample(forward, pieces) for path in range(self.paths)]


class _State(TypedDict, total=False):
    """Rewritten at every step, so nothing in it grows with the pieces but for those that failed."""

    paths: list[Path]
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
        graph.add_conditional_edges("answer", steps.turn, ["read", END])
        return graph

    def first_state(self, session: Session) -> dict[str, Any]:
        return dict(_State(paths=[], dropped=0, failures=[]))

    def conclude(self, session: Session, state: dict[str, Any]) -> Answer:
        pieces = KeptPieces(session)
        orders = self.options.orders(len(pieces))
        read: set[int] = set()
        for path, order in zip(state["paths"], orders, strict=False):
            read.update(set(order[: path["step"]]) - set(path["unread"]))
        places = [pieces.place(index) for index in sorted(read)]
        return session.compose(
            self.name,
            session.draft(),
            read=places,
            passages_read=pieces.passages_in(sorted(read)),
            dropped=state["dropped"],
            problems=_problems(session, state, unread=len(pieces) - len(read), pieces=len(pieces)),
        )

    async def plan(self, question: str, documents: Sequence[Document], stage: Stage | None) -> Plan:
        """A call for each piece of each path, with a note as long as is likely, and one for each path's answer.

        At most: the way back, and another answer. Offline: no calls. Raises ModelConfigError where the window has no
        room for a piece.
        """
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
        pieces = cut(self.library, documents, room_tokens=chain_room(reader, question), count=reader.count)
        if not pieces:
            return stage.plan(Requests(reading=(), answering=(), widening=()))
        # By words alone: the chain itself needs no vectors.
        best, _ = await replace(self.search, lazy_tokens=0).best(question, documents, _LIKELY_PASSAGES)
        noted = await stage.noted(best, question)
        likely = noted.model_copy(update={"found": True})
        reading: list[Request] = []
        answering: list[Request] = []
        for order in self.options.orders(len(pieces)):
            for index in order:
                reading += await stage.sent(_reading(pieces[index], question, likely))
            answering += await stage.answering(question, [likely])
        if len(answering) > 1:
            claims = [_as_claim(draft_of([likely]))] * len(answering)
            answering += await stage.sent(lambda reader: reader.judge(question, claims))
        back: list[Request] = []
        if self.options.order == "returning":
            for index in way_back(len(pieces)):
                back += await stage.sent(_reading(pieces[index], question, likely))
        requests = Requests(reading=tuple(reading), answering=tuple(answering), widening=tuple(back))
        # A carried note takes what it may, and an answer all of the window's room, at most.
        answers = len(answering) * (2 if back else 1)
        longer = (room - beside_a_note) * (len(reading) + len(back)) + room * answers
        finding = pieces_found(pieces, noted) * len(self.options.orders(1))
        return stage.plan(requests, more_tokens_in=longer, finding=finding)


class _Steps:
    """The nodes, for one session."""

    def __init__(self, session: Session, options: ChainOptions) -> None:
        self._session = session
        self._options = options
        self._pieces = KeptPieces(session)

    @cached_property
    def _orders(self) -> list[list[int]]:
        return self._options.orders(len(self._pieces))

    def _way(self, number: int, path: Path) -> list[int]:
        """The pieces of a path, in the order of its readings."""
        order = self._orders[number]
        return order if path["turned"] is None else order + way_back(len(self._pieces))

    async def cut(self, state: _State) -> _State:
        session, reader = self._session, self._session.reader
        room = chain_room(reader, session.question)
        pieces = cut(session.library, list(session.documents.values()), room_tokens=room, count=reader.count)
        await self._pieces.keep(pieces)
        session.emit(Pieces(tuple(self._pieces.place(index) for index in range(len(pieces)))))
        if pieces and (prefetch := self._options.prefetch or session.run.prefetch):
            prefetch(
                [
                    request
                    for index in self._orders[0]
                    for request in reader.requests(self._pieces.passage(index), session.question)
                ]
            )
        start = Path(step=0, turned=None, carried="", remark="", misses=0, unread=[])
        return {"paths": [start for _ in self._orders]}

    def next(self, state: _State) -> str:
        """Whether a path goes on."""
        return "answer" if self._stopped(state) or not self._going_on(state) else "read"

    def turn(self, state: _State) -> str:
        """Whether the way back begins: see `_turns`."""
        from langgraph.graph import END

        return "read" if self._going_on(state) and not self._stopped(state) else END

    def _stopped(self, state: _State) -> bool:
        return _cap(state) or self._session.run.out_of_time()

    def _going_on(self, state: _State) -> list[int]:
        """The numbers of the paths that do."""
        return [
            number
            for number, path in enumerate(state["paths"])
            if path["step"] < len(self._way(number, path)) and path["misses"] < MOST_MISSES
        ]

    async def read(self, state: _State) -> _State:
        """One piece on each path."""
        session, going_on = self._session, self._going_on(state)
        total = sum(len(self._way(number, path)) for number, path in enumerate(state["paths"]))
        steps = await asyncio.gather(*(self._step(number, state["paths"][number]) for number in going_on))
        paths, failures = list(state["paths"]), list(state["failures"])
        for number, step in zip(going_on, steps, strict=True):
            paths[number] = step.path
            if step.failure:
                failures = [one for one in failures if bool(one["cap"]) != bool(step.failure["cap"])] + [step.failure]
        session.emit(Progress("asking", session.run.model, sum(path["step"] for path in paths), total))
        dropped = state["dropped"] + sum(step.dropped for step in steps)
        return {"paths": paths, "dropped": dropped, "failures": failures}

    async def _step(self, number: int, path: Path) -> Step:
        index = self._way(number, path)[path["step"]]
        reading = "read" if path["turned"] is None else "return"
        return await take_step(self._session, self._pieces, f"{reading}/{number + 1}/{index:04}", index, path)

    async def answer(self, state: _State) -> _State:
        session = self._session
        if any(path["turned"] == path["carried"] for path in state["paths"]):
            # The way back brought nothing new.
            return {}
        last = [path["carried"] or path["remark"] for path in state["paths"]]
        notes = [session.note(name) for name in last if name]
        failures: list[Failure] = []
        if len(notes) < 2:
            draft, failure = await session.answer(notes)
            # A cap that ended the reading needs no second mention.
            failures += [failure] if failure and not (failure["cap"] and _cap(state)) else []
        else:
            draft, failures = await self._judged(notes)
        await session.keep_draft(draft)
        update: _State = {"failures": [*state["failures"], *failures]}
        if self._turns(state, draft) and not failures:
            update["paths"] = list(map(turned, state["paths"]))
        return update

    def _turns(self, state: _State, draft: Draft) -> bool:
        """Whether there is a way back: all was read, and checked quotes were noted, but `draft` rests on none."""
        answers = draft.found and any(claim.citations for claim in draft.claims)
        return (
            self._options.order == "returning"
            and not answers
            and not self._stopped(state)
            and len(self._pieces) > 1
            and all(
                path["turned"] is None and path["carried"] and path["step"] == len(self._pieces)
                for path in state["paths"]
            )
        )

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
        best = None if judgement.best is None else candidates[judgement.best]
        texts = tuple(draft.text for draft in candidates)
        session.emit(Settled(texts, best.text if best else None, judgement.reason))
        if best is None:
            session.warnings.append(
                f"the judge found none of {len(candidates)} different answers borne out; the surest is given"
            )
        return best or candidates[0], failures

    async def _answered(self, note: Note) -> tuple[Draft, Failure | None]:
        # Several answers that are written at once cannot be shown, so none is while it is written.
        try:
            return await self._session.reader.answer(self._session.question, [note]), None
        except ModelError as error:
            return draft_of([note]), self._session.failure("answer", error)


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
    again = sum(path["step"] - pieces for path in state["paths"] if path["turned"] is not None)
    if any(path["turned"] is not None for path in state["paths"]) and again < len(way_back(pieces)):
        if not problems:
            problems.append("the time set for the answer is over; raise --max-seconds to go on")
        problems.append(f"on the way back, {again} of {len(way_back(pieces))} pieces of text were read again")
    return problems


def _cap(state: _State) -> bool:
    return any(failure["cap"] for failure in state["failures"])


def _as_claim(draft: Draft) -> Claim:
    """A whole answer as one claim, to be judged beside others."""
    citations = tuple(dict.fromkeys(citation for claim in draft.claims for citation in claim.citations))
    return Claim(text=draft.text, citations=citations, confidence=draft.confidence)
