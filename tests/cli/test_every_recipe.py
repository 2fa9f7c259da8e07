"""Every part by its name, through `lcdoc ask --kv` and a trained model, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lcdoc.agents.models.local_engines import engines
from lcdoc.cli import app
from lcdoc.local_engine.compression.budgets.static_heads import save_head_scores
from lcdoc.local_engine.compression.known_heads import head_scores_path
from lcdoc.local_engine.compression.recipe import Recipe
from lcdoc.local_engine.compression.registry import BUDGETS, REDUCERS, SCORERS, part_class
from lcdoc.local_engine.records import Stats

SMALL = Path(__file__).parents[2] / "benchmarks" / "data" / "small_model"
ROWS = 8
KEPT = 256
QUESTION = "How many passengers may the ferry Bittern carry?"


def recipes() -> list[str]:
    """Each part once at least, with parts that it goes with."""
    made = []
    for number, scorer in enumerate(SCORERS):
        whole = part_class(scorer)().needs.whole_layer
        budgets = [name for name in BUDGETS if not (whole and part_class(name)().ragged)]
        reducer = list(REDUCERS)[number % len(REDUCERS)]
        made.append(f"{scorer}+{budgets[number % len(budgets)]}+{reducer}@{KEPT}tok")
    return made


def test_all_parts_are_in_the_recipes() -> None:
    made = [Recipe.parse(recipe) for recipe in recipes()]
    used = {part.name for each in made for part in (each.chosen_scorer, each.chosen_budget, each.chosen_reducer)}
    assert used == {*SCORERS, *BUDGETS, *REDUCERS}


@pytest.fixture
def asked(story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Ask by a recipe; what the process says, and what its engine did."""
    config = tmp_path / "config.toml"
    config.write_text(f'[models.small]\nmodel = "local/{SMALL}"\nmax_output_tokens = 48\n', encoding="utf-8")
    monkeypatch.setenv("LCDOC_LIBRARY", str(tmp_path / "library.sqlite"))
    monkeypatch.setenv("LCDOC_CONFIG", str(config))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    heads = head_scores_path(SMALL)
    heads.parent.mkdir(parents=True)
    save_head_scores(heads, torch.linspace(0, 1, ROWS).view(4, 2), "small")

    def ask(kv: str) -> tuple[int, str, Stats]:
        command = ["ask", str(story), QUESTION, "--workflow", "direct", "--model", "small", "--kv", kv, "--no-cache"]
        run = CliRunner().invoke(app, command)
        (loaded,) = engines._engines.values()
        return run.exit_code, run.stderr, loaded.result().stats()

    engines.close()
    yield ask
    engines.close()


@pytest.mark.parametrize("recipe", recipes())
def test_a_document_is_asked_by_every_part(asked, recipe: str) -> None:
    code, said, stats = asked(recipe)
    assert code in {0, 1}, said  # the model may find nothing, but it answers
    assert "1 call," in said
    assert (stats.failed, stats.requests > 0, stats.cuts > 0) == (0, True, True)
    read = stats.prompt_tokens - stats.cached_tokens
    dropped = stats.dropped_entries / ROWS
    # What was read before the question, for recipes that need none, is shorter by that, and an answer may be cut, too.
    assert read - KEPT - 60 <= dropped
    assert "threshold" in recipe or dropped <= read - KEPT + 48
