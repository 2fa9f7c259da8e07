"""What the last query attends to, one set for all heads.

Oren et al., "Transformers are Multi-State RNNs", section 3.3 (Token Omission Via Attention): the entry with the least
attention of the newest token, averaged over the layer's heads, goes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs
from lcdoc.local_engine.compression.scorers.window_attention import mean_attention


@dataclass(frozen=True, slots=True)
class Tova:
    """s_i = mean over all query heads of the layer of the last query's attention on i."""

    @property
    def needs(self) -> Needs:
        return Needs(window=1, whole_layer=True)

    def score(self, heads: Heads) -> Tensor:
        attention = mean_attention(heads, 1)
        return attention.mean(0).expand(len(attention), -1).contiguous()
