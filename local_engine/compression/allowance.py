"""How many entries a request with a recipe may hold: what admission counts, and when it is time to cut."""

from __future__ import annotations

from dataclasses import dataclass

from lcdoc.local_engine.compression.positions import Compact, Positions
from lcdoc.local_engine.compression.recipe import Recipe

_MARGIN = 128
"""Entries beyond the budget that decoding gathers before the next cut: a cut costs many steps' time."""
_PROBE_WORDS = 64
"""Tokens before a piece of the text that is repeated, at most."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """Entries that a row holds on average, for a request of `prompt` tokens read in passes of at most `chunk`."""

    recipe: Recipe
    prompt: int
    chunk: int
    window: int = 1 << 40
    """Positions that the model was trained for: where entries are placed anew, no token stands beyond."""
    begun: int = 0
    """Tokens of the prompt that a snapshot stands for."""
    held: int = 0
    """Entries of it."""
    keeps: bool = True
    """Whether those are all kept, and the recipe is for what is read behind them alone."""

    @property
    def kept(self) -> int:
        """Entries that no cut may take."""
        return self.held if self.keeps else 0

    @property
    def exempt(self) -> int:
        """Tokens whose entries no cut may take."""
        return self.begun if self.keeps else 0

    def budget(self, read: int) -> int:
        """After a cut, when `read` tokens were read. While the prompt is read its whole length counts already."""
        return self.kept + self.recipe.amount.entries(max(read, self.prompt) - self.exempt)

    def capacity(self, read: int) -> int:
        """At most, but for a prompt that is cut at its end. What a snapshot holds is there before anything is cut."""
        return max(self.budget(read), self.held) + self.chunk

    @property
    def margin(self) -> int:
        """How far decoding goes beyond the budget."""
        return min(_MARGIN, self.chunk)

    def most(self, tokens: int) -> int:
        """Entries of a row at most, when `tokens` tokens are read in all; probes included."""
        most = self.capacity(tokens)
        if self.recipe.when == "end":
            most = max(most, self.held + self.prompt - self.begun)
        most = min(self.held + tokens - self.begun, most)
        needs = self.recipe.scorer.needs
        if needs.probe is None:
            return most
        # A draft's cache is a cut copy beside the whole.
        copied = self.budget(tokens) if needs.probe == "draft" else 0
        return most + min(needs.window, most + _PROBE_WORDS) + copied

    @property
    def scheme(self) -> Positions:
        """The recipe's, within the window."""
        scheme = self.recipe.scheme
        if isinstance(scheme, Compact):
            return Compact(min(scheme.reach, max(1, self.window - self.chunk)))
        return scheme

    def readable(self, computed: int, tokens: int, held: int) -> int:
        """How many of `tokens` tokens may be read next, of which `computed` are, where a row holds `held` entries."""
        left = (self.prompt if computed < self.prompt else tokens) - computed
        if computed < self.prompt and self.recipe.when == "end":
            return left
        return max(1, min(left, self.chunk, self.capacity(tokens) - held))

    def leaves_window(self, place: int, tokens: int) -> bool:
        """Whether so many more tokens, the first of them at `place`, would stand beyond the window."""
        return self.recipe.moves and place + min(tokens, self.chunk) > self.window
