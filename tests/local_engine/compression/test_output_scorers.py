"""criticalkv and compactor, against the papers' formulas in float64."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lcdoc.local_engine.compression.budgets.ada import Ada
from lcdoc.local_engine.compression.budgets.uniform import Uniform
from lcdoc.local_engine.compression.parts import Heads, Needs, Scores
from lcdoc.local_engine.compression.scorers import projected as projections
from lcdoc.local_engine.compression.scorers.compactor import Compactor, chunk_attention
from lcdoc.local_engine.compression.scorers.criticalkv import CriticalKV
from lcdoc.local_engine.compression.scorers.leverage import leverage_scores
from lcdoc.local_engine.compression.scorers.snapkv import SnapKV
from lcdoc.local_engine.compression.scorers.two_stage import dealt, two_stage_order
from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.tests.local_engine.compression.whole_model import GROUP, SHAPES, attention, close, made, projected, turned

DTYPES = [torch.float32, torch.bfloat16]


def two_stages(first: list[float], second: list[float], count: int) -> set[int]:
    chosen = sorted(range(len(first)), key=lambda i: (-first[i], i))[: count // 2]
    rest = sorted(set(range(len(first))) - set(chosen), key=lambda i: (-second[i], i))
    return {*chosen, *rest[: count - len(chosen)]}


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 19).flatmap(
        lambda n: st.tuples(*[st.lists(st.integers(0, 9).map(float), min_size=n, max_size=n) for _ in range(4)])
    )
)
def test_one_order_holds_both_stages_for_every_budget(rows: tuple[list[float], ...]) -> None:
    places = two_stage_order(torch.tensor(rows[:2]), torch.tensor(rows[2:]))
    for row in range(2):
        assert sorted(places[row].tolist()) == list(range(len(rows[0])))
        for count in range(len(rows[0]) + 1):
            chosen = {i for i, place in enumerate(places[row].tolist()) if place < count}
            assert chosen == two_stages(rows[row], rows[row + 2], count)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_projected_values_are_as_long_as_by_hand(
    shape: tuple[int, int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projections, "_BLOCK", 4)
    heads = made(shape, dtype=dtype)
    weight = heads.model.output()
    close(projections.projected_sums(heads.values, weight), projected(heads, 1))
    close(projections.projected_lengths(heads.values, weight), projected(heads, 2))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("window", [1, 32])
def test_criticalkv_in_one_stage_is_the_formula(shape: tuple[int, int, int, int], window: int) -> None:
    heads = made(shape)
    seen = attention(heads)[:, :, -window:].mean((1, 2))
    scores = CriticalKV(window=window, kernel=1, two_stage=False).score(heads)
    close(scores, (seen + 1e-4) * projected(heads, 1).mean(1), 1e-4)


@pytest.mark.parametrize("budget", [3, 10, 17, 24, 40])
def test_criticalkv_keeps_what_the_two_stages_choose(budget: int) -> None:
    heads = made((2, 45, 8, 6), sinks=2, recent=5)
    # What is protected would win both stages, and is not to take anything from the others in them.
    values = torch.where(heads.protected.unsqueeze(-1), 100.0, heads.values)
    heads = replace(heads, values=values)
    scores = CriticalKV(window=6).score(heads)
    valid = torch.ones(1, 2, 45, dtype=torch.bool)
    keep = Uniform().keep(Scores(scores.unsqueeze(0), valid, heads.protected.unsqueeze(0), budget, 5))[0]
    first = SnapKV(window=6).score(heads).double()
    second = (first + 1e-4) * projected(heads, 1).mean(1)
    for h in range(2):
        free = (~heads.protected[h]).nonzero().flatten()
        count = max(0, budget - 7)
        chosen = two_stages(first[h][free].tolist(), second[h][free].tolist(), count)
        assert {*(keep[h] & ~heads.protected[h]).nonzero().flatten().tolist()} == {int(free[i]) for i in chosen}


def test_criticalkv_keeps_values_that_the_output_turns_into_much() -> None:
    heads = made((1, 40, 8, 4))
    values = heads.values.clone()
    values[0, 11] *= 100
    scores = CriticalKV(window=4).score(replace(heads, values=values))
    assert int((scores[0] > scores[0, 11]).sum()) <= 1
    assert CriticalKV(window=4).needs == Needs(window=4)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(
            st.lists(st.sampled_from([0.0, 1e-40, 0.25, 0.5, float("-inf")]), min_size=n, max_size=n),
            st.permutations(range(n)),
        )
    )
)
def test_scores_are_dealt_out_in_the_order_of_the_places(row: tuple[list[float], list[int]]) -> None:
    scores, places = row
    given_out = dealt(torch.tensor([scores]), torch.tensor([places]))[0].tolist()
    by_place = [given_out[places.index(place)] for place in range(len(places))]
    assert all(first > second > 0 for first, second in pairwise(by_place))
    for given_one, score in zip(by_place, sorted(scores, reverse=True), strict=True):
        assert given_one == pytest.approx(max(score, 1e-30), rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_criticalkv_has_heads_compete_by_attention_and_spend_in_two_stages(alpha: float) -> None:
    heads = made((3, 60, 8, 6), sinks=2, recent=5)
    # One head's attention is spread over all, so that the others need less.
    keys = heads.keys.clone()
    keys[1] *= 0.02
    heads = replace(heads, keys=keys)
    shape = (1, *heads.protected.shape)

    def kept(scores: Tensor) -> Tensor:
        budget = Scores(scores.unsqueeze(0), torch.ones(shape, dtype=torch.bool), heads.protected.unsqueeze(0), 24, 5)
        return Ada(alpha).keep(budget)[0]

    keep, alone = kept(CriticalKV(window=6).score(heads)), kept(SnapKV(window=6).score(heads))
    counts = keep.sum(-1).tolist()
    assert counts == alone.sum(-1).tolist()
    assert len(set(counts)) > 1
    assert not torch.equal(keep, alone)
    first = SnapKV(window=6).score(heads).double()
    second = (first + 1e-4) * projected(heads, 1).mean(1)
    for h, count in enumerate(counts):
        free = (~heads.protected[h]).nonzero().flatten()
        chosen = two_stages(first[h][free].tolist(), second[h][free].tolist(), count - 7)
        assert {*(keep[h] & ~heads.protected[h]).nonzero().flatten().tolist()} == {int(free[i]) for i in chosen}


# --- compactor


def compactor_by_hand(heads: Heads, options: Compactor) -> Tensor:
    count, n, width = heads.keys.shape
    w = heads.queries.shape[2]
    plain = turned(heads.keys.double(), -heads.rotated_at)
    sketch = torch.randn(
        width, options.sketch, generator=torch.Generator().manual_seed(options.seed + heads.model.layer)
    ).double() / math.sqrt(options.sketch)
    result = torch.zeros(count, n, dtype=torch.float64)
    for h in range(count):
        x = (plain[h] - plain[h].mean(0)) @ sketch
        gram = x.T @ x
        gram = gram + options.ridge * gram.diagonal().mean() * torch.eye(options.sketch, dtype=torch.float64)
        leverage = torch.stack([row @ torch.linalg.solve(gram, row) for row in x])
        c = [0.0] * n
        for start in range(n - w, n, options.chunk):
            members = range(start, min(n, start + options.chunk))
            for g in range(GROUP):
                for q in members:
                    query = heads.queries[h, g, q - (n - w)].double()
                    scale = heads.model.scale if options.scaled else 1.0
                    logits = [float(query @ heads.keys[h, i].double()) * scale for i in members]
                    total = sum(math.exp(each) for each in logits)
                    for i, each in zip(members, logits, strict=True):
                        c[i] += math.exp(each) / total / GROUP
        lengths = heads.values[h].double().norm(dim=-1).tolist()
        smooth = []
        for i in range(n - w, n):
            near = [j for j in (i - 1, i, i + 1) if n - w <= j < n]
            smooth.append(sum(c[j] * lengths[j] for j in near) / len(near))
        known = torch.tensor(smooth, dtype=torch.float64)
        result[h, n - w :] = (known - known.mean()) / max(float(known.std(correction=0)), 1e-6)
        result[h] += options.weight * (leverage - leverage.mean()) / max(float(leverage.std(correction=0)), 1e-6)
    return result


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 45, 8, 45), Compactor(chunk=16, sketch=5)),
        ((2, 45, 8, 45), Compactor(chunk=200, sketch=12, weight=1.5, ridge=0.1, seed=3)),
        ((1, 30, 6, 11), Compactor(chunk=4, sketch=4, scaled=True)),
        ((1, 2, 6, 2), Compactor()),
    ],
)
def test_compactor_is_its_formula(shape: tuple[int, int, int, int], options: Compactor) -> None:
    heads = made(shape, layer=2)
    close(options.score(heads), compactor_by_hand(heads, options), 1e-3)


def test_compactor_of_one_entry_is_nothing() -> None:
    assert Compactor().score(made((1, 1, 8, 1))).abs().max() < 1e-3


def test_compactor_remembers_what_chunks_attended_to() -> None:
    whole = made((2, 32, 8, 32))
    options = Compactor(chunk=8)
    options.score(whole)
    first = replace(
        whole, **{name: getattr(whole, name)[:, :16] for name in ("keys", "values", "positions", "rotated_at")},
        queries=whole.queries[:, :, :16], query_positions=whole.query_positions[:16], new=16, state={},
    )  # fmt: skip
    options.score(first)
    stored = torch.nn.functional.pad(first.state["compactor"], (0, 16))
    second = replace(whole, queries=whole.queries[:, :, 16:], query_positions=whole.query_positions[16:], new=16)
    second.state["compactor"] = stored
    options.score(second)
    # Chunks do not cross the cut here; only neighbours over it are not averaged.
    far = torch.tensor([i for i in range(32) if i not in {15, 16}])
    torch.testing.assert_close(second.state["compactor"][:, far], whole_state(whole, options)[:, far])


def whole_state(heads: Heads, options: Compactor) -> Tensor:
    again = replace(heads, state={})
    options.score(again)
    return again.state["compactor"]


def test_leverage_is_high_for_the_odd_key_and_sums_to_the_rank() -> None:
    keys = torch.randn(1, 50, 8, generator=torch.Generator().manual_seed(0))
    keys[0, :, 0] = 0.0
    keys[0, 20, 0] = 3.0
    leverage = leverage_scores(keys, torch.eye(8), 1e-6)
    assert int(leverage.argmax()) == 20
    assert float(leverage.sum()) == pytest.approx(8, abs=0.01)
    # Keys that are all alike, and fewer keys than dimensions, are no error.
    assert leverage_scores(torch.ones(1, 5, 8), torch.eye(8), 1e-3).abs().max() < 1e-3
    assert leverage_scores(keys[:, :2], torch.randn(8, 48), 1e-3).isfinite().all()


def test_chunk_attention_looks_both_ways_and_no_further_than_the_chunk() -> None:
    heads = made((1, 12, 8, 12))
    before = chunk_attention(heads.queries, heads.keys, 1.0, 4)
    changed = heads.keys.clone()
    changed[0, 7] *= -2
    after = chunk_attention(heads.queries, changed, 1.0, 4)
    moved = (before != after)[0].nonzero().flatten().tolist()
    assert moved == [4, 5, 6, 7]
    assert float(before.sum()) == pytest.approx(12)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Compactor(chunk=0), "chunk is 0"),
        (lambda: Compactor(weight=-1), "weight is -1"),
        (lambda: Compactor(ridge=0), "ridge is 0"),
        (lambda: CriticalKV(epsilon=-1), "epsilon is -1"),
        (lambda: CriticalKV(kernel=2), "2 entries"),
    ],
)
def test_options_out_of_range_are_named(make: object, named: str) -> None:
    with pytest.raises(InvalidRequestError, match=named):
        make()  # type: ignore[operator]
