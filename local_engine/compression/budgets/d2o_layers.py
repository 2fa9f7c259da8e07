"""Budgets by layer, larger where attention is spread ("D2O: Dynamic Discriminative Operations for Efficient Generative
Inference of Large Language Models", section 3.2).

Where a few entries gather a layer's attention they are all it needs, and where it is spread many are. The paper
measures that by the variance of the attention that entries got, and divides the budget by a softmax of its negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.budgets.shares import Bounds
from lcdoc.local_engine.compression.budgets.uniform import kept
from lcdoc.local_engine.compression.parts import Needs, Scores
from lcdoc.local_engine.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class D2OLayers:
    """A number for each layer, by `Scores.spread`; its heads keep their own best."""

    smallest: float = 0.01
    """The part of its entries that a layer keeps at least, where the budget allows it; 0 to 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.smallest <= 1:
            raise InvalidRequestError(f"d2o-layers: smallest is {self.smallest}: give a number from 0 to 1")

    @property
    def ragged(self) -> bool:
        return False

    @property
    def needs(self) -> Needs:
        return Needs(mass=True)

    def keep(self, scores: Scores) -> Tensor:
        """bool [L, H, n]; see `parts.Budget`. Raises InvalidRequestError where the spread is not given."""
        if scores.spread is None:
            raise InvalidRequestError("d2o-layers needs the spread of attention, and there is none: use uniform")
        rows = Bounds.of(scores)
        longest = float(int(rows.most.max()))
        share = layer_shares(scores.spread.cpu())

        def curve(level: float) -> Tensor:
            return (level * share).clamp(min=min(self.smallest * longest, level), max=longest)

        # A little more than what fills the smallest share, lest rounding leave its last entry out.
        return kept(scores, rows.fitted(curve, 1.001 * longest / float(share.min())))


def layer_shares(spread: Tensor) -> Tensor:
    """float64 [L], 1 on average: what a layer keeps of the average budget, from `attention_spread` of each [L].

    The softmax of spreads brought to the range from 0 to 1, so that shares differ by a factor of e at most: what it
    makes of raw variances depends on how many entries and queries there were.
    """
    values = spread.double()
    scaled = (values - values.min()) / (values.max() - values.min()).clamp(min=1e-12)
    return torch.softmax(scaled, dim=0) * len(values)


def attention_spread(mass: Tensor) -> float:
    """Of one layer, for `Scores.spread`: minus the variance of the attention that its entries got, each relative to the
    mean of its head. `mass` is float [H, n]; 0 is the most even there is."""
    received = mass.double()
    mean = received.mean(dim=-1, keepdim=True).clamp(min=1e-300)
    return -float(((received / mean - 1) ** 2).mean())
