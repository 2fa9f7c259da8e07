"""What the caller knows of a prompt's tokens: which are to be kept, and where sentences begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from lcdoc.local_engine.compression.recipe_text import Protect
from lcdoc.local_engine.errors import InvalidRequestError


@dataclass(frozen=True)
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
        begun, ended = (torch.searchsorted(edges.to(positions.device), positions, right=True) for edges in self._edges)
        return begun > ended

    def begins(self, positions: Tensor) -> Tensor | None:
        """bool, of positions' shape: whether a sentence begins there; None where that is not known."""
        if self.sentence_starts is None:
            return None
        starts = self._starts.to(positions.device)
        return torch.searchsorted(starts, positions, right=True) > torch.searchsorted(starts, positions)

    @cached_property
    def _edges(self) -> tuple[Tensor, Tensor]:
        """int64 [protected] each: where protected ranges begin, and where they end, ascending."""
        first, end = (sorted(edges) for edges in zip(*self.protected, strict=True)) if self.protected else ([], [])
        return torch.tensor(first, dtype=torch.int64), torch.tensor(end, dtype=torch.int64)

    @cached_property
    def _starts(self) -> Tensor:
        """int64, ascending"""
        return torch.tensor(sorted(self.sentence_starts or ()), dtype=torch.int64)
