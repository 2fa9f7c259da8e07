"""The workflows by name, their graphs drawn without a run, and the page that documents them."""

import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import lcdoc
from lcdoc import Workspace
from lcdoc.workflows.drawing import drawing_of
from lcdoc.workflows.errors import UnknownWorkflowError, WorkflowError
from lcdoc.workflows.frame import GraphWorkflow
from lcdoc.workflows.readers import OfflineReaders
from lcdoc.workflows.registry import AUTO, WORKFLOWS, make, names, workflow_class
from lcdoc.workflows.retrieve import Retrieve
from lcdoc.workflows.scout import FairSearch
from lcdoc.workflows.search import Search

DOCS = Path(lcdoc.__file__).parent / "docs" / "workflows.md"
_EDGE = re.compile(r"^  (\w+) (-->|-\.->) (\w+)$", re.MULTILINE)


@pytest.mark.parametrize("name", names())
def test_a_workflow_is_a_class_of_its_name_with_a_line_about_it(name: str) -> None:
    workflow = workflow_class(name)
    assert issubclass(workflow, GraphWorkflow)
    assert workflow.name == name
    assert 20 < len(workflow.about) < 100
    assert "\n" not in workflow.about


def test_every_line_has_its_file() -> None:
    for name, place in WORKFLOWS.items():
        assert place.startswith(f"lcdoc.workflows.{name}:")


def test_a_name_may_have_hyphens_and_capitals() -> None:
    assert workflow_class(" Retrieve") is workflow_class("retrieve") is Retrieve
    assert workflow_class("map-reduce") is workflow_class("map_reduce")


@pytest.mark.parametrize(
    ("name", "meant"), [("chian", "chain"), ("mapreduce", "map_reduce"), ("retreive", "retrieve"), ("atuo", AUTO)]
)
def test_an_unknown_name_says_what_was_meant(name: str, meant: str) -> None:
    with pytest.raises(UnknownWorkflowError, match=f"no workflow {name!r}; did you mean .*{meant}") as caught:
        workflow_class(name)
    assert isinstance(caught.value, WorkflowError)
    assert caught.value.meant[0] == meant
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "zzzzzz", "\n"])
def test_a_name_like_none_lists_what_there_is(name: str) -> None:
    with pytest.raises(UnknownWorkflowError, match=r"there are direct, retrieve, .*auto") as caught:
        workflow_class(name)
    assert "\n" not in str(caught.value)


def test_making_one_imports_no_other() -> None:
    code = (
        "from lcdoc.workflows.registry import workflow_class; import sys; workflow_class('retrieve');"
        "print(*[m for m in sys.modules if m in ('lcdoc.workflows.chain', 'lcdoc.workflows.tree', 'torch', 'openai')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_a_made_workflow_has_a_search_that_is_fair(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "library.sqlite", background=False) as workspace:
        search = Search(workspace.index, lazy_tokens=100)
        made = make("retrieve", workspace.library, search, OfflineReaders(workspace.embedder, workspace.library.runs))
        assert isinstance(made, Retrieve)
        assert isinstance(made.search, FairSearch)
        assert (made.search.index, made.search.lazy_tokens) == (search.index, 100)


# Drawings


@pytest.mark.parametrize("name", names())
def test_every_step_of_a_graph_lies_between_its_start_and_its_end(name: str) -> None:
    drawing = drawing_of(workflow_class(name))
    forwards = {(edge.source, edge.target) for edge in drawing.edges}
    assert reached("start", forwards) == set(drawing.steps)
    assert reached("end", {(target, source) for source, target in forwards}) == set(drawing.steps)


def reached(first: str, edges: set[tuple[str, str]]) -> set[str]:
    found, fresh = {first}, {first}
    while fresh:
        fresh = {target for source, target in edges if source in fresh} - found
        found |= fresh
    return found


def test_lines_tell_ways_taken_always_from_those_that_are_decided() -> None:
    assert drawing_of(Retrieve).lines() == [
        "start   ->  search",
        "search  ..> read | answer",
        "read    ->  answer",
        "answer  ..> search | end",
    ]


def test_mermaid_has_the_same_ways() -> None:
    drawing = drawing_of(Retrieve)
    assert drawing.mermaid.count("-.->") == sum(edge.conditional for edge in drawing.edges)
    assert "search -.-> read;" in drawing.mermaid


class Curious(GraphWorkflow):
    """Looks at its session too early."""

    name = "curious"
    about = "looks at its session while its graph is built"

    def graph(self, session):
        return session.reader.room("?")

    def conclude(self, session, state):
        raise NotImplementedError

    async def plan(self, question, documents, stage):
        raise NotImplementedError


def test_a_graph_that_needs_a_run_to_be_built_is_found_out() -> None:
    with pytest.raises(RuntimeError, match="'reader'"):
        drawing_of(Curious)


# The page


def documented(name: str) -> str:
    """The part of the page about a workflow."""
    found = re.search(rf"^## {name}$(.*?)(?=^## |\Z)", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1]


@pytest.mark.parametrize("name", names())
def test_the_page_shows_each_graph_as_it_is(name: str) -> None:
    shown = {(source, target, arrow == "-.->") for source, arrow, target in _EDGE.findall(documented(name))}
    assert shown == {(edge.source, edge.target, edge.conditional) for edge in drawing_of(workflow_class(name)).edges}


@pytest.mark.parametrize("name", names())
def test_the_page_says_when_to_choose_each_and_what_it_costs(name: str) -> None:
    text = documented(name)
    assert "Choose it" in text or "`auto` takes it" in text
    assert "Cost:" in text


def test_the_page_has_them_in_the_order_of_the_registry() -> None:
    text = DOCS.read_text(encoding="utf-8")
    places = [text.index(f"\n## {name}\n") for name in names()]
    assert all(one < other for one, other in pairwise(places))
