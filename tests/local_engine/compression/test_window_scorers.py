"""Scores by attention, against the papers' formulas written out in float64, one number at a time."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads
from lcdoc.local_engine.compression.scorers.chunkkv import ChunkKV
from lcdoc.local_engine.compression.scorers.gumbel import gumbel
from lcdoc.local_engine.compression.scorers.h2o import HeavyHitters
from lcdoc.local_engine.compression.scorers.keyformer import Keyformer
from lcdoc.local_engine.compression.scorers.snapkv import SnapKV
from lcdoc.local_engine.compression.scorers.tova import Tova
from lcdoc.local_engine.compression.scorers.window_attention import window_attention
from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.tests.local_engine.compression.cut_heads import random_heads

SHAPES = [(1, 1, 8, 1), (2, 7, 8, 7), (2, 61, 8, 9), (3, 40, 6, 1)]
"""H, n, D, queries"""


def made(shape: tuple[int, int, int, int], **options: object) -> Heads:
    count, n, dim, window = shape
    return random_heads((count, n, dim), window=window, groups=3, **options)


def attention_of(heads: Heads, *, noise: Tensor | None = None, temperature: float = 1.0) -> list:
    """[H][G][w][n] by the formula."""
    keys, queries = heads.keys.double().tolist(), heads.queries.double().tolist()
    positions, at = heads.rotated_at.tolist(), heads.query_positions.tolist()
    extra = torch.zeros_like(heads.positions, dtype=torch.float64) if noise is None else noise.double()
    extra = (extra + heads.state.get("bias", torch.zeros(()))).tolist()
    result = []
    for h, of_head in enumerate(queries):
        result.append([])
        for of_query_head in of_head:
            result[-1].append([])
            for q, query in enumerate(of_query_head):
                weights = []
                for i, key in enumerate(keys[h]):
                    x = sum(a * b for a, b in zip(query, key, strict=True)) * heads.model.scale
                    seen = positions[h][i] <= at[q]
                    weights.append(math.exp((x + extra[h][i]) / temperature) if seen else 0.0)
                total = sum(weights) or 1.0
                result[-1][-1].append([weight / total for weight in weights])
    return result


def mean_of_window(heads: Heads, last: int) -> list[list[float]]:
    """[H][n]"""
    attention, (_, group, _, _) = attention_of(heads), heads.queries.shape
    last = min(last, len(heads.query_positions))
    return [
        [
            sum(attention[h][g][-1 - q][i] for g in range(group) for q in range(last)) / (group * last)
            for i in range(heads.keys.shape[1])
        ]
        for h in range(len(heads.keys))
    ]


def pooled_by_hand(scores: list[float], before: list[bool], kernel: int, pooling: str) -> list[float]:
    result = []
    for i, score in enumerate(scores):
        near = [
            scores[j] if 0 <= j < len(scores) and before[j] else 0.0
            for j in range(i - kernel // 2, i + kernel // 2 + 1)
        ]
        result.append((sum(near) / kernel if pooling == "avg" else max(near)) if before[i] else score)
    return result


def snapkv_by_hand(heads: Heads, window: int, kernel: int, pooling: str) -> Tensor:
    first = heads.query_positions[-window:].tolist()[0]
    rows = [
        pooled_by_hand(row, [place < first for place in heads.rotated_at[h].tolist()], kernel, pooling)
        for h, row in enumerate(mean_of_window(heads, window))
    ]
    return torch.tensor(rows)


def attention_of_window(heads):
    return window_attention(
        heads.queries,
        heads.keys,
        heads.query_positions,
        heads.rotated_at,
        heads.model.scale,
        bias=heads.state.get("bias"),
    )


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs.float(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_attends_to_what_is_not_behind_it(shape, dtype):
    heads = made(shape, dtype=dtype)
    close(attention_of_window(heads), torch.tensor(attention_of(heads)))


def test_attention_adds_the_bias_of_merged_entries():
    heads = made((2, 30, 8, 5))
    heads.state["bias"] = torch.randn(2, 30)
    close(attention_of_window(heads), torch.tensor(attention_of(heads)))


def test_a_query_that_sees_nothing_attends_to_nothing():
    queries, keys = torch.randn(1, 2, 2, 4), torch.randn(1, 3, 4)
    attention = window_attention(queries, keys, torch.tensor([4, 9]), torch.tensor([[5, 6, 7]]), 0.5)
    assert attention[:, :, 0].abs().sum() == 0
    close(attention[:, :, 1].sum(-1), torch.ones(1, 2))


def test_what_was_packed_is_seen_by_where_it_was_rotated_to():
    heads = made((1, 20, 8, 3))
    packed = torch.arange(20).unsqueeze(0)
    heads = replace(heads, rotated_at=packed, query_positions=torch.arange(17, 20))
    close(attention_of_window(heads), torch.tensor(attention_of(heads)))
    assert (attention_of_window(heads)[0, :, 0, :18] > 0).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("window", "kernel", "pooling"), [(32, 5, "avg"), (4, 7, "max"), (1, 1, "avg"), (5, 3, "avg")])
def test_snapkv_is_its_formula(shape, window, kernel, pooling):
    heads = made(shape)
    close(SnapKV(window, kernel, pooling).score(heads), snapkv_by_hand(heads, window, kernel, pooling))


def test_snapkv_keeps_the_needle_that_the_last_queries_ask_for():
    heads = made((2, 200, 16, 8))
    heads.keys[0, 37] = heads.queries[0].mean((0, 1)) * 40
    heads.keys[1, 112] = heads.queries[1].mean((0, 1)) * 40
    best = SnapKV(window=8).score(heads)[:, :190].topk(5).indices
    assert 37 in best[0] and 112 in best[1]
    assert 112 not in best[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_tova_is_the_last_query_of_all_heads(shape):
    heads = made(shape)
    attention = attention_of(heads)
    n = heads.keys.shape[1]
    rows = [of_query_head[-1] for of_head in attention for of_query_head in of_head]
    mean = torch.tensor([sum(row[i] for row in rows) / len(rows) for i in range(n)])
    close(Tova().score(heads), mean.expand(len(heads.keys), n))
    assert Tova().needs.whole_layer


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gaps", [True, False])
def test_chunkkv_is_the_mean_over_a_chunk_of_the_text_and_all_heads(shape, gaps):
    heads = made(shape)
    n = heads.keys.shape[1]
    # A scorer of whole layers sees one set of positions.
    same = (heads.positions[:1] if gaps else torch.arange(3 * n + 1, 4 * n + 1)).expand_as(heads.positions).contiguous()
    heads = replace(heads, positions=same, rotated_at=same)
    scores = snapkv_by_hand(heads, 4, 3, "avg")
    positions, first = same[0].tolist(), heads.query_positions[-4:].tolist()[0]
    expected = scores.clone()
    for chunk in {place // 5 for place in positions}:
        there = [i for i, place in enumerate(positions) if place // 5 == chunk and place < first]
        for i in there:
            expected[:, i] = scores[:, there].mean()
    close(ChunkKV(chunk=5, window=4, kernel=3).score(heads), expected)


def test_chunks_stay_the_same_after_a_cut():
    heads = made((2, 90, 8, 6))
    kept = torch.tensor([i for i in range(90) if i % 3])
    same = torch.arange(90).expand(2, 90)[:, kept]
    cut = replace(
        heads,
        keys=heads.keys[:, kept],
        positions=same,
        rotated_at=same,
        protected=heads.protected[:, kept],
        query_positions=torch.arange(84, 90),
    )
    scores = ChunkKV(chunk=20, window=6).score(cut)[0]
    by_chunk = [scores[same[0] // 20 == chunk].unique().tolist() for chunk in range(4)]
    assert [len(chunk) for chunk in by_chunk] == [1, 1, 1, 1]
    assert len({chunk[0] for chunk in by_chunk}) == 4


def test_h2o_is_the_mass_and_may_be_divided_by_those_who_saw():
    heads = made((2, 30, 8, 0))
    close(HeavyHitters().score(heads), heads.state["mass"])
    close(HeavyHitters(mean=True).score(heads), heads.state["mass"].double() / heads.state["seen"].double())


@pytest.mark.parametrize("shape", SHAPES)
def test_keyformer_adds_up_softmaxes_with_noise_that_cool_from_cut_to_cut(shape):
    heads = made(shape)
    noise = gumbel(heads, 5)
    expected = torch.zeros_like(noise, dtype=torch.float64)
    part = Keyformer(window=6, heating=0.5, hottest=1.8, seed=5)
    for temperature in (1.0, 1.5, 1.8, 1.8):
        attention = torch.tensor(attention_of(heads, noise=noise, temperature=temperature), dtype=torch.float64)
        expected += attention[:, :, -6:].sum(2).mean(1)
        close(part.score(heads), expected)


def test_what_had_no_time_to_gather_attention_has_a_share_of_its_own():
    assert HeavyHitters().needs.recent == 0.5
    assert Keyformer(recent=0.2).needs.recent == 0.2


def test_gumbel_noise_goes_where_its_entry_goes():
    heads = made((3, 50, 8, 4))
    noise = gumbel(heads, 1)
    kept = torch.arange(0, 50, 7)
    alone = replace(heads, keys=heads.keys[1:2, kept], positions=heads.positions[1:2, kept], first=1)
    assert torch.equal(gumbel(alone, 1), noise[1:2, kept])
    elsewhere = replace(heads, model=replace(heads.model, layer=1))
    assert not torch.isclose(gumbel(heads, 2), noise).any()
    assert not torch.isclose(gumbel(elsewhere, 1), noise).any()
    assert len(noise[0].unique()) == 50


def test_gumbel_noise_is_splitmix64_in_the_open_unit_interval():
    word = (1 << 64) - 1

    def mixed(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & word
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & word
        return x ^ (x >> 31)

    heads = made((2, 40, 8, 0))
    heads = replace(heads, model=replace(heads.model, layer=3))
    rows = []
    for h, row in enumerate(heads.positions.tolist()):
        start = mixed((mixed(9) + 3 * 2 + h) & word)
        words = [mixed((start + (place + 1) * 0x9E3779B97F4A7C15) & word) for place in row]
        rows.append([-math.log(-math.log(((x >> 12) + 0.5) / 2**52)) for x in words])
    close(gumbel(heads, 9), torch.tensor(rows))


def test_gumbel_noise_is_distributed_as_such():
    many = torch.arange(40_000).unsqueeze(0)
    heads = replace(made((1, 1, 8, 0)), positions=many)
    noise = gumbel(heads, 0).double()
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.03)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.06)
    assert abs(torch.corrcoef(torch.cat([noise[:, 1:], noise[:, :-1]]))[0, 1].item()) < 0.02


def test_keyformer_takes_what_its_state_carries():
    heads = made((1, 20, 8, 3))
    fresh = Keyformer().score(replace(heads, state={}))
    heads.state["keyformer"] = torch.arange(20.0).unsqueeze(0)
    close(Keyformer().score(heads), fresh + torch.arange(20.0))
    assert torch.equal(heads.state["keyformer_cuts"], torch.ones(1, 20))


@pytest.mark.parametrize(
    "make",
    [
        lambda: SnapKV(window=0),
        lambda: SnapKV(kernel=4),
        lambda: SnapKV(kernel=-1),
        lambda: SnapKV(pooling="median"),
        lambda: ChunkKV(chunk=0),
        lambda: ChunkKV(kernel=2),
        lambda: Keyformer(window=0),
        lambda: Keyformer(heating=-1),
        lambda: Keyformer(hottest=0.5),
        lambda: Keyformer(recent=1.5),
        lambda: HeavyHitters(recent=-0.5),
    ],
)
def test_options_that_mean_nothing_are_refused(make):
    with pytest.raises(InvalidRequestError, match=r": set \w+"):
        make()


def test_a_scorer_of_queries_says_that_none_came():
    with pytest.raises(ValueError, match="without queries"):
        SnapKV().score(made((1, 5, 8, 0)))
