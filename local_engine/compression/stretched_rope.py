"""Rotary embeddings stretched for texts longer than a model's window, without training.

The other way beyond the window than `positions.py`: there distances are made shorter, here frequencies slower. Keys and
queries of the whole text are then rotated so, which is settled before a model is loaded: what is made here is an
overridden configuration.

    yarn:length=32768           a window of 32,768 tokens
    linear:factor=4             four times the model's window
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal, Self, cast, get_args

from lcdoc.local_engine.compression.options import read_value
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


@dataclass(frozen=True, slots=True)
class Stretching:
    """How a model's window is stretched. Made by `Stretching.parse`; `str` gives it back."""

    kind: Stretch
    length: int | None = None
    """The window wanted, in tokens"""
    factor: float | None = None
    """Or how many times the model's own; one of the two is given."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `text` names; see the module. Raises InvalidRequestError naming what is wrong in it."""
        kind, _, listed = (part.strip() for part in text.partition(":"))
        key, _, value = (part.strip() for part in listed.partition("="))
        if kind not in STRETCHES:
            raise InvalidRequestError(f"rope is {text!r}: {kind!r} is none of {names(STRETCHES)}")
        if key not in {"length", "factor"} or not value:
            raise InvalidRequestError(f"rope is {text!r}: say how far, as in {kind}:length=32768 or {kind}:factor=4")
        number = read_value(value, int if key == "length" else float, f"rope is {text!r}: {key}")
        if not 1 <= number < math.inf:
            raise InvalidRequestError(f"rope is {text!r}: {key} is {value}: give 1 or more")
        length, factor = (number, None) if key == "length" else (None, number)
        return cls(cast("Stretch", kind), length, factor)

    def applied(self, config: ModelConfig) -> ModelConfig:
        """`config` with the stretched window. Raises InvalidRequestError: see `stretched`."""
        if self.factor is None:
            return stretched(config, self.kind, cast("int", self.length))
        return stretched(config, self.kind, round(self.factor * config.context_window))

    def __str__(self) -> str:
        return f"{self.kind}:length={self.length}" if self.factor is None else f"{self.kind}:factor={self.factor:g}"


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
