"""What a reading found for the fields of a schema: values with checked quotes, and what had to be refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lcdoc.agents.extract_fields import Path
from lcdoc.agents.notes import Claim, Note, Quote
from lcdoc.agents.quotes import Citation

_SHOWN_CHARACTERS = 80
"""Of a value, in a note's claim."""
_REFUSED = "refused: "


@dataclass(frozen=True, slots=True)
class Finding:
    """A value for a field (of a table: a row, by column), or one that was refused."""

    path: Path
    value: Any
    """As JSON has it; None where it was refused."""
    citations: tuple[Citation, ...] = ()
    confidence: float = 0.0
    refused: str = ""
    """What was given, where its quote does not show it, or it is not of the field's kind."""

    @property
    def text(self) -> str:
        """The field and its value in words."""
        return f"{'.'.join(self.path)}: {value_text(self.value)}"

    @property
    def claim(self) -> Claim:
        return Claim(text=self.text, citations=self.citations, confidence=self.confidence)


def value_text(value: Any) -> str:
    """A value in words: a row as `item Lamp, price 3.2`."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {value_text(one)}" for name, one in value.items() if one is not None)
    return {True: "yes", False: "no", None: "-"}[value] if value is None or isinstance(value, bool) else str(value)


@dataclass(frozen=True, slots=True)
class Extraction:
    """All that one reading found. `dropped` are quotes that are not in the source."""

    findings: tuple[Finding, ...] = ()
    dropped: int = 0

    @property
    def found(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.citations)

    def as_note(self) -> Note:
        """The extraction as a note, for the notebook: `Extraction.of` gives it back."""
        quotes = [
            Quote(text=citation.quote, citation=citation, claim=_written(number, one), confidence=one.confidence)
            for number, one in enumerate(self.findings)
            for citation in one.citations
        ]
        # What was refused has no quote to be kept with.
        refused = [_REFUSED + _written(number, one) for number, one in enumerate(self.findings) if not one.citations]
        said = "; ".join(_short(one.text) for one in self.found)
        return Note(
            found=bool(quotes),
            quotes=tuple(quotes),
            claim="\n".join([said, *refused]) if refused else said,
            confidence=max((one.confidence for one in self.found), default=0.0),
            dropped=self.dropped,
        )

    @classmethod
    def of(cls, note: Note) -> Extraction:
        """The extraction that `as_note` made this note of."""
        by_number: dict[int, Finding] = {}
        for quote in note.quotes:
            number, finding = _read(quote.claim)
            known = by_number.get(number)
            citations = (*(known.citations if known else ()), quote.citation)
            by_number[number] = Finding(finding.path, finding.value, citations, quote.confidence)
        for line in note.claim.split("\n")[1:]:
            number, finding = _read(line.removeprefix(_REFUSED))
            by_number[number] = finding
        return cls(tuple(by_number[number] for number in sorted(by_number)), note.dropped)


def _written(number: int, one: Finding) -> str:
    return json.dumps([number, list(one.path), one.value, one.refused], ensure_ascii=False)


def _read(text: str) -> tuple[int, Finding]:
    number, path, value, refused = json.loads(text)
    return number, Finding(tuple(path), value, refused=refused)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def joined(extractions: Sequence[Extraction]) -> Extraction:
    """What several readings found, in order."""
    return Extraction(
        tuple(finding for one in extractions for finding in one.findings), sum(one.dropped for one in extractions)
    )
