"""Tokens that the text before them did not foretell.

Yao et al., "SirLLM: Streaming Infinite Retentive LLM", section 3: what surprised the model is what it could not make up
again. Only the logits of reading are needed, and they are there anyhow.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs
from lcdoc.local_engine.errors import InvalidRequestError

_CUTS = "entropy_cuts"


@dataclass(frozen=True, slots=True)
class Entropy:
    """s_i = -log p(token_i | those before it) * decay^(cuts that the entry has outlived)"""

    decay: float = 1.0
    """1 forgets nothing, as a document wants it. In a chat that is cut once a turn, below 1 lets old turns fade."""

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise InvalidRequestError(f"entropy fades by {self.decay}: set decay above 0 and to 1 at most")

    @property
    def needs(self) -> Needs:
        return Needs(surprise=True)

    def score(self, heads: Heads) -> Tensor:
        surprise = heads.state["surprise"]
        cuts = heads.state.get(_CUTS, torch.zeros_like(surprise))
        heads.state[_CUTS] = cuts + 1
        return surprise * self.decay**cuts
