"""Rotary position embedding: the angles by which queries and keys are rotated (Su et al., RoFormer, section 3.2).

Every pair of dimensions turns with a frequency of its own, theta^(-2i/d). The published ways to stretch the context
change the frequencies, as transformers' `modeling_rope_utils` does, operation by operation, so that the angles are
equal to the last bit where the arithmetic allows it: an angle is position x frequency, and far into a text the least
error in a frequency is a visible one in the angle.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lcdoc.local_engine.config import ModelConfig
from lcdoc.local_engine.rope_scaling import RopeScaling


class Rope:
    """The rotations of one model, on one device."""

    def __init__(self, config: ModelConfig, device: torch.device | str = "cpu") -> None:
        self._scaling, self._theta, self._dim = config.rope, config.rope_theta, config.rotary_dim
        self.attention_factor = _attention_factor(config.rope)
        """What cosines and sines are multiplied by."""
        # Computed on the CPU and carried over, so that every device rotates alike.
        self._frequencies = _frequencies(config.rope, self._theta, self._dim).to(device)
        self._long = self._frequencies
        if config.rope.kind == "longrope":
            self._long = _stretched(config.rope.long_factor, self._theta, self._dim).to(device)
        self._exponents = _exponents(self._dim).to(device)

    @property
    def depends_on_length(self) -> bool:
        """Whether a rotation depends on its sequence's length: the keys of one prefix then differ between prompts."""
        return self._scaling.kind in {"dynamic", "longrope"}

    @property
    def frequencies(self) -> Tensor:
        """float32 [rotary_dim / 2]: by how much each pair turns in one position; where that depends on a sequence's
        length, in a short one."""
        return self._frequencies

    def rotation(self, positions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for tokens at `positions` (int64 [T]), each [T, rotary_dim / 2] in float32.

        The i-th of them rotates dimensions i and i + rotary_dim / 2 of a head, as Llama lays them out. `lengths`
        (int64 [T]) is the length of the sequence that governs each token, max(prompt's length, position + 1): deciding
        by the whole prompt makes every way of cutting it into chunks equal to none. All tensors are on one device.
        """
        angles = positions.to(torch.float32).unsqueeze(1) * self._frequencies_at(lengths)
        cosines, sines = angles.cos(), angles.sin()
        if self.attention_factor != 1.0:
            cosines, sines = cosines * self.attention_factor, sines * self.attention_factor
        return cosines, sines

    def _frequencies_at(self, lengths: Tensor) -> Tensor:
        """[rotary_dim / 2], or one row for each token where the length matters."""
        if self._scaling.kind == "longrope":
            return torch.where((lengths > self._scaling.original_context).unsqueeze(1), self._long, self._frequencies)
        if self._scaling.kind == "dynamic":
            return self._dynamic(lengths)
        return self._frequencies

    def _dynamic(self, lengths: Tensor) -> Tensor:
        """Frequencies whose base grows with the length, from the window of pretraining on ("dynamic NTK")."""
        factor, window = self._scaling.factor, self._scaling.original_context
        growth = factor * lengths.clamp(min=window) / window - (factor - 1)
        # A float32 power of a vector is off by a bit here and there; rounded from float64 it is what one number gives.
        power = growth.to(torch.float64).pow(self._dim / (self._dim - 2)).to(torch.float32)
        grown = 1.0 / (self._theta * power).unsqueeze(1).pow(self._exponents)
        return torch.where((lengths > window).unsqueeze(1), grown, self._frequencies)


def _exponents(dim: int) -> Tensor:
    return torch.arange(0, dim, 2, dtype=torch.int64).to(torch.float32) / dim


def _plain(theta: float, dim: int) -> Tensor:
    return 1.0 / theta ** _exponents(dim)


def _frequencies(scaling: RopeScaling, theta: float, dim: int) -> Tensor:
    """The frequencies, float32 [dim / 2]; for the kinds that look at the length, those of a short sequence."""
    if scaling.kind == "linear":
        return _plain(theta, dim) / scaling.factor
    if scaling.kind == "llama3":
        return _llama3(scaling, theta, dim)
    if scaling.kind == "yarn":
        return _yarn(scaling, theta, dim)
    if scaling.kind == "longrope":
        return _stretched(scaling.short_factor, theta, dim)
    return _plain(theta, dim)


def _llama3(scaling: RopeScaling, theta: float, dim: int) -> Tensor:
    """Long waves are stretched by the factor, short ones stay, and those between are blended (Llama 3.1's release)."""
    frequencies = _plain(theta, dim)
    low, high, window = scaling.low_freq_factor, scaling.high_freq_factor, scaling.original_context
    waves = 2 * math.pi / frequencies
    stretched = torch.where(waves > window / low, frequencies / scaling.factor, frequencies)
    share = (window / waves - low) / (high - low)
    blended = (1 - share) * stretched / scaling.factor + share * stretched
    between = ~(waves < window / high) & ~(waves > window / low)
    return torch.where(between, blended, stretched)


def _yarn(scaling: RopeScaling, theta: float, dim: int) -> Tensor:
    """Dimensions that turn often in the window stay, those that turn seldom are stretched (Peng et al., YaRN, 3.2)."""

    def dimension(turns: float) -> float:
        """Which dimension turns so often within the window of pretraining."""
        return (dim * math.log(scaling.original_context / (turns * 2 * math.pi))) / (2 * math.log(theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001  # as transformers does, so that nothing is divided by zero
    kept = 1 - ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    waves = theta ** _exponents(dim)
    return 1.0 / (scaling.factor * waves) * (1 - kept) + 1.0 / waves * kept


def _stretched(factors: tuple[float, ...], theta: float, dim: int) -> Tensor:
    """A factor for each frequency (Ding et al., LongRoPE)."""
    return 1.0 / (torch.tensor(factors, dtype=torch.float32) * theta ** _exponents(dim))


def _attention_factor(scaling: RopeScaling) -> float:
    if scaling.kind not in {"yarn", "longrope"}:
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.factor <= 1:
        return 1.0
    if scaling.kind == "longrope":
        return math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_context))
    if scaling.mscale and scaling.mscale_all_dim:
        return _mscale(scaling.factor, scaling.mscale) / _mscale(scaling.factor, scaling.mscale_all_dim)
    return _mscale(scaling.factor, 1.0)


def _mscale(factor: float, mscale: float) -> float:
    """YaRN, section 3.4."""
    return 0.1 * mscale * math.log(factor) + 1.0
