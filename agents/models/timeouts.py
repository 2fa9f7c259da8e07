"""How long a server may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SLOW_PREFILL_TOKENS_PER_S: Final = 15
"""A large model on a CPU; what a server nearby is given for its prompt on top of `first_token_s`."""
_CHARACTERS_PER_TOKEN: Final = 4


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a server may take, in seconds."""

    connect_s: float = 10.0
    first_token_s: float = 300.0
    """From sending to the first token: queue, loading of the model and prompt. Keep-alive lines do not count as tokens.
    Servers on this machine or network get the time of a slow prefill in addition."""
    idle_s: float = 120.0
    """Between two pieces. A busy CPU server reads 2,000 tokens of another prompt between two tokens of this answer."""
    total_s: float | None = None
    """For the whole answer."""


def slow_prefill_s(characters: int) -> float:
    """What a large model on a CPU takes to read a prompt of so many characters."""
    return characters / _CHARACTERS_PER_TOKEN / SLOW_PREFILL_TOKENS_PER_S
