"""Recipes: their grammar, their canonical spelling, and what is said of bad ones."""

from __future__ import annotations

import pytest

from lcdoc.local_engine.compression.allowance import Allowance
from lcdoc.local_engine.compression.recipe import Recipe, as_recipe
from lcdoc.local_engine.compression.registry import BUDGETS, REDUCERS, SCORERS, part_class
from lcdoc.local_engine.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("snapkv@0.25", "snapkv@0.25"),
        (" snapkv + uniform + drop @ 0.25 ", "snapkv@0.25"),
        ("ada+kvmerger+snapkv@2048tok", "snapkv+ada+kvmerger@2048tok"),
        ("snapkv:window=64,kernel=7,pooling=max+ada:alpha=0.3@100tokens", None),
        ("snapkv:window=32@1", "snapkv@1.0"),
        ("kvzip:ratio=0.25", "kvzip@0.25"),
        ("kvzip+ratio=0.25", "kvzip@0.25"),
        ("kvzip+@0.5", "kvzip+@0.5"),
        ("kvzip++ada@0.5", "kvzip++ada@0.5"),
        ("ada+kvzip+@0.5", "kvzip++ada@0.5"),
        ("knorm+tokens=7", "knorm@7tok"),
        ("h2o:mean=true@0.1", "h2o:mean=true@0.1"),
        ("h2o:mean=no@0.1", "h2o@0.1"),
        (
            "knorm + positions = self-extend:group=4,neighbours=100 @0.5",
            "knorm+positions=self-extend:group=4,neighbours=100@0.5",
        ),
        ("knorm+positions=capped@0.5", "knorm+positions=capped@0.5"),
        ("knorm+protect=headings@0.5", "knorm+protect=headings@0.5"),
        ("knorm+protect=named@0.5", "knorm@0.5"),
        ("window+positions=compact+when=end+recent=9+sinks=16@64tok", None),
    ],
)
def test_a_recipe_has_one_canonical_spelling(text: str, canonical: str | None) -> None:
    recipe = Recipe.parse(text)
    if canonical is not None:
        assert str(recipe) == canonical
    again = Recipe.parse(str(recipe))
    assert again == recipe
    assert str(again) == str(recipe)


def test_options_reach_the_parts() -> None:
    recipe = Recipe.parse("snapkv:window=64,pooling=max+ada:alpha=0.5+when=end+sinks=7+recent=3+positions=compact@0.07")
    assert (recipe.scorer.window, recipe.scorer.pooling, recipe.budget.alpha) == (64, "max", 0.5)
    assert (recipe.when, recipe.sinks, recipe.recent, recipe.positions.name) == ("end", 7, 3, "compact")
    assert recipe.amount.entries(100) == 7
    assert recipe.amount.entries(101) == 8
    assert recipe.amount.entries(1) == 1
    assert recipe.needs.window == 64


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "nothing before or between"),
        ("snap@0.5", "'snap' is no part of a compression recipe: did you mean snapkv.$"),
        ("StreamingLLM@0.5", "did you mean window.$"),
        ("snapkv+adakv@0.5", "'adakv' is no part of a compression recipe: did you mean ada.$"),
        ("xyzzy@0.5", "'xyzzy' is no part of a compression recipe .scorers: window, knorm.*reducers: drop"),
        ("snapkv", "does not say how much is kept: write one, @0.25"),
        ("snapkv@2", "'@2' is no amount"),
        ("snapkv@0", "'@0' is no amount"),
        ("snapkv@nan", "'@nan' is no amount"),
        ("snapkv@0tok", "'@0tok' is no amount"),
        ("snapkv@1.5tok", "'@1.5tok' is no amount"),
        ("snapkv@0.5@0.2", "has two amounts"),
        ("snapkv:ratio=0.3@0.5", "has 2 amounts, @0.5 and ratio=0.3"),
        ("ada@0.5", "names no scorer"),
        ("snapkv+knorm@0.5", "two scorers, snapkv and knorm"),
        ("snapkv+ada+global@0.5", "two budgets, ada and global"),
        ("snapkv:foo=1@0.5", "snapkv has no option 'foo': it has window, kernel or pooling"),
        ("knorm:foo=1@0.5", "knorm has no option 'foo': it has none"),
        ("snapkv:window=x@0.5", "window is 'x': give a whole number"),
        ("ada:alpha=y+snapkv@0.5", "alpha is 'y': give a number"),
        ("snapkv:pooling=sum@0.5", "pooling is 'sum': it is avg or max"),
        ("h2o:mean=2@0.5", "mean is '2': it is true or false"),
        ("snapkv:window@0.5", "'window' is no option: write NAME=VALUE"),
        ("snapkv:window=1,window=2@0.5", "sets window twice"),
        ("snapkv+when=now@0.5", "when is 'now': it is during or end"),
        ("snapkv+protect=all@0.5", "protect is 'all': it is named, headings, starts or none"),
        ("snapkv+positions=away@0.5", "positions is 'away': it is original, compact, self-extend or capped"),
        ("snapkv+positions=capped:far=3@0.5", "capped has no option 'far': it has reach"),
        ("snapkv+positions=capped:reach=0@0.5", "capped distance is 0"),
        ("snapkv+sinks=-1@0.5", "sinks is '-1': give a whole number"),
        ("snapkv+depth=3@0.5", "has no option 'depth': it has sinks, recent"),
        ("tova+ada@0.5", "tova has one score for all heads of a layer, and ada gives each head its own"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said) as raised:
        Recipe.parse(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [*SCORERS, *BUDGETS, *REDUCERS])
def test_every_part_has_a_name_and_a_line(name: str) -> None:
    assert (part_class(name).__doc__ or "").strip()
    if name != "static":  # it needs its file
        kind = "" if name in SCORERS else "snapkv+"
        assert name in str(Recipe.parse(f"{kind}{name}@0.5")) or name in {"uniform", "drop"}


def test_what_is_protected_leaves_room() -> None:
    recipe = Recipe.parse("knorm@0.5")
    assert recipe.protects(1000) == (4, 32)
    assert recipe.protects(40) == (4, 5)
    assert recipe.protects(2) == (1, 1)
    assert Recipe.parse("snapkv:window=64@0.5").protects(1000) == (4, 64)
    # Queries that are no question are looked at, and what they stand by may go.
    assert Recipe.parse("compactor@0.5").protects(1000) == (4, 32)
    assert Recipe.parse("knorm+match@0.5").protects(1000) == (4, 32)
    assert Recipe.parse("h2o@0.5").protects(1000) == (4, 500)
    assert Recipe.parse("h2o+recent=8@0.5").protects(1000) == (4, 8)


def test_what_may_be_held() -> None:
    during = Allowance(Recipe.parse("knorm@100tok"), 1000, 32)
    assert (during.budget(0), during.capacity(0), during.margin, during.most(5000)) == (100, 132, 32, 132)
    assert during.most(50) == 50
    assert during.readable(0, 1000, 0) == 32
    assert during.readable(500, 1000, 110) == 22
    assert during.readable(990, 1000, 100) == 10
    end = Allowance(Recipe.parse("knorm+when=end@100tok"), 1000, 32)
    assert end.most(5000) == 1000
    assert end.readable(10, 1100, 10) == 990
    share = Allowance(Recipe.parse("knorm@0.25"), 1000, 32)
    assert (share.budget(10), share.budget(2000)) == (250, 500)


def test_full_keeps_everything() -> None:
    assert as_recipe("full") is None
    assert as_recipe(None) is None
    assert as_recipe(Recipe.parse("knorm@0.5")) == as_recipe("knorm@0.5")
