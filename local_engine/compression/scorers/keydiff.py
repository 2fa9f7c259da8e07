"""Keys unlike the others are kept.

Park et al., "KeyDiff: Key Similarity-Based KV Cache Eviction for Long-Context LLM Inference in Resource-Constrained
Environments", section 3: keys far from their mean draw much attention. No query is needed, and the method was made for
cutting after each block of a prefill.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lcdoc.local_engine.compression.parts import Heads, Needs


@dataclass(frozen=True, slots=True)
class KeyDiff:
    """s_i = -cos(k_i, mean over all entries j of k_j / |k_j|)"""

    @property
    def needs(self) -> Needs:
        return Needs()

    def score(self, heads: Heads) -> Tensor:
        units = normalize(heads.keys.to(torch.float32), dim=-1)
        anchor = normalize(units.mean(1, keepdim=True), dim=-1)
        return -(units * anchor).sum(-1)
