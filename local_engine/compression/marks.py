"""What the caller knows of a prompt's tokens: which are to be kept, and where sentences begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class Marks:
    """Places in a prompt, in tokens."""

    protected: Sequence[tuple[int, int]] = ()
    """Ranges (first, end) that are kept in any case: the question, instructions, headings."""
    sentence_starts: Sequence[int] | None = None
    """Where sentences begin."""
    task: Sequence[int] = ()
    """Tokens that describe the task, for a recipe that looks at what they attend to. None given: the prompt's last
    ones, where the question stands."""

    def check(self, tokens: int) -> None:
        """Raises InvalidRequestError for a place outside a prompt of `tokens` tokens."""
        for first, end in self.protected:
            if not 0 <= first <= end <= tokens:
                raise InvalidRequestError(f"tokens {first} to {end} are to be kept, and the prompt has 0 to {tokens}")
        for place in self.sentence_starts or ():
            if not 0 <= place < tokens:
                raise InvalidRequestError(f"a sentence begins at token {place}, and the prompt has 0 to {tokens - 1}")

    def kept(self, positions: Tensor) -> Tensor:
        """bool, of positions' shape: whether each is protected."""
        kept = torch.zeros_like(positions, dtype=torch.bool)
        for first, end in self.protected:
            kept |= (positions >= first) & (positions < end)
        return kept

    def begins(self, positions: Tensor) -> Tensor | None:
        """bool, of positions' shape: whether a sentence begins there; None where that is not known."""
        if self.sentence_starts is None:
            return None
        starts = torch.tensor(list(self.sentence_starts), dtype=torch.int64, device=positions.device)
        return torch.isin(positions, starts)
