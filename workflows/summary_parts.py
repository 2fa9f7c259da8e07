"""The parts of a summary that are put into words one by one: neighbouring sections, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lcdoc.agents.notes import Note, Quote, SummaryPoint
from lcdoc.workflows.summary_length import Section, word_count
from lcdoc.workflows.tree_building import SummaryTree

_LEAST_PART_WORDS = 50
"""Sections that would get fewer words are summarised together with their neighbours."""
_CHOICE = 1.5
"""How many times the words wanted are looked at, where there are as many: something has to be left out."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring top-level sections of a document that are put into words together."""

    tree: int
    """Which of the trees."""
    sections: tuple[int, ...]
    words: float
    """Their share of the words."""


def stretches_of(
    trees: Sequence[SummaryTree], words: int, weights: Mapping[Section, float] | None = None
) -> list[Stretch]:
    """All sections, those together that would get few words by themselves. Shares go by `weights`, else by length."""

    def weight(tree: SummaryTree, number: int) -> float:
        if weights is None:
            return len(tree.shape.sections[number].span)
        return weights.get((tree.document.id, number), 0.0)

    total = sum(weight(tree, number) for tree in trees for number in range(len(tree.shape.sections)))
    stretches: list[Stretch] = []
    for index, tree in enumerate(trees):
        own: list[Stretch] = []
        gathered: tuple[int, ...] = ()
        share = 0.0
        for number in range(len(tree.shape.sections)):
            gathered = (*gathered, number)
            share += words * weight(tree, number) / total if total else 0.0
            if share >= _LEAST_PART_WORDS:
                own.append(Stretch(index, gathered, share))
                gathered, share = (), 0.0
        if gathered and own:
            last = own.pop()
            own.append(Stretch(index, (*last.sections, *gathered), last.words + share))
        elif gathered:
            own.append(Stretch(index, gathered, share))
        stretches += [one for one in own if one.words > 0]
    return stretches


def material(trees: Sequence[SummaryTree], stretch: Stretch, *, only_cited: bool = True) -> list[SummaryPoint]:
    """What is said of a part at the level of the tree that has enough words to choose from."""
    tree = trees[stretch.tree]
    front = [tree.shape.tops[number] for number in stretch.sections]

    def said(number: int) -> list[SummaryPoint]:
        return [point for point in tree.points.get(number, ()) if point.citations or not only_cited]

    def is_open(number: int) -> bool:
        return bool(tree.shape.nodes[number].children)

    while True:
        enough = sum(word_count(said(number)) for number in front) >= _CHOICE * stretch.words
        opened = [number for number in front if is_open(number) and (not enough or not said(number))]
        if not opened:
            return [point for number in front for point in said(number)]
        largest = max(opened, key=lambda number: len(tree.shape.nodes[number].span) / (1 + word_count(said(number))))
        at = front.index(largest)
        front[at : at + 1] = tree.shape.nodes[largest].children


def note_of(points: Iterable[SummaryPoint]) -> Note:
    """The cited ones of `points` as a note: each quote with the point it is for."""
    kept = [point for point in points if point.citations]
    quotes = tuple(
        Quote(text=citation.quote, citation=citation, claim=point.text)
        for point in kept
        for citation in point.citations
    )
    return Note(found=bool(kept), quotes=quotes, claim=" ".join(point.text for point in kept))


def points_of(note: Note) -> list[SummaryPoint]:
    """The inverse of `note_of`; a reader's note is one point for each claim that its quotes have."""
    by_claim: dict[str, list[Quote]] = {}
    for quote in note.quotes if note.found else ():
        by_claim.setdefault(quote.claim or note.claim, []).append(quote)
    return [
        SummaryPoint(
            text=claim or quotes[0].citation.quote,
            heading_path=quotes[0].citation.headings,
            citations=tuple(quote.citation for quote in quotes),
        )
        for claim, quotes in by_claim.items()
    ]
