"""Themes: what is said in leaves of like meaning, wherever they stand, beside the summaries of neighbours.

The grouping of "RAPTOR: Recursive Abstractive Processing for Tree-Organized Retrieval", at the level of the leaves.
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b

from lcdoc.agents.clusters import clusters_of
from lcdoc.agents.models.errors import ModelError
from lcdoc.agents.notes import Summary
from lcdoc.memory.trees import CHILDREN, PARENT_WORDS
from lcdoc.retrieval.embedders import Embedder
from lcdoc.workflows.session import Failure, Session
from lcdoc.workflows.tree_building import SummaryTree
from lcdoc.workflows.tree_leads import Lead, vectors_of


async def themes_of(session: Session, tree: SummaryTree, embedder: Embedder) -> tuple[list[Lead], list[Failure]]:
    """The themes of a tree, those not kept yet made now, a call each; and which could not be made.

    A group of neighbours is none: the tree has its summary.
    """
    leaves = [leaf for leaf in tree.shape.leaves if tree.points.get(leaf.number)]
    texts = [tree.summary(leaf.number) for leaf in leaves]
    vectors = await vectors_of(tree.document.id, texts, embedder, session.library)
    groups = await asyncio.to_thread(clusters_of, vectors, largest=CHILDREN)
    scattered = [group for group in groups if group[-1] - group[0] >= len(group) > 1]
    recipe = f"{tree.recipe} themes"
    names = [blake2b("\0".join(leaves[index].name for index in group).encode()).hexdigest() for group in scattered]
    kept = session.library.trees.nodes(tree.document.id, recipe, names) if session.run.store == "use" else {}

    async def said(name: str, group: list[int]) -> str | Failure:
        if name in kept:
            return str(kept[name].value["text"])
        points = [point for index in group for point in tree.points[leaves[index].number]]
        try:
            summary: Summary = await session.reader.condense(points, words=PARENT_WORDS)
        except ModelError as error:
            return session.failure(f"theme/{name[:12]}", error)
        text = " ".join(point.text for point in summary.points)
        if session.run.store != "off":
            await session.library.trees.keep(tree.document.id, recipe, {name: {"text": text}})
        return text

    made = await asyncio.gather(*(said(name, group) for name, group in zip(names, scattered, strict=True)))
    leads = [
        Lead(tree.document.id, tuple(leaves[index].number for index in group), text)
        for text, group in zip(made, scattered, strict=True)
        if isinstance(text, str)
    ]
    return leads, [one for one in made if not isinstance(one, str)]
