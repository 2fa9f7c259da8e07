"""Short keys are kept.

Devoto et al., "A Simple and Effective L2 Norm-Based Strategy for KV Cache Compression", section 3: keys that draw much
attention tend to be short. No query is needed, so that a cache may be cut at any time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs


@dataclass(frozen=True, slots=True)
class KeyNorm:
    """s_i = -|k_i|"""

    @property
    def needs(self) -> Needs:
        return Needs()

    def score(self, heads: Heads) -> Tensor:
        lengths: Tensor = torch.linalg.vector_norm(heads.keys, dim=-1, dtype=torch.float32)
        return -lengths
