"""Read everything at once: documents that fit the model's window together, answered from in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from lcdoc.agents.models.errors import ContextOverflowError, ModelError
from lcdoc.agents.notes import Draft, Note, Quote
from lcdoc.agents.reader import Passage, Reader
from lcdoc.documents import Document, Span
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.events import Partial, Pieces, Place, Progress
from lcdoc.workflows.frame import GraphWorkflow
from lcdoc.workflows.session import Failure, Session
from lcdoc.workflows.workflow import Plan, Requests

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

    from lcdoc.workflows.rehearsal import Stage

_NOTE = "read/1"
_REMEDY = "choose a workflow that reads documents in parts, such as retrieve, chain or map_reduce"
_OFFLINE_SECONDS = 0.7
_OFFLINE_SECONDS_PER_CHARACTER = 4e-6


def fits(documents: Sequence[Document], question: str, reader: Reader) -> bool:
    """Whether `reader` can read all of the documents in one step, beside the question and the longest answer."""
    return reader.fits(wholes(documents), question)


class _State(TypedDict, total=False):
    read: bool
    failures: list[Failure]


class Direct(GraphWorkflow):
    """Reads the documents whole and answers at once, each claim with quotes that were checked."""

    name: ClassVar[str] = "direct"
    about: ClassVar[str] = "reads everything in one call; for documents that fit the model's window"

    def graph(self, session: Session) -> StateGraph[Any, Any, Any, Any]:
        from langgraph.graph import END, START, StateGraph

        graph = StateGraph(_State)
        graph.add_node("answer", _Steps(session).answer)
        graph.add_edge(START, "answer")
        graph.add_edge("answer", END)
        return graph

    def first_state(self, session: Session) -> dict[str, Any]:
        return {"read": False, "failures": []}

    def conclude(self, session: Session, state: dict[str, Any]) -> Answer:
        draft, read = session.draft(), state["read"]
        return session.compose(
            self.name,
            draft,
            read=_places(wholes(list(session.documents.values()))) if read else (),
            passages_read=session.passages if read else 0,
            dropped=draft.dropped,
            problems=[failure["message"] for failure in state["failures"]],
        )

    async def plan(self, question: str, documents: Sequence[Document], stage: Stage | None) -> Plan:
        """One call. Raises ContextOverflowError where the documents do not fit."""
        if stage is None:
            seconds = _OFFLINE_SECONDS + _OFFLINE_SECONDS_PER_CHARACTER * sum(len(one.body) for one in documents)
            return Plan(calls=0, tokens_in=0, tokens_out=0, cost_usd=0.0, seconds=round(seconds, 1))
        try:
            sent = await stage.sent(lambda reader: reader.answer_from(wholes(documents), question))
        except ContextOverflowError as error:
            raise _with_remedy(error) from error
        return stage.plan(Requests(reading=(), answering=sent, widening=()))


class _Steps:
    """The node, for one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def answer(self, state: _State) -> _State:
        session = self._session
        passages = wholes(list(session.documents.values()))
        places = _places(passages)
        if session.run.out_of_time():
            return {"failures": [_out_of_time()]}
        if passages:
            session.emit(Pieces(places))
        written = _Written(session)
        try:
            draft = await session.reader.answer_from(passages, session.question, on_text=written)
        except ContextOverflowError as error:
            return {"failures": [session.failure("answer", _with_remedy(error))]}
        except ModelError as error:
            return {"failures": [session.failure("answer", error)]}
        await session.keep(_NOTE, _note_of(draft), places=places)
        await session.keep_draft(draft)
        session.emit(Progress("asking", session.run.model, session.passages, session.passages))
        return {"read": True}


class _Written:
    """Shows the answer while it is written: see `OnText`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._text = ""

    def __call__(self, piece: str) -> None:
        # An empty piece begins anew.
        self._text = self._text + piece if piece else ""
        self._session.emit(Partial(self._text))


def wholes(documents: Sequence[Document]) -> list[Passage]:
    """Each document that has any text, as one passage."""
    return [Passage(one, Span(0, len(one.body))) for one in documents if one.body.strip()]


def _places(passages: Sequence[Passage]) -> tuple[Place, ...]:
    return tuple((passage.document.id, passage.span.start, passage.span.end) for passage in passages)


def _note_of(draft: Draft) -> Note:
    """What was read, as the trace shows it: the answer's quotes."""
    quotes = tuple(
        Quote(text=citation.quote, citation=citation, claim=claim.text, confidence=claim.confidence)
        for claim in draft.claims
        for citation in claim.citations
    )
    return Note(found=draft.found, quotes=quotes, claim=draft.text, confidence=draft.confidence, dropped=draft.dropped)


def _with_remedy(error: ContextOverflowError) -> ContextOverflowError:
    """`error`, saying what to do about it."""
    return ContextOverflowError(error.model, error.problem, _REMEDY, context_window=error.context_window)


def _out_of_time() -> Failure:
    message = "the time set for the answer is over before anything was read; raise --max-seconds"
    return Failure(step="answer", message=message, cap="seconds")
