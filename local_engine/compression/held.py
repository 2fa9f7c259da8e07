"""A sequence whose cache is kept small: what is known of it from its admission to its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lcdoc.local_engine.batch import Piece
from lcdoc.local_engine.compression.allowance import Allowance
from lcdoc.local_engine.compression.entries import Entries
from lcdoc.local_engine.compression.marks import Marks
from lcdoc.local_engine.compression.observation import Sightings
from lcdoc.local_engine.far_keys import FarKeys


@dataclass(eq=False)
class Held:
    """A sequence with a recipe."""

    slot: int
    allowance: Allowance
    marks: Marks
    entries: Entries
    sightings: Sightings
    prompt: Sequence[int] = ()
    """All of it, read or not."""
    prompt_done: bool = False
    cuts: int = 0
    dropped: int = 0
    """Entries of all rows that cuts have taken away."""
    far: FarKeys | None = None
    """Which of its keys look nearer than they are, where the recipe has two distances."""

    @property
    def shift(self) -> int:
        return self.entries.shift

    def placed(self, piece: Piece) -> Piece:
        """A piece of the sequence, with what looks nearer to its tokens than it is."""
        if self.far is None or not self.far.reached(piece.position, len(piece.tokens)):
            return piece
        return replace(piece, far=self.far)
