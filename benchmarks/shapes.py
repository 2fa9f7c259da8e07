"""The two shapes of reading a whole document, as small as they can be: what is measured is the frame around them.

`Fan` reads all pieces side by side and answers from what they noted; `Relay` reads them one after the other, each with
the note of the one before. A piece is a chunk of the library, so that a run has exactly as many as its document.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypedDict

from lcdoc.agents.models.call_store import StoreMode
from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.models.model import ModelSpec, Prices, RateLimits, Server
from lcdoc.agents.models.names import Chosen
from lcdoc.agents.models.stack import ModelStack
from lcdoc.documents import Document, Span, load
from lcdoc.memory import Library
from lcdoc.retrieval.passages import Chunk
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.events import Pieces
from lcdoc.workflows.frame import GraphWorkflow
from lcdoc.workflows.model_readers import ModelReaders
from lcdoc.workflows.registry import workflow_class
from lcdoc.workflows.session import Failure, Session
from lcdoc.workflows.workflow import Plan

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

    from lcdoc.workflows.rehearsal import Stage

QUESTION = "What does the barge Heron carry to the mill?"
_PIECE = (
    "Entry {n}. The lock-keeper counted boats from dawn to dusk. Barge {n} of the lower fleet brought {k} bales of"
    " wool, and its master paid the toll in coin."
)
SMALL_WINDOW = 2_560
"""Tokens. About `CHUNKS_A_PIECE` of these chunks are what a real workflow then takes for a piece."""
CHUNKS_A_PIECE = 10
ONLY_ONCE = "This is the register of the lower fleet, kept at the weir."
_FOUND = " The barge Heron carries {k} sacks of oats to the mill."


def text_of(pieces: int, *, found_every: int = 7) -> str:
    """A document of so many paragraphs; the first of every so many says something about `QUESTION`.

    It begins with `ONLY_ONCE`.
    """
    return f"{ONLY_ONCE} " + "\n\n".join(
        _PIECE.format(n=n, k=n * 13 % 97) + (_FOUND.format(k=100 + n) if n % found_every == 0 else "")
        for n in range(pieces)
    )


def shelve(library: Library, folder: Path, pieces: int) -> Document:
    """A document of so many pieces, in the library, a chunk for each."""
    path = folder / f"fleet-{pieces}.txt"
    path.write_text(text_of(pieces), encoding="utf-8")
    document = load(path)
    chunks, start = [], 0
    for paragraph in document.text.strip().split("\n\n"):
        start = document.text.index(paragraph, start)
        chunks.append(Chunk(document.id, Span(start, start + len(paragraph))))
        start += len(paragraph)
    library.add(document, chunks, recipe="paragraphs/1")
    return document


def readers_for(
    library: Library, url: str, *, at_once: int = 8, window: int = 16_384, store: StoreMode = "use"
) -> tuple[ModelStack, ModelReaders]:
    """Readers through a model at `url`. The stack is to be closed."""
    spec = ModelSpec(
        name="fleet",
        context_window=window,
        server=Server(base_url=url, model="fleet"),
        prices=Prices(1.0, 4.0),
        limits=RateLimits(concurrency=at_once),
    )
    stack = ModelStack(Chosen(spec, None, ()), library)
    return stack, ModelReaders(stack, store=store, profile=None)


class _State(TypedDict, total=False):
    at: int
    """Pieces read, or passed over."""
    carried: str
    """The note handed on."""
    failures: Annotated[list[Failure], operator.add]
    stopped: bool


class _Piece(TypedDict):
    number: int


class _Reading(GraphWorkflow):
    async def plan(self, question: str, documents: Sequence[Document], stage: Stage | None) -> Plan:
        return Plan(calls=0, tokens_in=0, tokens_out=0, cost_usd=None, seconds=None)

    def conclude(self, session: Session, state: dict[str, Any]) -> Answer:
        kept = sorted(session.library.notebook.notes(session.run.id, "read/"))
        places = [place for name in kept for place in session.places_of(name)]
        problems = [failure["message"] for failure in state.get("failures", ())]
        return session.compose(
            self.name, session.draft(), read=places, passages_read=len(places), problems=problems[:1]
        )


class Fan(_Reading):
    name: ClassVar[str] = "fan"
    about: ClassVar[str] = "reads every chunk by itself"

    def graph(self, session: Session) -> StateGraph[Any, Any, Any, Any]:
        from langgraph.graph import END, START, StateGraph

        steps = _Steps(session)
        graph = StateGraph(_State)
        graph.add_node("cut", steps.cut)
        graph.add_node("read", steps.read_one, input_schema=_Piece)
        graph.add_node("answer", steps.answer)
        graph.add_edge(START, "cut")
        graph.add_conditional_edges("cut", steps.all_pieces, ["read"])
        graph.add_edge("read", "answer")
        graph.add_edge("answer", END)
        return graph


class Relay(_Reading):
    name: ClassVar[str] = "relay"
    about: ClassVar[str] = "reads the chunks in order, handing on what it noted"

    def graph(self, session: Session) -> StateGraph[Any, Any, Any, Any]:
        from langgraph.graph import END, START, StateGraph

        steps = _Steps(session)
        graph = StateGraph(_State)
        graph.add_node("cut", steps.cut)
        graph.add_node("read", steps.read_next)
        graph.add_node("answer", steps.answer)
        graph.add_edge(START, "cut")
        graph.add_edge("cut", "read")
        graph.add_conditional_edges("read", steps.next_step, ["read", "answer"])
        graph.add_edge("answer", END)
        return graph


class _Steps:
    def __init__(self, session: Session) -> None:
        self._session = session
        (document_id,) = session.documents
        self._places = [
            (document_id, chunk.span.start, chunk.span.end) for chunk in session.library.chunks(document_id)
        ]

    async def cut(self, _state: _State) -> _State:
        self._session.emit(Pieces(tuple(self._places)))
        return {"at": 0}

    def all_pieces(self, _state: _State) -> list[Any]:
        from langgraph.types import Send

        return [Send("read", _Piece(number=number)) for number in range(len(self._places))]

    async def read_one(self, state: _Piece) -> _State:
        failure = await self._read(state["number"], None)
        return {"failures": [failure]} if failure else {}

    async def read_next(self, state: _State) -> _State:
        number = state["at"]
        failure = await self._read(number, state.get("carried"))
        if failure:
            return {"at": number + 1, "failures": [failure], "stopped": bool(failure["cap"])}
        return {"at": number + 1, "carried": _name(number)}

    def next_step(self, state: _State) -> str:
        return "answer" if state.get("stopped") or state["at"] == len(self._places) else "read"

    async def _read(self, number: int, carried: str | None) -> Failure | None:
        session, place = self._session, self._places[number]
        if session.has(_name(number)):
            return None
        try:
            note = await session.reader.read(
                session.passage(place), session.question, session.note(carried) if carried else None
            )
        except ModelError as error:
            return session.failure(_name(number), error)
        await session.keep(_name(number), note, places=[place], of=[carried] if carried else [])
        return None

    async def answer(self, state: _State) -> _State:
        session = self._session
        if carried := state.get("carried"):
            names = [carried]
        else:
            names = sorted(session.library.notebook.notes(session.run.id, "read/"))
        draft, failure = await session.answer([session.note(name) for name in names])
        await session.keep_draft(draft)
        return {"failures": [failure]} if failure else {}


def _name(number: int) -> str:
    return f"read/{number:04}"


SHAPES: dict[str, type[_Reading]] = {"fan": Fan, "relay": Relay}


def workflow_named(name: str) -> type[GraphWorkflow]:
    """One of the shapes, or a workflow of the registry. Raises UnknownWorkflowError."""
    return SHAPES.get(name) or workflow_class(name)


def chunks_for(name: str, pieces: int) -> int:
    """Chunks of a document that this workflow reads in about so many pieces."""
    return pieces if name in SHAPES else pieces * CHUNKS_A_PIECE


def window_for(name: str) -> int:
    """The model's window with which it does."""
    return 16_384 if name in SHAPES else SMALL_WINDOW
