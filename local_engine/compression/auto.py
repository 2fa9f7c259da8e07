"""Which recipe, where the user leaves it to lcdoc (`--kv auto`): by what the cache is for, and only where it must be.

The full cache answers best, so it is kept wherever it fits. Where it does not, what may be dropped depends on what the
cache is for. A single question is known before its text is read, so that each piece of the text can be shown to it, and
what it looks at is kept; the last queries at hand when a piece is cut are the text's own. A document is kept for
questions that nobody has asked yet, so that what it takes to tell the text again is kept. A chat comes back to what its
last turn did not ask for ("SCBench: A KV Cache-Centric Analysis of Long-Context Methods"), so that nothing of it is
ever dropped. The methods and the least shares follow the tables of `docs/compression.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from lcdoc.local_engine.compression.allowance import Allowance
from lcdoc.local_engine.compression.recipe import FULL, Recipe
from lcdoc.local_engine.compression.recipe_text import When
from lcdoc.local_engine.errors import RequestTooLargeError

Use = Literal["question", "document", "chat", "output"]
"""What a cache is for: one question with its text, a text that is kept for questions to come, a chat, or an answer that
is longer than what it is made from."""
USES: Final[tuple[Use, ...]] = get_args(Use)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a use takes where the full cache does not fit."""

    method: str
    shares: tuple[float, ...]
    """What may be kept, most first. The last is the least that still answers."""
    why: str


RULES: Final[Mapping[Use, Rule]] = {
    "question": Rule("task", (0.5, 0.25, 0.125), "the question is put behind each piece: what it looks at stays"),
    "document": Rule(
        "kvzip:leverage=2+global", (0.5, 0.25), "what it takes to tell the text again serves any later question"
    ),
}
"""For the uses that may drop a share of their text."""
_TIMES: Final[Mapping[Use, int]] = {"question": 1, "document": 2, "chat": 1, "output": 1}
"""How often what is kept has to fit the room."""
OUTPUT_METHOD: Final = "chunkkv"
"""What an answer's last tokens attend to, in whole chunks: a fact that it comes back to is more than single tokens."""
_STEP_TOKENS: Final = 512
_PAGE: Final = 64
_SPARE_PAGES: Final = 2
"""Of each row: one that is not full, and one that is copied while a probe is read."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A recipe, and why."""

    recipe: Recipe | None
    """None: the full cache."""
    reason: str
    """For the user, in a sentence without a full stop."""

    @property
    def kv(self) -> str:
        """As `--kv` takes it, with everything settled."""
        return FULL if self.recipe is None else str(self.recipe)


def auto_recipe(
    use: Use, tokens: int, room: int, *, answer: int = 0, chunk: int = _STEP_TOKENS, page: int = _PAGE
) -> Choice:
    """How the cache of a prompt of `tokens` tokens is compressed.

    `room` is how many entries a row of the cache can hold when this request has its memory for itself; `answer` are the
    tokens of the longest answer, `chunk` those of a pass, and `page` those of a page. What is kept of a document takes
    half of the room at most, as snapshots do, so that questions have the other half. Raises RequestTooLargeError where
    the least share does not fit, either.
    """
    whole = tokens + answer
    if whole <= room // _TIMES[use]:
        return Choice(None, f"the full cache fits: {whole:,} entries a row, and there is room for {room:,}")
    if use == "chat":
        raise RequestTooLargeError(
            f"the chat takes {whole:,} entries a row and the cache holds {room:,}; auto drops nothing of a chat, whose "
            "later turns come back to it: raise max_memory, or name a recipe"
        )
    doubled = " twice" if _TIMES[use] > 1 else ""
    short = f"the full cache takes {whole:,} entries a row, and there is no room for that{doubled} in {room:,}"
    if use == "output":
        return _bounded(room - chunk - _SPARE_PAGES * page, short)
    rule = RULES[use]
    for share in rule.shares:
        for when in get_args(When)[::-1]:
            recipe = Recipe.parse(f"{rule.method}+when={when}@{share}")
            allowance = Allowance(recipe, tokens, chunk)
            if max(allowance.most(whole) + _SPARE_PAGES * page, _TIMES[use] * allowance.budget(whole)) <= room:
                return Choice(recipe, f"{short}; {rule.why}")
    raise RequestTooLargeError(
        f"{short}, where {rule.method}@{rule.shares[-1]} does not fit, either: cut the text into parts, raise "
        "max_memory, or name a recipe that keeps less"
    )


def longest_prompt(
    room: int, *, share: float | None = None, answer: int = 0, chunk: int = _STEP_TOKENS, page: int = _PAGE
) -> int:
    """Tokens of the longest prompt of a question that `auto_recipe` finds a recipe for, one that keeps `share` of it or
    more; None: the least that it does take."""
    rule = RULES["question"]
    least = Recipe.parse(f"{rule.method}@{rule.shares[-1] if share is None else share}")
    low, high = 0, max(0, 2 * int(room / rule.shares[-1]))
    while low < high:
        middle = (low + high + 1) // 2
        if (
            middle + answer <= room
            or Allowance(least, middle, chunk).most(middle + answer) + _SPARE_PAGES * page <= room
        ):
            low = middle
        else:
            high = middle - 1
    return low


def _bounded(most: int, short: str) -> Choice:
    """A budget that does not grow with the answer: a power of two, so that neighbouring prompts get the same."""
    if most < 1:
        raise RequestTooLargeError(f"{short}, nor for a pass of the model: raise max_memory")
    recipe = Recipe.parse(f"{OUTPUT_METHOD}@{1 << (most.bit_length() - 1)}tok")
    return Choice(recipe, f"{short}; the answer is long, and what its last tokens look at is kept as it grows")
