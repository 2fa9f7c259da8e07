"""Which heads of a local model fetch from afar, found once and kept for the budget `static`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lcdoc.agents.models.errors import EngineFailedError, ModelConfigError, RefusedRequestError
from lcdoc.documents import load

if TYPE_CHECKING:
    from lcdoc.agents.models.local import LocalSource
    from lcdoc.local_engine import Engine

_ALIKE: Final = 0.01
"""Heads whose scores are all so near to each other are not told apart by them."""


@dataclass(frozen=True, slots=True)
class FoundHeads:
    """Head scores, and where they are."""

    model: str
    path: Path
    tokens: int
    """Of the text that they were found by."""
    scores: list[list[float]]
    """[layers][heads], 0 to 1."""

    @property
    def alike(self) -> bool:
        """Whether they say next to nothing."""
        flat = [score for layer in self.scores for score in layer]
        return max(flat) - min(flat) < _ALIKE

    def as_dict(self) -> dict[str, Any]:
        return {"model": self.model, "path": str(self.path), "tokens": self.tokens, "scores": self.scores}


def known_heads(name: str, folder: Path, kv: str | None) -> str:
    """Names the head scores that a recipe goes by, by what is in their file; empty for recipes that go by none.

    Raises ModelConfigError where they are not known.
    """
    from lcdoc.local_engine.compression.budgets.static_heads import StaticHeads
    from lcdoc.local_engine.compression.known_heads import head_scores_path
    from lcdoc.local_engine.compression.recipe import as_recipe, is_auto

    recipe = None if is_auto(kv) else as_recipe(kv)
    if recipe is None or not isinstance(recipe.budget, StaticHeads):
        return ""
    path = Path(recipe.budget.file or head_scores_path(folder))
    try:
        return blake2b(path.read_bytes(), digest_size=8).hexdigest()
    except OSError:
        remedy = f"find them: lcdoc kv heads {name.partition('#')[0]}"
        raise ModelConfigError(name, "which of its heads fetch from afar is not known yet", remedy) from None


def find_local_heads(
    name: str, source: LocalSource, *, text: Path | None = None, out: Path | None = None
) -> FoundHeads:
    """Load the model, have it read and repeat a text, and keep what its heads score in `out`, or where `static` looks.

    The text is a document's beginning, or, where none is named, the instructions that come with this package. Raises
    ModelError, DocumentError.
    """
    from lcdoc.local_engine import Engine, EngineError, KVConfig
    from lcdoc.local_engine.compression.budgets.static_heads import save_head_scores
    from lcdoc.local_engine.compression.known_heads import find_heads, head_scores_path, text_tokens
    from lcdoc.local_engine.errors import InvalidRequestError

    if source.folder is None:
        raise ModelConfigError(name, "it is not on this machine yet", "ask it something, and it is fetched")
    words = _instructions() if text is None else load(text).text
    options = source.options
    try:
        path = out or head_scores_path(source.folder)
        with Engine.load(
            source.folder,
            dtype=options.dtype,
            quantize=options.quantize,
            device=options.device,
            kv=KVConfig(max_memory=options.max_memory),
            sequences=1,
            rope=options.rope,
        ) as engine:
            read = _beginning(engine, words, text_tokens(engine.config.context_window))
            scores = asyncio.run(find_heads(engine, read))
    except InvalidRequestError as error:
        raise RefusedRequestError(name, str(error)) from error
    except EngineError as error:
        raise EngineFailedError(name, str(error)) from error
    _write(name, path, lambda whole: save_head_scores(whole, scores, name))
    return FoundHeads(name, path, len(read), scores.tolist())


def _write(name: str, path: Path, save: Callable[[Path], None]) -> None:
    """Whole, or not at all: another process may be reading the file that is there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = path.with_name(f"{path.name}.{os.getpid()}")
        save(whole)
        whole.replace(path)
    except OSError as error:
        problem = f"{path}: cannot be written ({error.strerror})"
        raise ModelConfigError(name, problem, "name another file by --out") from error


def _beginning(engine: Engine, words: str, tokens: int) -> list[int]:
    # Far more characters than tokens: a book is not cut into tokens for its first pages.
    return engine.encode(words[: 32 * tokens])[:tokens]


def _instructions() -> str:
    folder = files("lcdoc.agents.prompts")
    names = sorted(each.name for each in folder.iterdir() if each.name.endswith(".md"))
    return "\n\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)
