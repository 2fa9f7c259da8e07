"""What happens while a question is answered, as small typed values.

The command line, a log, a web page: each is a rendering of one stream of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lcdoc.agents.models.budget import Budget
from lcdoc.workflows.answer import Answer, Usage

Stage = Literal["reading", "indexing", "embedding", "fetching", "loading", "asking", "keeping"]
Place = tuple[str, int, int]
"""A span of a document: its id, start, end."""


@dataclass(frozen=True, slots=True)
class Started:
    """A question is being answered from these documents (their names)."""

    question: str
    documents: tuple[str, ...]
    workflow: str
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The run is one that was cut off; so many of its notes are kept, and what they were read from is not read again.

    `pieces` are those of its latest `Pieces` or `PassagesFound`; `read` and `found` the places of its notes, all and
    those that found something.
    """

    run_id: str
    notes: int
    pieces: tuple[Place, ...] = ()
    read: tuple[Place, ...] = ()
    found: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` pages (reading), passages (indexing, embedding, asking) or tokens (keeping) of a document.

    Where a model is asked, fetched (in MB) or loaded (in parts), `document` is the model's name.
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

    passages: tuple[Place, ...]
    searched: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """The workflow that answers, and why this one."""

    workflow: str
    reason: str


@dataclass(frozen=True, slots=True)
class Pieces:
    """What is going to be read, in the order of the documents, as (document id, start, end)."""

    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class NoteTaken:
    """A reader noted something on passages, or merged notes `of` others into one; `name` is the note's in the run."""

    found: bool
    quotes: int
    """How many were checked and kept."""
    dropped: int
    """How many were not in the source."""
    name: str = ""
    places: tuple[Place, ...] = ()
    of: tuple[str, ...] = ()
    claim: str = ""
    pages: tuple[int, ...] = ()
    """Where the quotes stand."""
    confidence: float = 0.0
    unchanged: bool = False
    """Nothing was added to what was carried in."""


@dataclass(frozen=True, slots=True)
class ReadThrough:
    """Pieces are read through caches of the model that are held by this recipe."""

    recipe: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Notes say different things, each with checked quotes."""

    claims: tuple[str, ...]
    pages: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """A conflict was settled by reading the passages again together; `claim` None: it could not be."""

    claims: tuple[str, ...]
    claim: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Stepped:
    """A step over a tree of summaries: where to (its title or summary), and why."""

    action: Literal["enter", "back", "read", "stop"]
    node: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PartFailed:
    """A model could not read some passages, or not put the answer into words; the work goes on without."""

    message: str


@dataclass(frozen=True, slots=True)
class Spent:
    """What the run has cost so far, and what it may cost."""

    usage: Usage
    budget: Budget


@dataclass(frozen=True, slots=True)
class Partial:
    """The answer as far as it has been written, its quotes not checked yet. Each one replaces the one before."""

    text: str


@dataclass(frozen=True, slots=True)
class Answered:
    """The last event of every stream."""

    answer: Answer


Event = (
    Started
    | Resumed
    | Chosen
    | Progress
    | DocumentFailed
    | PassagesFound
    | Pieces
    | NoteTaken
    | ReadThrough
    | Conflict
    | Settled
    | Stepped
    | PartFailed
    | Spent
    | Partial
    | Answered
)
