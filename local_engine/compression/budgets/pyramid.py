"""Budgets that fall from the bottom layer to the top ("PyramidKV: Dynamic KV Cache Compression based on Pyramidal
Information Funneling", section 4.2).

Lower layers spread their attention over the whole text, upper ones gather it on few tokens. Beside the recent window,
which every layer keeps, the top layer gets a `beta`-th of the average and the bottom layer what is missing to twice the
average. Where the bottom layer has not so many entries the line turns about its middle until it fits, and what short or
protected rows leave or take goes to or from all others: the budget is used to the last entry, and no case is equal
budgets in disguise.

"WindowKV: Task-Adaptive Group-Wise KV Cache Window Selection for Efficient LLM Inference" (section 3) has the line fall
from group to group of layers, four of them, down to half of the average or a little more: groups=4,beta=2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.budgets.shares import Bounds
from lcdoc.local_engine.compression.budgets.uniform import kept
from lcdoc.local_engine.compression.layer_groups import check_groups, group_numbers
from lcdoc.local_engine.compression.parts import Needs, Scores
from lcdoc.local_engine.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class Pyramid:
    """A number for each layer, linear over the layers; its heads keep their own best."""

    beta: float = 20.0
    """By how much the top layer's budget, the recent window apart, is below the average; 1 is no pyramid."""
    groups: int | None = None
    """So many groups of neighbouring layers that keep equally many. None: each layer keeps its own number."""

    def __post_init__(self) -> None:
        if not self.beta >= 1:
            raise InvalidRequestError(f"pyramid: beta is {self.beta}: give a number of 1 or more")
        check_groups("pyramid", self.groups)

    @property
    def ragged(self) -> bool:
        return False

    @property
    def needs(self) -> Needs:
        return Needs()

    def keep(self, scores: Scores) -> Tensor:
        """bool [L, H, n]; see `parts.Budget`."""
        layers = scores.valid.shape[0]
        rows = Bounds.of(scores)
        longest = int(rows.most.max())
        if self.groups is None:
            counts = rows.fitted(lambda level: self.line(level, layers, scores.window, longest), float(longest))
            return kept(scores, counts)
        numbers = group_numbers(layers, self.groups)

        def steps(level: float) -> Tensor:
            return self.line(level, numbers[-1] + 1, scores.window, longest)[numbers]

        return kept(scores, rows.fitted(steps, float(longest), numbers))

    def line(self, average: float, layers: int, window: int, longest: int) -> Tensor:
        """float64 [layers]: what each layer, or group of them, keeps where a layer keeps `average` entries, of at most
        `longest`."""
        beyond = average - window
        if layers == 1 or beyond <= 0:
            return torch.full((layers,), average, dtype=torch.float64)
        bottom = min(2 * beyond - beyond / self.beta, float(longest - window))
        falling = torch.linspace(0, 1, layers, dtype=torch.float64)
        return window + bottom + (2 * beyond - 2 * bottom) * falling
