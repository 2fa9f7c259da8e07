"""Where entries and queries stand for rotation, once a text is longer than the window a model was trained for.

Attention sees nothing of positions but distances, query's minus key's. What is done here is to choose those distances
anew whenever a cache is cut: each entry is given a place, its key is rotated on by place minus where it was rotated to
(rotations compose), and the tokens that follow are placed behind. All rows of a sequence share the next token's place,
however many entries each has.

Schemes with two distances, `SelfExtend` and `Capped`, hold for every query where attention is computed in two parts
(`far_keys.py`: on a CPU). Elsewhere they hold for the token right behind a cut, and for the others of a chunk distances
are longer by how far they are behind it. Whoever sets a scheme's reach leaves that room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.local_engine.far_keys import FarScheme


@dataclass(frozen=True, slots=True)
class Placement:
    """Where keys are to be rotated to after a cut."""

    places: Tensor
    """int64, of the shape of the positions they are for; for entries that are not there, without meaning"""
    next: int
    """The place of the next token to be read; the one after it is one further, and so on until the next cut."""


class Positions(Protocol):
    """A scheme of places."""

    def place(self, positions: Tensor, valid: Tensor, following: int) -> Placement:
        """Places entries that stand at `positions` (int64 [..., n]) in the text, in ascending order in each row.

        `valid` (bool [..., n]) are those that are there. `following`, behind all of them, is the position of the next
        token.
        """
        ...


@dataclass(frozen=True, slots=True)
class Original:
    """Each entry where it stands in the text, however far that is."""

    def place(self, positions: Tensor, valid: Tensor, following: int) -> Placement:
        return Placement(positions, following)


@dataclass(frozen=True, slots=True)
class Compact:
    """Entries packed without gaps, as if what was dropped had never been (Xiao et al., "Efficient Streaming Language
    Models with Attention Sinks", section 3.2): no distance exceeds the number of entries kept.

    Rows are packed towards their ends, where the next token is. In a shorter row the first entries are then nearer than
    in the longest.
    """

    reach: int = 1 << 40
    """The longest distance. Where heads keep different numbers, a row may have more entries than the model's window has
    places: the first of them then stand together."""

    def place(self, positions: Tensor, valid: Tensor, following: int) -> Placement:
        longest = min(self.reach, int(valid.sum(-1).max())) if valid.numel() else 0
        behind = valid.flip(-1).cumsum(-1).flip(-1)
        return Placement((longest - behind).clamp(min=0), longest)


@dataclass(frozen=True, slots=True)
class SelfExtend:
    """Neighbours at their distances, the others in groups of one place each.

    Jin et al., "LLM Maybe LongLM: Self-Extend LLM Context Window Without Tuning", section 3.2: within `neighbours` the
    distance is exact; further away query and key positions are floor-divided by `group`, and the query is moved by
    neighbours - neighbours // group, so that distances go on where the exact ones end.
    """

    group: int = 8
    """Positions that share a place."""
    neighbours: int = 512
    """Distances below this are exact."""

    def __post_init__(self) -> None:
        for name in ("group", "neighbours"):
            if getattr(self, name) < 1:
                raise InvalidRequestError(f"self-extend's {name} is {getattr(self, name)}: choose 1 or more")

    @property
    def near(self) -> int:
        return self.neighbours

    def far_query(self, positions: Tensor) -> Tensor:
        return positions.div(self.group, rounding_mode="floor") + self.neighbours - self.neighbours // self.group

    def far_key(self, positions: Tensor) -> Tensor:
        return positions.div(self.group, rounding_mode="floor")

    def place(self, positions: Tensor, valid: Tensor, following: int) -> Placement:
        return _placed(self, positions, valid, following)


def smallest_group(length: int, reach: int, neighbours: int) -> int:
    """The least group by which self-extend keeps all distances in a text of `length` tokens within `reach`.

    Raises InvalidRequestError where the neighbours leave no room for groups.
    """
    if length <= reach:
        return 1
    if neighbours >= reach:
        raise InvalidRequestError(
            f"self-extend has {neighbours} neighbours and distances up to {reach}: choose fewer neighbours"
        )

    def longest(group: int) -> int:
        return length // group + neighbours - neighbours // group

    # It falls as groups grow, but for the floors, and ends at the number of neighbours.
    low, high = 1, length + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if longest(middle) <= reach else (middle + 1, high)
    return low


@dataclass(frozen=True, slots=True)
class Capped:
    """No entry further than `reach`; what is, stands there together (Han et al., "LM-Infinite: Zero-Shot Extreme Length
    Generalization for Large Language Models", section on the distance ceiling)."""

    reach: int = 2048
    """The longest distance, in tokens. The trained window less the size of a chunk is as far as is safe."""

    def __post_init__(self) -> None:
        if self.reach < 1:
            raise InvalidRequestError(f"the capped distance is {self.reach}: choose 1 or more")

    @property
    def near(self) -> int:
        return self.reach

    def far_query(self, positions: Tensor) -> Tensor:
        return torch.full_like(positions, self.reach)

    def far_key(self, positions: Tensor) -> Tensor:
        return torch.zeros_like(positions)

    def place(self, positions: Tensor, valid: Tensor, following: int) -> Placement:
        return _placed(self, positions, valid, following)


def _placed(scheme: FarScheme, positions: Tensor, valid: Tensor, following: int) -> Placement:
    """For the token at `following`; the furthest entry of all at 0, since angles of small places are the more exact."""
    exact = following - positions
    far = scheme.far_query(torch.tensor(following)) - scheme.far_key(positions)
    distances = torch.where(exact < scheme.near, exact, far)
    furthest = int(distances.masked_fill(~valid, 0).max()) if valid.numel() else 0
    return Placement(furthest - distances, furthest)
