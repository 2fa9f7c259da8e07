"""Map and reduce: every piece of the documents is read on its own, what was noted is put together.

Source: "LLMxMapReduce: Simplified Long-Sequence Processing using Large Language Models" (notes of evidence, rationale,
answer and confidence; collapsed to the same form while they are too long) and "SEGMENT+" (notes filtered by whether
they found anything). What differs: a boolean filters, never words; notes stand in the order of the documents, whatever
order they came in; contradictions are settled by reading both passages again (`conflicts`); questions of how many and
which are answered by listing, and code counts (`counting`).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypedDict

from lcdoc.agents.items import Listing
from lcdoc.agents.listing import list_items, tells_things_apart
from lcdoc.agents.listing_questions import is_listing
from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.notes import Note
from lcdoc.agents.packing import packed
from lcdoc.agents.reader import Passage, Reader
from lcdoc.documents import Document
from lcdoc.workflows.answer import Answer
from lcdoc.workflows.conflicts import Settlement, settle
from lcdoc.workflows.counting import SENTENCES_WARNING, counted
from lcdoc.workflows.events import Pieces, Place, Progress
from lcdoc.workflows.frame import GraphWorkflow
from lcdoc.workflows.map_reduce_plan import plan_of
from lcdoc.workflows.pieces import pieces_of
from lcdoc.workflows.session import Failure, Session
from lcdoc.workflows.sides import sides_of
from lcdoc.workflows.workflow import Plan

if TYPE_CHECKING:
    from langgraph.graph import StateGraph

    from lcdoc.workflows.rehearsal import Stage

MOST_MISSES = 8
"""Failures in a row after which no more is sent, until one piece was read again by itself."""
MOST_MISSES_AGAIN = 3
"""The same for what is read again."""
_SETTLEMENT = "settlement"


def _updated(old: dict[str, Failure | None], new: dict[str, Failure | None]) -> dict[str, Failure | None]:
    return {name: failure for name, failure in {**old, **new}.items() if failure}


class _State(TypedDict, total=False):
    pieces: list[Place]
    read: Annotated[list[int], _joined]
    """Numbers of the pieces whose notes are kept."""
    failures: Annotated[dict[str, Failure | None], _updated]
    """By step; None takes one away that was made good."""
    level: list[str]
    """Names of the notes that the answer is to be made from, in the order of the pieces."""
    packs: list[list[str]]
    """Of those, what is merged in this round."""


class _Piece(TypedDict):
    """What one reading is sent."""

    index: int
    place: Place


class _Pack(TypedDict):
    """What one merging is sent."""

    names: list[str]
