"""What the cache of a local model takes, whole and by a recipe, and what `auto` makes of that: nothing is loaded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from lcdoc.agents.models.local_facts import text_window
from lcdoc.agents.models.local_memory import CACHE_SHARE, CACHE_SHARE_OF_GPU
from lcdoc.agents.models.local_recipes import RecipeError, parsed

if TYPE_CHECKING:
    from lcdoc.agents.models.local_engines import LocalOptions
    from lcdoc.agents.models.local_facts import LocalFacts
    from lcdoc.agents.models.local_memory import Weights

_ENDLESS: Final = 1 << 40


@dataclass(frozen=True, slots=True)
class CacheNeed:
    """Bytes of the cache for a text of so many tokens."""

    tokens: int
    token_bytes: int
    """Of the keys and values of one token, in all layers."""
    full_bytes: int
    kept_bytes: int
    """Once it is cut."""
    most_bytes: int
    """While it is read, what a probe takes among it."""
    window: int
    """Tokens that a text may have, with its answer."""
    problem: str
    """Why the text is refused as a whole; empty where it is not."""

    def lines(self) -> list[str]:
        """For people."""
        return [
            f"{_size(self.full_bytes)} in full: {self.tokens:,} tokens of {self.token_bytes:,} bytes",
            f"{_size(self.kept_bytes)} kept, {self.kept_bytes / self.full_bytes:.1%} of it",
            f"{_size(self.most_bytes)} at most, while it is read",
            *([self.problem] if self.problem else []),
        ]


@dataclass(frozen=True, slots=True)
class AutoChoice:
    """What `auto` takes for one use."""

    use: str
    kv: str
    """Empty where nothing is dropped, or nothing fits."""
    reason: str

    def lines(self) -> list[str]:
        """For people."""
        return [*([self.kv] if self.kv else []), self.reason]


def cache_need(facts: LocalFacts, options: LocalOptions, recipe: str, tokens: int) -> CacheNeed:
    """What a recipe's cache takes for a text of `tokens` tokens, and whether it may be so long. Raises RecipeError."""
    from lcdoc.local_engine.compression.allowance import Allowance
    from lcdoc.local_engine.errors import EngineError

    token_bytes, read = _token_bytes(facts, options), parsed(recipe)
    allowance = Allowance(read, tokens, _chunk(facts))
    kept = min(tokens, allowance.budget(tokens))
    try:
        window = text_window(facts.folder, options, read, tokens)
        problem = _beyond(facts, options, tokens, window) if tokens > window else ""
    except EngineError as error:
        window, problem = facts.window, str(error)
    return CacheNeed(
        tokens,
        token_bytes,
        tokens * token_bytes,
        kept * token_bytes,
        allowance.most(tokens) * token_bytes,
        window,
        problem,
    )


def cache_room(facts: LocalFacts, options: LocalOptions) -> int:
    """Tokens of the full cache that this machine's memory has room for beside the weights, whatever the model's window.

    Raises RecipeError where the weights' size is not known.
    """
    limit = options.max_memory
    if limit is not None and limit > 1:
        return int(limit / _token_bytes(facts, options))
    usual = CACHE_SHARE_OF_GPU if facts.device == "cuda" else CACHE_SHARE
    found = replace(facts, window=_ENDLESS).fits(options.quantize or _weights(options))
    if found is None:
        raise RecipeError("the size of its weights is not known, nor what they leave for the cache: set max_memory")
    return int(found.context * (limit or usual) / usual)


def auto_choices(facts: LocalFacts, options: LocalOptions, tokens: int | None = None) -> list[AutoChoice]:
    """What `auto` takes for a text of `tokens` tokens, use by use.

    None: of one that fills the model's window. A long answer is taken to be as long as its text.
    """
    from lcdoc.local_engine.compression.auto import USES, auto_recipe
    from lcdoc.local_engine.errors import EngineError

    room = cache_room(facts, options)
    choices = []
    for use in USES:
        text = tokens or (facts.window // 2 if use == "output" else facts.window)
        answer = text if use == "output" else 0
        if text + answer > facts.window:
            choices.append(AutoChoice(use, "", _beyond(facts, options, text + answer, facts.window)))
            continue
        try:
            choice = auto_recipe(use, text, room, answer=answer, chunk=_chunk(facts))
        except EngineError as error:
            choices.append(AutoChoice(use, "", str(error)))
        else:
            choices.append(AutoChoice(use, choice.kv, choice.reason))
    return choices


def auto_rules() -> list[AutoChoice]:
    """What `auto` does, use by use, where the full cache does not fit."""
    from lcdoc.local_engine.compression.auto import OUTPUT_METHOD, RULES

    return [
        *(
            AutoChoice(use, f"{rule.method}@{', '.join(f'{share:g}' for share in rule.shares)}", rule.why)
            for use, rule in RULES.items()
        ),
        AutoChoice("chat", "", "nothing is dropped, since later turns come back to it; what does not fit is refused"),
        AutoChoice("output", f"{OUTPUT_METHOD}@Ntok", "a budget that does not grow with the answer"),
    ]


def _beyond(facts: LocalFacts, options: LocalOptions, tokens: int, window: int) -> str:
    """What becomes of more tokens than there is a window for, and what would let them be read as a whole."""
    told = (
        f"refused as a whole: {tokens:,} tokens do not go into the window of {window:,}. lcdoc reads a longer document "
        "in passages that do"
    )
    whole = _moving(facts, options, tokens)
    return f"{told}; {whole} reads it as one text, and forgets the rest" if whole else told


def _moving(facts: LocalFacts, options: LocalOptions, tokens: int) -> str:
    """A recipe by which a text of `tokens` tokens may be longer than the model's window; empty where there is none."""
    from lcdoc.local_engine.compression.recipe import Recipe
    from lcdoc.local_engine.errors import EngineError

    most = min(facts.window, cache_room(facts, options)) - _chunk(facts)
    if most < 1:
        return ""
    recipe = Recipe.parse(f"task+positions=compact@{1 << (most.bit_length() - 1)}tok")
    try:
        return str(recipe) if text_window(facts.folder, options, recipe, tokens) >= tokens else ""
    except EngineError:
        return ""


def _token_bytes(facts: LocalFacts, options: LocalOptions) -> int:
    return facts.cache_numbers_per_token * (4 if options.dtype == "float32" else 2)


def _chunk(facts: LocalFacts) -> int:
    from lcdoc.local_engine.assembly import STEP_TOKENS

    return STEP_TOKENS[facts.device]


def _weights(options: LocalOptions) -> Weights:
    return "float32" if options.dtype == "float32" else "bfloat16"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count:,} bytes"
