"""What all queries so far attended to.

Zhang et al., "H2O: Heavy-Hitter Oracle for Efficient Generative Inference of Large Language Models", section 4: a few
entries gather most of the attention, and go on doing so. The engine adds up the mass while it attends (see
`Needs.mass`), so that attention is never held as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs
from lcdoc.local_engine.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class HeavyHitters:
    """s_i = sum over all queries of the attention on i, or the mean over those that could see i."""

    mean: bool = False
    """Divide by the number of queries that could see an entry. The paper's sum favours early entries, which were seen
    more often."""
    recent: float = 0.5
    """The share of the budget that goes to the last entries, which had no time yet to gather any mass."""

    def __post_init__(self) -> None:
        if not 0 <= self.recent <= 1:
            raise InvalidRequestError(f"h2o keeps a share of {self.recent} as recent: set recent from 0 to 1")

    @property
    def needs(self) -> Needs:
        return Needs(mass=True, recent=self.recent)

    def score(self, heads: Heads) -> Tensor:
        mass = heads.state["mass"]
        return mass / heads.state["seen"].clamp(min=1.0) if self.mean else mass
