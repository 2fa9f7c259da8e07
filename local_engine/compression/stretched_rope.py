"""Rotary embeddings stretched for texts longer than a model's window, without training.

The other way beyond the window than `positions.py`: there distances are made shorter, here frequencies slower. Keys and
queries of the whole text are then rotated so, which is settled before a model is loaded: what these functions give is
an overridden configuration.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, get_args

from lcdoc.local_engine.compression.parts import names
from lcdoc.local_engine.config import ModelConfig
from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.local_engine.rope_scaling import RopeScaling

Stretch = Literal["linear", "ntk", "dynamic", "yarn"]
"""How frequencies are slowed down by s = length / window, d being the rotated dimensions:

- linear: all alike, by s (Chen et al., "Extending Context Window of Large Language Models via Positional
  Interpolation");
- ntk: by a base that grows by s^(d / (d - 2)), so that the fastest stay and the slowest are slowed by s ("NTK-aware");
- dynamic: the same, with s from each sequence's own length, so that short texts are read as trained. Keys then depend
  on how long their text is;
- yarn: those that turn often in the window stay, those that turn seldom are slowed by s, and attention is sharpened
  (Peng et al., "YaRN: Efficient Context Window Extension of Large Language Models")."""

STRETCHES: Final[tuple[str, ...]] = get_args(Stretch)


def stretched(config: ModelConfig, kind: str, length: int) -> ModelConfig:
    """`config` for texts of up to `length` tokens; itself, where they fit its window anyway.

    Raises InvalidRequestError for a kind that is none, and for a model that is stretched as it is: how the two were to
    be joined, nobody has said.
    """
    if kind not in STRETCHES:
        raise InvalidRequestError(f"{kind!r} is no way to stretch a rotary embedding: choose {names(STRETCHES)}")
    window = config.context_window
    if length <= window:
        return config
    if config.rope.kind != "default":
        raise InvalidRequestError(
            f"the model's rotary embedding is {config.rope.kind} for {window} tokens and cannot be stretched to "
            f"{length}: place entries anew (compact, self-extend or capped) instead"
        )
    if kind in {"ntk", "dynamic"} and config.rotary_dim <= 2:
        raise InvalidRequestError(
            f"{kind} stretches a rotary embedding of more than 2 dimensions, and this has {config.rotary_dim}: "
            "choose linear"
        )
    factor = length / window
    if kind == "ntk":
        theta = config.rope_theta * factor ** (config.rotary_dim / (config.rotary_dim - 2))
        return replace(config, rope_theta=theta, context_window=length)
    # Dynamic scaling multiplies by its factor what is by itself length / window.
    scaling = {
        "linear": RopeScaling("linear", factor, window),
        "dynamic": RopeScaling("dynamic", 1.0, window),
        "yarn": RopeScaling("yarn", factor, window),
    }[kind]
    return replace(config, rope=scaling, context_window=length)
