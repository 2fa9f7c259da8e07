"""What is known of every entry that a sequence has in the cache, beside its key and value.

Since the last cut entries only came in, one after another in all rows, so that just the rows as they were then are
kept; whatever came later follows from how much was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.positions import Placement, Positions


@dataclass(frozen=True, slots=True)
class Layout:
    """The entries of all rows side by side, [L, H, n] with n the longest row; `valid` says which are there."""

    positions: Tensor
    stands: Tensor
    valid: Tensor


@dataclass(frozen=True, slots=True)
class Cut:
    """What is known of the entries that a cut keeps, [L, H, m] with m the longest row."""

    positions: Tensor
    kept: Tensor
    """int64 [L, H]: entries of each row"""
    valid: Tensor
    stood: Tensor
    """int64: what each key is rotated to before the cut"""
    placed: Placement
    figures: Mapping[str, Tensor]


class Entries:
    """Of one sequence with rows [L, H]."""

    def __init__(self, layers: int, kv_heads: int, device: torch.device) -> None:
        self._positions = torch.zeros(layers, kv_heads, 0, dtype=torch.int64, device=device)
        self._stands = self._positions
        self._kept = torch.zeros(layers, kv_heads, dtype=torch.int64, device=device)
        self._figures: dict[str, Tensor] = {}
        self.first = 0
        """Tokens that were read before the last cut."""
        self.base = 0
        """The position to which the first key after the last cut is rotated."""
        self.read = 0
        """Tokens read so far."""

    def begin(self, old: Layout, figures: Mapping[str, Tensor], *, first: int, base: int, read: int) -> None:
        """Go on behind a text of `read` tokens, of which `first` were read when it was last cut.

        `old` are the entries that cut left, and `figures` [L, H, n] are of all there are now.
        """
        self._positions, self._stands, self._kept = old.positions, old.stands, old.valid.sum(-1)
        self._figures = dict(figures)
        self.first, self.base, self.read = first, base, read

    @property
    def new(self) -> int:
        """Entries that came in since the last cut, in every row."""
        return self.read - self.first

    @property
    def shift(self) -> int:
        """How far the next key is rotated less than where it stands in the text."""
        return self.first - self.base

    @property
    def longest(self) -> int:
        """Entries of the longest row."""
        return self._positions.shape[2] + self.new

    @property
    def lengths(self) -> Tensor:
        """int64 [L, H]: entries of each row."""
        return self._kept + self.new

    def layout(self) -> Layout:
        """Where every entry stands in the text, and what its key is rotated to."""
        column = torch.arange(self.longest, device=self._kept.device)
        late = column - self._kept[..., None]
        known = self._positions.shape[2]

        def joined(old: Tensor, begin: int) -> Tensor:
            padded = torch.nn.functional.pad(old, (0, self.longest - known))
            return torch.where(late < 0, padded, late + begin)

        return Layout(
            joined(self._positions, self.first), joined(self._stands, self.base), column < self.lengths[..., None]
        )

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of what is kept for each entry."""
        return tuple(self._figures)

    def figure(self, name: str, length: int | None = None) -> Tensor:
        """float32 [L, H, n], to be read and written; n is the longest row, or `length`. 0 for entries that are new."""
        length = self.longest if length is None else length
        known = self._figures.get(name)
        if known is None:
            known = torch.zeros(*self._kept.shape, length, device=self._kept.device)
        elif known.shape[2] < length:
            # With some room, as a decoded token at a time comes in.
            known = torch.nn.functional.pad(known, (0, length - known.shape[2] + 64))
        self._figures[name] = known
        return known[..., :length]

    def note(self, name: str, last: Tensor) -> None:
        """Note `last`, float32 [m], of the m last entries of every row, as the figure `name`."""
        index = self.lengths[..., None] - len(last) + torch.arange(len(last), device=last.device)
        self.figure(name).scatter_(-1, index, last.expand(index.shape))

    def planned(self, keep: Tensor, scheme: Positions) -> Cut:
        """What a cut makes of them that keeps the entries that `keep` (bool [L, H, n]) names, and places them."""
        layout = self.layout()
        keep = keep & layout.valid
        layer, head, place = keep.nonzero(as_tuple=True)
        rank = (keep.cumsum(-1) - 1)[layer, head, place]
        kept = keep.sum(-1)
        most = int(kept.max()) if kept.numel() else 0

        def moved(old: Tensor) -> Tensor:
            new = old.new_zeros(*kept.shape, most)
            new[layer, head, rank] = old[layer, head, place]
            return new

        positions = moved(layout.positions)
        valid = torch.arange(most, device=kept.device) < kept[..., None]
        placed = scheme.place(positions, valid, self.read)
        figures = {name: moved(self.figure(name)) for name in self.figures}
        return Cut(positions, kept, valid, moved(layout.stands), placed, figures)

    def cut(self, plan: Cut) -> None:
        """Note that a planned cut was made."""
        self._positions, self._kept, self._figures = plan.positions, plan.kept, dict(plan.figures)
        self._stands, self.base = plan.placed.places, plan.placed.next
        self.first = self.read
