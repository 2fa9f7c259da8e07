"""What the last queries attend to, smoothed over neighbours.

Li et al., "SnapKV: LLM Knows What You are Looking for Before Generation", section 4: the end of a prompt attends to
what the answer will attend to, and pooling keeps the tokens around a hit, without which a copied passage loses its
edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, max_pool1d

from lcdoc.local_engine.compression.parts import Heads, Needs
from lcdoc.local_engine.compression.scorers.window_attention import before_window, mean_attention
from lcdoc.local_engine.errors import InvalidRequestError

Pooling = Literal["avg", "max"]


@dataclass(frozen=True, slots=True)
class SnapKV:
    """s_i = pool of the mean attention of the window's queries, over the group too, for entries before the window.

    Entries of the window itself, which the engine's protection is to keep, get the attention they got, unpooled.
    """

    window: int = 32
    """Queries looked at: the last so many."""
    kernel: int = 5
    """Entries pooled over, an odd number; 1 pools nothing."""
    pooling: Pooling = "avg"

    def __post_init__(self) -> None:
        if self.window < 1:
            raise InvalidRequestError(f"snapkv looks at the last {self.window} queries: set window to 1 or more")
        check_pooling("snapkv", self.kernel, self.pooling)

    @property
    def needs(self) -> Needs:
        return Needs(window=self.window)

    def score(self, heads: Heads) -> Tensor:
        attention = mean_attention(heads, self.window)
        return pooled(attention, before_window(heads, self.window), self.kernel, self.pooling)


def check_pooling(name: str, kernel: int, pooling: str) -> None:
    """Raises InvalidRequestError for a pooling that there is not."""
    if kernel < 1 or kernel % 2 == 0:
        raise InvalidRequestError(f"{name} pools over {kernel} entries: set kernel to an odd number")
    if pooling not in {"avg", "max"}:
        raise InvalidRequestError(f"{name} cannot pool by {pooling!r}: set pooling to avg or max")


def pooled(attention: Tensor, before: Tensor, kernel: int, pooling: Pooling) -> Tensor:
    """`attention` (float32 [H, n], not negative) pooled among the entries `before` the window, the others as they are.

    What lies beyond an edge, or in the window, counts as 0: few queries could see the window's entries, and what they
    got is no measure for those in front of them.
    """
    if kernel == 1:
        return attention
    pool = avg_pool1d if pooling == "avg" else max_pool1d
    smooth: Tensor = pool(attention.masked_fill(~before, 0.0).unsqueeze(1), kernel, 1, kernel // 2)
    return torch.where(before, smooth.squeeze(1), attention)
