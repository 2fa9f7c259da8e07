"""A workflow's graph drawn without running it: as Mermaid, and as plain lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, cast

from lcdoc.workflows.frame import GraphWorkflow

if TYPE_CHECKING:
    from langchain_core.runnables.graph import Graph

_ENDS = {"__start__": "start", "__end__": "end"}


class _Absent:
    """Stands for what a graph is bound to; while it is built, it may look at the question and at nothing else."""

    question = ""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(f"a workflow's graph used {name!r} of its session, library or readers while being built")


@dataclass(frozen=True, slots=True)
class Edge:
    """A way from one step to another; a `conditional` one is taken where the state says so."""

    source: str
    target: str
    conditional: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    """A workflow's steps and the ways between them. Its first step is `start`, its last `end`."""

    name: str
    about: str
    steps: tuple[str, ...]
    edges: tuple[Edge, ...]
    mermaid: str

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "name": self.name,
            "about": self.about,
            "steps": list(self.steps),
            "edges": [{"from": edge.source, "to": edge.target, "conditional": edge.conditional} for edge in self.edges],
            "mermaid": self.mermaid,
        }

    def lines(self) -> list[str]:
        """A line for each step: `read -> answer`, or `answer ..> search | end` where the state decides."""
        width = max(map(len, self.steps))
        drawn = []
        for step in self.steps:
            for conditional, arrow in ((False, "->"), (True, "..>")):
                targets = [edge.target for edge in self._from(step) if edge.conditional is conditional]
                if targets:
                    drawn.append(f"{step:<{width}}  {arrow:<3} {' | '.join(targets)}")
        return drawn

    def _from(self, step: str) -> Sequence[Edge]:
        return [edge for edge in self.edges if edge.source == step]


def drawing_of(workflow: type[GraphWorkflow]) -> Drawing:
    """The drawing of a workflow. Raises RuntimeError where its graph cannot be built without a run."""
    absent = cast(Any, _Absent())
    graph: Graph = workflow(absent, absent, absent).graph(absent).compile().get_graph()
    order = {node: place for place, node in enumerate(graph.nodes)}
    edges = sorted(
        (Edge(_step(edge.source), _step(edge.target), edge.conditional) for edge in graph.edges),
        key=lambda edge: (edge.target == "end", order.get(edge.target, 0)),
    )
    return Drawing(workflow.name, workflow.about, tuple(map(_step, graph.nodes)), tuple(edges), graph.draw_mermaid())


def _step(node: str) -> str:
    return _ENDS.get(node, node)
