"""Attention first, then what the output would lose ("Identify Critical KV Cache in LLM Inference from an Output
Perturbation Perspective", section 4).

Attention alone says how much of a value is read, not how much the value does once the output projection is through with
it. The paper bounds the change of the output: half of the budget goes to the most attended entries, which makes the
bound hold, the other half to the highest attention times the 1-norm of the projected value. Where heads compete for
a budget, attention alone says how much each gets, as it does for Ada-KV, and the two stages what it is spent on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs
from lcdoc.local_engine.compression.scorers.projected import projected_sums
from lcdoc.local_engine.compression.scorers.snapkv import SnapKV
from lcdoc.local_engine.compression.scorers.two_stage import dealt, two_stage_order
from lcdoc.local_engine.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class CriticalKV:
    """With snapkv's a, the k-th highest a of the row, k being the place of i in the order of both stages; or, in one
    stage, s_i = (a_i + epsilon) |W_o v_i|_1.

    Places count the entries that are not protected: each stage chooses half of what the protected ones leave.
    """

    window: int = 32
    """Queries looked at, as for snapkv."""
    kernel: int = 5
    """Entries pooled over, as for snapkv."""
    epsilon: float = 1e-4
    """Added to the attention, so that a large value is not lost for getting none from these few queries."""
    two_stage: bool = True
    """Whether half of the budget goes by attention alone."""

    def __post_init__(self) -> None:
        if self.epsilon < 0:
            raise InvalidRequestError(f"criticalkv: epsilon is {self.epsilon}: give 0 or more")
        self._attention()

    @property
    def needs(self) -> Needs:
        return Needs(window=self.window)

    def score(self, heads: Heads) -> Tensor:
        attention = self._attention().score(heads)
        lost = (attention + self.epsilon) * projected_sums(heads.values, heads.model.output()).mean(dim=1)
        if not self.two_stage:
            return lost
        # Protected entries first in both stages would fill the first one; last in both, they fill neither.
        first, second = (each.masked_fill(heads.protected, -torch.inf) for each in (attention, lost))
        return dealt(first, two_stage_order(first, second))

    def _attention(self) -> SnapKV:
        return SnapKV(window=self.window, kernel=self.kernel)
