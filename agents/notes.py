"""What readers hand back: notes, drafts, summaries, choices, judgements. Every quote was checked against its source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from lcdoc.agents.folding import fold
from lcdoc.agents.quotes import Citation, check_quote
from lcdoc.documents import Document, Span

Confidence = Annotated[float, Field(ge=0, le=5)]
"""How sure the reader is, from 0 to 5; an offline reader's c is right in about c of 5 cases."""
Support = Literal["quoted", "unsupported"]
Verdict = Literal["supported", "contradicted", "not_shown"]
"""What the text says of a claim: that it is true in every part, that it is wrong, or neither."""
UNQUOTED_ANSWER = "the model gave an answer without any quote from the documents; it is not shown"
"""Warns of claims of which none has a checked quote."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Quote(_Value):
    """A piece of evidence: words that stand in the source, and the place where they were found."""

    text: str
    """As the reader gave it; `citation.quote` is the source's own text."""
    citation: Citation
    claim: str = ""
    """What this quote alone shows, where the reader says so; else the note's claim covers all quotes."""
    confidence: Confidence = 0.0


class Note(_Value):
    """What one reading (or a merge of several) yields for a question. Make one with `checked_note`."""

    found: bool
    """Whether the text that was read says anything about the question."""
    quotes: tuple[Quote, ...] = ()
    """The evidence, strongest first."""
    claim: str = ""
    """What the evidence says about the question, in one or a few sentences."""
    confidence: Confidence = 0.0
    unchanged: bool = False
    """Nothing was added to the note that was carried in: it is handed on as it was."""
    dropped: Annotated[int, Field(ge=0)] = 0
    """Quotes that the reader gave and the source does not have."""

    @property
    def citations(self) -> tuple[Citation, ...]:
        return tuple(quote.citation for quote in self.quotes)


class Claim(_Value):
    """A statement of an answer, with the evidence for it."""

    text: str
    citations: tuple[Citation, ...] = ()
    confidence: Confidence = 0.0
    unquoted_figures: tuple[str, ...] = ()
    """Numbers in `text` that neither its quotes nor the question have: computed, or made up."""

    @property
    def support(self) -> Support:
        return "quoted" if self.citations else "unsupported"


class Draft(_Value):
    """An answer as a reader gives it. `found` false: the notes hold no answer, and there are no claims."""

    found: bool
    claims: tuple[Claim, ...] = ()
    confidence: Confidence = 0.0
    dropped: Annotated[int, Field(ge=0)] = 0
    """Quotes that the reader gave for it and the source does not have; none where it answers from notes."""
    warnings: tuple[str, ...] = ()
    """What was left out of it, for the user."""

    @property
    def text(self) -> str:
        """The claims, a line each."""
        return "\n".join(claim.text for claim in self.claims)


class SummaryPoint(_Value):
    """A statement of a summary, under the titles of the sections it is about (outermost first)."""

    text: str
    heading_path: tuple[str, ...] = ()
    citations: tuple[Citation, ...] = ()


class Summary(_Value):
    """What passages say, in order, point by point."""

    points: tuple[SummaryPoint, ...] = ()

    @property
    def text(self) -> str:
        """The points as paragraphs, one for each run of points under the same heading."""
        paragraphs: list[str] = []
        heading: tuple[str, ...] | None = None
        for point in self.points:
            if paragraphs and point.heading_path == heading:
                paragraphs[-1] += f" {point.text}"
            else:
                paragraphs.append(point.text)
            heading = point.heading_path
        return "\n\n".join(paragraphs)

    @property
    def words(self) -> int:
        return sum(len(point.text.split()) for point in self.points)


class Choice(_Value):
    """Which of the options offered to go on with: its index, or None when none is worth it."""

    option: int | None
    reason: str = ""
    confidence: Confidence = 0.0


class Judgement(_Value):
    """What the text says of several claims. More than one may be supported, if they are compatible."""

    verdicts: tuple[Verdict, ...]
    """One for each claim, in order."""
    best: int | None = None
    """Index of the supported claim that answers best; None when none is supported."""
    reason: str = ""
    confidence: Confidence = 0.0


def checked_note(
    places: Sequence[tuple[Document, Span]],
    *,
    found: bool,
    quotes: Sequence[str] = (),
    claim: str = "",
    confidence: float = 0.0,
    unchanged: bool = False,
) -> Note:
    """A note whose quotes stand in one of the documents of `places`; those that do not are dropped and counted.

    `places` are the passages that were read: of several occurrences of a quote, the one nearest to its passage is
    cited. Raises pydantic's ValidationError when `confidence` is outside 0 to 5.
    """
    kept: list[Quote] = []
    dropped = 0
    for text in quotes:
        citation = best_citation(places, text)
        if citation is None:
            dropped += 1
        elif all(citation.parts != other.citation.parts for other in kept):
            kept.append(Quote(text=text, citation=citation, confidence=confidence))
    return Note(
        found=found,
        quotes=tuple(kept),
        claim=claim,
        confidence=confidence,
        unchanged=unchanged,
        dropped=dropped,
    )


def best_citation(places: Sequence[tuple[Document, Span]], quote: str) -> Citation | None:
    """The citation of `quote` in the first place whose passage holds it, else in the first document that does."""
    elsewhere: Citation | None = None
    for document, span in places:
        citation = check_quote(document, quote, near=span)
        if citation is not None and citation.span.overlaps(span):
            return citation
        elsewhere = elsewhere or citation
    return elsewhere


def same_evidence(one: Citation, other: Citation) -> bool:
    """Whether two quotes show the same: they overlap in the source where they end, or have the same words."""
    if one.document_id == other.document_id and any(a.overlaps(b) for a in one.parts[-1:] for b in other.parts[-1:]):
        return True
    return fold(one.quote) == fold(other.quote)
