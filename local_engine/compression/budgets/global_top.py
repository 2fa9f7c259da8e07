"""One budget for all: every head of every layer competes with every other ("KVzip: Query-Agnostic KV Cache Compression
with Context Reconstruction", section 3.4, non-uniform head budgets).

Layers differ even more than heads do in how much of a text they need. The scores decide alone, so they must mean the
same everywhere: attention probabilities and their maxima do, cosines do; norms of keys do not.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lcdoc.local_engine.compression.budgets.best import best
from lcdoc.local_engine.compression.parts import Needs, Scores


@dataclass(frozen=True, slots=True)
class Global:
    """The highest scores of the whole cache; a head may keep nothing but what is protected."""

    @property
    def ragged(self) -> bool:
        return True

    @property
    def needs(self) -> Needs:
        return Needs()

    def keep(self, scores: Scores) -> Tensor:
        """bool [L, H, n]; see `parts.Budget`."""
        layers, heads, _ = scores.valid.shape
        protected = scores.protected & scores.valid
        free = scores.valid & ~protected
        room = (scores.budget * layers * heads - protected.sum()).clamp(min=0)
        return protected | best(scores.values.flatten(), free.flatten(), room).view_as(free)
