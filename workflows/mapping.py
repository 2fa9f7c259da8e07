"""What map-reduce will read, and what that takes: the pieces of the documents, and the plan before anything is paid."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from lcdoc.agents.listing import list_items
from lcdoc.agents.listing_questions import is_listing
from lcdoc.agents.models.model import Request
from lcdoc.agents.notes import Claim, Note
from lcdoc.agents.offline_reader import ROOM_TOKENS
from lcdoc.agents.reader import Passage, Reader
from lcdoc.documents import Document
from lcdoc.memory import Library
from lcdoc.retrieval.tokens import estimate_tokens
from lcdoc.workflows.collapse import merge_packs, note_tokens
from lcdoc.workflows.conflicts import MAX_REREADINGS
from lcdoc.workflows.events import Place
from lcdoc.workflows.pieces import (
    MOST_LISTED_TOKENS,
    MOST_PIECE_TOKENS,
    cut,
    list_room,
    map_room,
    pieces_found,
)
from lcdoc.workflows.search import Search
from lcdoc.workflows.workflow import Plan, Requests

if TYPE_CHECKING:
    from lcdoc.workflows.rehearsal import Stage

_LIKELY_PASSAGES = 12
"""Read for the plan, to know about how long a note is."""
_FINDING_PASSAGES = 48
"""The best so many passages of the documents; the pieces they lie in are those likely to be found of use."""
_LONGEST_NOTE_TOKENS = 1_000
_SECONDS_PER_PIECE = 0.3


def pieces_to_read(library: Library, documents: Sequence[Document], question: str, reader: Reader) -> list[Passage]:
    """All of `documents` in pieces for `reader`, one reading each, in order.

    Raises ModelConfigError where the window has no room for a sentence.
    """
    room = list_room(reader, question) if is_listing(question) else map_room(reader, question)
    return cut(library, documents, room_tokens=room, count=reader.count)


def passages_in(library: Library, places: Sequence[Place]) -> int:
    """How many of the library's passages begin in `places`, which do not overlap."""
    count = 0
    for document_id in {place[0] for place in places}:
        starts = [chunk.span.start for chunk in library.chunks(document_id)]
        inside = [(start, end) for place_id, start, end in places if place_id == document_id]
        count += sum(bisect_left(starts, end) - bisect_left(starts, start) for start, end in inside)
    return count


async def plan_of(
    library: Library, search: Search, question: str, documents: Sequence[Document], stage: Stage | None
) -> Plan:
    """A call for each piece, merges as far as notes of a likely length need them, an answer.

    At most: every piece yields the longest note, all of it is merged, and three conflicts are read again. Offline: no
    calls. Raises ModelConfigError.
    """
    if stage is None:
        room = min(ROOM_TOKENS, MOST_LISTED_TOKENS if is_listing(question) else MOST_PIECE_TOKENS)
        pieces = cut(library, documents, room_tokens=room, count=estimate_tokens)
        seconds = round(_SECONDS_PER_PIECE * len(pieces), 1)
        return Plan(calls=0, tokens_in=0, tokens_out=0, cost_usd=0.0, seconds=seconds)
    reader, listing = stage.reader, is_listing(question)
    pieces = pieces_to_read(library, documents, question, reader)
    if not pieces:
        return stage.plan(Requests(reading=(), answering=(), widening=()))
    reading: list[Request] = []
    for piece in pieces:
        reading += await stage.sent(partial(_reading, piece, question, listing=listing))
    best, _ = await search.best(question, documents, _FINDING_PASSAGES)
    noted = await stage.noted(best[:_LIKELY_PASSAGES], question)
    likely = noted.model_copy(update={"found": True})
    # As if its quotes had come from several pieces: one note needs no merging.
    notes = [likely.model_copy(update={"quotes": (quote,)}) for quote in likely.quotes]
    room = reader.room(question)
    merging = await stage.sent(lambda reader: reader.merge(notes, question))
    likely_merges = at_most_merges = 0
    near = sum(any(_holds(piece, passage) for passage in best) for piece in pieces)
    if merging and not listing:
        # Items are put together by code; what is stated is short.
        likely_merges = _merges([note_tokens(likely, reader.count)] * near, room)
        at_most_merges = _merges([_LONGEST_NOTE_TOKENS] * len(pieces), room)
    more_merges = max(0, at_most_merges - likely_merges)
    judging = await stage.sent(lambda reader: reader.judge(question, _claims(notes), passages=best[:4]))
    requests = Requests(
        reading=(*reading, *merging[:1] * likely_merges),
        answering=await stage.answering(question, [likely]),
        widening=(*merging[:1] * more_merges, *judging[:1] * MAX_REREADINGS),
    )
    # A merge and an answer may take all of the window's room.
    # Of what is listed, there is some in most places that are near the question; else where the best quotes stand.
    finding = near if listing else pieces_found(pieces, noted)
    return stage.plan(requests, more_tokens_in=room * (at_most_merges + 1), finding=finding)


async def _reading(piece: Passage, question: str, reader: Reader, *, listing: bool) -> object:
    return await (list_items(reader, [piece], question) if listing else reader.read(piece, question))


def _merges(sizes: list[int], room: int) -> int:
    """How many calls it takes to merge notes until an answer takes them; a merge is as long as a note."""
    calls = 0
    while packs := merge_packs(sizes, room):
        calls += sum(len(pack) > 1 for pack in packs)
        sizes = sizes[: len(packs)]
    return calls


def _holds(piece: Passage, passage: Passage) -> bool:
    return piece.document.id == passage.document.id and piece.span.overlaps(passage.span)


def _claims(notes: Sequence[Note]) -> list[Claim]:
    return [Claim(text=note.claim, citations=note.citations, confidence=note.confidence) for note in notes[:2]]
