"""Scores that need no attention, against the papers' formulas written out in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Moments
from lcdoc.local_engine.compression.registry import part_class
from lcdoc.local_engine.compression.scorers.entropy import Entropy
from lcdoc.local_engine.compression.scorers.expected import ExpectedAttention
from lcdoc.local_engine.compression.scorers.keydiff import KeyDiff
from lcdoc.local_engine.compression.scorers.knorm import KeyNorm
from lcdoc.local_engine.compression.scorers.lagkv import LagKV
from lcdoc.local_engine.compression.scorers.window import Window
from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.tests.local_engine.compression.cut_heads import random_heads

SHAPES = [(1, 1, 8), (2, 7, 8), (3, 61, 6)]


def angles_at(position: int, dim: int) -> list[float]:
    return [position * 100.0 ** (-2 * i / dim) for i in range(dim // 2)]


def rotated(x: Tensor, positions: Tensor) -> Tensor:
    """As Llama lays pairs out: the i-th and the (i + D/2)-th number turn together."""
    half = x.shape[-1] // 2
    angles = positions[..., None].double() * 100.0 ** (-2 * torch.arange(half).double() / x.shape[-1])
    cosines, sines = angles.cos(), angles.sin()
    left, right = x[..., :half].double(), x[..., half:].double()
    return torch.cat([left * cosines - right * sines, right * cosines + left * sines], -1).to(x.dtype)


def with_moments(heads: Heads, group: int = 3) -> Heads:
    count, _, dim = heads.keys.shape
    samples = torch.randn(count, group, 50, dim, generator=torch.Generator().manual_seed(1))
    mean = samples.mean(2)
    around = samples - mean[:, :, None]
    moments = Moments(mean, around.mT @ around / 50)
    return replace(heads, model=replace(heads.model, rotate=rotated), moments=moments)


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs.float(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_window_is_what_is_latest(shape):
    heads = random_heads(shape)
    score = Window().score(heads)
    assert score.dtype == torch.float32
    assert torch.equal(score.argsort(-1), heads.positions.argsort(-1))


def test_the_window_tells_neighbours_apart_however_far_in_the_text():
    positions = torch.arange(2**26, 2**26 + 9).unsqueeze(0)
    assert Window().score(replace(random_heads((1, 9, 4)), positions=positions)).diff().tolist() == [[1.0] * 8]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_short_keys_are_kept(shape, dtype):
    heads = random_heads(shape, dtype=dtype)
    lengths = [[math.sqrt(sum(x * x for x in key)) for key in row] for row in heads.keys.double().tolist()]
    close(KeyNorm().score(heads), -torch.tensor(lengths))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keydiff_is_the_cosine_with_the_mean_direction(shape, dtype):
    heads = random_heads(shape, dtype=dtype)
    rows = []
    for keys in heads.keys.double():
        units = [key / key.norm() for key in keys]
        anchor = sum(units) / len(units)
        rows.append([-(float(key @ anchor) / float(key.norm() * anchor.norm())) for key in keys])
    close(KeyDiff().score(heads), torch.tensor(rows))


def test_keydiff_keeps_the_odd_key_out():
    heads = random_heads((1, 100, 16), alike=100)
    heads.keys[0, 41] = -heads.keys[0, 41]
    assert KeyDiff().score(heads).argmax() == 41


def lagkv_by_hand(heads: Heads, lag: int, sinks: int, ranks: bool) -> Tensor:
    count, n, dim = heads.keys.shape
    partitions = (n - sinks) // lag
    result = torch.ones(count, n, dtype=torch.float64)
    for h in range(count):
        for p in range(partitions - 1):
            begin = sinks + p * lag
            found = [0.0] * lag
            for states in (heads.keys[h].double(), heads.values[h].double()):
                following = states[begin + lag : begin + 2 * lag]
                deviations = []
                for i in range(begin, begin + lag):
                    x = []
                    for c in range(dim):
                        low, high = float(following[:, c].min()), float(following[:, c].max())
                        x.append((float(states[i, c]) - low) / (high - low) if high > low else 0.0)
                    mean = sum(x) / dim
                    deviations.append(math.sqrt(sum((y - mean) ** 2 for y in x) / (dim - 1)))
                total = sum(math.exp(deviation) for deviation in deviations)
                found = [f + math.exp(d) / total / 2 for f, d in zip(found, deviations, strict=True)]
            if ranks:
                found = [sum(other < f for other in found) / lag for f in found]
            result[h, begin : begin + lag] = torch.tensor(found, dtype=torch.float64)
    return result


@pytest.mark.parametrize(("n", "lag", "sinks"), [(61, 8, 4), (64, 8, 0), (21, 10, 1), (30, 10, 7)])
@pytest.mark.parametrize("ranks", [True, False])
def test_lagkv_is_its_formula(n, lag, sinks, ranks):
    heads = random_heads((2, n, 6))
    close(LagKV(lag, sinks, ranks).score(heads), lagkv_by_hand(heads, lag, sinks, ranks))


def test_lagkv_takes_a_channel_that_does_not_move():
    heads = random_heads((1, 40, 6))
    heads.keys[:, :, 2] = 1.5
    heads.values[:, 20:30, 4] = 0.0
    close(LagKV(10, 0, ranks=False).score(heads), lagkv_by_hand(heads, 10, 0, False))


@pytest.mark.parametrize("n", [1, 3, 4, 11, 19])
def test_lagkv_keeps_the_latest_while_there_is_no_next_partition(n):
    score = LagKV(lag=8, sinks=4).score(random_heads((2, n, 6)))
    assert score.shape == (2, n)
    assert torch.equal(score.argsort(-1), torch.arange(n).expand(2, n))


def test_entropy_is_the_surprise_and_fades_from_cut_to_cut():
    heads = random_heads((2, 4, 8))
    heads.state["surprise"] = torch.tensor([[3.0, 1.0, 2.0, 0.5], [4.0, 2.0, 1.0, 0.0]])
    assert torch.equal(Entropy().score(replace(heads, state=dict(heads.state))), heads.state["surprise"])
    part = Entropy(decay=0.5)
    assert torch.equal(part.score(heads), heads.state["surprise"])
    # Of each row the last entry is new, and takes the place of one that went.
    heads.state["entropy_cuts"][:, 3] = 0
    heads.state["surprise"][:, 3] = 8.0
    assert part.score(heads).tolist() == [[1.5, 0.5, 1.0, 8.0], [2.0, 1.0, 0.5, 8.0]]
    assert part.score(heads).tolist() == [[0.75, 0.25, 0.5, 4.0], [1.0, 0.5, 0.25, 4.0]]


def expected_by_hand(heads: Heads, future: int, epsilon: float, sinks: int) -> Tensor:
    count, n, dim = heads.keys.shape
    begin = int(heads.rotated_at.max()) + 1
    rotation = torch.zeros(dim, dim, dtype=torch.float64)
    for position in range(begin, begin + future):
        for i, angle in enumerate(angles_at(position, dim)):
            j = i + dim // 2
            rotation[i, i] += math.cos(angle) / future
            rotation[j, j] += math.cos(angle) / future
            rotation[i, j] -= math.sin(angle) / future
            rotation[j, i] += math.sin(angle) / future
    score = torch.zeros(count, n, dtype=torch.float64)
    means, covariances = heads.moments.mean.double(), heads.moments.covariance.double()
    group = means.shape[1]
    for h in range(count):
        counted = [i for i in range(n) if heads.positions[h, i] >= sinks]
        for g in range(group):
            mean = rotation @ means[h, g]
            covariance = rotation @ covariances[h, g] @ rotation.T
            z = []
            for key in heads.keys[h].double():
                z.append(float(mean @ key) / math.sqrt(dim) + float(key @ covariance @ key) / (2 * dim))
            total = sum(math.exp(z[i]) for i in counted)
            for i in range(n):
                score[h, i] += min(1.0, math.exp(z[i]) / total if total else 1.0) / group
        for i in range(n):
            score[h, i] = (score[h, i] + epsilon) * heads.values[h, i].double().norm()
    return score


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("future", "epsilon", "sinks"), [(32, 0.01, 4), (1, 0.0, 0), (7, 0.02, 300)])
def test_expected_attention_is_its_formula(shape, future, epsilon, sinks):
    heads = with_moments(random_heads(shape))
    if sinks < 300:
        begun = heads.positions - heads.positions[:, :1]
        heads = replace(heads, positions=begun, rotated_at=begun)
    ours = ExpectedAttention(future, epsilon, sinks).score(heads)
    close(ours, expected_by_hand(heads, future, epsilon, sinks))


def test_expected_attention_finds_the_key_that_queries_ahead_will_ask_for():
    heads = with_moments(random_heads((1, 200, 16)), group=2)
    asked = torch.zeros(1, 2, 16)
    # The pair that turns slowest still points the same way 100 positions on.
    asked[..., 7] = 6.0
    moments = Moments(asked, torch.eye(16).expand(1, 2, 16, 16) * 0.01)
    next_place = heads.rotated_at.max() + 1
    heads.keys[0, 123] = rotated(asked[0, :1], next_place.reshape(1) + 50)[0] * 4
    heads.values[0] = 1.0
    assert ExpectedAttention(future=100).score(replace(heads, moments=moments)).argmax() == 123


def test_expected_attention_says_that_no_moments_came():
    with pytest.raises(ValueError, match="without moments"):
        ExpectedAttention().score(random_heads((1, 5, 8)))


@pytest.mark.parametrize("name", ["window", "knorm", "keydiff", "lagkv", "expected", "entropy", "h2o", "keyformer"])
def test_a_score_does_not_hang_on_the_other_heads_called(name):
    heads = with_moments(random_heads((3, 300, 8), window=5))
    heads.state["surprise"] = torch.rand(3, 300)
    # Each head with the last position of all, as it is when they are called one by one.
    last = heads.positions.max()
    heads.positions[:, -1] = last
    score = part_class(name)().score(replace(heads, state=dict(heads.state)))
    for h in range(3):
        alone = replace(
            heads,
            keys=heads.keys[h : h + 1],
            values=heads.values[h : h + 1],
            positions=heads.positions[h : h + 1],
            rotated_at=heads.rotated_at[h : h + 1],
            queries=heads.queries[h : h + 1],
            moments=Moments(heads.moments.mean[h : h + 1], heads.moments.covariance[h : h + 1]),
            state={key: kept[h : h + 1] for key, kept in heads.state.items()},
            first=h,
        )
        close(part_class(name)().score(alone), score[h : h + 1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: LagKV(lag=1),
        lambda: LagKV(sinks=-1),
        lambda: Entropy(decay=0.0),
        lambda: Entropy(decay=1.5),
        lambda: ExpectedAttention(future=0),
        lambda: ExpectedAttention(epsilon=-0.1),
    ],
)
def test_options_that_mean_nothing_are_refused(make):
    with pytest.raises(InvalidRequestError, match=r": set \w+"):
        make()
