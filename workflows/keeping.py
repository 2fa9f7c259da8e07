"""Keeping documents: a model that runs here reads their pieces before anything is asked, and what it has read is kept.

The pieces are those that workflows will read: `chain` and `map_reduce` read the same ones, `direct` the documents
whole. What was kept before is not read again, so that keeping which was interrupted goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal

from lcdoc.agents.listing import list_items
from lcdoc.agents.models.errors import ModelConfigError
from lcdoc.agents.models.local import LocalModel
from lcdoc.agents.models.local_caches import serves_any_question
from lcdoc.agents.models.local_keeping import Estimate, check, chosen_recipe, estimate
from lcdoc.agents.models.model import Request
from lcdoc.agents.reader import Passage, Reader
from lcdoc.documents import Document
from lcdoc.memory import KeptCache, Library
from lcdoc.workflows.direct import fits, wholes
from lcdoc.workflows.events import Event, Progress
from lcdoc.workflows.pieces import chain_room, cut, list_room
from lcdoc.workflows.rehearsal import Stage

For = Literal["read", "list", "direct"]
"""What pieces are read for: look-ups piece by piece (`chain`, `map_reduce`), lists and counts (`map_reduce`), and
answers at once (`direct`, where the documents fit). Each has instructions of its own before the piece."""

_ANY: Final = "?"
"""In place of a question: what is kept ends before it."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece to be kept."""

    document: Document
    request: Request
    """One of those that will ask about it."""
    tokens: int
    kept: KeptCache | None
    """What there is of it already."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """What is to be kept, and what that takes."""

    model: LocalModel
    recipe: str
    """In its canonical spelling; "full" where nothing is dropped."""
    reason: str
    """Why this one, where it was chosen; else empty."""
    units: tuple[Unit, ...]
    estimate: Estimate
    """Of what is not there yet."""

    @property
    def serves_any_question(self) -> bool:
        """Whether the recipe suits a document that is kept."""
        return serves_any_question(self.recipe)

    @property
    def missing(self) -> list[Unit]:
        return [unit for unit in self.units if unit.kept is None]


@dataclass(frozen=True, slots=True)
class Kept:
    """What came of it."""

    recipe: str
    pieces: int
    there: int
    """Of the pieces, how many were kept before."""
    tokens: int
    """Read now."""
    seconds: float
    bytes: int
    """Of all pieces on the disk."""
    share: float
    """Of what was read, how much the caches hold."""
    unkept: int
    """Pieces that were read and could not be kept, or went again to make room for others."""


async def prepare(
    library: Library,
    documents: Sequence[Document],
    stage: Stage,
    model: LocalModel,
    *,
    recipe: str | None,
    purposes: Sequence[For] = (),
) -> Keeping:
    """What keeping `documents` for `purposes` would take; by default for reading, and for answering at once where each
    fits. `recipe` is one as `--kv` takes it; None: the model's own, the one the documents were kept by before, or what
    suits the room. Nothing is loaded. Raises ModelConfigError, also where it will not fit or will not be used.
    """
    requests: list[tuple[Document, Request]] = []
    for document in documents:
        for purpose in purposes or ("read", "direct"):
            if purpose == "direct" and not fits([document], _ANY, stage.reader):
                if purposes:
                    problem = f"{document.name} does not fit its window whole"
                    raise ModelConfigError(model.spec.name, problem, "leave --for direct out")
                continue
            for asking in _askings(library, document, purpose, stage.reader):
                requests += [(document, request) for request in await stage.sent(asking)]
    tokens = [await asyncio.to_thread(model.piece_tokens, request) for _, request in requests]
    there = [one for document in documents for one in library.caches.of_document(document.id)]
    before = [one.recipe for one in there if one.model == model.identity and one.prepared]
    chosen = chosen_recipe(model, recipe, tokens, before)
    units = [
        Unit(document, request, count, await asyncio.to_thread(model.kept, request, chosen.recipe))
        for (document, request), count in zip(requests, tokens, strict=True)
    ]
    missing = [unit.tokens for unit in units if unit.kept is None]
    taken = estimate(model, chosen.recipe, missing, library.caches.list())
    held = sum(unit.kept.bytes for unit in units if unit.kept is not None)
    check(model, chosen.recipe, taken.bytes + held)
    return Keeping(model, chosen.recipe, chosen.reason, tuple(units), taken)


async def keep(library: Library, keeping: Keeping, on_event: Callable[[Event], None]) -> Kept:
    """Read what is missing, and keep it, piece by piece. Raises ModelError; what was kept until then stays."""
    done, seconds, read = 0, 0.0, 0
    total = sum(unit.tokens for unit in keeping.missing)
    units: list[Unit] = []
    for unit in keeping.units:
        if unit.kept is None:
            on_event(Progress("keeping", unit.document.name, done, total))
            made = await keeping.model.keep(unit.request, keeping.recipe)
            done += unit.tokens
            if made.fresh:
                read += unit.tokens
                seconds += made.seconds
            unit = replace(unit, kept=made.kept)  # noqa: PLW2901
            on_event(Progress("keeping", unit.document.name, done, total))
        else:
            library.caches.prepare([unit.kept])
        units.append(unit)
    there = {one.key: one for one in library.caches.list()}
    held = {unit.kept.key: unit.kept for unit in units if unit.kept is not None and unit.kept.key in there}
    tokens = sum(one.tokens for one in held.values())
    return Kept(
        recipe=keeping.recipe,
        pieces=len(units),
        there=len(units) - len(keeping.missing),
        tokens=read,
        seconds=seconds,
        bytes=sum(one.bytes for one in held.values()),
        share=sum(one.entries for one in held.values()) / tokens if tokens else 0.0,
        unkept=sum(unit.kept is None or unit.kept.key not in held for unit in units),
    )


def _askings(
    library: Library, document: Document, purpose: For, reader: Reader
) -> list[Callable[[Reader], Awaitable[object]]]:
    """What would be asked of a reader about each piece."""
    if purpose == "direct":
        return [partial(_answer, document)]
    room = list_room(reader, _ANY) if purpose == "list" else chain_room(reader, _ANY)
    pieces = cut(library, [document], room_tokens=room, count=reader.count)
    if purpose == "list":
        return [partial(_list, piece) for piece in pieces]
    return [partial(_read, piece) for piece in pieces]


async def _answer(document: Document, reader: Reader) -> object:
    return await reader.answer_from(wholes([document]), _ANY)


async def _list(piece: Passage, reader: Reader) -> object:
    return await list_items(reader, [piece], _ANY)


async def _read(piece: Passage, reader: Reader) -> object:
    return await reader.read(piece, _ANY)
