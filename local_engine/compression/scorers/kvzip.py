"""What a model looks at when it repeats the text ("KVzip: Query-Agnostic KV Cache Compression with Context
Reconstruction", section 3).

A cache from which the text can be told again can answer any question about it. So the model is made to repeat the text,
piece by piece, and an entry counts by the most attention that any of the repeating queries gives it: it is kept if it
was needed once. It costs about one more reading of the text, and serves all later questions.

The prompts are here for what runs the probe: behind the text come a prompt and the piece itself, whose queries are
looked at. A query's attention is shared out among the sinks, its own piece and what was repeated so far, of which
`Heads.beside` tells.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs
from lcdoc.local_engine.compression.scorers.leverage import leverage_scores, sketch
from lcdoc.local_engine.compression.scorers.projected import projected_lengths
from lcdoc.local_engine.compression.scorers.window_attention import window_queries
from lcdoc.local_engine.errors import InvalidRequestError

PIECE_TOKENS: Final = 2048
"""How much is repeated at a time."""
FIRST_PROMPT: Final = "\n\nRepeat the previous context exactly."
"""What comes before the first piece."""
LATER_PROMPT: Final = "\n\nRepeat the part of the previous context exactly, starting with"
"""What comes before a later piece, and after it the last `HINT_TOKENS` tokens of the piece before that one."""
HINT_TOKENS: Final = 8
_PROMPT_TOKENS: Final = 256
"""Room for the prompt, and for what a chat template puts around it."""
_SKETCH: Final = 48
_RIDGE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class KVzip:
    """s_i = the most attention that a repeating query, of any head of the group, gives entry i."""

    leverage: float = 0.0
    """The power of an entry's leverage that the score is multiplied by; 0, as in the paper, is none of it. A model that
    repeats a text looks at nearly every token of it once; of tokens it looks at alike, those stay whose keys no other
    can stand for."""

    def __post_init__(self) -> None:
        _check("kvzip", self.leverage)

    @property
    def needs(self) -> Needs:
        return Needs(window=PIECE_TOKENS + _PROMPT_TOKENS, probe="repeat")

    def score(self, heads: Heads) -> Tensor:
        queries, positions = window_queries(heads)
        most = heads.kernels.window_scores(heads, queries, positions, "max", beside=heads.beside)
        return most * _leverage(heads, self.leverage)


@dataclass(frozen=True, slots=True)
class KVzipPlus:
    """s_i = max of a_qi |W_o v_i| / |h_q|, h_q being the attention's input at the query.

    "KVzap: Fast, Adaptive, and Faithful KV Cache Pruning", section 3: what a query takes from the entry, measured by
    the length of what it adds to the output, and relative to what it is added to.
    """

    leverage: float = 0.0
    """As for kvzip."""

    def __post_init__(self) -> None:
        _check("kvzip+", self.leverage)

    @property
    def needs(self) -> Needs:
        return Needs(window=PIECE_TOKENS + _PROMPT_TOKENS, probe="repeat", hidden=True)

    def score(self, heads: Heads) -> Tensor:
        if heads.hidden is None:
            raise ValueError(f"layer {heads.model.layer} came without its input: ask for it by `Needs.hidden`")
        inputs = heads.hidden.to(torch.float32).norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
        lengths = projected_lengths(heads.values, heads.model.output())
        queries, positions = window_queries(heads)
        taken = torch.zeros(heads.positions.shape, device=heads.positions.device)
        for head in range(queries.shape[1]):
            one = slice(head, head + 1)
            beside = None if heads.beside is None else heads.beside[:, one]
            most = heads.kernels.window_scores(
                heads, queries[:, one], positions, "max", beside=beside, factors=1 / inputs
            )
            taken = torch.maximum(taken, most * lengths[:, head])
        return taken * _leverage(heads, self.leverage)


def _check(name: str, leverage: float) -> None:
    if not 0 <= leverage < math.inf:
        raise InvalidRequestError(f"{name}: leverage is {leverage}: give a power of 0 or more, such as 1")


def _leverage(heads: Heads, power: float) -> Tensor | float:
    """float32 [H, n], or 1: leverage among the entries shown, times their number, to the power.

    All leverages of a row add up to its rank: times n they mean the same for long and short pieces.
    """
    if not power:
        return 1.0
    keys = heads.model.rotate(heads.keys.to(torch.float32), -heads.rotated_at)
    drawn = sketch(keys.shape[-1], _SKETCH, heads.model.layer, keys.device)
    return (keys.shape[1] * leverage_scores(keys, drawn, _RIDGE)).pow(power)
