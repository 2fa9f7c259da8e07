"""Two distances for one sequence: exact ones to a query's neighbours, and shorter ones to keys further away.

Each query of a pass has neighbours of its own, so that a key that is a neighbour of the first may be far from the last.
Attention is then computed twice and joined, as Jin et al., "LLM Maybe LongLM: Self-Extend LLM Context Window Without
Tuning" (section 3.2) and Han et al., "LM-Infinite: Zero-Shot Extreme Length Generalization for Large Language Models"
do: over neighbours with queries and keys where they stand, over the others with both placed for the far distance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class FarScheme(Protocol):
    """How far away what is no neighbour looks: `far_query` of the query's position less `far_key` of the key's."""

    @property
    def near(self) -> int:
        """Distances below this are exact."""
        ...

    def far_query(self, positions: Tensor) -> Tensor:
        """int64 positions in the text -> places, of the same shape."""
        ...

    def far_key(self, positions: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True, eq=False)
class FarKeys:
    """Of one sequence from one cut of its cache to the next.

    Keys that were far from the first token behind the cut are in the cache as far ones: a prefix of each row. All
    others are there as neighbours.
    """

    scheme: FarScheme
    turn: Callable[[int, Tensor, Tensor], Tensor]
    """(layer, x [..., n, D], int64 [..., n]) -> x rotated further by so many positions."""
    rotates: tuple[bool, ...]
    """Whether each layer rotates at all."""
    first: int
    """The position in the text of the first token behind the cut."""
    base: int
    """What its key is rotated to; those behind it follow one by one."""
    positions: Tensor
    """int64 [L, H, m]: where the entries stand in the text that the cut left."""
    kept: tuple[tuple[int, ...], ...]
    """[L][H]: how many of them a row has."""
    far: tuple[tuple[int, ...], ...]
    """[L][H]: how many of those are in the cache as far ones."""

    def reached(self, place: int, count: int) -> bool:
        """Whether any of `count` queries, the first of them rotated to `place`, has a key that is no neighbour."""
        last = self.first + place - self.base + count - 1
        return last - self._oldest >= self.scheme.near

    @property
    def _oldest(self) -> int:
        if not any(map(any, self.kept)):
            return self.first
        return min(int(self.positions[..., 0].min()), self.first)

    def queries(self, places: Tensor) -> Tensor:
        """The positions in the text of queries that are rotated to `places`."""
        return places - self.base + self.first

    def keys(self, layer: int, head: int, entries: int) -> Tensor:
        """int64 [entries - far]: where the entries of a row stand in the text that are in the cache as neighbours."""
        kept, far = self.kept[layer][head], self.far[layer][head]
        late = torch.arange(entries - kept, device=self.positions.device) + self.first
        return torch.cat((self.positions[layer, head, far:kept], late))

    def turned_queries(self, layer: int, queries: Tensor, positions: Tensor) -> Tensor:
        """Queries [..., C, D] that are rotated as neighbours, placed for what is far; `positions` int64 [C]."""
        return self.turn(layer, queries, self._offset + self.scheme.far_query(positions) - self._place(positions))

    def turned_keys(self, layer: int, keys: Tensor, positions: Tensor) -> Tensor:
        """Keys [n, D] that are in the cache as neighbours, as far ones; `positions` int64 [n]."""
        return self.turn(layer, keys, self._offset + self.scheme.far_key(positions) - self._place(positions))

    def _place(self, positions: Tensor) -> Tensor:
        return positions - self.first + self.base

    @property
    def _offset(self) -> int:
        """Far places are counted so that the first token behind the cut has one place for both distances."""
        return self.base - int(self.scheme.far_query(torch.tensor(self.first)))
