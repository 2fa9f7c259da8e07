"""Trees of summaries: their shape follows from the text, and what was kept serves again where the text is the same."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lcdoc
from lcdoc.documents import Document, load
from lcdoc.memory import Library
from lcdoc.memory.trees import CHILDREN, TreeShape, top_sections, tree_recipe, tree_shape
from lcdoc.retrieval.chunker import Chunker
from lcdoc.retrieval.tokens import estimate_tokens

HANDBOOK = Path(lcdoc.__file__).parent / "examples" / "handbook.md"
LEAF_TOKENS = 300


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Document]:
    def write(text: str, name: str = "book.md") -> Document:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return load(path)

    return write


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "library.sqlite") as opened:
        yield opened


def shape_of(document: Document, leaf_tokens: int = LEAF_TOKENS) -> TreeShape:
    return tree_shape(document, Chunker().chunks(document), count=estimate_tokens, leaf_tokens=leaf_tokens)


def chapter(number: int, sentences: int = 12) -> str:
    text = " ".join(
        f"On day {day} of year {number} the ferry crossed the river {day * 3} times." for day in range(sentences)
    )
    return f"# Chapter {number}\n\n{text}\n\n"


@pytest.mark.parametrize("leaf_tokens", [200, 600, 1200, 10_000])
def test_leaves_hold_every_passage_once_and_parents_have_few_children(leaf_tokens: int) -> None:
    document = load(HANDBOOK)
    shape = shape_of(document, leaf_tokens)
    covered = 0
    for leaf in shape.leaves:
        assert not document.body[covered : leaf.span.start].strip()
        assert estimate_tokens(leaf.span.of(document.body)) <= leaf_tokens
        covered = leaf.span.end
    assert not document.body[covered:].strip()
    for node in shape.nodes:
        assert len(node.children) <= CHILDREN
        assert all(child < node.number for child in node.children)
        if node.children:
            assert node.span.start == shape.nodes[node.children[0]].span.start
            assert node.span.end == shape.nodes[node.children[-1]].span.end
    assert {leaf.number for leaf in shape.leaves_under(shape.root.number)} == {leaf.number for leaf in shape.leaves}


def test_no_leaf_runs_over_the_border_of_a_top_section_and_each_section_has_a_node() -> None:
    document = load(HANDBOOK)
    shape = shape_of(document, 2_000)
    titles = [section.title for section in shape.sections]
    # The one section around everything is the text before its first part.
    assert titles[:2] == ["Handbook of the Quill Lights and Ferries", "How to Use This Handbook"]
    assert len(titles) == 18
    for leaf in shape.leaves:
        assert sum(section.span.overlaps(leaf.span) for section in shape.sections) == 1
    for section, top in zip(shape.sections, shape.tops, strict=True):
        assert section.span.covers(shape.nodes[top].span)
        assert shape.section_at(shape.nodes[top].span.start) == titles.index(section.title)


def test_a_heading_without_text_belongs_to_what_follows(written: Callable[..., Document]) -> None:
    document = written("# Part One\n\n# A Voyage\n\nThe ship left in May.\n\n# Part Two\n\nIt came back in June.\n")
    sections = top_sections(document)
    assert [section.title for section in sections] == ["A Voyage", "Part Two"]
    assert sections[0].span.start == 0
    assert sections[-1].span.end == len(document.text)


def test_text_without_sections_is_one(written: Callable[..., Document]) -> None:
    document = written("The ship left in May. It came back in June.", "log.txt")
    shape = shape_of(document)
    assert [section.title for section in shape.sections] == ["log.txt"]
    assert shape.root.is_leaf


def test_a_document_without_passages_has_no_nodes(written: Callable[..., Document]) -> None:
    document = written("The ship left in May.", "log.txt")
    shape = tree_shape(document, [], count=estimate_tokens)
    assert shape.nodes == ()
    assert shape.sections == ()
    assert shape.leaves == []


def test_a_chapter_more_changes_only_its_own_nodes_and_those_above(written: Callable[..., Document]) -> None:
    chapters = [chapter(number) for number in range(20)]
    before = shape_of(written("".join(chapters)))
    after = shape_of(written("".join([*chapters, chapter(20)])))
    known = {node.name for node in before.nodes}
    new = [node for node in after.nodes if node.name not in known]
    assert known >= {leaf.name for leaf in after.leaves if "Chapter 20" not in leaf.title}
    leaves = [node for node in new if node.is_leaf]
    assert {leaf.title for leaf in leaves} == {"Chapter 20"}
    above = set()
    for leaf in leaves:
        number = leaf.number
        while number in after.parents:
            number = after.parents[number]
            above.add(number)
    assert {node.number for node in new if not node.is_leaf} <= above


def test_text_added_at_the_end_changes_the_last_leaves_only(written: Callable[..., Document]) -> None:
    text = " ".join(f"Line {line} of the log says that the wind was {line % 9}." for line in range(300))
    before = shape_of(written(text, "log.txt"))
    after = shape_of(written(text + " A last line says that the watch was over.", "log.txt"))
    assert len(before.leaves) > 8
    changed = {leaf.name for leaf in after.leaves} - {leaf.name for leaf in before.leaves}
    assert 1 <= len(changed) <= 2


def test_a_recipe_names_the_reader_and_the_sizes() -> None:
    recipe = tree_recipe("offline 1", leaf_tokens=1200)
    assert recipe == tree_recipe("offline 1", leaf_tokens=1200)
    assert len({recipe, tree_recipe("offline 2", leaf_tokens=1200), tree_recipe("offline 1", leaf_tokens=900)}) == 3


def test_nodes_are_the_documents_own_else_anothers(library: Library) -> None:
    async def fill() -> None:
        await library.trees.keep("d1", "r", {"a": {"points": ["d1 a"]}, "b": {"points": ["d1 b"]}})
        await library.trees.keep("d2", "r", {"a": {"points": ["d2 a"]}})
        await library.trees.keep("d2", "other", {"c": {"points": ["by another recipe"]}})

    asyncio.run(fill())
    found = library.trees.nodes("d2", "r", ["a", "b", "c"])
    assert {name: (node.document_id, node.value["points"]) for name, node in found.items()} == {
        "a": ("d2", ["d2 a"]),
        "b": ("d1", ["d1 b"]),
    }
    assert library.trees.nodes("d3", "r", []) == {}


def test_nodes_outlive_the_process_and_a_later_one_takes_the_place_of_an_earlier(library: Library) -> None:
    asyncio.run(library.trees.keep("d1", "r", {"a": {"points": [1]}}))
    asyncio.run(library.trees.keep("d1", "r", {"a": {"points": [2]}}))
    library.close()
    with Library.open(library.path) as again:
        assert again.trees.nodes("d1", "r", ["a"])["a"].value == {"points": [2]}


def test_removing_a_document_removes_its_trees(library: Library) -> None:
    document = load(HANDBOOK)
    library.add(document, Chunker().chunks(document), recipe="r")
    asyncio.run(library.trees.keep(document.id, "r", {"a": {"points": []}}))
    asyncio.run(library.trees.keep("another", "r", {"b": {"points": []}}))
    library.remove(document.id)
    assert set(library.trees.nodes(document.id, "r", ["a", "b"])) == {"b"}
