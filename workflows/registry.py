"""The workflows there are. One more is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from lcdoc.memory import Library
from lcdoc.workflows.errors import UnknownWorkflowError
from lcdoc.workflows.frame import GraphWorkflow
from lcdoc.workflows.readers import Readers
from lcdoc.workflows.scout import FairSearch
from lcdoc.workflows.search import Search

WORKFLOWS: Mapping[str, str] = MappingProxyType(
    {
        "direct": "lcdoc.workflows.direct:Direct",
        "retrieve": "lcdoc.workflows.retrieve:Retrieve",
        "chain": "lcdoc.workflows.chain:Chain",
        "map_reduce": "lcdoc.workflows.map_reduce:MapReduce",
        "tree": "lcdoc.workflows.tree:Tree",
        "tree_walk": "lcdoc.workflows.tree_walk:TreeWalk",
        "summarize": "lcdoc.workflows.summarize:Summarize",
        "extract": "lcdoc.workflows.extract:Extract",
    }
)
"""Module and class by name. A module is imported when its workflow is wanted."""
AUTO = "auto"
"""Stands for whichever of them fits the question: see `lcdoc.workflows.auto`."""


def names() -> tuple[str, ...]:
    """The names of all workflows, without `auto`."""
    return tuple(WORKFLOWS)


def workflow_class(name: str) -> type[GraphWorkflow]:
    """The workflow of this name; `map-reduce` is `map_reduce`. Raises UnknownWorkflowError."""
    place = WORKFLOWS.get(name.strip().lower().replace("-", "_"))
    if place is None:
        raise UnknownWorkflowError(name, (*WORKFLOWS, AUTO))
    module, _, attribute = place.partition(":")
    found: type[GraphWorkflow] = getattr(import_module(module), attribute)
    return found


def make(name: str, library: Library, search: Search, readers: Readers) -> GraphWorkflow:
    """The workflow of this name, with a search that is fair to documents compared. Raises UnknownWorkflowError."""
    return workflow_class(name)(library, FairSearch.of(search), readers)
