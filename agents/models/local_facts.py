"""What is known of a model that runs here before its weights are loaded, by its configuration, headers, tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lcdoc.agents.models.errors import ModelConfigError, ModelNameError
from lcdoc.agents.models.local_caches import AUTO, FULL
from lcdoc.agents.models.local_engines import LocalOptions
from lcdoc.agents.models.local_files import Sizes, sizes_of
from lcdoc.agents.models.local_memory import Fit, Weights, fit
from lcdoc.agents.models.local_requests import encoded
from lcdoc.agents.models.model import Message, Request

if TYPE_CHECKING:
    from lcdoc.local_engine.compression.recipe import Recipe
    from lcdoc.local_engine.config import ModelConfig
    from lcdoc.local_engine.tokenizer import Tokenizer

SEQUENCES: Final[Mapping[str, int]] = {"cpu": 16, "cuda": 64}
"""Requests that one engine answers at once."""


@dataclass(frozen=True, slots=True)
class LocalFacts:
    """What a checkpoint's configuration and headers tell, before its weights are loaded."""

    folder: Path
    window: int
    sizes: Sizes | None
    cache_numbers_per_token: int
    cache_rows: int
    """One for each layer and key-value head."""
    stored: Weights
    device: str

    def fits(self, weights: Weights | None = None) -> Fit | None:
        """How it fits this machine's free memory, as it is stored or with other `weights`; None: sizes not known."""
        if self.sizes is None:
            return None
        return fit(
            self.sizes,
            weights or self.stored,
            window=self.window,
            cache_numbers_per_token=self.cache_numbers_per_token,
            free_bytes=free_bytes(self.device),
            on_gpu=self.device == "cuda",
        )


def facts_of(name: str, folder: Path, device: str = "auto", rope: str | None = None) -> LocalFacts:
    """What is known of the model in a folder, its window stretched as `rope` says. Raises ModelNameError for one that
    the engine does not run, or not so."""
    from lcdoc.local_engine.errors import EngineError
    from lcdoc.local_engine.weights import Checkpoint

    try:
        config = _config(folder, rope)
        Checkpoint(folder)
    except EngineError as error:
        raise unusable(name, error) from error
    if not (folder / "tokenizer.json").is_file():
        raise ModelNameError(name, f"{folder} has no tokenizer.json", "download the rest of the model")
    return LocalFacts(
        folder=folder,
        window=config.context_window,
        sizes=sizes_of(folder),
        cache_numbers_per_token=2 * config.layers * config.kv_heads * config.head_dim,
        cache_rows=config.layers * config.kv_heads,
        stored="float32" if config.dtype.itemsize > 2 else "bfloat16",
        device=device_of(device),
    )


def checked_recipe(name: str, kv: str) -> str:
    """A recipe of the cache in its canonical spelling. Raises ModelConfigError for one that is none."""
    from lcdoc.local_engine.compression.recipe import as_recipe, is_auto
    from lcdoc.local_engine.errors import EngineError

    try:
        return AUTO if is_auto(kv) else str(as_recipe(kv) or FULL)
    except EngineError as error:
        told = str(error)
        # It may have been told already what was meant.
        remedy = "" if told.endswith("?") else "`lcdoc kv list` shows the parts"
        raise ModelConfigError(name, f"kv: {told}", remedy) from error


def checked_stretching(name: str, rope: str) -> str:
    """How a window is stretched, in its canonical spelling. Raises ModelConfigError for what names nothing."""
    from lcdoc.local_engine.compression.stretched_rope import Stretching
    from lcdoc.local_engine.errors import EngineError

    try:
        return str(Stretching.parse(rope))
    except EngineError as error:
        raise ModelConfigError(name, str(error)) from error


def longest_text(name: str, folder: Path, options: LocalOptions) -> int | None:
    """Tokens that a text may have where its recipe moves together what it keeps; None: no more than the model's window.

    Raises ModelConfigError for a recipe that keeps more than the window leaves room for.
    """
    from lcdoc.local_engine.compression.recipe import as_recipe
    from lcdoc.local_engine.errors import EngineError

    recipe = None if options.kv in {None, AUTO} else as_recipe(options.kv)
    if recipe is None or not recipe.moves:
        return None
    try:
        return text_window(folder, options, recipe, 1)
    except EngineError as error:
        raise ModelConfigError(name, f"kv: {error}") from error


def text_window(folder: Path, options: LocalOptions, recipe: Recipe, tokens: int) -> int:
    """Tokens that a text of `tokens` tokens and its answer may have together, where its cache is cut by `recipe`.

    Raises EngineError for a recipe that keeps more than the model's window leaves room for, or that the model cannot
    have.
    """
    from lcdoc.local_engine.assembly import STEP_TOKENS
    from lcdoc.local_engine.compression.allowance import Allowance
    from lcdoc.local_engine.windows import window_cut

    config = _config(folder, options.rope)
    chunk = STEP_TOKENS[device_of(options.device)]
    return window_cut(config, Allowance(recipe, tokens, chunk, config.context_window))


def _config(folder: Path, rope: str | None) -> ModelConfig:
    """Raises EngineError."""
    from lcdoc.local_engine.compression.stretched_rope import Stretching
    from lcdoc.local_engine.config import read_config

    config = read_config(folder)
    return config if rope is None else Stretching.parse(rope).applied(config)


def outlives_window(kv: str) -> bool:
    """Whether a text may be longer than what the cache holds: it is cut while it is read."""
    from lcdoc.local_engine.compression.recipe import as_recipe

    recipe = None if kv == AUTO else as_recipe(kv)
    return recipe is not None and recipe.when == "during"


def auto_window(room: int) -> int:
    """A window to plan with where the cache of one request has room for `room` tokens and `auto` compresses it: what it
    keeps half of. It would take more, but shorter passages are answered better."""
    from lcdoc.local_engine.compression.auto import RULES, longest_prompt

    return longest_prompt(room, share=RULES["question"].shares[0])


def message_tokens(name: str, folder: Path) -> int:
    """What the model's chat template puts around a message, at most. Raises ModelNameError."""
    from lcdoc.local_engine.errors import EngineError

    texts = (Message("system", "a"), Message("user", "b"))
    try:
        tokenizer = tokenizer_of(name, folder)
        # A little more, since words may part otherwise beside the template's own.
        return (len(encoded(tokenizer, Request(texts)).rest) + 1) // len(texts) + 2
    except EngineError as error:
        raise unusable(name, error) from error


def device_of(wanted: str) -> str:
    """The kind of device that `wanted` means here: cpu or cuda."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted.partition(":")[0]


@lru_cache(maxsize=4)
def free_bytes(device: str) -> int:
    """Bytes that are free on a device, when it is asked for the first time."""
    import torch

    from lcdoc.local_engine.memory import available_bytes

    return available_bytes(torch.device(device))


@lru_cache(maxsize=4)
def rotation_of(name: str, folder: Path, rope: str | None = None) -> str:
    from lcdoc.local_engine.errors import EngineError

    try:
        return _config(folder, rope).rope.kind
    except EngineError as error:
        raise unusable(name, error) from error


@lru_cache(maxsize=4)
def tokenizer_of(name: str, folder: Path) -> Tokenizer:
    from lcdoc.local_engine.config import read_config
    from lcdoc.local_engine.errors import EngineError
    from lcdoc.local_engine.tokenizer import Tokenizer

    try:
        return Tokenizer.load(folder, read_config(folder))
    except EngineError as error:
        raise unusable(name, error) from error


def unusable(name: str, error: Exception) -> ModelNameError:
    """The engine's word on a checkpoint: its messages say what to do behind a colon."""
    return ModelNameError(name, str(error))
