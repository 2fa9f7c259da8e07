"""Summaries of the length asked for: sentences are added or left out, whole, and every section should have one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lcdoc.agents.notes import SummaryPoint
from lcdoc.memory.trees import TreeShape

NEAR = 0.1
"""How far from the words asked for, as a share of them, is right."""
FAR = 0.2
"""How far a summary may be for the sake of a section that would have nothing."""

Section = tuple[str, int]
"""A document, and the number of one of its top-level sections."""


@dataclass
class Part:
    """The points of neighbouring sections, how many words they should have, and points that say something else."""

    words: float
    points: list[SummaryPoint]
    spare: list[SummaryPoint]

    @property
    def excess(self) -> float:
        return word_count(self.points) - self.words


class Sections:
    """The top-level sections of some documents, and which of them points are about."""

    def __init__(self, shapes: Sequence[TreeShape]) -> None:
        self._shapes = {shape.document.id: shape for shape in shapes}
        self._order = {document_id: index for index, document_id in enumerate(self._shapes)}

    @property
    def all(self) -> list[Section]:
        return [(id_, number) for id_, shape in self._shapes.items() for number in range(len(shape.sections))]

    def of(self, point: SummaryPoint) -> set[Section]:
        """Those that its quotes stand in."""
        found = ((one.document_id, self._shapes[one.document_id].section_at(one.span.start)) for one in point.citations)
        return {(document_id, number) for document_id, number in found if number is not None}

    def position(self, point: SummaryPoint) -> tuple[int, int]:
        """Where its first quote stands: the document's place, and the offset."""
        return min(((self._order[one.document_id], one.span.start) for one in point.citations), default=(-1, -1))


def word_count(points: Sequence[SummaryPoint]) -> int:
    return sum(len(point.text.split()) for point in points)


def fit(parts: Sequence[Part], words: int, sections: Sections) -> list[SummaryPoint]:
    """The points of all parts in the order of the text, changed by whole points only.

    Points are left out, sections that no point is about get their shortest spare one, and spare ones are added, until
    the words are within `NEAR` of those asked for or nothing more can be done. A section's only point is left out only
    where there are more than `FAR` too many words.
    """
    _shorten(parts, words, sections)
    _cover(parts, words, sections)
    _shorten(parts, words, sections)
    _lengthen(parts, words)
    return sorted((point for part in parts for point in part.points), key=sections.position)


def _total(parts: Sequence[Part]) -> int:
    return sum(word_count(part.points) for part in parts)


def _cover(parts: Sequence[Part], words: int, sections: Sections) -> None:
    for section in sections.all:
        if any(section in sections.of(point) for part in parts for point in part.points):
            continue
        offers = [(part, point) for part in parts for point in part.spare if section in sections.of(point)]
        if not offers:
            continue
        part, point = min(offers, key=lambda offer: len(offer[1].text.split()))
        over = _total(parts) + word_count([point]) - (1 + FAR) * words
        # Where there is no room, a point gives way that its own sections can do without.
        giving_way = [one for one in _dispensable(parts, sections) if word_count([one[1]]) >= over]
        if over > 0 and not giving_way:
            continue
        if over > 0:
            other, former = max(giving_way, key=lambda one: one[0].excess)
            other.points.remove(former)
        part.points.append(point)
        part.spare.remove(point)


def _shorten(parts: Sequence[Part], words: int, sections: Sections) -> None:
    while (total := _total(parts)) > (1 + NEAR) * words and sum(len(part.points) for part in parts) > 1:
        candidates = _dispensable(parts, sections)
        if not candidates and total <= (1 + FAR) * words:
            return
        candidates = candidates or [(part, point) for part in parts for point in part.points]
        part, point = max(candidates, key=lambda one: (one[0].excess, len(one[1].text.split())))
        part.points.remove(point)


def _dispensable(parts: Sequence[Part], sections: Sections) -> list[tuple[Part, SummaryPoint]]:
    """Points all of whose sections have another one."""
    points = [(part, point, sections.of(point)) for part in parts for point in part.points]
    counts = Counter(section for *_, about in points for section in about)
    return [(part, point) for part, point, about in points if all(counts[section] > 1 for section in about)]


def _lengthen(parts: Sequence[Part], words: int) -> None:
    while (total := _total(parts)) < (1 - NEAR) * words:
        fitting = [
            (part, point) for part in parts for point in part.spare if total + word_count([point]) <= (1 + NEAR) * words
        ]
        if not fitting:
            return
        part, point = min(fitting, key=lambda one: one[0].excess)
        part.points.append(point)
        part.spare.remove(point)
