"""The shapes of what models answer: flat, few fields, what decides first. Numbers of evidence count from 1."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from lcdoc.agents.models.model import Profile

_LARGEST = 5.0


def _clamped(value: float) -> float:
    # Also for NaN, which compares with nothing.
    return min(_LARGEST, value) if value > 0 else 0.0


Rating = Annotated[float, AfterValidator(_clamped), Field(default=0.0, description="from 0 to 5")]


class Reading(BaseModel):
    """What passages say about a question."""

    found: bool = Field(description="whether the passages say something that helps to answer")
    quotes: list[str] = Field(default_factory=list, description="sentences copied exactly from the passages")
    claim: str = Field(default="", description="what the quotes say about the question")
    confidence: Rating


class ReasonedReading(BaseModel):
    """What passages say about a question, with why, between the quotes and the claim."""

    found: bool = Field(description="whether the passages say something that helps to answer")
    quotes: list[str] = Field(default_factory=list, description="sentences copied exactly from the passages")
    rationale: str = Field(default="", description="how the quotes bear on the question")
    claim: str = Field(default="", description="what the quotes say about the question")
    confidence: Rating


class Merging(BaseModel):
    """What numbered evidence says together, and which of it is needed."""

    found: bool = Field(description="whether any evidence helps to answer")
    keep: list[int] = Field(default_factory=list, description="numbers of the evidence that is needed")
    claim: str = Field(default="", description="what the kept evidence says together")
    confidence: Rating


class AnswerClaim(BaseModel):
    """A statement of an answer and the numbers of the evidence for it."""

    text: str = Field(description="one statement in a full sentence")
    evidence: list[int] = Field(default_factory=list, description="numbers of the quotes that show it")


class Answering(BaseModel):
    """An answer, claim by claim."""

    found: bool = Field(description="whether the evidence answers the question")
    claims: list[AnswerClaim] = Field(default_factory=list, description="the answer; empty if found is false")


class DirectClaim(BaseModel):
    """A statement of an answer read straight from documents, the words that show it first."""

    quotes: list[str] = Field(default_factory=list, description="sentences copied exactly from the documents")
    text: str = Field(description="one statement in a full sentence")
    confidence: Rating


class DirectAnswering(BaseModel):
    """An answer read straight from documents, claim by claim."""

    found: bool = Field(description="whether the documents answer the question")
    claims: list[DirectClaim] = Field(default_factory=list, description="the answer; empty if found is false")


class SummaryItem(BaseModel):
    """A point of a summary."""

    text: str = Field(description="one to three full sentences")
    quote: str = Field(default="", description="a sentence copied exactly from the passages")


class Summarizing(BaseModel):
    """A summary, point by point."""

    points: list[SummaryItem]


class CondensedItem(BaseModel):
    """A point of a shortened summary and the numbers of the points it is made of."""

    text: str = Field(description="one to three full sentences")
    evidence: list[int] = Field(default_factory=list, description="numbers of the points that say it")


class Condensing(BaseModel):
    """A shortened summary, point by point."""

    points: list[CondensedItem]


class Choosing(BaseModel):
    """Which option to open."""

    option: int = Field(description="number of the option, 0 for none")
    confidence: Rating


class ReasonedChoosing(BaseModel):
    """Which option to open, the reason first."""

    reason: str = Field(default="", description="what is needed next and where it is likely to be")
    option: int = Field(description="number of the option, 0 for none")
    confidence: Rating


class Judging(BaseModel):
    """Which claims the text bears out."""

    supported: list[int] = Field(default_factory=list, description="numbers of the claims shown to be true")
    contradicted: list[int] = Field(default_factory=list, description="numbers of the claims shown to be wrong")
    best: int = Field(default=0, description="number of the best supported claim, 0 for none")
    confidence: Rating


class ReasonedJudging(BaseModel):
    """Which claims the text bears out, the reason first."""

    reason: str = Field(default="", description="what the text says about each claim")
    supported: list[int] = Field(default_factory=list, description="numbers of the claims shown to be true")
    contradicted: list[int] = Field(default_factory=list, description="numbers of the claims shown to be wrong")
    best: int = Field(default=0, description="number of the best supported claim, 0 for none")
    confidence: Rating


READINGS: dict[Profile, type[Reading | ReasonedReading]] = {"small": Reading, "large": ReasonedReading}
CHOICES: dict[Profile, type[Choosing | ReasonedChoosing]] = {"small": Choosing, "large": ReasonedChoosing}
JUDGEMENTS: dict[Profile, type[Judging | ReasonedJudging]] = {"small": Judging, "large": ReasonedJudging}
