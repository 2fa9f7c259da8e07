"""How the cache of a local model can be compressed, told to its user."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from lcdoc.agents.models.errors import ModelConfigError

_QUESTIONS: Final = {
    "scorer": "which entries of the cache matter",
    "budget": "how many each layer and head keeps",
    "reducer": "what becomes of the others",
}


@dataclass(frozen=True, slots=True)
class RecipePart:
    """A part that recipes can be made of."""

    kind: str
    name: str
    about: str
    options: dict[str, Any]
    """With their defaults."""

    @property
    def question(self) -> str:
        """What parts of its kind decide."""
        return _QUESTIONS[self.kind]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def parts() -> list[RecipePart]:
    """All parts, kind by kind."""
    from lcdoc.local_engine.compression.registry import BUDGETS, REDUCERS, SCORERS

    known = {"scorer": SCORERS, "budget": BUDGETS, "reducer": REDUCERS}
    return [_part(kind, name) for kind, named in known.items() for name in named]


def meaning(text: str) -> dict[str, Any]:
    """What a recipe does, by its parts. Raises ModelConfigError for one that is none."""
    from lcdoc.local_engine.compression.recipe import Recipe
    from lcdoc.local_engine.errors import EngineError

    try:
        recipe = Recipe.parse(text)
    except EngineError as error:
        raise ModelConfigError("kv", str(error), "`lcdoc kv list` shows the parts") from error
    amount = recipe.amount
    named = {
        "scorer": recipe.chosen_scorer,
        "budget": recipe.chosen_budget,
        "reducer": recipe.chosen_reducer,
    }
    return {
        "recipe": str(recipe),
        **{kind: f"{chosen}: {_part(kind, chosen.name).about}" for kind, chosen in named.items()},
        "keeps": f"{amount.tokens:,} entries a row"
        if amount.tokens is not None
        else f"{amount.ratio:.0%} of what was read",
        "always": f"the first {recipe.sinks} and the last entries"
        if recipe.recent is None
        else f"the first {recipe.sinks} and the last {recipe.recent} entries",
        "when": "after each chunk of the prompt: memory is bounded by what is kept"
        if recipe.when == "during"
        else "once the prompt is read: all of it is held until then",
        "positions": "as in the text" if not recipe.moves else f"{recipe.positions}: placed anew at each cut",
    }


def _part(kind: str, name: str) -> RecipePart:
    from dataclasses import MISSING, fields

    from lcdoc.local_engine.compression.options import option_values
    from lcdoc.local_engine.compression.registry import part_class

    made = part_class(name)
    wanted = option_values(made)
    defaults = {
        field.name: None if field.default is MISSING else field.default
        for field in fields(made)
        if field.name in wanted
    }
    about = " ".join((made.__doc__ or "").strip().split("\n\n")[0].split())
    return RecipePart(kind, name, about, defaults)
