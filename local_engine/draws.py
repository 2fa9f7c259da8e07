"""One draw: a uniform number that depends on nothing but its seed and place, and the token at which it falls."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 512
_WORD = (1 << 64) - 1


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1) that depends on nothing else: splitmix64 (Steele, Lea, Flood 2014) at place `index`."""
    # The seed is mixed first: neighbouring seeds must not give shifted copies of one stream.
    state = (mixed(seed & _WORD) + (index + 1) * 0x9E3779B97F4A7C15) & _WORD
    return (mixed(state) >> 11) * 2.0**-53


def mixed(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _WORD
    return value ^ (value >> 31)


def drawn(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Index [r] at which the cumulative sum of `weights` [r, n] passes `uniforms` [r, 1] of its total.

    In two steps, blocks and then one block, so that no long float64 sums are written out. Weights of 0 are never drawn.
    """
    rows, count = weights.shape
    blocks = -(-count // _BLOCK)
    padded = torch.nn.functional.pad(weights, (0, blocks * _BLOCK - count)).view(rows, blocks, _BLOCK)
    ends = padded.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    target = _below(uniforms * ends[:, -1:], ends[:, -1:])
    block = (ends <= target).sum(dim=-1, keepdim=True).clamp_(max=blocks - 1)
    before = torch.where(block > 0, ends.gather(1, (block - 1).clamp_(min=0)), 0.0)
    inside = padded.gather(1, block.unsqueeze(2).expand(rows, 1, _BLOCK)).squeeze(1).double().cumsum(dim=-1)
    place = (inside <= _below((target - before).clamp_(min=0), inside[:, -1:])).sum(dim=-1, keepdim=True)
    return (block * _BLOCK + place).squeeze(1).clamp_(max=count - 1)


def _below(target: Tensor, total: Tensor) -> Tensor:
    # Rounding up to the total would point behind the last token.
    return torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
