"""Gumbel noise that belongs to an entry: a function of the seed, the head, and the place in the text.

Nothing is stored, and it is the same however the text was cut into chunks or its heads were called.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads
from lcdoc.local_engine.draws import mixed

_WORD = 1 << 64


def gumbel(heads: Heads, seed: int) -> Tensor:
    """-log(-log u) for each entry, u in (0, 1) by splitmix64 (Steele, Lea, Flood 2014): float32 [H, n]."""
    first = (mixed(seed % _WORD) + heads.model.layer * heads.model.kv_heads + heads.first) % _WORD
    streams = [_signed(mixed((first + head) % _WORD)) for head in range(len(heads.positions))]
    start = torch.tensor(streams, dtype=torch.int64, device=heads.positions.device).unsqueeze(1)
    # 64 bits without a sign are what int64 holds when it overflows, but for shifts.
    word = start + (heads.positions + 1) * _signed(0x9E3779B97F4A7C15)
    word = (word ^ _shifted(word, 30)) * _signed(0xBF58476D1CE4E5B9)
    word = (word ^ _shifted(word, 27)) * _signed(0x94D049BB133111EB)
    word = word ^ _shifted(word, 31)
    uniform = (_shifted(word, 12).to(torch.float64) + 0.5) * 2.0**-52
    return uniform.log_().neg_().log_().neg_().to(torch.float32)


def _shifted(word: Tensor, bits: int) -> Tensor:
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    return word - _WORD if word >= _WORD // 2 else word
