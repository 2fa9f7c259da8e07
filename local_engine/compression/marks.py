"""What the caller knows of a prompt's tokens: which are to be kept, and where sentences begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lcdoc.local_engine.compression.recipe_text import Protect
from lcdoc.local_engine.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class Marks:
    """Places in a prompt, in tokens."""

    protected: Sequence[tuple[int, int]] = ()
    """Ranges (first, end) that are kept in any case, such as the question and instructions: first what matters most."""
    headings: Sequence[tuple[int, int]] = ()
    """Ranges that are headings, for recipes that keep these."""
    sentence_starts: Sequence[int] | None = None
    """Where sentences begin."""
    task: Sequence[int] = ()
    """Tokens that describe the task, for a recipe that looks at what they attend to. None given: the prompt's last
    ones, where the question stands."""

    def check(self, tokens: int) -> None:
        """Raises InvalidRequestError for a place outside a prompt of `tokens` tokens."""
        for first, end in (*self.protected, *self.headings):
            if not 0 <= first <= end <= tokens:
                raise InvalidRequestError(f"tokens {first} to {end} are to be kept, and the prompt has 0 to {tokens}")
        for place in self.sentence_starts or ():
            if not 0 <= place < tokens:
                raise InvalidRequestError(f"a sentence begins at token {place}, and the prompt has 0 to {tokens - 1}")

    def settled(self, protect: Protect, budget: int) -> Marks:
        """The same, `protected` being what a recipe that says `protect` does keep of it.

        That is half of the `budget` entries of a row at most: ranges are taken in their order, headings or sentences'
        first tokens behind the others, and one that does not fit is left to its score.
        """
        if protect == "none":
            return replace(self, protected=())
        also: Sequence[tuple[int, int]] = ()
        if protect == "headings":
            also = self.headings
        elif protect == "starts":
            also = [(start, start + 1) for start in self.sentence_starts or ()]
        kept, room = [], budget // 2
        for first, end in (*self.protected, *also):
            if end - first <= room:
                kept.append((first, end))
                room -= end - first
        return replace(self, protected=tuple(kept))

    def kept(self, positions: Tensor) -> Tensor:
        """bool, of positions' shape: whether each is protected."""
        if not self.protected:
            return torch.zeros_like(positions, dtype=torch.bool)
        edges = torch.tensor(list(self.protected), device=positions.device)
        last = int(edges.max())
        depth = torch.zeros(last + 1, dtype=torch.int64, device=positions.device)
        depth.index_add_(0, edges[:, 0], torch.ones_like(edges[:, 0]))
        depth.index_add_(0, edges[:, 1], -torch.ones_like(edges[:, 1]))
        inside: Tensor = depth.cumsum(dim=0) > 0
        return inside[positions.clamp(0, last)]

    def begins(self, positions: Tensor) -> Tensor | None:
        """bool, of positions' shape: whether a sentence begins there; None where that is not known."""
        if self.sentence_starts is None:
            return None
        starts = torch.tensor(list(self.sentence_starts), dtype=torch.int64, device=positions.device)
        return torch.isin(positions, starts)
