"""What the last queries would attend to if the entries were drawn with noise.

Adnan et al., "Keyformer: KV Cache Reduction through Key Tokens Selection for Efficient Generative Inference", section
3: dropping entries sharpens the softmax over the others; Gumbel noise on the logits and a temperature that rises from
cut to cut keep the choice from hanging on who was ahead when the cut was made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs
from lcdoc.local_engine.compression.scorers.gumbel import gumbel
from lcdoc.local_engine.compression.scorers.window_attention import window_logits, window_queries
from lcdoc.local_engine.errors import InvalidRequestError

_SCORE, _CUTS = "keyformer", "keyformer_cuts"


@dataclass(frozen=True, slots=True)
class Keyformer:
    """s_i += sum over queries of softmax((x_i + zeta_i) / tau), mean over the group; zeta_i ~ Gumbel(0, 1).

    tau = 1 + `heating` t up to `hottest`, where t is how often the sequence was cut before: in decoding, the paper's
    step. An entry's noise is drawn for its head and its place in the text, and stays with it. The queries of the paper
    are all of them; here they are the last ones before each cut.
    """

    window: int = 32
    """Queries looked at in each cut: the last so many."""
    heating: float = 0.01
    hottest: float = 2.0
    recent: float = 0.3
    """The share of the budget that goes to the last entries."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.window < 1:
            raise InvalidRequestError(f"keyformer looks at the last {self.window} queries: set window to 1 or more")
        if self.heating < 0 or self.hottest < 1:
            raise InvalidRequestError(
                f"keyformer's temperature rises from 1 by {self.heating} to {self.hottest}: "
                "set heating to 0 or more and hottest to 1 or more"
            )
        if not 0 <= self.recent <= 1:
            raise InvalidRequestError(f"keyformer keeps a share of {self.recent} as recent: set recent from 0 to 1")

    @property
    def needs(self) -> Needs:
        return Needs(window=self.window, recent=self.recent)

    def score(self, heads: Heads) -> Tensor:
        queries, query_positions = window_queries(heads, self.window)
        cuts = heads.state.get(_CUTS, torch.zeros_like(heads.positions, dtype=torch.float32))
        # Sinks were there at all cuts, so that the oldest entry knows how many there were.
        temperature = (1 + self.heating * cuts.amax(-1)).clamp(max=self.hottest)[:, None, None, None]
        bias = gumbel(heads, self.seed) + heads.state.get("bias", 0.0)
        scale, stand = heads.model.scale, heads.rotated_at
        logits = window_logits(queries, heads.keys, query_positions, stand, scale, bias=bias)
        added = (logits / temperature).softmax(-1).sum(2).mean(1)
        score = heads.state.get(_SCORE, torch.zeros_like(cuts)) + added
        heads.state[_SCORE], heads.state[_CUTS] = score, cuts + 1
        return score
