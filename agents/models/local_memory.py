"""How much memory a model takes, and how long a window fits beside its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from lcdoc.agents.models.local_files import Sizes

Weights = Literal["float32", "bfloat16", "int8", "int4"]
"""How a model's weights are held: as a type of numbers, or quantized beside bfloat16."""

BYTES: Final[dict[Weights, float]] = {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0 + 2 / 1024, "int4": 0.5 + 4 / 64}
"""Of one parameter of a layer's matrix, its share of the scales included: one for about a thousand weights, and two
numbers for a group of 64."""
CACHE_SHARE: Final = 0.5
"""Of the memory that the weights leave, what the engine takes for its cache on a CPU."""
CACHE_SHARE_OF_GPU: Final = 0.9


@dataclass(frozen=True, slots=True)
class Fit:
    """A model in this machine's memory."""

    weights: Weights
    weight_bytes: int
    context: int
    """Tokens that the cache can hold beside the weights, at most the model's window; 0: the weights do not fit."""


def weight_bytes(sizes: Sizes, weights: Weights, *, on_gpu: bool = False) -> int:
    """Bytes of the weights in memory. On a CPU the input table stays in its file, unless it is the output's, too."""
    plain = 4 if weights == "float32" else 2
    # What quantization leaves alone: the output matrix, norms and biases.
    held = sizes.small + (sizes.head or sizes.embedding)
    if on_gpu and sizes.head:
        held += sizes.embedding
    return int(sizes.layers * BYTES[weights] + held * plain)


def fit(
    sizes: Sizes, weights: Weights, *, window: int, cache_numbers_per_token: int, free_bytes: int, on_gpu: bool = False
) -> Fit:
    """How the model fits `free_bytes`. `cache_numbers_per_token` are the keys' and values' of all layers."""
    taken = weight_bytes(sizes, weights, on_gpu=on_gpu)
    share = CACHE_SHARE_OF_GPU if on_gpu else CACHE_SHARE
    number_bytes = 4 if weights == "float32" else 2
    room = max(0, free_bytes - taken) * share
    return Fit(weights, taken, min(window, int(room / (cache_numbers_per_token * number_bytes))))


def steady(context: int, window: int) -> int:
    """A window to plan with where `context` tokens fit: `window`, or less by whole halves.

    What is free changes from minute to minute; a plan that followed it would cut documents differently each time, and
    no answer that was kept would fit the next question.
    """
    return window if context >= window else 1 << (max(1, context).bit_length() - 1)
