"""Attention matching, against float64 solutions and by what queries get from the reduced cache."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from lcdoc.local_engine.compression.reducers import attention_matching
from lcdoc.local_engine.compression.reducers.attention_matching import AttentionMatching, _values, _weights
from lcdoc.local_engine.compression.reducers.drop import Drop
from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.tests.local_engine.compression.cut_heads import attend, distance, random_heads, random_keep


def attention(heads, keep, *, seed=0):
    """Made-up attention to kept entries, [H, R, K], and which entries are free."""
    generator = torch.Generator().manual_seed(seed)
    shares = (2 * torch.randn(heads, keep[0], keep[1] * 2, generator=generator)).softmax(-1)
    return shares[..., : keep[1]], torch.rand(heads, keep[1], generator=generator) < 0.8


@pytest.mark.parametrize("size", [(1, 1), (5, 30), (40, 11), (64, 128)])
@pytest.mark.parametrize("ridge", [1.0, 0.1, 0.01])
def test_weights_are_where_the_problem_has_its_minimum(size, ridge):
    """No bounded change of a weight makes |A w - 1|^2 + r |w - 1|^2 less: its slope is 0, or points out of bounds."""
    shares, free = attention(3, size)
    weights = _weights(shares, free, ridge).double()
    assert (weights[~free] == 1).all()
    shares = shares.double()
    movable = shares * free[:, None]
    pull = ridge * (movable.sum(1).amax(-1) * movable.sum(2).amax(-1))[:, None]
    total = (shares @ weights[..., None])[..., 0] - 1
    slope = (movable.mT @ total[..., None])[..., 0] + pull * (weights - 1)
    slope = slope / pull.clamp(min=1e-30) * free  # how far a weight is from its best place, if it alone moved
    inside = (weights > math.exp(-6.9)) & (weights < math.exp(6.9))
    assert (slope[inside].abs() < 1e-2).all()
    assert (slope[weights <= math.exp(-6.9)] > -1e-2).all()
    assert (slope[weights >= math.exp(6.9)] < 1e-2).all()


def test_weights_stay_positive_where_least_squares_alone_would_not():
    shares = torch.tensor([[[0.9, 0.5], [0.8, 0.1]]])
    plain = torch.linalg.solve(shares[0], torch.ones(2))
    assert plain.min() < 0
    weights = _weights(shares, torch.ones(1, 2, dtype=torch.bool), 1e-4)
    assert weights.min() > 0
    torch.testing.assert_close(weights[0, 1].log(), torch.tensor(-7.0))


@pytest.mark.parametrize("size", [(1, 1), (5, 30), (40, 11)])
@pytest.mark.parametrize("ridge", [1.0, 1e-2, 1e-5])
def test_values_are_those_of_ridge_regression(size, ridge):
    """Solved here over entries, in the normal equations."""
    shares, free = attention(2, size)
    generator = torch.Generator().manual_seed(1)
    old, outputs = torch.randn(2, size[1], 8, generator=generator), torch.randn(2, size[0], 8, generator=generator)
    got = _values(shares, free, old, outputs, ridge)
    for head in range(2):
        movable = shares[head].double() * free[head]
        hold = ridge * movable.square().sum() / size[0]
        lacking = outputs[head].double() - shares[head].double() @ old[head].double()
        change = torch.linalg.solve(movable.T @ movable + hold * torch.eye(size[1]), movable.T @ lacking)
        torch.testing.assert_close(got[head].double(), old[head] + change * free[head][:, None], rtol=1e-3, atol=1e-3)


def test_alone_biases_give_kept_entries_the_mass_of_all():
    """Values stay, and no key is given a weight that a query whose target was kept would be led astray by."""
    heads = random_heads((2, 300, 16), window=32, sinks=2, recent=20, groups=3)
    keep, scores = random_keep(heads, 0.4)
    reduced = AttentionMatching().reduce(heads, keep, scores)
    assert torch.equal(reduced.values, heads.values)
    fitted = AttentionMatching(values=True).reduce(heads, keep, scores)
    assert torch.equal(reduced.bias, fitted.bias)
    logits = torch.einsum("hgqd,hkd->hgqk", heads.queries.double(), heads.keys.double()) * heads.model.scale
    logits = logits.masked_fill(heads.rotated_at[:, None, None] > heads.query_positions[:, None], -torch.inf)

    def lacking(bias):
        kept = (logits + bias[:, None, None]).masked_fill(~keep[:, None, None], -torch.inf)
        return (kept.logsumexp(-1) - logits.logsumexp(-1)).abs().mean()

    assert lacking(reduced.bias.double()) < 0.3 * lacking(torch.zeros_like(keep, dtype=torch.float64))


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_queries_get_nearly_what_they_got(seed, spread):
    heads = random_heads((2, 300, 16), seed=seed, window=16, sinks=2, recent=20, spread=spread, groups=3)
    keep, scores = random_keep(heads, 0.4, seed=seed)
    reduced, dropped = (way.reduce(heads, keep, scores) for way in (AttentionMatching(values=True), Drop()))
    assert distance(heads, reduced, keep) < 0.2 * distance(heads, dropped, keep)
    whole = attend(heads)[1]
    matched, lost = ((attend(heads, way, keep)[1] - whole).abs().mean() for way in (reduced, dropped))
    assert matched < 0.4 * lost


def test_other_queries_fare_no_worse_than_with_dropping():
    """The ridge holds what the references say nothing of."""
    heads = random_heads((2, 300, 16), window=32, groups=3)
    keep, scores = random_keep(heads, 0.4)
    reduced = AttentionMatching(values=True).reduce(heads, keep, scores)
    others = replace(heads, queries=random_heads((2, 300, 16), seed=9, window=32, groups=3).queries)
    assert distance(others, reduced, keep) < distance(others, Drop().reduce(heads, keep, scores), keep)


def test_protected_entries_and_keys_stay():
    heads = random_heads((2, 90, 8), window=16, sinks=4, recent=30)
    keep, scores = random_keep(heads, 0.4)
    reduced = AttentionMatching(values=True).reduce(heads, keep, scores)
    assert torch.equal(reduced.keys, heads.keys)
    assert torch.equal(reduced.values[heads.protected], heads.values[heads.protected])
    assert not reduced.bias[heads.protected].any()
    free = keep & ~heads.protected
    assert not torch.equal(reduced.values[free], heads.values[free])
    assert reduced.bias[free].abs().min() > 0


def test_entries_that_no_reference_sees_stay():
    """The newest ones, where references are older queries: both stand where they are rotated to."""
    heads = random_heads((1, 60, 8), window=8)
    heads = replace(heads, rotated_at=torch.arange(60)[None], query_positions=torch.full((8,), 40))
    keep, scores = random_keep(heads, 0.5)
    reduced = AttentionMatching(values=True).reduce(heads, keep, scores)
    assert torch.equal(reduced.values[0, 41:], heads.values[0, 41:])
    assert reduced.bias[0, 41:].abs().max() < 1e-6
    assert distance(heads, reduced, keep) < 0.5 * distance(heads, Drop().reduce(heads, keep, scores), keep)


def test_earlier_biases_count():
    """Cut once more, what the biased cache gave is what is matched."""
    heads = random_heads((2, 200, 16), window=16, groups=3)
    heads.state["bias"] = torch.randn(2, 200, generator=torch.Generator().manual_seed(1))
    keep, scores = random_keep(heads, 0.4)
    dropped = replace(Drop().reduce(heads, keep, scores), bias=heads.state["bias"])
    assert distance(heads, AttentionMatching(values=True).reduce(heads, keep, scores), keep) < 0.2 * distance(
        heads, dropped, keep
    )
    everything = torch.ones_like(keep)
    assert torch.equal(AttentionMatching(values=True).reduce(heads, everything, scores).bias, heads.state["bias"])


def test_few_references_are_taken_from_all():
    heads = random_heads((2, 100, 8), window=50, groups=3)
    queries, seen_from = AttentionMatching(references=7)._references(heads.queries, heads.query_positions)
    assert queries.shape == (2, 7, 8)
    flat = heads.queries.flatten(1, 2)
    for column in range(7):
        index = column * 150 // 7
        assert torch.equal(queries[:, column], flat[:, index])
        assert seen_from[column] == heads.query_positions[index % 50]


def test_strips_and_groups_of_heads_change_nothing(monkeypatch):
    heads = random_heads((3, 80, 8), window=9, groups=2)
    keep, scores = random_keep(heads, 0.4)
    whole = AttentionMatching(values=True).reduce(heads, keep, scores)
    monkeypatch.setattr(attention_matching, "_HELD", 200)
    parts = AttentionMatching(values=True).reduce(heads, keep, scores)
    torch.testing.assert_close(parts.values, whole.values, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(parts.bias, whole.bias, rtol=1e-4, atol=1e-4)


def test_without_queries_it_says_so():
    heads = random_heads((1, 10, 8))
    with pytest.raises(InvalidRequestError, match="fits to queries"):
        AttentionMatching(values=True).reduce(heads, *random_keep(heads, 0.5))
