"""Equal budgets: every head of every layer keeps the same number of entries, its own best.

What most methods are published with ("SnapKV: LLM Knows What You are Looking for Before Generation", section 4), and
the only one, with the layer-wise ones, that any engine can free memory for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.budgets.best import best
from lcdoc.local_engine.compression.budgets.shares import Bounds
from lcdoc.local_engine.compression.parts import Needs, Scores


@dataclass(frozen=True, slots=True)
class Uniform:
    """The same number for all rows: the budget, or all entries of a shorter row.

    Only where some rows protect more than the budget do the others get less, so that the whole stays within it.
    """

    @property
    def ragged(self) -> bool:
        return False

    @property
    def needs(self) -> Needs:
        return Needs()

    def keep(self, scores: Scores) -> Tensor:
        """bool [L, H, n]; see `parts.Budget`."""
        layers = scores.valid.shape[0]
        counts = Bounds.of(scores).fitted(
            lambda level: torch.full((layers,), level, dtype=torch.float64), top=float(scores.budget)
        )
        return kept(scores, counts)


def kept(scores: Scores, counts: Tensor) -> Tensor:
    """bool [L, H, n]: `counts` (int64 [L, H]) entries of each row, the protected ones first, then the best."""
    protected = scores.protected & scores.valid
    extra = counts.to(scores.values.device) - protected.sum(dim=-1)
    return protected | best(scores.values, scores.valid & ~protected, extra)
