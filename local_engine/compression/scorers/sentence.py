"""Whole sentences, so that what is kept can be read and cited (after "SentenceKV: Efficient LLM Inference via
Sentence-Level Semantic KV Caching").

The paper stores everything and reads the sentences that a step needs; what is taken from it is the unit: a sentence is
kept or dropped as one, by the attention its tokens got.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs
from lcdoc.local_engine.compression.scorers.segments import segment_means
from lcdoc.local_engine.compression.scorers.snapkv import SnapKV
from lcdoc.local_engine.errors import InvalidRequestError

_STATE: Final = "sentence"


@dataclass(frozen=True, slots=True)
class SentenceKV:
    """s_i = mean of snapkv's scores over the entries of i's sentence."""

    window: int = 32
    """Queries looked at, as for snapkv."""
    kernel: int = 1
    """Entries pooled over before that, as for snapkv; the sentence pools already."""

    def __post_init__(self) -> None:
        self._attention()

    @property
    def needs(self) -> Needs:
        return Needs(window=self.window)

    def score(self, heads: Heads) -> Tensor:
        """Raises InvalidRequestError where the caller did not say where sentences start."""
        if heads.sentence_starts is None:
            raise InvalidRequestError(
                "sentence needs to know where sentences start: give their offsets with the text, or use windowkv"
            )
        return segment_means(self._attention().score(heads), self._numbers(heads, heads.sentence_starts))

    def _numbers(self, heads: Heads, starts: Tensor) -> Tensor:
        """float32 [H, n]: which sentence of the text each entry is of.

        Kept with the entries, as a sentence that was cut short may have lost the token it starts with.
        """
        old = heads.positions.shape[-1] - heads.new
        numbers = starts.cumsum(dim=-1).to(torch.float32)
        if old and _STATE in heads.state:
            before = heads.state[_STATE][:, :old]
            numbers = torch.cat([before, before[:, -1:] + starts[:, old:].cumsum(dim=-1)], dim=-1)
        heads.state[_STATE] = numbers
        return numbers

    def _attention(self) -> SnapKV:
        return SnapKV(window=self.window, kernel=self.kernel)
