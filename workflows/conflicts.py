"""Notes that contradict each other: found by code, settled by reading the passages of both sides again together.

Sides are compared by what their quotes show, never by how many notes take them: one note with evidence outweighs any
number without. Source: "LongAgent: Scaling Language Models to 128k Context through Multi-Agent Collaboration"
(inter-member conflicts are resolved by giving one member the chunks of both).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lcdoc.agents.evidence import FIGURES, NAMES
from lcdoc.agents.notes import Claim, Draft, Judgement, Note, same_evidence
from lcdoc.agents.questions import Question
from lcdoc.agents.quotes import Citation
from lcdoc.agents.reader import Passage
from lcdoc.agents.stems import QUESTION_FILLERS, STOP_WORDS, stem, stems_of, tokens_of
from lcdoc.workflows.events import Conflict, Place, Settled
from lcdoc.workflows.session import Session

MAX_REREADINGS = 3
"""Of one question: sides beyond are reported as they are."""
CONFIDENT = 3.0
"""The least confidence of a note, and of a judgement, that is taken to say something."""
CONTRADICTED_CONFIDENCE = 1.0
"""The most that is given to a side that did not stand."""
_ABOUT_SHARE = 0.5
"""Of the question's words, what a note has to have with its quotes to be about what is asked."""
_ALIKE = 0.5
"""From which two sentences say the same but for their figures, as the share of common words."""
_SENTENCE_CHARACTERS = 160

_FIGURE = re.compile(r"\d{1,2}[:.]\d\d(?:[:.]\d\d)?(?=\D|$)(?![.,]?\d)|\d+(?:[.,]\d+)*")
_YEAR = re.compile(r"1[0-9]\d\d|20\d\d")
_NAME = re.compile(r"\b[A-Z][\w'’-]+")
_NUMBER_WORDS = {
    **dict(zip(["zero", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], "0 2 3 4 5 6 7 8 9 10".split(), strict=True)),
}
_NEGATION = re.compile(r"\b(?:not|no|never|neither|nor|cannot|nicht|kein\w*|nie|pas|jamais|aucune?)\b|n['’]t\b", re.I)
_YES_OR_NO = re.compile(
    r"^(?:is|are|was|were|do|does|did|has|have|had|can|could|may|might|must|will|would|should)\b", re.IGNORECASE
)
_FILLERS = frozenset(map(stem, QUESTION_FILLERS))
_YES, _NO = frozenset({"yes"}), frozenset({"no"})
_YES_NO = _YES | _NO

Standing = Literal["stands", "falls", "open"]


class Side(BaseModel):
    """What some notes say, by the surest of them."""

    model_config = ConfigDict(frozen=True)

    names: tuple[str, ...]
    """Of the notes, the surest first."""
    claim: str
    citations: tuple[Citation, ...]
    confidence: float
    values: frozenset[str]
    """What differs from the other sides: figures, names, or yes and no."""

    @property
    def pages(self) -> tuple[int, ...]:
        return tuple(sorted({page for citation in self.citations for page in citation.pages}))

    def as_claim(self) -> Claim:
        return Claim(text=self.claim, citations=self.citations, confidence=self.confidence)


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
        """Names of the notes of sides that fell, with what they said otherwise."""
        return {
            name: side.values
            for side, standing in zip(self.sides, self.standing, strict=True)
            if standing == "falls"
            for name in side.names
        }

    def warning(self) -> str | None:
        """The conflict in a line for the user; None where there is none after all."""
        if self.compatible:
            return None
        said = " against ".join(f'"{side.claim}" ({_on(side.pages)})' for side in self.sides)
        if (held := self.holds) is None:
            return f"the text disagrees: {said}; reading both again together did not settle it"
        why = f": {self.reason}" if self.reason else ""
        return f'the text disagrees: {said}; read again together, "{held.claim}" stands{why}'

    def shown_in(self, draft: Draft) -> Draft:
        """`draft` with a claim for each side that it leaves out, cited, those that fell as contradicted."""
        if not draft.found or self.compatible:
            return draft
        claims = list(draft.claims)
        for side, standing in zip(self.sides, self.standing, strict=True):
            if any(same_evidence(a, b) for claim in claims for a in claim.citations for b in side.citations):
                continue
            falls = standing == "falls"
            text = f"Contradicted elsewhere in the text: {side.claim}" if falls else f"It also says: {side.claim}"
            confidence = min(side.confidence, CONTRADICTED_CONFIDENCE) if falls else side.confidence
            claims.append(Claim(text=text, citations=side.citations, confidence=confidence))
        return draft.model_copy(update={"claims": tuple(claims)})


def sides_of(question: str, notes: Sequence[tuple[str, Note]]) -> tuple[Side, ...]:
    """The sides that named notes take, the surest first; empty where no two exclude each other.

    Only confident notes with checked quotes take a side, and only where the question asks for one figure, date or name,
    or for yes or no, or where sentences say the same with other figures. This is code's guess at a conflict: whether
    it is one is for `settle`.
    """
    asked = Question.of(question)
    sure = sorted(
        ((name, note) for name, note in notes if note.found and note.quotes and note.confidence >= CONFIDENT),
        key=lambda named: (-named[1].confidence, named[0]),
    )
    groups: list[tuple[frozenset[str], list[tuple[str, Note]]]] = []
    for name, note in sure:
        values = _values(asked, note)
        if not values or not _is_about(asked, note):
            continue
        same = next((group for group in groups if not _exclude(asked, group, (values, [(name, note)]))), None)
        if same is None:
            groups.append((values, [(name, note)]))
        else:
            same[1].append((name, note))
    if len(groups) < 2:
        return ()
    return tuple(_side(values, members) for values, members in groups)


def _side(values: frozenset[str], members: Sequence[tuple[str, Note]]) -> Side:
    _, surest = members[0]
    showing = [quote.citation for quote in surest.quotes if _shows(quote.citation, values)]
    return Side(
        names=tuple(name for name, _ in members),
        claim=_claim(surest),
        citations=tuple(showing) or surest.citations[:1],
        confidence=surest.confidence,
        values=values,
    )


def _claim(note: Note) -> str:
    return note.claim or note.quotes[0].citation.quote


def _is_about(asked: Question, note: Note) -> bool:
    """Whether a note has the question's names and most of its words."""
    texts = [_claim(note)]
    for citation in note.citations:
        texts += [citation.quote, *citation.headings]
    said = set(stems_of("\n".join(texts)))
    wanted = [s for s in asked.stems if s not in _FILLERS] or list(asked.stems)
    return asked.names <= said and len(said.intersection(wanted)) >= _ABOUT_SHARE * len(wanted)


def _values(asked: Question, note: Note) -> frozenset[str]:
    """What a note answers, bare: figures, names, yes or no; empty where its claim has none."""
    claim = _claim(note)
    if _YES_OR_NO.match(asked.text):
        return _NO if _NEGATION.search(claim) else _YES
    if asked.kind in NAMES:
        # Not the first word of the sentence, unless the whole claim is a name.
        begins = set() if len(claim.split()) <= 3 else {claim.split()[0]}
        names = {s for name in _NAME.findall(claim) if name not in begins for s in stems_of(name)}
        return frozenset(names - set(asked.stems))
    known = set(asked.numbers) | _said(asked.text)
    figures = _said(claim) - known
    if asked.kind == "date":
        figures |= (_MONTHS & set(tokens_of(claim))) - asked.known
    elif asked.kind in FIGURES and any(not _YEAR.fullmatch(figure) for figure in figures):
        figures = {figure for figure in figures if not _YEAR.fullmatch(figure)}
    return frozenset(figures)


def _said(text: str) -> set[str]:
    """The figures of `text`, numbers in words included: `07:02` is `7.02`, `1.50` is `1.5`, `1,250` is `1250`."""
    figures = {_plain(match) for match in _FIGURE.findall(text)}
    return figures | {_NUMBER_WORDS[token] for token in tokens_of(text) if token in _NUMBER_WORDS}


def _plain(figure: str) -> str:
    bare = figure.replace(",", "").replace(":", ".").lstrip("0")
    return (bare.rstrip("0").rstrip(".") if "." in bare else bare) or "0"


def _shows(citation: Citation, values: frozenset[str]) -> bool:
    """Whether a quote has some of the figures or names; for yes and no every quote counts."""
    text = citation.quote
    return values <= _YES_NO or not values.isdisjoint({*_said(text), *stems_of(text), *tokens_of(text)})


_Group = tuple[frozenset[str], list[tuple[str, Note]]]


def _exclude(asked: Question, group: _Group, other: _Group) -> bool:
    """Whether two groups answer differently, as far as code can tell."""
    (values, members), (others, other_members) = group, other
    if asked.kind in NAMES:
        return values.isdisjoint(others)
    if values <= others or others <= values:
        return False
    if asked.kind in FIGURES or _YES_OR_NO.match(asked.text):
        return True
    return _alike(_claim(members[0][1]), _claim(other_members[0][1]))


def _alike(one: str, other: str) -> bool:
    """Whether two short claims say the same but for their figures."""
    if max(len(one), len(other)) > _SENTENCE_CHARACTERS:
        return False
    words, others = (
        {s for s in stems_of(text) if not s[0].isdigit() and s not in STOP_WORDS} - set(map(stem, _NUMBER_WORDS))
        for text in (one, other)
    )
    return len(words & others) >= _ALIKE * max(1, len(words | others))


async def settle(session: Session, sides: Sequence[Side]) -> Settlement:
    """Which sides stand when the passages of two of them at a time are read again together.

    At most `MAX_REREADINGS` calls; what was settled before in this run is not asked again. Emits Conflict and Settled.
    Raises ModelError.
    """
    name = f"conflict/{_digest(sides)}"
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
        judged = await session.reader.judge(session.question, [side.as_claim() for side in pair], passages=passages)
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


def _standing(judged: Judgement) -> tuple[Standing, Standing]:
    """What a judgement of two claims says of each: where only one is borne out, the other falls."""
    first, second = (verdict == "supported" for verdict in judged.verdicts)
    if first and second:
        # An unsure reader finds both in their quotes, and has said nothing.
        return ("stands", "stands") if judged.confidence >= CONFIDENT else ("open", "open")
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


def without(note: Note, values: frozenset[str]) -> Note:
    """What is left of a note when what it says of `values` fell: its other quotes, or nothing."""
    quotes = tuple(quote for quote in note.quotes if not _shows(quote.citation, values))
    kept = tuple(quote.model_copy(update={"claim": ""}) for quote in quotes)
    return note.model_copy(update={"found": bool(kept), "quotes": kept, "claim": ""})


def _digest(sides: Sequence[Side]) -> str:
    named = "\n".join(f"{side.names} {side.claim}" for side in sides)
    return blake2b(named.encode(), digest_size=8).hexdigest()


def _on(pages: Sequence[int]) -> str:
    return f"page{'s'[: len(pages) > 1]} {', '.join(map(str, pages))}"
