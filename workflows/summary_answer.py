"""What summarising returns: sentences with checked citations, under the sections they are about."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from lcdoc.workflows.answer import Answer

SUMMARY_SCHEMA = "lcdoc.summary/1"
"""Names the JSON form; the number changes when a field is renamed or removed (docs/json.md)."""


class SummarySection(BaseModel):
    """A paragraph: claims about one top-level section of a document."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    document_id: str
    title: str
    pages: tuple[int, ...]
    """Numbers of the pages that its claims cite, from 1."""
    claims: tuple[int, ...]
    """Which of the answer's claims it has, in order, from 0. Empty: nothing is said of this section by itself."""
    covered: bool
    """Whether any claim cites it, under whatever title that stands."""


class SummaryAnswer(Answer):
    """A summary. `question` is what it was to be about, empty for everything; `claims` are its sentences, in order."""

    words: int = 0
    """How many it has."""
    words_asked: int = 0
    sections: tuple[SummarySection, ...] = ()
    """All top-level sections of the documents, in order."""
    points_dropped: int = 0
    """Sentences that a reader gave with no quote that stands in the source; they are not shown."""

    @property
    def coverage(self) -> float:
        """Share of the sections that some claim cites, 0 to 1; 1 where there are none."""
        return sum(section.covered for section in self.sections) / len(self.sections) if self.sections else 1.0

    @property
    def uncovered(self) -> tuple[str, ...]:
        """Titles of the sections that no claim cites."""
        return tuple(section.title for section in self.sections if not section.covered)

    @property
    def text(self) -> str:
        """The sentences, a paragraph for each section that has some."""
        shown = (section.claims for section in self.sections if section.claims)
        return "\n\n".join(" ".join(self.claims[number].text for number in numbers) for numbers in shown)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values in the form that docs/json.md describes."""
        return super().to_json() | {
            "schema": SUMMARY_SCHEMA,
            "coverage": round(self.coverage, 3),
            "uncovered": list(self.uncovered),
        }
