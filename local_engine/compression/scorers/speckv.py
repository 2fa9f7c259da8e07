"""What a drafted answer attends to ("Draft-based Approximate Inference for LLMs", SpecKV).

The end of a prompt is a poor guess at what the answer will look for, once the question is answered in several steps. A
draft of the answer, written with a cheaply compressed cache, is a better one even where it is wrong: it looks at the
places that the answer must be taken from.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs
from lcdoc.local_engine.compression.scorers.snapkv import Pooling, check_pooling
from lcdoc.local_engine.compression.scorers.task import check_probe, probed


@dataclass(frozen=True, slots=True)
class SpecKV:
    """s_i = pool of the mean attention of the draft's queries: snapkv with the draft as its window."""

    window: int = 128
    """Queries looked at: the draft's last so many."""
    kernel: int = 7
    """Entries pooled over, an odd number; 1 pools nothing."""
    pooling: Pooling = "max"

    def __post_init__(self) -> None:
        check_probe("speckv", self.window)
        check_pooling("speckv", self.kernel, self.pooling)

    @property
    def needs(self) -> Needs:
        return Needs(window=self.window, probe="draft")

    def score(self, heads: Heads) -> Tensor:
        return probed(heads, self.window, self.kernel, self.pooling)
