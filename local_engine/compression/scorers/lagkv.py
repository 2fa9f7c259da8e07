"""Entries that stand out beside those that come next.

Liang et al., "LagKV: Lag-Relative Information of the KV Cache Tells Which Tokens Are Important", section 3: keys and
values change along the text, and what counts as large in a channel is told by the next stretch of it. No query needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs
from lcdoc.local_engine.errors import InvalidRequestError

_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True)
class LagKV:
    """Mean, of keys and values, of softmax over a partition of the deviation over channels of
    (x_i - min) / (max - min), min and max being those of a channel in the next partition; then the rank of it within
    the partition, from 0 to 1.

    The last partition and what is left behind it have no next one and score 1. With fewer than two partitions nothing
    can be told, and the latest entries score highest.
    """

    lag: int = 128
    """Entries in a partition."""
    sinks: int = 4
    """Entries in front of the first partition; they score 1."""
    ranks: bool = True
    """Whether ranks within a partition are compared, so that each keeps as many; else the softmax itself."""

    def __post_init__(self) -> None:
        if self.lag < 2 or self.sinks < 0:
            raise InvalidRequestError(
                f"lagkv cuts partitions of {self.lag} entries behind {self.sinks} sinks: "
                "set lag to 2 or more and sinks to 0 or more"
            )

    @property
    def needs(self) -> Needs:
        return Needs()

    def score(self, heads: Heads) -> Tensor:
        count, n, _ = heads.keys.shape
        partitions = (n - self.sinks) // self.lag
        if partitions < 2:
            return torch.arange(n, dtype=torch.float32, device=heads.keys.device).div_(n).expand(count, n).contiguous()
        score = (self._outstanding(heads.keys, partitions) + self._outstanding(heads.values, partitions)) / 2
        if self.ranks:
            score = score.argsort(-1).argsort(-1) / self.lag
        whole = torch.ones(count, n, device=heads.keys.device)
        whole[:, self.sinks : self.sinks + (partitions - 1) * self.lag] = score.flatten(1)
        return whole

    def _outstanding(self, states: Tensor, partitions: int) -> Tensor:
        """`states` is [H, n, D]: float32 [H, partitions - 1, lag]."""
        behind = states[:, self.sinks : self.sinks + partitions * self.lag].to(torch.float32)
        parts = behind.reshape(len(behind), partitions, self.lag, -1)
        lowest, highest = parts[:, 1:].aminmax(dim=2, keepdim=True)
        # A channel that the next partition does not move in tells nothing, and must not divide by 0.
        spread = highest - lowest
        scaled = torch.where(spread > 0, (parts[:, :-1] - lowest) / spread.clamp(min=_TINY), 0.0)
        return scaled.std(-1).softmax(-1)
