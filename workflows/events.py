"""What happens while a question is answered, as small typed values.

The command line, a log, a web page: each is a rendering of one stream of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lcdoc.workflows.answer import Answer

Stage = Literal["reading", "indexing", "embedding", "asking"]


@dataclass(frozen=True, slots=True)
class Started:
    """A question is being answered from these documents (their names)."""

    question: str
    documents: tuple[str, ...]
    workflow: str


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` pages (reading) or passages (indexing, embedding, asking) of a document.

    When a model is asked, `document` is the model's name.
    """

    stage: Stage
    document: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class DocumentFailed:
    """A document could not be read and is left out; the message is one line for the user."""

    document: str
    message: str


@dataclass(frozen=True, slots=True)
class PassagesFound:
    """Retrieval chose these passages, as (document id, start, end), out of `searched`."""

    passages: tuple[tuple[str, int, int], ...]
    searched: int


@dataclass(frozen=True, slots=True)
class NoteTaken:
    """A reader noted something: whether the passages answer the question, and how many quotes were checked."""

    found: bool
    quotes: int
    dropped: int


@dataclass(frozen=True, slots=True)
class PartFailed:
    """A model could not read some passages, or not put the answer into words; the work goes on without."""

    message: str


@dataclass(frozen=True, slots=True)
class Partial:
    """The answer as far as it has been written, its quotes not checked yet. Each one replaces the one before."""

    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The last event of every stream."""

    answer: Answer


Event = Started | Progress | DocumentFailed | PassagesFound | NoteTaken | PartFailed | Partial | Answered
