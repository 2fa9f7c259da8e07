"""How many entries each row gets, when the shares that a method wants do not fit the rows as they are.

Rows may be shorter than their share, and may hold more protected entries than it. A method gives its shares as a curve
that rises with one number, the level; the level is then moved until the bounded shares fill the budget. Since no share
falls as the level rises, a larger budget never takes an entry from a row: shares rounded each for itself, with the
largest remainders rounded up, would do so (the Alabama paradox of apportionment).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Scores

Curve = Callable[[float], Tensor]
"""Level -> float64 [L], the shares of a row of each layer, none of which falls as the level rises. 0 gives 0."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What each row must and can keep. On the CPU, as they are looked at many times."""

    least: Tensor
    """int64 [L, H]: its protected entries"""
    most: Tensor
    """int64 [L, H]: its entries"""
    total: int
    """What all rows may keep together."""

    @classmethod
    def of(cls, scores: Scores) -> Bounds:
        layers, heads, _ = scores.valid.shape
        protected = scores.protected & scores.valid
        return cls(protected.sum(dim=-1).cpu(), scores.valid.sum(dim=-1).cpu(), scores.budget * layers * heads)

    def fitted(self, curve: Curve, top: float, groups: Sequence[int] = ()) -> Tensor:
        """Entries for each row, int64 [L, H]: the shares at the highest level up to `top` at which they fit `total`.

        Where a step of the level is too coarse, the first rows step alone, whole layers where their rows are alike: so
        the sum is `total` exactly, unless `top` or the entries there are stop it, or more are protected. `groups`, a
        number for each layer, has the layers of a group step together, so that less than one such step is left.
        """
        counts = self._at(curve, top)
        if int(counts.sum()) <= self.total:
            return counts
        low, high = 0.0, top
        while low < (middle := (low + high) / 2) < high:
            if int(self._at(curve, middle).sum()) <= self.total:
                low = middle
            else:
                high = middle
        counts = self._at(curve, low)
        steps = self._at(curve, high) - counts
        room = self.total - int(counts.sum())
        if not groups:
            return counts + steps * (steps.flatten().cumsum(0) <= room).view_as(steps)
        of_group = torch.tensor(groups)
        whole = torch.zeros(max(groups) + 1, dtype=torch.int64).index_add_(0, of_group, steps.sum(dim=1))
        return counts + steps * (whole.cumsum(0) <= room)[of_group].unsqueeze(1)

    def _at(self, curve: Curve, level: float) -> Tensor:
        wanted = curve(level).floor().to(torch.int64).unsqueeze(1)
        return torch.minimum(torch.maximum(wanted, self.least), self.most)
