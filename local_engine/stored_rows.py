"""Keys or values as a snapshot holds them: one row behind the other, in the cache's precision or as int8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

_AT_ONCE: Final = 1 << 16
"""Entries that are converted together."""
_LEAST_SCALE: Final = 2.0**-24
"""The least float16 above 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Keys or values of all rows, one row behind the other."""

    numbers: Tensor
    """[E, D], of the cache's dtype, or int8"""
    scale: Tensor | None = None
    """float16 [E]: what an entry's int8 numbers are multiplied by"""

    @property
    def nbytes(self) -> int:
        return self.numbers.nbytes + (0 if self.scale is None else self.scale.nbytes)

    def part(self, first: int, end: int) -> Tensor:
        """[end - first, D], to be read only."""
        numbers = self.numbers[first:end]
        return numbers if self.scale is None else numbers.float() * self.scale[first:end, None].float()

    def chosen(self, keep: Tensor) -> Rows:
        """Those that `keep` (bool [E]) names."""
        return Rows(self.numbers[keep], None if self.scale is None else self.scale[keep])

    def quantized(self) -> Rows:
        """As int8, each entry by its largest number."""
        if self.scale is not None:
            return self
        numbers = torch.empty(self.numbers.shape, dtype=torch.int8)
        scale = torch.empty(len(numbers), dtype=torch.float16)
        for first in range(0, len(numbers), _AT_ONCE):
            part = self.numbers[first : first + _AT_ONCE].float()
            step = (part.abs().amax(1) / 127).clamp(_LEAST_SCALE, torch.finfo(torch.float16).max).half()
            scale[first : first + _AT_ONCE] = step
            numbers[first : first + _AT_ONCE] = (part / step.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
        return Rows(numbers, scale)
