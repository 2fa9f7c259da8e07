"""The most recent entries: what is left of the text is its begin and its end.

Xiao et al., "Efficient Streaming Language Models with Attention Sinks" (StreamingLLM), section 3.2; Han et al.,
"LM-Infinite", section 3. The first tokens, which soak up attention whatever they say, are kept by the engine's
protection, as for all scorers; the two methods differ in the positions that what is left is read at.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs


@dataclass(frozen=True, slots=True)
class Window:
    """s_i = i: sinks and the last entries are kept."""

    @property
    def needs(self) -> Needs:
        return Needs()

    def score(self, heads: Heads) -> Tensor:
        # From the last one backwards: float32 would round positions beyond 16 million onto each other.
        return (heads.positions - heads.positions[:, -1:]).to(torch.float32)
