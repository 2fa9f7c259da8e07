"""Budgets: what they all hold, and what each is for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lcdoc.local_engine.compression.budgets.ada import Ada
from lcdoc.local_engine.compression.budgets.best import best
from lcdoc.local_engine.compression.budgets.d2o_layers import D2OLayers, attention_spread, layer_shares
from lcdoc.local_engine.compression.budgets.global_top import Global
from lcdoc.local_engine.compression.budgets.pyramid import Pyramid
from lcdoc.local_engine.compression.budgets.static_heads import (
    StaticHeads,
    head_scores,
    load_head_scores,
    save_head_scores,
)
from lcdoc.local_engine.compression.budgets.threshold import Threshold
from lcdoc.local_engine.compression.budgets.uniform import Uniform
from lcdoc.local_engine.compression.layer_groups import group_numbers
from lcdoc.local_engine.compression.parts import Budget, Needs, Scores
from lcdoc.local_engine.compression.registry import part_class
from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.tests.local_engine.compression.made_scores import any_scores, made

_PLAIN: list[Callable[[], Budget]] = [
    Uniform,
    Pyramid,
    lambda: Pyramid(beta=1.5),
    Ada,
    lambda: Ada(alpha=0.0),
    lambda: Ada(alpha=0.7),
    lambda: Ada(alpha=1.0),
    Global,
    D2OLayers,
    lambda: D2OLayers(smallest=0.3),
    lambda: Threshold(tau=-0.3),
]
BUDGETS = pytest.mark.parametrize("make", _PLAIN)
MANY = settings(max_examples=20, deadline=None)


def random_values(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def counts(keep: Tensor) -> list[list[int]]:
    return keep.sum(dim=-1).tolist()


def check(budget: Budget, scores: Scores) -> Tensor:
    keep = budget.keep(scores)
    assert keep.dtype == torch.bool
    assert keep.shape == scores.valid.shape
    assert not (keep & ~scores.valid).any()
    assert (keep | ~scores.protected).all()
    layers, heads, _ = keep.shape
    assert int(keep.sum()) <= max(scores.budget * layers * heads, int(scores.protected.sum()))
    return keep


@BUDGETS
@MANY
@given(scores=any_scores(), more=st.integers(1, 4))
def test_what_is_kept_holds_the_protected_fits_and_grows_with_the_budget(
    make: Callable[[], Budget], scores: Scores, more: int
) -> None:
    smaller = check(make(), scores)
    larger = check(make(), replace(scores, budget=scores.budget + more))
    assert (larger | ~smaller).all()


@BUDGETS
@MANY
@given(scores=any_scores(even=True))
def test_a_row_keeps_its_best_and_heads_are_equal_where_it_says_so(make: Callable[[], Budget], scores: Scores) -> None:
    budget = make()
    keep = check(budget, scores)
    if not budget.ragged:
        assert all(len(set(row)) == 1 for row in counts(keep))
    dropped = scores.valid & ~keep
    chosen = keep & ~scores.protected
    lowest = scores.values.masked_fill(~chosen, torch.inf).amin(dim=-1)
    highest = scores.values.masked_fill(~dropped, -torch.inf).amax(dim=-1)
    assert (lowest >= highest).all()


@pytest.mark.parametrize("make", [Pyramid, lambda: Pyramid(beta=1.5), Ada, Global, D2OLayers])
@MANY
@given(scores=any_scores(even=True))
def test_the_budget_is_used_to_the_last_entry(make: Callable[[], Budget], scores: Scores) -> None:
    layers, heads, size = scores.valid.shape
    total = min(scores.budget * layers * heads, layers * heads * size)
    assert int(make().keep(scores).sum()) == max(total, int(scores.protected.sum()))


@pytest.mark.parametrize("make", [Pyramid, Global, D2OLayers])
@MANY
@given(scores=any_scores())
def test_what_short_rows_leave_goes_to_others(make: Callable[[], Budget], scores: Scores) -> None:
    layers, heads, _ = scores.valid.shape
    total = min(scores.budget * layers * heads, int(scores.valid.sum()))
    assert int(make().keep(scores).sum()) == max(total, int(scores.protected.sum()))


def test_scores_that_are_no_numbers_rank_last() -> None:
    values = torch.tensor([[float("nan"), -torch.inf, 0.5, torch.inf]])
    free = torch.ones(1, 4, dtype=torch.bool)
    assert best(values, free, torch.tensor([2])).tolist() == [[False, False, True, True]]
    assert best(values, free, torch.tensor([9])).all()
    assert not best(values, free, torch.tensor([0])).any()


def test_protection_needs_no_high_score() -> None:
    values = torch.full((1, 1, 6), 1e30)
    values[0, 0, 2] = -torch.inf
    protected = torch.zeros(1, 1, 6, dtype=torch.bool)
    protected[0, 0, 2] = True
    keep = Uniform().keep(made(values, 2, protected=protected))
    assert keep.nonzero()[:, 2].tolist() == [0, 2]


# --- uniform


def test_uniform_keeps_the_top_of_each_row() -> None:
    values = random_values(3, 2, 11)
    keep = Uniform().keep(made(values, 4))
    for layer in range(3):
        for head in range(2):
            wanted = sorted(range(11), key=lambda j, row=values[layer, head]: -float(row[j]))[:4]  # type: ignore[misc]
            assert keep[layer, head].nonzero().flatten().tolist() == sorted(wanted)


def test_uniform_gives_a_short_rows_rest_to_nobody() -> None:
    keep = Uniform().keep(made(random_values(1, 3, 9), 5, lengths=torch.tensor([[2, 9, 9]])))
    assert counts(keep) == [[2, 5, 5]]


def test_rows_that_protect_more_than_the_budget_take_it_from_the_others() -> None:
    protected = torch.zeros(1, 3, 9, dtype=torch.bool)
    protected[0, 0, :8] = True
    assert counts(Uniform().keep(made(random_values(1, 3, 9), 4, protected=protected))) == [[8, 2, 2]]


# --- ada


def by_hand_ada(scores: Scores, alpha: float) -> Tensor:
    layers, heads, _ = scores.valid.shape
    keep = torch.zeros_like(scores.valid)
    for layer in range(layers):
        guarded = {(h, j) for h, j in scores.protected[layer].nonzero().tolist()}
        room = scores.budget * heads - len(guarded)
        kept = set(guarded)
        for head in range(heads):
            row = sorted(
                (-float(scores.values[layer, head, j]), j)
                for j in scores.valid[layer, head].nonzero().flatten().tolist()
                if (head, j) not in guarded
            )
            kept |= {(head, j) for _, j in row[: int(alpha * room / heads)]}
        rest = sorted(
            (-float(scores.values[layer, h, j]), h, j)
            for h, j in scores.valid[layer].nonzero().tolist()
            if (h, j) not in kept
        )
        kept |= {(h, j) for _, h, j in rest[: scores.budget * heads - len(kept)]}
        for h, j in kept:
            keep[layer, h, j] = True
    return keep


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("budget", [5, 9, 12, 20])
def test_ada_is_the_papers_by_hand(alpha: float, budget: int) -> None:
    values = random_values(3, 4, 23, seed=budget) * torch.tensor([0.1, 1.0, 2.0, 5.0]).view(1, 4, 1)
    scores = made(values, budget, lengths=torch.full((3, 4), 23) - torch.arange(4), window=3)
    assert torch.equal(Ada(alpha=alpha).keep(scores), by_hand_ada(scores, alpha))


def test_ada_gives_the_needy_head_more_and_no_head_less_than_its_floor() -> None:
    values = torch.stack([torch.arange(20.0) + 100, torch.arange(20.0)]).unsqueeze(0)
    assert counts(Ada().keep(made(values, 10))) == [[18, 2]]
    assert counts(Ada(alpha=0.0).keep(made(values, 10))) == [[20, 0]]
    assert counts(Ada(alpha=1.0).keep(made(values, 10))) == [[10, 10]]


def test_layers_do_not_compete_in_ada_but_do_in_global() -> None:
    values = torch.stack([torch.arange(20.0) + 100, torch.arange(20.0)]).unsqueeze(1)
    assert counts(Ada().keep(made(values, 10))) == [[10], [10]]
    assert counts(Global().keep(made(values, 10, window=1))) == [[19], [1]]


def test_global_is_the_top_of_all_by_hand() -> None:
    values = random_values(3, 2, 13, seed=5)
    scores = made(values, 4, lengths=torch.tensor([[13, 3], [7, 13], [0, 9]]), window=2)
    guarded = {tuple(each) for each in scores.protected.nonzero().tolist()}
    free = [tuple(each) for each in (scores.valid & ~scores.protected).nonzero().tolist()]
    free.sort(key=lambda each: -float(values[each]))
    wanted = guarded | set(free[: 4 * 6 - len(guarded)])
    assert {tuple(each) for each in Global().keep(scores).nonzero().tolist()} == wanted


# --- pyramid


@pytest.mark.parametrize(("budget", "window", "beta"), [(100, 8, 20.0), (64, 0, 10.0), (33, 7, 20.0), (40, 32, 5.0)])
def test_pyramid_is_the_papers_line_to_one_entry(budget: int, window: int, beta: float) -> None:
    layers, heads = 7, 2
    keep = Pyramid(beta=beta).keep(made(random_values(layers, heads, 400), budget, window=window))
    top = (budget - window) / beta
    bottom = 2 * (budget - window) - top
    for layer, row in enumerate(counts(keep)):
        assert len(set(row)) == 1
        assert abs(row[0] - (window + bottom - (bottom - top) * layer / (layers - 1))) <= 1
    assert int(keep.sum()) == budget * layers * heads


def test_pyramid_turns_about_its_middle_where_the_bottom_layer_is_too_short() -> None:
    # With equal budgets instead, as some do here, all would be 80.
    keep = Pyramid().keep(made(random_values(5, 1, 100), 80))
    assert counts(keep) == [[100], [90], [80], [70], [60]]


@pytest.mark.parametrize(("layers", "groups"), [(8, 4), (7, 3), (3, 8), (4, 1)])
@pytest.mark.parametrize("budget", [20, 31, 47])
def test_pyramid_of_groups_is_the_line_from_group_to_group(layers: int, groups: int, budget: int) -> None:
    found = counts(check(Pyramid(beta=2, groups=groups), made(random_values(layers, 3, 200), budget)))
    numbers = group_numbers(layers, groups)
    of_group = [
        {tuple(row) for row, number in zip(found, numbers, strict=True) if number == one} for one in set(numbers)
    ]
    assert all(len(rows) == 1 and len(set(next(iter(rows)))) == 1 for rows in of_group)
    # What is left is less than one entry more for each row of a group.
    left = budget * layers * 3 - sum(map(sum, found))
    assert 0 <= left < 3 * max(numbers.count(one) for one in numbers)
    sizes = [next(iter(rows))[0] for rows in of_group]
    assert sizes == sorted(sizes, reverse=True)
    if (layers, groups) == (8, 4):
        assert sizes == pytest.approx([budget * share for share in (1.5, 7 / 6, 5 / 6, 0.5)], abs=1)
    if groups == 1:
        assert sizes == [budget]


def test_pyramid_of_one_layer_is_its_budget() -> None:
    assert counts(Pyramid().keep(made(random_values(1, 2, 30), 7))) == [[7, 7]]


# --- d2o layers


def test_d2o_gives_spread_layers_more_by_the_softmax() -> None:
    spread = torch.tensor([-3.0, -1.0, -2.0, -9.0])
    keep = D2OLayers(smallest=0.0).keep(made(random_values(4, 2, 1000), 50, spread=spread))
    values = spread.double()
    scaled = (values + 9) / 8
    wanted = scaled.exp() / scaled.exp().sum() * 4 * 50
    got = torch.tensor(counts(keep), dtype=torch.float64)
    assert (got - wanted.unsqueeze(1)).abs().max() <= 1
    assert int(keep.sum()) == 50 * 4 * 2


def test_d2o_keeps_a_part_of_every_layer_and_fills_those_that_are_full() -> None:
    spread = torch.tensor([0.0] + [-1.0] * 20 + [-1e6])
    keep = D2OLayers(smallest=0.3).keep(made(random_values(22, 1, 100), 50, spread=spread))
    numbers = [row[0] for row in counts(keep)]
    assert numbers[-1] == 30
    assert sum(numbers) == 50 * 22


def test_d2o_of_equal_layers_is_uniform_and_without_spread_is_refused() -> None:
    scores = made(random_values(3, 2, 40), 10, spread=torch.zeros(3))
    assert torch.equal(D2OLayers().keep(scores), Uniform().keep(scores))
    assert D2OLayers().needs == Needs(mass=True)
    with pytest.raises(InvalidRequestError, match="spread"):
        D2OLayers().keep(replace(scores, spread=None))


def test_attention_spread_is_larger_the_more_even_attention_is() -> None:
    even, peaked = torch.ones(2, 8) * 3, torch.ones(2, 8)
    peaked[:, 3] = 50.0
    assert attention_spread(even) == 0.0
    shares = (peaked.double() / peaked.double().mean(dim=1, keepdim=True)).flatten().tolist()
    assert attention_spread(peaked) == pytest.approx(-sum((each - 1) ** 2 for each in shares) / len(shares))
    assert layer_shares(torch.tensor([0.0, -1.0, -5.0])).sum() == pytest.approx(3.0)


# --- threshold


def test_threshold_keeps_what_reaches_tau_and_no_more_than_the_budget() -> None:
    values = torch.tensor([[[0.9, 0.02, 0.001, 0.3], [0.0, 0.0, 0.01, 0.0]]])
    assert Threshold().keep(made(values, 4)).tolist() == [[[True, True, False, True], [False, False, True, False]]]
    assert Threshold().keep(made(values, 1)).tolist() == [[[True, False, False, True], [False] * 4]]
    kept_low = Threshold(tau=0.5).keep(made(values, 4, window=1))
    assert kept_low.tolist() == [[[True, False, False, True], [False, False, False, True]]]


# --- static heads


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "heads.json"
    save_head_scores(path, torch.tensor([[0.9, 0.1], [0.2, 0.8]]), "some model")
    return path


def test_static_heads_fetch_or_stream(stored: Path) -> None:
    values = random_values(2, 2, 40)
    scores = made(values, 20, protected=torch.arange(40).expand(2, 2, 40) < 2, window=3)
    keep = StaticHeads(file=str(stored), recent=5).keep(scores)
    assert counts(keep) == [[33, 7], [7, 33]]
    assert keep[0, 1].nonzero().flatten().tolist() == [0, 1, 35, 36, 37, 38, 39]
    fetched = keep[0, 0] & ~scores.protected[0, 0]
    dropped = ~keep[0, 0]
    assert values[0, 0][fetched].min() > values[0, 0][dropped].max()


def test_static_heads_are_alike_where_the_budget_has_no_room_for_what_is_near(stored: Path) -> None:
    assert counts(StaticHeads(file=str(stored), recent=9).keep(made(random_values(2, 2, 40), 4))) == [[4, 4], [4, 4]]


def test_static_heads_fetch_everything_where_the_budget_allows_it(stored: Path) -> None:
    keep = StaticHeads(file=str(stored), recent=5).keep(made(random_values(2, 2, 40), 30))
    assert counts(keep) == [[40, 5], [5, 40]]


@MANY
@given(
    data=st.data(), recent=st.integers(0, 12), retrieval=st.sampled_from([0.0, 0.3, 0.5, 1.0]), more=st.integers(1, 4)
)
def test_static_heads_hold_what_all_budgets_hold(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, recent: int, retrieval: float, more: int
) -> None:
    scores = data.draw(any_scores())
    path = tmp_path_factory.getbasetemp() / "any.json"
    save_head_scores(path, torch.randn(scores.valid.shape[:2]), "any")
    budget = StaticHeads(file=str(path), retrieval=retrieval, recent=recent)
    smaller = check(budget, scores)
    larger = check(budget, replace(scores, budget=scores.budget + more))
    assert (larger | ~smaller).all()


def test_head_scores_are_the_highest_of_what_is_not_protected(tmp_path: Path) -> None:
    values = random_values(2, 3, 9)
    scores = made(values, 3, window=2)
    found = head_scores(scores)
    for layer in range(2):
        for head in range(3):
            assert float(found[layer, head]) == max(values[layer, head, :7].tolist())
    save_head_scores(tmp_path / "found.json", found, "m")
    assert torch.equal(load_head_scores(tmp_path / "found.json"), found)
    with pytest.raises(InvalidRequestError, match="longer text"):
        head_scores(made(values, 3, window=9))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not readable as JSON"),
        ("[]", "no file of head scores"),
        (json.dumps({"format": "other", "scores": [[1]]}), "no file of head scores"),
        (json.dumps({"format": "lcdoc head scores 1"}), "one finite number"),
        (json.dumps({"format": "lcdoc head scores 1", "scores": [[1.0, 2.0], [1.0]]}), "one finite number"),
        (json.dumps({"format": "lcdoc head scores 1", "scores": [["a"]]}), "one finite number"),
        (json.dumps({"format": "lcdoc head scores 1", "scores": [[float("nan")]]}), "one finite number"),
    ],
)
def test_files_that_hold_no_head_scores_are_named(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(InvalidRequestError, match=f"broken.json.*{problem}"):
        StaticHeads(file=str(path))


def test_static_heads_refuse_other_models_and_missing_files(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="2 x 2 heads where the model has 3 x 2"):
        StaticHeads(file=str(stored)).keep(made(random_values(3, 2, 9), 3))
    with pytest.raises(InvalidRequestError, match=r"none\.json: cannot be read"):
        StaticHeads(file=str(tmp_path / "none.json"))
    with pytest.raises(InvalidRequestError, match="no head scores are known: name their file"):
        StaticHeads().keep(made(random_values(2, 2, 9), 3))


def test_static_heads_may_be_told_their_model_s_scores(stored: Path) -> None:
    scores = made(random_values(2, 2, 40), 10)
    told = StaticHeads(recent=5).of_model(load_head_scores(stored))
    assert torch.equal(told.keep(scores), StaticHeads(file=str(stored), recent=5).keep(scores))
    assert told == StaticHeads(recent=5)


@pytest.mark.parametrize(
    "options", [("ada", {"alpha": 1.5}), ("pyramid", {"beta": 0.5}), ("pyramid", {"groups": 0}),
                ("threshold", {"tau": float("inf")}),
                ("d2o-layers", {"smallest": -1.0}), ("static", {"file": "x", "retrieval": 2.0}),
                ("static", {"file": "x", "recent": -1})],
)  # fmt: skip
def test_options_out_of_range_are_named(options: tuple[str, dict[str, object]]) -> None:
    name, given = options
    with pytest.raises(InvalidRequestError, match=f"{name}: {list(given)[-1]} is "):
        part_class(name)(**given)
