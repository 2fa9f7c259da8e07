"""Going on with a run that was cut off: which of its notes still hold, and where its graph is taken up.

Notes are kept before the graph's state names them, so after any end the state is behind the notes or level with them.
A step that is done again finds its note there, or its call in the call store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lcdoc import __version__
from lcdoc.agents.models.errors import ModelError
from lcdoc.memory.notebook import Entry
from lcdoc.workflows.events import Place, Resumed
from lcdoc.workflows.session import Session

if TYPE_CHECKING:
    from langgraph.types import StateSnapshot

_CONDITIONS = "Conditions"
"""Kind of the entry that says how the documents were cut when a run began."""


async def take_up(session: Session, state: StateSnapshot) -> bool:
    """Drop the notes that no longer hold; True if the graph can go on from `state`, False if it has to begin anew.

    It begins anew, over the notes read from the documents, when it had come to its end or something had failed: the
    same is tried again then, and what was made of notes may be made of more. When the documents would be cut in
    another way (another window, another lcdoc), no note holds: `read/0017` would be on other text.
    """
    notebook, run_id = session.library.notebook, session.run.id
    kept = notebook.notes(run_id)
    if _conditions_of(notebook.events(run_id)) != _conditions(session):
        await notebook.drop(run_id, list(kept))
        return False
    # Not `state.next`: that leaves out steps that were done when the process ended, and not yet entered.
    if state.tasks and not _failed(state):
        return True
    await notebook.drop(run_id, [name for name, note in kept.items() if note.get("of") or "note" not in note])
    return False


def remember_conditions(session: Session) -> None:
    """Record how the documents are cut, before the first note is taken from them."""
    session.library.notebook.record(session.run.id, _CONDITIONS, _conditions(session))


def resumption(session: Session) -> Resumed:
    """What the run has so far, as an event."""
    notebook, run_id = session.library.notebook, session.run.id
    notes = [note for note in notebook.notes(run_id).values() if "note" in note]
    read = [
        (place, note["note"]["found"] and not note["note"]["unchanged"])
        for note in notes
        for place in map(_place, note["places"])
    ]
    return Resumed(
        run_id,
        len(notes),
        pieces=_pieces(notebook.events(run_id)),
        read=tuple(place for place, _ in read),
        found=tuple(place for place, found in read if found),
    )


def _conditions(session: Session) -> dict[str, Any]:
    try:
        rooms = [session.reader.room(session.question, carrying=carrying) for carrying in (False, True)]
    except ModelError:
        # Nothing can be read: the reading itself will say so.
        rooms = []
    return {
        "lcdoc": __version__,
        "rooms": rooms,
        "recipes": {document_id: session.library.recipe_of(document_id) for document_id in session.documents},
    }


def _conditions_of(entries: list[Entry]) -> dict[str, Any] | None:
    return next((dict(entry.fields) for entry in reversed(entries) if entry.kind == _CONDITIONS), None)


def _failed(state: StateSnapshot) -> bool:
    results = [task.result for task in state.tasks if isinstance(task.result, dict)]
    return any(values.get("failures") for values in (state.values, *results))


def _pieces(entries: list[Entry]) -> tuple[Place, ...]:
    for entry in reversed(entries):
        if entry.kind in ("Pieces", "PassagesFound"):
            return tuple(map(_place, entry.fields["places" if entry.kind == "Pieces" else "passages"]))
    return ()


def _place(given: Any) -> Place:
    document_id, start, end = given
    return document_id, start, end
