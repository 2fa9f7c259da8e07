"""Layers that choose for others: which they are, and that their groups keep the same places of the text."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from torch import Tensor

from lcdoc.local_engine.compression.layer_groups import deciding_layers, group_numbers
from lcdoc.local_engine.compression.parts import Heads
from lcdoc.local_engine.compression.scorers.windowkv import WindowKV
from lcdoc.tests.local_engine.compression.engines import CutBench
from lcdoc.tests.local_engine.decoding import random_tokens

TOKENS = random_tokens(220)
LAYERS = 4


@pytest.fixture(scope="module")
def folder(checkpoint: Callable[..., Path]) -> Path:
    return checkpoint("llama", num_hidden_layers=LAYERS, max_position_embeddings=4096)


def test_groups_are_as_equal_as_can_be() -> None:
    assert group_numbers(28, 4) == [0] * 7 + [1] * 7 + [2] * 7 + [3] * 7
    assert group_numbers(5, 2) == [0, 0, 0, 1, 1]
    assert group_numbers(3, 9) == [0, 1, 2]


def test_a_layer_decides_for_its_kind() -> None:
    assert deciding_layers([None] * 6, 2) == [0, 0, 0, 3, 3, 3]
    # A layer that sees what is near cannot say what one that sees all needs.
    assert deciding_layers([512, None, 512, None], 1) == [0, 1, 0, 1]
    assert deciding_layers([None] * 3, None) == [0, 1, 2]


def kept(folder: Path, recipe: str, chunk: int = 32) -> tuple[list[list[list[int]]], int]:
    """Where in the text the entries of each row stand, [L][H], and how often it was cut."""
    bench = CutBench(folder)
    held = bench.start(recipe, len(TOKENS), chunk)
    bench.read_all(held, TOKENS)
    rows = [[bench.positions(held, layer, head) for head in range(bench.tables.kv_heads)] for layer in range(LAYERS)]
    return rows, held.cuts


@pytest.mark.parametrize("budget", ["", "+pyramid:groups=2,beta=2"])
def test_layers_of_a_group_keep_the_same_places(folder: Path, budget: str) -> None:
    (first, second, third, fourth), cuts = kept(folder, f"windowkv:groups=2,size=4{budget}@48tok")
    assert cuts > 3
    assert first == second
    assert third == fourth
    assert first != third
    assert all(row == layer[0] for layer in (first, third) for row in layer)
    lengths = [len(layer[0]) for layer in (first, third)]
    assert sum(lengths) == 2 * 48
    assert (lengths[0] > lengths[1]) == bool(budget)


def test_without_groups_every_row_chooses(folder: Path) -> None:
    rows, _ = kept(folder, "windowkv:groups=none,size=4@48tok")
    assert len({tuple(row) for layer in rows for row in layer}) == LAYERS * len(rows[0])


def test_only_layers_that_decide_are_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    score = WindowKV.score

    def noted(self: WindowKV, heads: Heads) -> Tensor:
        looked.append(heads.model.layer)
        return score(self, heads)

    monkeypatch.setattr(WindowKV, "score", noted)
    _, cuts = kept(folder, "windowkv:groups=2@48tok")
    assert looked == [0, 2] * cuts


def test_layers_with_budgets_of_their_own_take_what_they_have_of_the_selection(folder: Path) -> None:
    rows, _ = kept(folder, "windowkv:groups=1,size=4+pyramid:beta=4@48tok")
    sizes = [len(layer[0]) for layer in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > sizes[-1]
    for more, fewer in pairwise(rows):
        assert set(fewer[0]) <= set(more[0])
