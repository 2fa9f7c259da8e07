"""Whole windows of text instead of single tokens ("WindowKV: Task-Adaptive Group-Wise KV Cache Window Selection for
Efficient LLM Inference", section 3).

A token torn from its neighbours says little. Where a question is about a place, a window counts by its few best
tokens, which a mean would drown; where a whole text is to be summed up, by all of them. The first of a group of layers
chooses for the group, and all heads alike, so that one layer in seven or eight is looked at. In the paper groups also
have budgets in an arithmetic series, which is `pyramid:groups=4,beta=2`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lcdoc.local_engine.compression.layer_groups import check_groups
from lcdoc.local_engine.compression.parts import Heads, Needs
from lcdoc.local_engine.compression.scorers.segments import segment_means
from lcdoc.local_engine.compression.scorers.snapkv import SnapKV
from lcdoc.local_engine.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class WindowKV:
    """s_i = mean of snapkv's scores over the window of `size` positions that i is in, or over its `best` highest; and
    over the heads of the layer that decides for i's."""

    task: Literal["locate", "sum-up"] = "locate"
    """Whether the answer is at few places, or in the whole of the text."""
    size: int = 16
    """Positions a window spans."""
    best: int = 4
    """Entries that a window is judged by where places are looked for."""
    window: int = 32
    """Queries looked at, as for snapkv."""
    kernel: int = 5
    """Entries pooled over, as for snapkv."""
    groups: int | None = 4
    """So many groups of layers, four in the paper, the first layer of each choosing for the others. None: every layer
    chooses for itself, and so does every head."""

    def __post_init__(self) -> None:
        if self.task not in {"locate", "sum-up"}:
            raise InvalidRequestError(f"windowkv: task is {self.task!r}: set it to locate or sum-up")
        for name, value in (("size", self.size), ("best", self.best)):
            if value < 1:
                raise InvalidRequestError(f"windowkv: {name} is {value}: give 1 or more entries")
        check_groups("windowkv", self.groups)
        self._attention()

    @property
    def needs(self) -> Needs:
        return Needs(window=self.window, whole_layer=self.groups is not None, groups=self.groups)

    def score(self, heads: Heads) -> Tensor:
        # By position in the text, so that a later cut finds the same windows.
        windows = heads.positions // self.size
        highest = self.best if self.task == "locate" else None
        scores = segment_means(self._attention().score(heads), windows, highest)
        return scores if self.groups is None else scores.mean(0).expand_as(scores)

    def _attention(self) -> SnapKV:
        return SnapKV(window=self.window, kernel=self.kernel)
