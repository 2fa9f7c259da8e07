"""Reckoning a total from some of many files, and how far off it may be.

The files are put in the order of size and parted evenly; the middle one of each part stands for it. A figure that goes
with the size (its share of the size differs less from file to file than it does itself) is scaled by the sizes of its
part, any other by the number of files. How far neighbours differ tells how far off the total may be: successive
differences, as for a systematic sample (Wolter, Introduction to Variance Estimation, chapter 8).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_Z = 1.96
_FAR = 3.0


@dataclass(frozen=True, slots=True)
class Amount:
    """A figure of the whole, and where it likely lies: nine times of ten, going by twenty very different files."""

    likely: float
    low: float
    high: float

    def over(self, divisor: float) -> Amount:
        """A part of it."""
        return Amount(self.likely / divisor, self.low / divisor, self.high / divisor)


class Sample:
    """Which of the files, whose sizes are given in order, are looked at: at most `count`, None: all."""

    def __init__(self, sizes: Sequence[float], count: int | None) -> None:
        self._population = len(sizes)
        count = self._population if count is None else min(count, self._population)
        self.indexes = [(2 * part + 1) * self._population // (2 * count) for part in range(count)]
        """Where they are among the sizes, in order."""
        self._sizes = [max(1.0, sizes[index]) for index in self.indexes]
        edges = [part * self._population // count for part in range(count + 1)]
        self._parts = [max(1.0, sum(sizes[start:end])) for start, end in pairwise(edges)]

    def total(self, values: Sequence[float | None]) -> Amount | None:
        """The figure of all files from those of the sample's, in order. None stands for what is not known of a file,
        and is the result where nothing is known of any."""
        known = [number for number, value in enumerate(values) if value is not None]
        figures = [value for value in values if value is not None]
        if not figures:
            return None
        seen, count = sum(figures), len(figures)
        if count == self._population:
            return Amount(seen, seen, seen)
        parts = [self._parts[number] for number in known]
        scale = sum(self._parts) / sum(parts)
        ratios = [figure / self._sizes[number] for figure, number in zip(figures, known, strict=True)]
        likely = self._population * seen / count
        if count == 1:
            # One file says nothing of how much they differ.
            return Amount(likely, seen, 2 * likely)
        deviation = self._population * math.sqrt(_variance(figures) / count)
        by_size = scale * math.sqrt(_variance(ratios) * sum(part * part for part in parts))
        # A few tiny files with large shares would make the range absurd.
        if _variation(ratios) < _variation(figures) and by_size < _FAR * deviation:
            likely = scale * sum(part * ratio for part, ratio in zip(parts, ratios, strict=True))
            deviation = by_size
        margin = _quantile(count - 1) * deviation * math.sqrt(1 - count / self._population)
        return Amount(likely, max(seen, likely - margin), likely + margin)


def _variation(values: Sequence[float]) -> float:
    mean = statistics.fmean(values)
    return statistics.pstdev(values) / mean if mean else 0.0


def _variance(values: Sequence[float]) -> float:
    return sum((after - before) ** 2 for before, after in pairwise(values)) / (2 * (len(values) - 1))


def _quantile(degrees: int) -> float:
    """Of Student's t for 95 of 100, as a series in the degrees of freedom (Cornish and Fisher)."""
    return _Z + (_Z**3 + _Z) / (4 * degrees) + (5 * _Z**5 + 16 * _Z**3 + 3 * _Z) / (96 * degrees**2)
