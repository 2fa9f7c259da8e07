"""How the cache of a local model can be compressed, told to its user: the parts, and what a recipe of them does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from lcdoc.agents.models.errors import ModelConfigError

if TYPE_CHECKING:
    from lcdoc.local_engine.compression.recipe import Recipe

_QUESTIONS: Final = {
    "scorer": "which entries of the cache matter",
    "budget": "how many each layer and head keeps",
    "reducer": "what becomes of the others",
}

_LARGE: Final = 1 << 30
"""A budget that no default takes a part of."""


class RecipeError(ModelConfigError):
    """A text that is no recipe."""

    def __init__(self, problem: str) -> None:
        super().__init__("", problem, "" if problem.endswith("?") else "`lcdoc kv list` shows the parts")

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.problem, self.remedy)))


@dataclass(frozen=True, slots=True)
class RecipePart:
    """A part that recipes can be made of."""

    kind: str
    name: str
    about: str
    papers: tuple[str, ...]
    """What it is called elsewhere."""
    needs: str
    """Of a scorer."""
    options: dict[str, Any]
    """With their defaults."""

    @property
    def question(self) -> str:
        """What parts of its kind decide."""
        return _QUESTIONS[self.kind]

    @property
    def line(self) -> str:
        """What it is, in half a line."""
        return f"{self.about} ({', '.join(self.papers)})" if self.papers else self.about

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"papers": list(self.papers)}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a recipe does, in words."""

    recipe: str
    scorer: str
    budget: str
    reducer: str
    keeps: str
    always: str
    when: str
    positions: str
    question: str
    """Whether it has to be known, and so whether a text can be kept for later questions."""
    costs: tuple[str, ...]
    """What is computed beside reading the text."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"costs": list(self.costs)}


def parts() -> list[RecipePart]:
    """All parts, kind by kind, and those that need the same together."""
    from lcdoc.local_engine.compression.registry import BUDGETS, REDUCERS, SCORERS

    known = {"scorer": SCORERS, "budget": BUDGETS, "reducer": REDUCERS}
    return [
        RecipePart(kind, name, entry.about, entry.papers, entry.group, _options(name))
        for kind, named in known.items()
        for name, entry in named.items()
    ]


def parsed(text: str) -> Recipe:
    """The recipe. Raises RecipeError for a text that is none."""
    from lcdoc.local_engine.compression.recipe import Recipe
    from lcdoc.local_engine.errors import EngineError

    try:
        return Recipe.parse(text)
    except EngineError as error:
        raise RecipeError(str(error)) from error


def meaning(text: str) -> Meaning:
    """What a recipe does. Raises RecipeError for one that is none."""
    from lcdoc.local_engine.compression.registry import entry_of

    recipe = parsed(text)
    named = [recipe.chosen_scorer, recipe.chosen_budget, recipe.chosen_reducer]
    scorer, budget, reducer = (f"{chosen}: {entry_of(chosen.name).about}" for chosen in named)
    asks = entry_of(recipe.chosen_scorer.name).asks
    return Meaning(
        recipe=str(recipe),
        scorer=scorer,
        budget=budget,
        reducer=reducer,
        keeps=_kept(recipe),
        always=_always(recipe),
        when="after each piece of the prompt: memory is bounded by what is kept"
        if recipe.when == "during"
        else "once the prompt is read: all of it is held until then",
        positions="as in the text" if not recipe.moves else f"{recipe.positions}: placed anew at each cut",
        question="goes by it: not for documents that are kept"
        if asks
        else "need not be known: fit for documents that are kept",
        costs=_costs(recipe),
    )


def _options(name: str) -> dict[str, Any]:
    from dataclasses import MISSING, fields

    from lcdoc.local_engine.compression.options import option_values
    from lcdoc.local_engine.compression.registry import part_class

    made = part_class(name)
    wanted = option_values(made)
    return {
        field.name: None if field.default is MISSING else field.default
        for field in fields(made)
        if field.name in wanted
    }


def _kept(recipe: Recipe) -> str:
    amount = recipe.amount
    if amount.tokens is not None:
        return f"{amount.tokens:,} entries a row, however long the text"
    return f"{100 * (amount.ratio or 0):.4g}% of what was read"


def _always(recipe: Recipe) -> str:
    share = recipe.needs.recent if recipe.recent is None else 0.0
    last = f"{share:.0%} of the budget" if share else f"{recipe.protects(_LARGE)[1]:,}"
    also = {
        "named": ", the question",
        "headings": ", headings, the question",
        "starts": ", starts of sentences, the question",
    }
    return f"the first {recipe.sinks} entries, the last {last}{also.get(recipe.protect, '')}"


def _costs(recipe: Recipe) -> tuple[str, ...]:
    """What is computed beside reading, by what the parts need."""
    needs, at = recipe.needs, "at each cut" if recipe.when == "during" else "once"
    costs = []
    if needs.probe == "repeat":
        costs.append("the text is read a second time, which about doubles the time")
    elif needs.probe == "task":
        costs.append(f"up to {recipe.scorer.needs.window:,} tokens of the task are read {at}")
    elif needs.probe == "draft":
        costs.append(f"a draft of {recipe.scorer.needs.window:,} tokens is written {at}")
    if needs.mass:
        costs.append("the attention of all queries is added up as the text is read")
    if needs.moments:
        costs.append("the mean and covariance of all queries are followed")
    if needs.window and needs.probe is None:
        where = "" if needs.groups is None else f", in one layer of each of {needs.groups} groups"
        costs.append(f"the attention of the last {needs.window:,} queries {at}{where}")
    return tuple(costs) or ("next to nothing",)
