"""What runs have cost, added up by model, day or run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import add
from typing import Literal

from lcdoc.memory.usage import ModelUsage

By = Literal["model", "day", "run"]


@dataclass(frozen=True, slots=True)
class CostLine:
    """What a model, a day or a run has cost."""

    name: str
    """The model, the day (`2031-05-04`, UTC, as servers bill) on which runs began, or the run's id."""
    runs: int
    usage: ModelUsage
    """`usage.cost_usd` is None when a part of it is not known."""
    known_usd: float
    """The part of the cost that is known: all of it where `cost_usd` is not None."""

    @property
    def cost_usd(self) -> float | None:
        return self.usage.cost_usd


def cost_lines(used: Iterable[tuple[str, float, str, ModelUsage]], by: By) -> list[CostLine]:
    """A line for each model, the most tokens first, else for each day or run in the order given.

    `used` is a run's id, when it began (Unix time), a model, and what its calls have cost.
    """
    groups: dict[str, list[tuple[str, ModelUsage]]] = {}
    for run_id, started_at, model, usage in used:
        day = datetime.fromtimestamp(started_at, UTC).date().isoformat()
        groups.setdefault({"model": model, "day": day, "run": run_id}[by], []).append((run_id, usage))
    lines = [
        CostLine(
            name=name,
            runs=len({run_id for run_id, _ in parts}),
            usage=total(usage for _, usage in parts),
            known_usd=sum(usage.cost_usd or 0.0 for _, usage in parts),
        )
        for name, parts in groups.items()
    ]
    return sorted(lines, key=lambda line: (-line.usage.tokens, line.name)) if by == "model" else lines


def total(usages: Iterable[ModelUsage]) -> ModelUsage:
    """All of them together."""
    return reduce(add, usages, ModelUsage())
