"""Notes that contradict each other: found by code, settled by reading the passages of both sides again together.

Sides are compared by what their quotes show, never by how many notes take them: one note with evidence outweighs any
number without. Source: "LongAgent: Scaling Language Models to 128k Context through Multi-Agent Collaboration"
(inter-member conflicts are resolved by giving one member the chunks of both).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lcdoc.agents.notes import Claim, Draft, Judgement, same_evidence
from lcdoc.agents.reader import Passage
from lcdoc.workflows.events import Conflict, Place, Settled
from lcdoc.workflows.session import Session
from lcdoc.workflows.sides import Side

MAX_REREADINGS = 3
"""Of one question: sides beyond are reported as they are."""
SURE = 3.0
"""The least confidence of a judgement that finds two different claims both true."""
CONTRADICTED_CONFIDENCE = 1.0
"""The most that is given to a side that did not stand."""
_MOST_SHOWN = MAX_REREADINGS + 1
_SHOWN_CHARACTERS = 160
"""Of a claim, in a warning."""
_PREFIX = "conflict/"

Standing = Literal["stands", "falls", "open"]


class Settlement(BaseModel):
    """A conflict and what came of it."""

    model_config = ConfigDict(frozen=True)

    sides: tuple[Side, ...]
    standing: tuple[Standing, ...]
    """Of each side: it holds, it does not, or that could not be told."""
    reason: str = ""

    @property
    def holds(self) -> Side | None:
        """The side that stands against another; None where none fell."""
        if "falls" not in self.standing or "stands" not in self.standing:
            return None
        return self.sides[self.standing.index("stands")]

    @property
    def compatible(self) -> bool:
        """Whether all sides stand: they only seemed to disagree."""
        return all(standing == "stands" for standing in self.standing)

    def fallen(self) -> dict[str, frozenset[str]]:
        """Names of the notes of sides that fell, with what they said otherwise; a note may be on several sides."""
        fallen: dict[str, frozenset[str]] = {}
        for side, standing in zip(self.sides, self.standing, strict=True):
            if standing == "falls":
                fallen |= {name: fallen.get(name, frozenset()) | side.values for name in side.names}
        return fallen

    def warning(self, names: Mapping[str, str]) -> str | None:
        """The conflict in a line for the user; None where there is none after all. `names` are the documents' by id."""
        if self.compatible:
            return None
        said = " against ".join(f'"{_short(side.claim)}" ({_place(side, names)})' for side in self.sides[:_MOST_SHOWN])
        if (held := self.holds) is None:
            return f"the text disagrees: {said}; reading both again together did not settle it"
        why = f": {self.reason}" if self.reason else ""
        return f'the text disagrees: {said}; read again together, "{_short(held.claim)}" stands{why}'

    def shown_in(self, draft: Draft) -> Draft:
        """`draft` with a claim for each side that it leaves out, cited, those that fell as contradicted.

        Also where all sides stand: they may be of different times or places, and a weak reader finds both in the text.
        """
        if not draft.found:
            return draft
        claims = list(draft.claims)
        for side, standing in list(zip(self.sides, self.standing, strict=True))[:_MOST_SHOWN]:
            if any(same_evidence(a, b) for claim in claims for a in claim.citations for b in side.citations):
                continue
            falls = standing == "falls"
            text = f"Contradicted elsewhere in the text: {side.claim}" if falls else f"It also says: {side.claim}"
            confidence = min(side.confidence, CONTRADICTED_CONFIDENCE) if falls else side.confidence
            claims.append(Claim(text=text, citations=side.citations, confidence=confidence))
        return draft.model_copy(update={"claims": tuple(claims)})


async def settle(session: Session, sides: Sequence[Side], *, question: str | None = None) -> Settlement:
    """Which sides stand when the passages of two of them at a time are read again together.

    `question` is what they are about, where that is not the session's question.

    At most `MAX_REREADINGS` calls; what was settled before in this run is not asked again. Emits Conflict and Settled.
    Raises ModelError.
    """
    name = f"{_PREFIX}{_digest(sides)}"
    notebook, run_id = session.library.notebook, session.run.id
    kept = notebook.note(run_id, name)
    if kept is not None:
        return Settlement.model_validate(kept)
    claims = tuple(side.claim for side in sides)
    session.emit(Conflict(claims, tuple(side.pages for side in sides)))
    standing: list[Standing] = ["open"] * len(sides)
    holds, reasons = 0, []
    for other in range(1, min(len(sides), MAX_REREADINGS + 1)):
        pair = (sides[holds], sides[other])
        passages = _passages(session, pair)
        asked = question or session.question
        judged = await session.reader.judge(asked, [side.as_claim() for side in pair], passages=passages)
        for index, verdict in zip((holds, other), _standing(judged), strict=True):
            # What fell to one side does not stand up again; what stood may yet fall.
            standing[index] = verdict if verdict != "open" or standing[index] == "open" else standing[index]
        if standing[holds] != "stands" and standing[other] == "stands":
            holds = other
        if judged.reason:
            reasons.append(judged.reason)
    settlement = Settlement(sides=tuple(sides), standing=tuple(standing), reason=" ".join(dict.fromkeys(reasons)))
    await notebook.keep(run_id, name, settlement.model_dump(mode="json"))
    held = settlement.holds
    session.emit(Settled(claims, held.claim if held else None, settlement.reason))
    return settlement


def settlements(session: Session) -> list[Settlement]:
    """What was settled in this run."""
    kept = session.library.notebook.notes(session.run.id, _PREFIX)
    return [Settlement.model_validate(settled) for settled in kept.values()]


def _standing(judged: Judgement) -> tuple[Standing, Standing]:
    """What a judgement of two claims says of each: where only one is borne out, the other falls."""
    first, second = (verdict == "supported" for verdict in judged.verdicts)
    if first and second:
        # An unsure reader finds both in their quotes, and has said nothing.
        return ("stands", "stands") if judged.confidence >= SURE else ("open", "open")
    if first or second:
        return ("stands", "falls") if first else ("falls", "stands")
    return "open", "open"


def _passages(session: Session, sides: Sequence[Side]) -> list[Passage]:
    """The passages of the library around the quotes of each side, with those before and after them."""
    places: list[Place] = []
    for side in sides:
        citation = side.citations[0]
        chunks = session.library.chunks(citation.document_id)
        inside = [index for index, chunk in enumerate(chunks) if chunk.span.overlaps(citation.span)]
        if not inside:
            continue
        first, last = chunks[max(0, inside[0] - 1)], chunks[min(len(chunks) - 1, inside[-1] + 1)]
        place = (citation.document_id, first.span.start, last.span.end)
        # Quotes that stand close together are in one passage.
        for other in [
            other for other in places if other[0] == place[0] and other[1] < place[2] and place[1] < other[2]
        ]:
            places.remove(other)
            place = (place[0], min(place[1], other[1]), max(place[2], other[2]))
        places.append(place)
    return [session.passage(place) for place in places]


def _digest(sides: Sequence[Side]) -> str:
    named = "\n".join(f"{side.names} {side.claim}" for side in sides)
    return blake2b(named.encode(), digest_size=8).hexdigest()


def _short(claim: str) -> str:
    return claim if len(claim) <= _SHOWN_CHARACTERS else f"{claim[: _SHOWN_CHARACTERS - 1].rstrip()}…"


def _place(side: Side, names: Mapping[str, str]) -> str:
    """`page 12`, of several documents with the name of the one that is cited first."""
    name = names.get(side.citations[0].document_id, "") if len(names) > 1 else ""
    pages = f"page{'s'[: len(side.pages) > 1]} {', '.join(map(str, side.pages))}"
    return f"{name}, {pages}" if name else pages
