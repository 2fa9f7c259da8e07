"""Head scores that were found once for a model, and are kept where the budget `static` finds them.

A head's score is the highest that KVzip gives any of its entries ("KVzip: Query-Agnostic KV Cache Compression with
Context Reconstruction", section 4.3): the model reads a text, is made to repeat it, and the heads that it fetches the
text by are told from those that look at what is near. That belongs to the weights, not to the text or the precision, so
one finding serves all later runs of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from torch import Tensor

from lcdoc.local_engine.compression.budgets.static_heads import StaticHeads, head_scores, load_head_scores
from lcdoc.local_engine.compression.budgets.uniform import Uniform
from lcdoc.local_engine.compression.parts import Needs, Scores
from lcdoc.local_engine.compression.recipe import Recipe
from lcdoc.local_engine.compression.recipe_text import Amount, Named
from lcdoc.local_engine.compression.reducers.drop import Drop
from lcdoc.local_engine.compression.scorers.kvzip import PIECE_TOKENS, KVzip
from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.local_engine.model_identity import fingerprint

if TYPE_CHECKING:
    from lcdoc.local_engine.engine import Engine

_PROMPT_TOKENS: Final = 256
"""Room for what asks for the repetition."""
_LEAST_TOKENS: Final = 64


def head_scores_path(folder: Path) -> Path:
    """Where the head scores of the checkpoint in `folder` are kept: the user's data folder. Raises ModelFilesError."""
    from platformdirs import user_data_path

    return user_data_path("lcdoc", appauthor=False) / "heads" / f"{fingerprint(folder)}.json"


def with_known_heads(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe, its budget `static` with the head scores that are kept for the model in `folder`.

    Raises InvalidRequestError where there are none.
    """
    budget = recipe.budget
    if not isinstance(budget, StaticHeads) or budget.file:
        return recipe
    path = head_scores_path(folder)
    if not path.exists():
        raise InvalidRequestError(
            f"{recipe}: no head scores are known of {folder.name}: find them by `lcdoc kv heads local/{folder.name}`, "
            "or name their file, as in static:file=heads.json"
        )
    return replace(recipe, chosen_budget=Named("static", budget.of_model(load_head_scores(path))))


def text_tokens(window: int) -> int:
    """How much text a model with so long a window is shown: text and repetition fit, and one piece is repeated."""
    return min(PIECE_TOKENS, (window - _PROMPT_TOKENS) // 2)


async def find_heads(engine: Engine, text: Sequence[int]) -> Tensor:
    """float32 [L, H]: the head scores of a model, from one text of at most `text_tokens` tokens.

    The text is read twice. Raises InvalidRequestError for one that is too short to tell heads apart; EngineError.
    """
    if len(text) < _LEAST_TOKENS:
        raise InvalidRequestError(f"the text has {len(text):,} tokens: head scores need {_LEAST_TOKENS} or more")
    scored = _Scored()
    recipe = Recipe(
        Named("kvzip", KVzip()), Named("scored", scored), Named("drop", Drop()), Amount(ratio=0.5), when="end"
    )
    await engine.prefill(list(text), kv=recipe)
    return scored.found[-1]


@dataclass(frozen=True, slots=True)
class _Scored:
    """A budget that takes down what heads score, and gives all rows the same."""

    found: list[Tensor] = field(default_factory=list, init=False, compare=False)

    @property
    def ragged(self) -> bool:
        return False

    @property
    def needs(self) -> Needs:
        return Needs()

    def keep(self, scores: Scores) -> Tensor:
        self.found.append(head_scores(scores))
        return Uniform().keep(scores)
