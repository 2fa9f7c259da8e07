"""One way through the pieces of a chain: what is read, what is handed on, what is left out."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypedDict

from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.notes import Note
from lcdoc.agents.prompts.checks import is_refusal
from lcdoc.agents.reader import Passage
from lcdoc.retrieval.sentences import sentence_spans
from lcdoc.workflows.events import Place
from lcdoc.workflows.session import Failure, Session

MOST_MISSES = 3
"""Failures in a row that end a path: the server is gone, or the text is what it cannot take."""
_PIECES = "pieces"
_ABSENCE = re.compile(
    r"(?:but |however,? )?(?:(?:the|this|these|current|given|provided|new) )*"
    r"(?:passages?|texts?|excerpts?|sections?|pieces?|parts?) (?:does|do|did)(?: not|n['’]t) "
    r"(?:\w+ )?(?:mention|say|state|contain|provide|specify|include|give|address|answer|discuss|add)\b",
    re.IGNORECASE,
)
"""A remark on the piece that was read, not on the document."""


class Path(TypedDict):
    """How far a path has come. It is in the graph's state, so nothing in it grows with the pieces but for failures."""

    step: int
    """Readings behind it, made or failed."""
    turned: str | None
    """Where it is on the way back, what it carried when it turned; None: it has not turned."""
    carried: str
    """Name of the note that the next worker is handed; empty while no quote was found."""
    remark: str
    """Name of the latest note without a quote: never handed on, and answered from only if there is nothing else."""
    misses: int
    """Failures in a row."""
    unread: list[int]
    """Pieces that failed each time."""


@dataclass(frozen=True, slots=True)
class Step:
    """A path one piece further."""

    path: Path
    dropped: int = 0
    """Quotes that are not in the source."""
    failure: Failure | None = None


class KeptPieces:
    """What the workers are given, as it was cut when the run began: kept, so that every process has the same pieces."""

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

    def passages_in(self, indices: Sequence[int]) -> int:
        """How many of the library's passages lie in these pieces."""
        starts = {
            document_id: [chunk.span.start for chunk in self._session.library.chunks(document_id)]
            for document_id in self._session.documents
        }
        places = map(self.place, indices)
        return sum(bisect_left(starts[id_], end) - bisect_left(starts[id_], start) for id_, start, end in places)


def way_back(pieces: int) -> list[int]:
    """The numbers of the pieces on the way back: the last has been read with all that was noted before it."""
    return list(range(pieces - 1))[::-1]


def turned(path: Path) -> Path:
    """`path`, on its way back from the end of the text with what it carries."""
    return {**path, "turned": path["carried"], "misses": 0}


async def take_step(session: Session, pieces: KeptPieces, name: str, index: int, path: Path) -> Step:
    """Have the piece `index` read, with what `path` carries; the note is kept under `name`."""
    try:
        note = await _read(session, pieces, name, index, path["carried"])
    except ModelError as error:
        failure = session.failure(name, error)
        if failure["cap"]:
            # Not behind us: a run that goes on reads it.
            return Step(path, failure=failure)
        # On the way back everything has been tried before.
        unread = path["unread"] if path["turned"] is not None else [*path["unread"], index]
        missed: Path = {**path, "misses": path["misses"] + 1, "unread": unread}
        return Step(_further(missed), failure=failure)
    read: Path = {**path, "misses": 0, "unread": [one for one in path["unread"] if one != index]}
    if note.found:
        read["carried" if note.quotes else "remark"] = name
    return Step(_further(read), dropped=note.dropped)


async def _read(session: Session, pieces: KeptPieces, name: str, index: int, carried_name: str) -> Note:
    """What one worker hands on; not found where it has nothing to add."""
    of = [carried_name] if carried_name else []
    kept = session.library.notebook.note(session.run.id, name)
    if kept is not None and kept["of"] == of:
        return Note.model_validate(kept["note"])
    carried = session.note(carried_name) if carried_name else None
    note = await session.reader.read(pieces.passage(index), session.question, carried)
    # What was dropped before is counted where it was dropped.
    dropped = max(0, note.dropped - (carried.dropped if carried else 0))
    claim = _without_refusals(note.claim) or (carried.claim if carried else "")
    quotes = tuple(one.model_copy(update={"claim": _without_refusals(one.claim)}) for one in note.quotes)
    note = note.model_copy(update={"dropped": dropped, "claim": claim, "quotes": quotes})
    if not _adds_to(carried, note):
        note = Note(found=False, unchanged=carried is not None, dropped=dropped)
    await session.keep(name, note, places=[pieces.place(index)], of=of)
    return note


def _adds_to(carried: Note | None, note: Note) -> bool:
    """Whether a worker's note says more than the one it was handed.

    Beside checked quotes, one that brings no quote of its own does not: refusals come in many words, and what is made
    up would be believed by everybody after.
    """
    if carried is None:
        return note.found and bool(note.quotes or note.claim)
    return not note.unchanged and any(citation not in carried.citations for citation in note.citations)


def _without_refusals(claim: str) -> str:
    """`claim` without sentences that only say what this piece lacks: later workers would take them for findings."""
    sentences = [span.of(claim) for span in sentence_spans(claim)]
    kept = [one for one in sentences if not (is_refusal(one) or _ABSENCE.match(one))]
    return claim if len(kept) == len(sentences) else " ".join(kept)


def _further(path: Path) -> Path:
    return {**path, "step": path["step"] + 1}
