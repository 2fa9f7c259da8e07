"""Whole chunks of the text, by what the last queries attend to in them.

Liu et al., "ChunkKV: Semantic-Preserving KV Cache Compression for Efficient Long-Context LLM Inference", section 3:
single tokens torn out of their clause say little; one set for all heads of a layer keeps clauses readable.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs
from lcdoc.local_engine.compression.scorers.snapkv import Pooling, check_pooling, pooled
from lcdoc.local_engine.compression.scorers.window_attention import before_window, mean_attention
from lcdoc.local_engine.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class ChunkKV:
    """s_i = mean of SnapKV's score over all heads and the entries of i's chunk that are before the window.

    Chunks are stretches of the text, whatever was dropped from them before: after a cut they are still the same ones.
    """

    chunk: int = 20
    """Tokens of the text that stand and fall together."""
    window: int = 32
    """Queries looked at: the last so many."""
    kernel: int = 5
    """Entries pooled over before, an odd number; 1 pools nothing."""
    pooling: Pooling = "avg"

    def __post_init__(self) -> None:
        if self.chunk < 1 or self.window < 1:
            raise InvalidRequestError(
                f"chunkkv cuts chunks of {self.chunk} tokens by {self.window} queries: set both to 1 or more"
            )
        check_pooling("chunkkv", self.kernel, self.pooling)

    @property
    def needs(self) -> Needs:
        return Needs(window=self.window, whole_layer=True)

    def score(self, heads: Heads) -> Tensor:
        attention = mean_attention(heads, self.window)
        before = before_window(heads, self.window)
        scores = pooled(attention, before, self.kernel, self.pooling)
        chunk = heads.positions.div(self.chunk, rounding_mode="floor")
        chunk -= chunk.min()
        # Half a chunk may be in the window; a chunk that is so as a whole has no score, and is protected anyhow.
        sums = torch.zeros(int(chunk.max()) + 1, device=scores.device)
        counts = sums.clone()
        sums.index_add_(0, chunk.flatten(), scores.masked_fill(~before, 0.0).flatten())
        counts.index_add_(0, chunk.flatten(), before.to(torch.float32).flatten())
        means = sums / counts.clamp(min=1.0)
        return torch.where(before, means[chunk], scores)
