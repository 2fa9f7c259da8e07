"""Eviction as most methods have it: what is not kept is gone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs, Reduced


@dataclass(frozen=True, slots=True)
class Drop:
    """Leaves what is kept as it is."""

    @property
    def needs(self) -> Needs:
        return Needs()

    @property
    def biased(self) -> bool:
        return False

    def reduce(self, heads: Heads, keep: Tensor, scores: Tensor) -> Reduced:
        return Reduced(heads.keys, heads.values)
