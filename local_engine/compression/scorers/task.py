"""What a description of the task attends to ("Beyond RAG: Task-Aware KV Cache Compression for Comprehensive Knowledge
Reasoning"; "Finch: Prompt-guided Key-Value Cache Compression", section 3).

A text that will be asked many questions of one kind is compressed once, for the kind: the task's description is put
behind each chunk as a probe, which sees what was kept of the text so far and the chunk, and what its queries attend to
stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs
from lcdoc.local_engine.compression.scorers.snapkv import Pooling, check_pooling, pooled
from lcdoc.local_engine.compression.scorers.window_attention import mean_attention
from lcdoc.local_engine.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class TaskAware:
    """s_i = pool of the mean attention of the description's queries: snapkv with the description as its window."""

    window: int = 256
    """Queries looked at: the description's last so many."""
    kernel: int = 5
    """Entries pooled over, an odd number; 1 pools nothing."""
    pooling: Pooling = "avg"

    def __post_init__(self) -> None:
        check_probe("task", self.window)
        check_pooling("task", self.kernel, self.pooling)

    @property
    def needs(self) -> Needs:
        return Needs(window=self.window, probe="task")

    def score(self, heads: Heads) -> Tensor:
        return probed(heads, self.window, self.kernel, self.pooling)


def check_probe(name: str, window: int) -> None:
    """Raises InvalidRequestError for a window without queries."""
    if window < 1:
        raise InvalidRequestError(f"{name} looks at the last {window} queries of its probe: set window to 1 or more")


def probed(heads: Heads, window: int, kernel: int, pooling: Pooling) -> Tensor:
    """float32 [H, n]: the mean attention of a probe's last `window` queries, pooled over neighbours.

    A probe comes after the text, so that no entry is in the window and all are pooled.
    """
    attention = mean_attention(heads, window)
    return pooled(attention, torch.ones_like(attention, dtype=torch.bool), kernel, pooling)
