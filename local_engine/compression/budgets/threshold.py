"""As many entries as matter: what scores at least tau is kept, and a text with little in it takes little room
("KVzap: Fast, Adaptive, and Faithful KV Cache Pruning", after Dynamic Memory Sparsification).

A top-k keeps worthless entries of an easy text and drops good ones of a hard text. Here the budget is only the most
that may be kept: where more entries pass, the highest of the whole cache are taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from lcdoc.local_engine.compression.budgets.global_top import Global
from lcdoc.local_engine.compression.parts import Needs, Scores
from lcdoc.local_engine.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class Threshold:
    """All entries with a score of tau or more, within the budget of the whole cache."""

    tau: float = 0.01
    """In the scorer's own unit; the default suits scores that are attention probabilities, such as kvzip's."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.tau):
            raise InvalidRequestError(f"threshold: tau is {self.tau}: give a finite number, in the scorer's unit")

    @property
    def ragged(self) -> bool:
        return True

    @property
    def needs(self) -> Needs:
        return Needs()

    def keep(self, scores: Scores) -> Tensor:
        """bool [L, H, n]; see `parts.Budget`."""
        return Global().keep(replace(scores, valid=scores.valid & (scores.protected | (scores.values >= self.tau))))
