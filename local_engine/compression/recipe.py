"""A compression method by name: which parts it is made of, how much it keeps, and when."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Self, cast

from lcdoc.local_engine.compression.parts import Budget, Needs, Probe, Reducer, Scorer
from lcdoc.local_engine.compression.positions import Original, Positions
from lcdoc.local_engine.compression.recipe_text import DEFAULTS, Amount, Named, Protect, When, read_recipe
from lcdoc.local_engine.compression.registry import SCORERS, Kind
from lcdoc.local_engine.compression.scorers.snapkv import SnapKV
from lcdoc.local_engine.errors import InvalidRequestError

FULL: Final = "full"
"""In place of a recipe: keep everything, whatever the engine's own recipe is."""
AUTO: Final = "auto"
"""In place of a recipe: what `auto.auto_recipe` takes for a request, by its length and the memory there is."""
_SINKS: Final = 4
_RECENT: Final = 32
_LEAST_PART: Final = 8
"""Of a small budget, at most so small a part goes to last entries that nothing is known to ask for."""
_ORIGINAL: Final = Named("original", Original())


@dataclass(frozen=True, slots=True)
class Recipe:
    """A compression method. Made by `Recipe.parse`; `str` gives it back in one canonical spelling."""

    chosen_scorer: Named
    chosen_budget: Named
    chosen_reducer: Named
    amount: Amount
    sinks: int = _SINKS
    """First entries that are always kept."""
    recent: int | None = None
    """Last entries that are always kept. None: as many as there are queries in the window that a scorer takes for the
    question, or as its share of the budget asks for, then at most half of the budget; else 32, or an 8th of it."""
    protect: Protect = "named"
    """What else is kept in any case of what the caller knows of the text, within half of the budget (`Marks.settled`):
    `named` spans, such as question and instructions; these and `headings`, or the `starts` of sentences; or `none`."""
    when: When = "during"
    """`during`: after each chunk of the prompt, so that no more than budget + chunk entries a row are ever held; `end`:
    once the prompt is read, as the literature does."""
    positions: Named = _ORIGINAL
    """Where what is kept stands after a cut: see `positions.py`. All but `original` let a text be longer than the
    model's window."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The recipe that `text` names; see `recipe_text.py`. Raises InvalidRequestError naming what is wrong in it."""
        spelled = read_recipe(text)
        parts = spelled.parts
        recipe = cls(parts["scorer"], parts["budget"], parts["reducer"], spelled.amount, **spelled.options)
        recipe._check(text)
        return recipe

    @property
    def scorer(self) -> Scorer:
        return cast("Scorer", self.chosen_scorer.part)

    @property
    def budget(self) -> Budget:
        return cast("Budget", self.chosen_budget.part)

    @property
    def reducer(self) -> Reducer:
        return cast("Reducer", self.chosen_reducer.part)

    @property
    def scheme(self) -> Positions:
        return cast("Positions", self.positions.part)

    @property
    def moves(self) -> bool:
        """Whether kept entries are placed anew at a cut."""
        return self.positions.name != "original"

    @property
    def drops(self) -> bool:
        """Whether what is not kept is gone, with nothing merged."""
        return self.chosen_reducer.name == "drop"

    @property
    def needs(self) -> Needs:
        """What the parts want together. `window` is the text's, unless a probe stands for it."""
        each = (self.scorer.needs, self.budget.needs, self.reducer.needs)
        probe: Probe | None = self.scorer.needs.probe
        window = max(need.window for need in each)
        if probe is not None:
            # A probe's queries stand for the text's wherever a part asks for a window of them; but the cache that a
            # draft is written with is cut by the text's.
            window = SnapKV().window if probe == "draft" else 0
        return Needs(
            window=window,
            mass=any(need.mass for need in each),
            moments=any(need.moments for need in each),
            surprise=any(need.surprise for need in each),
            probe=probe,
            hidden=any(need.hidden for need in each),
            whole_layer=any(need.whole_layer for need in each),
            groups=self.scorer.needs.groups,
            recent=max(need.recent for need in each),
        )

    @property
    def observes(self) -> bool:
        """Whether queries or logits of its passes have to be looked at."""
        needs = self.needs
        return bool(needs.window or needs.mass or needs.moments or needs.surprise)

    def protects(self, budget: int) -> tuple[int, int]:
        """(first, last) entries that are kept in any case when a row keeps `budget`."""
        recent = self.recent
        if recent is None:
            window = self.scorer.needs.window if self._looks_at_question else 0
            recent = max(window, math.floor(self.needs.recent * budget)) or min(_RECENT, -(-budget // _LEAST_PART))
            recent = min(recent, budget // 2)
        sinks = min(self.sinks, budget // 2)
        return sinks, min(recent, budget - sinks)

    @property
    def _looks_at_question(self) -> bool:
        """Whether the scorer's window is taken for a question, which is then kept itself."""
        known = SCORERS.get(self.chosen_scorer.name)
        return self.scorer.needs.probe is None and (known is None or known.asks)

    def __str__(self) -> str:
        items = [str(self.chosen_scorer)]
        for kind, chosen in (("budget", self.chosen_budget), ("reducer", self.chosen_reducer)):
            if str(chosen) != DEFAULTS[cast("Kind", kind)]:
                items.append(str(chosen))
        if self.sinks != _SINKS:
            items.append(f"sinks={self.sinks}")
        if self.recent is not None:
            items.append(f"recent={self.recent}")
        if self.protect != "named":
            items.append(f"protect={self.protect}")
        if self.when != "during":
            items.append(f"when={self.when}")
        if self.moves:
            items.append(f"positions={self.positions}")
        return "+".join(items) + str(self.amount)

    def _check(self, text: str) -> None:
        if self.needs.whole_layer and self.budget.ragged:
            whole = self.chosen_scorer if self.scorer.needs.whole_layer else self.chosen_reducer
            raise InvalidRequestError(
                f"{text!r}: {whole.name} has one score for all heads of a layer, and {self.chosen_budget.name} gives "
                "each head its own number: take uniform, pyramid or d2o-layers"
            )


def is_auto(kv: Recipe | str | None) -> bool:
    """Whether the recipe is yet to be chosen."""
    return isinstance(kv, str) and kv.strip().lower() == AUTO


def as_recipe(kv: Recipe | str | None) -> Recipe | None:
    """The recipe, read where it is a text; None for `full`. Raises InvalidRequestError, for `auto` too."""
    if is_auto(kv):
        raise InvalidRequestError("auto goes by the length of a whole text, which is not known here: name a recipe")
    if isinstance(kv, str):
        return None if kv.strip().lower() == FULL else Recipe.parse(kv)
    return kv
