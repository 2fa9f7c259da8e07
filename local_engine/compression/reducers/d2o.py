"""Merging of what resembles a kept entry closely enough, dropping of the rest.

Wan et al., "D2O: Dynamic Discriminative Operations for Efficient Generative Inference of Large Language Models",
section on token-level discriminative operations. How similar is enough follows the text: a threshold that is a moving
average of the similarities met so far. The paper's other half, budgets by layer, is the budget `d2o-layers`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Merged, Needs
from lcdoc.local_engine.compression.reducers.nearest import merged, nearest
from lcdoc.local_engine.errors import InvalidRequestError

THRESHOLD = "d2o_threshold"
"""The name in `Heads.state` under which all entries of a row hold its threshold; 0, for entries read since, is none. It
is kept with the entries because these are all that is left of a text between two cuts."""

_ROUNDING = 1e-6
"""Entries exactly as similar as the mean of them are merged, however that mean was rounded."""


@dataclass(frozen=True, slots=True)
class D2O:
    """An evicted entry i whose highest cosine u_i, with a kept key k_j, reaches the threshold is merged into that one:

    k_j = (e k_j + sum exp(u_i) k_i) / (e + sum exp(u_i)), and v_j alike; e is exp of an entry's cosine with itself.
    Protected entries take part, as in the paper.
    """

    beta: float = 0.5
    """The share of the newest similarities in the threshold: beta mean(u) + (1 - beta) threshold so far. 0 to 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise InvalidRequestError(f"d2o's beta is {self.beta}: choose a share from 0 to 1")

    @property
    def needs(self) -> Needs:
        return Needs()

    @property
    def biased(self) -> bool:
        return False

    def reduce(self, heads: Heads, keep: Tensor, scores: Tensor) -> Merged:
        cosines, target = nearest(heads.keys, ~keep, keep)
        threshold = self._threshold(heads, cosines)
        heads.state[THRESHOLD] = threshold.to(torch.float32)[:, None].repeat(1, keep.shape[1])
        alike = torch.isfinite(cosines) & (cosines >= threshold[:, None] - _ROUNDING)
        weights = torch.where(alike, cosines.exp(), 0.0)
        return merged(keep, target, weights, torch.full_like(weights, math.e))

    def _threshold(self, heads: Heads, cosines: Tensor) -> Tensor:
        """float64 [H]; 0 where there is still nothing to tell it from."""
        met = torch.isfinite(cosines)
        mean = cosines.to(torch.float64).masked_fill(~met, 0).sum(-1) / met.sum(-1).clamp(min=1)
        # What a row has read since its last cut stands at its end, so its first entry knows.
        before = heads.state[THRESHOLD][:, 0].to(torch.float64) if THRESHOLD in heads.state else torch.zeros_like(mean)
        average = torch.where(before == 0, mean, self.beta * mean + (1 - self.beta) * before)
        return torch.where(met.any(-1), average, before)
