"""Where a question leads in trees of summaries: summaries and passages in one ranking, by words and by meaning."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from lcdoc.agents.questions import Question
from lcdoc.agents.reader import Passage
from lcdoc.agents.stems import stems_of
from lcdoc.memory import Library
from lcdoc.retrieval.embedders import Embedder
from lcdoc.workflows.tree_building import SummaryTree

if TYPE_CHECKING:
    from lcdoc.retrieval.embedders import Matrix

_LEAVES_OF_LEAD = 3
"""A summary that was chosen has its best leaves read, not all of them: it may be of a hundred pages."""
_WORDS = 0.5
"""What sharing all of a question's words is worth, beside a cosine."""

Leaf = tuple[str, int]
"""A document and the number of a leaf of its tree."""


@dataclass(frozen=True, slots=True)
class Lead:
    """A summary of several leaves, which need not be neighbours."""

    document_id: str
    leaves: tuple[int, ...]
    text: str


def leads_of(trees: Sequence[SummaryTree]) -> list[Lead]:
    """The summaries of all parents, roots aside: they are of everything."""
    return [
        Lead(
            tree.document.id,
            tuple(leaf.number for leaf in tree.shape.leaves_under(node.number)),
            tree.summary(node.number),
        )
        for tree in trees
        for node in tree.shape.nodes[:-1]
        if node.children and node.number in tree.points
    ]


def found_leaves(trees: Sequence[SummaryTree], hits: Sequence[Passage], question: str) -> dict[Leaf, float]:
    """The leaves that hold passages found, the best first, each with the score of its best passage."""
    by_document = {tree.document.id: tree for tree in trees}
    asked = Question.of(question)
    scores: dict[Leaf, float] = {}
    for hit in hits:
        tree = by_document.get(hit.document.id)
        leaf = tree.shape.leaf_at(hit.span.start) if tree else None
        if leaf is not None:
            score = _score(asked, hit.text, hit.cosine or 0.0)
            one = (hit.document.id, leaf.number)
            scores[one] = max(score, scores.get(one, score))
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


async def ranked_leaves(
    trees: Sequence[SummaryTree],
    leads: Sequence[Lead],
    found: Mapping[Leaf, float],
    question: str,
    *,
    embedder: Embedder,
    library: Library,
) -> list[Leaf]:
    """Leaves, best first: those `found`, and the best of each lead in the lead's place of the ranking."""
    asked = Question.of(question)
    by_document = {tree.document.id: tree for tree in trees}
    vector = (await asyncio.to_thread(embedder.embed, [question]))[0]
    scored: list[tuple[float, list[Leaf]]] = [(score, [leaf]) for leaf, score in found.items()]
    for document_id, tree in by_document.items():
        own = [lead for lead in leads if lead.document_id == document_id]
        vectors = await vectors_of(document_id, [lead.text for lead in own], embedder, library)
        for lead, cosine in zip(own, (vectors @ vector).tolist(), strict=True):
            worth = {
                (document_id, number): found.get((document_id, number), _score(asked, tree.summary(number), 0.0))
                for number in lead.leaves
            }
            best = sorted(worth, key=lambda leaf, worth=worth: -worth[leaf])  # type: ignore[misc]
            scored.append((_score(asked, lead.text, cosine), best[:_LEAVES_OF_LEAD]))
    scored.sort(key=lambda one: -one[0])
    return list(dict.fromkeys(leaf for _, leaves in scored for leaf in leaves))


async def vectors_of(document_id: str, texts: Sequence[str], embedder: Embedder, library: Library) -> Matrix:
    """The vectors of summaries of a document, of shape (len(texts), dimensions); kept with its trees."""
    recipe = f"vectors {embedder.fingerprint}"
    names = [blake2b(text.encode(), digest_size=16).hexdigest() for text in texts]
    kept = library.trees.nodes(document_id, recipe, names)
    by_name = {name: node.value["vector"] for name, node in kept.items()}
    if missing := {name: text for name, text in zip(names, texts, strict=True) if name not in by_name}:
        made = await asyncio.to_thread(embedder.embed, list(missing.values()))
        new = {name: [round(float(x), 5) for x in row] for name, row in zip(missing, made, strict=True)}
        await library.trees.keep(document_id, recipe, {name: {"vector": vector} for name, vector in new.items()})
        by_name |= new
    return np.array([by_name[name] for name in names], dtype=np.float32).reshape(len(texts), embedder.dimensions)


def _score(asked: Question, text: str, cosine: float) -> float:
    wanted = set(asked.stems)
    return cosine + _WORDS * len(wanted & set(stems_of(text))) / max(1, len(wanted))
