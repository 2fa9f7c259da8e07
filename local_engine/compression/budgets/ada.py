"""Budgets by head: the heads of a layer compete for the layer's entries ("Ada-KV: Optimizing KV Cache Eviction by
Adaptive Budget Allocation for Efficient LLM Inference", section 3).

A head whose attention is concentrated loses little with few entries, one whose attention is spread loses much. The
top of the flattened layer gives each what it needs, and bounds the layer's loss for any score that estimates attention;
a floor guards a head against an estimate that is wrong about it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.budgets.best import best
from lcdoc.local_engine.compression.budgets.shares import Bounds
from lcdoc.local_engine.compression.parts import Needs, Scores
from lcdoc.local_engine.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class Ada:
    """Each layer has the same budget; its heads share it by score, which must be comparable between them."""

    alpha: float = 0.2
    """The part of a head's equal share that it keeps by its own ranking, whatever the other heads hold; 0 to 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise InvalidRequestError(f"ada: alpha is {self.alpha}: give a number from 0 to 1")

    @property
    def ragged(self) -> bool:
        return True

    @property
    def needs(self) -> Needs:
        return Needs()

    def keep(self, scores: Scores) -> Tensor:
        """bool [L, H, n]; see `parts.Budget`."""
        layers, heads, _ = scores.valid.shape
        rows = Bounds.of(scores)
        whole = Bounds(rows.least.sum(dim=1, keepdim=True), rows.most.sum(dim=1, keepdim=True), rows.total)
        # Levels are whole, so that the heads' floors never rise by more than their layer does.
        counts = whole.fitted(
            lambda level: torch.full((layers,), math.floor(level) * heads, dtype=torch.float64), float(scores.budget)
        )
        # What is protected comes before all shares: they divide the room that it leaves.
        room = (counts - whole.least).to(scores.values.device)
        protected = scores.protected & scores.valid
        free = scores.valid & ~protected
        floor = (self.alpha * (room.double() / heads)).floor().to(torch.int64).expand(layers, heads)
        own = best(scores.values, free, floor)
        rest = best(scores.values.flatten(1), (free & ~own).flatten(1), room.squeeze(1) - own.sum(dim=(1, 2)))
        return protected | own | rest.view_as(own)
