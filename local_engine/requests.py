"""One request's life inside the engine: what was asked, what is in the cache, what was answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from lcdoc.local_engine.capture import Caption
from lcdoc.local_engine.compression.allowance import Allowance
from lcdoc.local_engine.compression.held import Held
from lcdoc.local_engine.compression.marks import Marks
from lcdoc.local_engine.constraints import Matcher
from lcdoc.local_engine.detokenizer import Detokenizer
from lcdoc.local_engine.prefix_cache import Match
from lcdoc.local_engine.sampling import Sampled, Sampling
from lcdoc.local_engine.snapshot import Snapshot
from lcdoc.local_engine.speculation import PromptLookup
from lcdoc.local_engine.stop_strings import StopStrings

Finish = Literal["stop", "length"]
"""`stop`: an end token, a stop string, or a constraint that is complete; `length`: max_tokens or the window."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request. `cached` ones of the prompt came from the prefix cache or a snapshot; `accepted` drafts
    held.

    `kept` is how many entries a row of the cache held at the end, on average, and `cache_bytes` what its pages took,
    shared ones among them; `cuts` is how often a recipe cut it.
    """

    prompt: int = 0
    cached: int = 0
    output: int = 0
    drafted: int = 0
    accepted: int = 0
    kept: int = 0
    cache_bytes: int = 0
    cuts: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step adds to an answer."""

    text: str
    """Only text that can no longer change; a token's text may come with a later one."""
    tokens: tuple[Sampled, ...] = ()
    finish: Finish | None = None
    usage: Usage | None = None
    """With the last piece."""
    snapshot: Snapshot | None = None
    """With the last piece of a text that was read for it."""


Deliver = Callable[["Piece | Exception"], None]
"""Is given the pieces, then nothing more after one with a finish; or the error that ended the request."""


@dataclass(eq=False)
class Request:
    """A request and its state. Only the engine's own thread changes it."""

    number: int
    prompt: tuple[int, ...]
    sampling: Sampling
    """With a seed, and with max_tokens cut to what the window leaves."""
    deliver: Deliver
    detokenizer: Detokenizer
    stops: StopStrings
    end_tokens: frozenset[int] = frozenset()
    matcher: Matcher | None = None
    lookup: PromptLookup | None = None
    allowance: Allowance | None = None
    """Of entries in the cache; None: it keeps all."""
    marks: Marks | None = None
    held: Held | None = None
    """While it runs with an allowance: what is known of its entries."""
    ahead: bool = False
    """Only to be read into the prefix cache, while nobody waits."""
    captures: Caption | None = None
    """Only to be read, for a snapshot that says this of itself."""
    prefix: Snapshot | None = None
    """What the prompt begins with, which need not be read."""
    tokens: list[int] = field(default_factory=list)
    """Prompt and answer."""
    slot: int | None = None
    computed: int = 0
    """How many of `tokens` are in the cache."""
    locked: Match | None = None
    cached: int | None = None
    """Tokens of the prompt that were in the prefix cache when it was first admitted; None before."""
    drafted: int = 0
    accepted: int = 0
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)

    @property
    def output(self) -> int:
        """Tokens answered."""
        return len(self.tokens) - len(self.prompt)

    @property
    def decoding(self) -> bool:
        """Whether all but the last token are in the cache."""
        return self.computed == len(self.tokens) - 1 and self.output > 0

    @property
    def longest(self) -> int:
        """Tokens at most, prompt and answer."""
        return len(self.prompt) + (self.sampling.max_tokens if self.answers else 0)

    @property
    def answers(self) -> bool:
        """Whether anything is to follow the prompt."""
        return not self.ahead and self.captures is None

    @property
    def most(self) -> int:
        """Entries of a row of the cache at most."""
        if self.prefix is not None:
            return self.most_behind(self.longest) + int(self.prefix.lengths.max())
        return self.longest if self.allowance is None else self.allowance.most(self.longest)

    def most_behind(self, tokens: int) -> int:
        """Entries of a row behind the snapshot, on average and at most, when `tokens` tokens are read in all."""
        more = tokens - (0 if self.prefix is None else self.prefix.read)
        return more if self.allowance is None else min(more, self.allowance.most(tokens) - self.allowance.held)

    @property
    def place(self) -> int:
        """The position that the next token is rotated to."""
        if self.held is not None:
            return self.computed - self.held.shift
        return self.computed - (0 if self.prefix is None else self.prefix.shift)

    @property
    def shares(self) -> bool:
        """Whether it may begin with pages that others hold: not where its recipe writes to what is kept."""
        return self.allowance is None or (self.allowance.recipe.drops and not self.allowance.recipe.moves)

    @property
    def drafts(self) -> bool:
        """Whether tokens may be read that are then taken back: not where its queries are looked at."""
        return self.allowance is None or not self.allowance.recipe.observes

    @property
    def usage(self) -> Usage:
        return Usage(len(self.prompt), self.cached or 0, self.output, self.drafted, self.accepted)
