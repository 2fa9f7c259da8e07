"""Values of what is evicted blended into the most similar kept entry; keys stay as they are.

After `MergingPress` of NVIDIA's kvpress, the merge that does least harm there: a key that is not touched keeps its
rotation, and an entry whose value is long beside its target's weighs more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Merged, Needs
from lcdoc.local_engine.compression.reducers.nearest import merged, nearest


@dataclass(frozen=True, slots=True)
class ValueMerge:
    """v_j = (v_j + sum w_i v_i) / (1 + sum w_i), w_i = max(0, cos(k_i, k_j)) |v_i| / (|v_i| + |v_j|).

    The sum is over the evicted entries i to whose key k_j is the most similar kept one, protected or not.
    """

    @property
    def needs(self) -> Needs:
        return Needs()

    @property
    def biased(self) -> bool:
        return False

    def reduce(self, heads: Heads, keep: Tensor, scores: Tensor) -> Merged:
        cosines, target = nearest(heads.keys, ~keep, keep)
        lengths = torch.linalg.vector_norm(heads.values, dim=-1, dtype=torch.float32)
        both = lengths + lengths.gather(1, target)
        weights = cosines.clamp(min=0) * lengths / both.clamp(min=torch.finfo(torch.float32).tiny)
        return merged(keep, target, weights, torch.ones_like(weights), keys=False)
