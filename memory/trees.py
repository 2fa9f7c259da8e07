"""Trees of summaries over documents: their shape, which follows from the text alone, and the summaries made so far.

Leaves are stretches of the text in order, none over the border of a top-level section; a parent has up to `CHILDREN`
neighbours. A node is named by a hash of all that it summarises: a document that grew has the same leaves up to where
it grew, so their summaries serve again. Shape after "Walking Down the Memory Maze: Beyond Context Limit through
Interactive Reading" (MemWalker): leaves of about 1,000 tokens, parents of 5 to 8 children.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Any

from lcdoc.documents import Document, Span
from lcdoc.memory.database import Database
from lcdoc.memory.document_rows import pack, unpack
from lcdoc.memory.journal import Journal
from lcdoc.retrieval.passages import Chunk

LEAF_TOKENS = 1_200
CHILDREN = 8
LEAF_WORDS = 120
"""Of the summary of a full leaf: about a seventh of it."""
PARENT_WORDS = 160
_LEAF_SHARE = 0.2
"""A short leaf's summary has at most this share of its words, and at least `_LEAST_WORDS`."""
_LEAST_WORDS = 25
_FILLED = 0.75
"""A leaf filled this far ends where a section begins."""
_SHAPE_REVISION = 1
"""Goes up when the same document would get another tree."""

_DASH = " \N{EN DASH} "
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class TopSection:
    """A part of a document that a summary should not pass over: an outermost section, or text outside of any."""

    title: str
    span: Span


@dataclass(frozen=True, slots=True)
class TreeNode:
    """A node of a tree: a leaf, or a parent of neighbours."""

    number: int
    """Its place in `TreeShape.nodes`; children come before their parents."""
    name: str
    """Hash of all that its summary is made of."""
    span: Span
    title: str
    heading_path: tuple[str, ...]
    """Titles of the sections that all of it lies in, outermost first."""
    children: tuple[int, ...]
    words: int
    """How long its summary should be."""

    @property
    def is_leaf(self) -> bool:
        return not self.children


@dataclass(frozen=True)
class TreeShape:
    """The nodes of a document's tree without their summaries. A document without passages has none."""

    document: Document
    nodes: tuple[TreeNode, ...]
    sections: tuple[TopSection, ...]
    tops: tuple[int, ...]
    """The number of the node of each section, in order."""

    @property
    def root(self) -> TreeNode:
        """The node over everything. Raises IndexError where there is no node."""
        return self.nodes[-1]

    @cached_property
    def leaves(self) -> list[TreeNode]:
        """The leaves, in the order of the text."""
        return sorted((node for node in self.nodes if node.is_leaf), key=lambda node: node.span)

    @cached_property
    def parents(self) -> dict[int, int]:
        """Of each node but the root, its parent."""
        return {child: node.number for node in self.nodes for child in node.children}

    def leaf_at(self, offset: int) -> TreeNode | None:
        """The leaf that the character at `offset` stands in, or before which it stands; None behind the last one."""
        return next((leaf for leaf in self.leaves if offset < leaf.span.end), None)

    def leaves_under(self, number: int) -> list[TreeNode]:
        """The leaves that a node stands for, itself if it is one, in the order of the text."""
        node = self.nodes[number]
        return [node] if node.is_leaf else [leaf for child in node.children for leaf in self.leaves_under(child)]

    def section_at(self, offset: int) -> int | None:
        """The number of the section that the character at `offset` stands in."""
        inside = (index for index, section in enumerate(self.sections) if section.span.start <= offset)
        return max(inside, default=None)


def tree_shape(
    document: Document, chunks: Sequence[Chunk], *, count: Callable[[str], int], leaf_tokens: int = LEAF_TOKENS
) -> TreeShape:
    """The tree of `document`, whose passages in order are `chunks`, with leaves of at most `leaf_tokens` by `count`.

    A passage longer than that is a leaf by itself. Leaves are filled from the start, so that text added at the end
    changes the last of them only.
    """
    nodes: list[TreeNode] = []
    sections: dict[TopSection, int] = {}
    for section in top_sections(document):
        spans = [span for chunk in chunks for span in _inside(document, chunk.span, section.span)]
        level = [_leaf(document, leaf, section, nodes) for leaf in _leaves(document, spans, count, leaf_tokens)]
        if level:
            sections[section] = _joined(level, section.title, nodes).number
    if sections:
        _joined([nodes[top] for top in sections.values()], document.name, nodes)
    return TreeShape(document, tuple(nodes), tuple(sections), tuple(sections.values()))


def tree_recipe(fingerprint: str, *, leaf_tokens: int) -> str:
    """Names by whom a tree's summaries are made, and of what sizes: trees of other recipes have other summaries."""
    sizes = f"{leaf_tokens} {CHILDREN} {LEAF_WORDS} {PARENT_WORDS}"
    return blake2b(f"tree {_SHAPE_REVISION}\0{sizes}\0{fingerprint}".encode(), digest_size=12).hexdigest()


def top_sections(document: Document) -> tuple[TopSection, ...]:
    """The outermost sections, of which there are at least two, and the text before and between them.

    A single section around all others is none of them. Headings without text belong to what follows.
    """
    levels = sorted({section.level for section in document.sections})
    deep = next((level for level in levels if sum(s.level <= level for s in document.sections) > 1), None)
    outer = [section for section in document.sections if deep is not None and section.level <= deep]
    titles = {0: ""} | {section.start: section.title for section in outer}
    starts = sorted(titles)
    found: list[TopSection] = []
    start = 0
    for begin, end in zip(starts, [*starts[1:], len(document.text)], strict=True):
        span = Span(begin, end)
        if len(_WORD.findall(span.of(document.body))) <= len(_WORD.findall(titles[begin])):
            # Nothing but its heading.
            continue
        found.append(TopSection(titles[begin] or document.name, Span(start, end)))
        start = end
    if found and start < len(document.text):
        found[-1] = TopSection(found[-1].title, Span(found[-1].span.start, len(document.text)))
    return tuple(found)


def _inside(document: Document, span: Span, section: Span) -> Iterable[Span]:
    clipped = Span(max(span.start, section.start), min(span.end, section.end))
    return [clipped] if clipped.start < clipped.end and clipped.of(document.body).strip() else []


def _leaves(document: Document, spans: Sequence[Span], count: Callable[[str], int], room: int) -> list[list[Span]]:
    """`spans` in runs of at most `room` tokens, filled from the start; the last two of like length."""
    runs: list[list[Span]] = []
    sizes: list[list[int]] = []
    section: object = None
    for span in spans:
        size = count(span.of(document.body))
        here = document.sections_at(span.start)[-1:]
        filled = sum(sizes[-1]) if sizes else room
        if filled + size > room or (here != section and filled >= _FILLED * room):
            runs.append([])
            sizes.append([])
        runs[-1].append(span)
        sizes[-1].append(size)
        section = here
    if len(runs) > 1 and sum(sizes[-1]) < room / 2 < sum(sizes[-2]):
        both, tokens = runs[-2] + runs[-1], sizes[-2] + sizes[-1]
        at = min(range(1, len(both)), key=lambda index: abs(sum(tokens[:index]) - sum(tokens[index:])))
        runs[-2:] = [both[:at], both[at:]]
    return runs


def _leaf(document: Document, spans: Sequence[Span], section: TopSection, nodes: list[TreeNode]) -> TreeNode:
    span = Span(spans[0].start, spans[-1].end)
    path = tuple(one.title for one in document.sections_at(span.start))
    for other in spans:
        inside = tuple(one.title for one in document.sections_at(other.start))
        path = tuple(title for title, same in zip(path, inside, strict=False) if title == same)
    text = span.of(document.body)
    words = max(_LEAST_WORDS, min(LEAF_WORDS, round(_LEAF_SHARE * len(text.split()))))
    name = _name("leaf", str(words), *path, text)
    titles = [one.title for span in (spans[0], spans[-1]) for one in document.sections_at(span.start)[-1:]]
    nodes.append(TreeNode(len(nodes), name, span, _range(titles or [section.title]), path, (), words))
    return nodes[-1]


def _range(titles: Sequence[str]) -> str:
    """`First`, or `First – Last`."""
    ends = dict.fromkeys((titles[0].partition(_DASH)[0], titles[-1].rpartition(_DASH)[2]))
    return _DASH.join(ends)


def _joined(level: Sequence[TreeNode], title: str, nodes: list[TreeNode]) -> TreeNode:
    """The node over all of `level`; groups are filled from the start, and one that is left alone goes up as it is."""
    while len(level) > 1:
        groups = [level[first : first + CHILDREN] for first in range(0, len(level), CHILDREN)]
        whole = len(groups) == 1
        level = [group[0] if len(group) == 1 else _parent(group, title if whole else "", nodes) for group in groups]
    return level[0]


def _parent(children: Sequence[TreeNode], title: str, nodes: list[TreeNode]) -> TreeNode:
    path = children[0].heading_path
    for child in children:
        while child.heading_path[: len(path)] != path:
            path = path[:-1]
    words = min(PARENT_WORDS, sum(child.words for child in children))
    nodes.append(
        TreeNode(
            number=len(nodes),
            name=_name("parent", str(words), *(child.name for child in children)),
            span=Span(children[0].span.start, children[-1].span.end),
            title=title or _range([child.title for child in children]),
            heading_path=path,
            children=tuple(child.number for child in children),
            words=words,
        )
    )
    return nodes[-1]


def _name(*parts: str) -> str:
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class KeptNode:
    """A node as it was kept, and the document whose node it is."""

    document_id: str
    value: Mapping[str, Any]


class Trees:
    """The nodes of all trees, as plain JSON values. Removing a document from the library removes its trees."""

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database = database
        self._journal = journal

    async def keep(self, document_id: str, recipe: str, nodes: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep nodes by name, in the place of earlier ones. They are kept when this returns."""
        rows = [
            (document_id, recipe, name, pack(json.dumps(dict(node), ensure_ascii=False)))
            for name, node in nodes.items()
        ]
        await self._journal.write(lambda c: c.executemany("INSERT OR REPLACE INTO trees VALUES (?, ?, ?, ?)", rows))

    def nodes(self, document_id: str, recipe: str, names: Sequence[str]) -> dict[str, KeptNode]:
        """Those of the nodes that there are, by name: the document's own, else another document's of this recipe."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT name, node FROM trees WHERE document = ? AND recipe = ?", (document_id, recipe)
            ).fetchall()
            found = {name: (document_id, node) for name, node in rows}
            missing = [name for name in dict.fromkeys(names) if name not in found]
            if missing:
                others = connection.execute(
                    "SELECT name, document, node FROM trees WHERE recipe = ?"
                    " AND name IN (SELECT value FROM json_each(?))",
                    (recipe, json.dumps(missing)),
                ).fetchall()
                found |= {name: (document, node) for name, document, node in others}
        wanted = set(names)
        return {
            name: KeptNode(document, json.loads(unpack(node)))
            for name, (document, node) in found.items()
            if name in wanted
        }
