"""Which passages are read for which fields: everything where it fits, else what a search finds for each field's words.

Fields of one value are looked up; fields of many values and tables are read out of the whole documents, piece by piece,
since what stands in many places is found by no search. A reader that ranks sentences gets each field by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from lcdoc.agents.extract_fields import Field, Path, Table
from lcdoc.agents.extracting import extracting_room, ranks_sentences
from lcdoc.agents.reader import Passage, Reader
from lcdoc.documents import Document
from lcdoc.memory import Library
from lcdoc.workflows.events import Place
from lcdoc.workflows.extract_schema import Schema
from lcdoc.workflows.pieces import MOST_LISTED_TOKENS, cut

FIELDS_PER_FORM = 12
"""Fields that one reading fills."""
PASSAGES_PER_FIELD = 6
WIDER_PER_FIELD = 16
"""Passages for each field that the first ones do not give, before it is left empty."""
RANKED_PASSAGES = 12
"""For each field, of a reader that ranks sentences."""
LISTED_PASSAGES = 48
"""The same for a field of many values."""
WHOLE_TOKENS = 8_000
"""Documents that have no more together are read whole for every form, if the reader takes as much."""

Best = Callable[[str, int], Awaitable[Sequence[Passage]]]
"""The best so many passages for a question, best first."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Passages that are read for some fields, or for one table, together."""

    wanted: tuple[Field | Table, ...]
    passages: tuple[Passage, ...]

    @property
    def places(self) -> list[Place]:
        return [(one.document.id, one.span.start, one.span.end) for one in self.passages]

    def name(self, stage: int, index: int) -> str:
        """Its note's name: of what it is about, so that a note is never taken for one of other fields or passages."""
        about = repr(([one.path for one in self.wanted], self.places))
        return f"read/{stage}/{index:04}-{blake2b(about.encode(), digest_size=6).hexdigest()}"


async def first_readings(
    schema: Schema, documents: Sequence[Document], library: Library, reader: Reader, best: Best
) -> list[Reading]:
    """What is read first. Raises ModelConfigError where the window has no room for a form and a sentence."""
    readings = _whole(schema, documents, library, reader)
    if readings is None:
        readings = await _looked_up(schema.scalars, reader, best, PASSAGES_PER_FIELD)
        if ranks_sentences(reader):
            readings += [Reading((one,), tuple(await best(one.query, LISTED_PASSAGES))) for one in schema.lists]
        else:
            readings += _everywhere(schema.lists, documents, library, reader)
    for table in schema.tables:
        readings += _everywhere([table], documents, library, reader)
    return [reading for reading in readings if reading.passages]


async def wider_readings(
    missing: Sequence[Field], read: Callable[[Path], Collection[Place]], reader: Reader, best: Best
) -> list[Reading]:
    """What is read next for the fields that were not found; `read` says what was read for a field before."""
    if ranks_sentences(reader):
        # It has ranked what it can: more passages would bring less likely sentences.
        return []
    return [one for one in await _looked_up(missing, reader, best, WIDER_PER_FIELD, read) if one.passages]


def _whole(schema: Schema, documents: Sequence[Document], library: Library, reader: Reader) -> list[Reading] | None:
    """All documents at once for each form of fields, where they fit; None where they do not."""
    fields = [*schema.scalars, *schema.lists]
    if ranks_sentences(reader):
        return None
    tokens = sum(reader.count(document.body) for document in documents)
    forms = _forms(fields)
    if any(tokens > min(WHOLE_TOKENS, extracting_room(reader, form)) for form in forms):
        return None
    pieces = cut(library, documents, room_tokens=WHOLE_TOKENS, count=reader.count)
    return [Reading(tuple(form), tuple(pieces)) for form in forms]


async def _looked_up(
    fields: Sequence[Field],
    reader: Reader,
    best: Best,
    count: int,
    read: Callable[[Path], Collection[Place]] = lambda _: (),
) -> list[Reading]:
    """A reading for each form of fields, of the passages that are found for any of them."""
    if ranks_sentences(reader):
        return [Reading((field,), tuple(await best(field.query, RANKED_PASSAGES))) for field in fields]
    readings: list[Reading] = []
    for form in _forms(fields):
        found: dict[Place, Passage] = {}
        for field in form:
            known = set(read(field.path))
            for passage in await best(field.query, count):
                place = (passage.document.id, passage.span.start, passage.span.end)
                if place not in known:
                    found.setdefault(place, passage)
        # In the order of the documents, so that a sentence stands after the one it goes on from.
        readings.append(Reading(tuple(form), tuple(found[place] for place in sorted(found))))
    return readings


def _everywhere(
    wanted: Sequence[Field | Table], documents: Sequence[Document], library: Library, reader: Reader
) -> list[Reading]:
    """All of the documents in pieces, for each form of fields or for one table."""
    readings: list[Reading] = []
    for form in _forms(wanted):
        room = min(extracting_room(reader, form), MOST_LISTED_TOKENS)
        pieces = cut(library, documents, room_tokens=room, count=reader.count)
        readings += [Reading(tuple(form), (piece,)) for piece in pieces]
    return readings


def _forms(wanted: Sequence[Field | Table]) -> list[Sequence[Field | Table]]:
    """Neighbours together: what belongs together stands together in a schema, and in documents."""
    return [wanted[start : start + FIELDS_PER_FORM] for start in range(0, len(wanted), FIELDS_PER_FORM)]
