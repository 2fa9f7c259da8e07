"""Self-extend and capped distances as their papers define them, query by query, against a float64 transcription."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lcdoc.local_engine.attention_cpu import combine
from lcdoc.local_engine.attention_far import RowKeys, near_and_far
from lcdoc.local_engine.compression.held import Held
from lcdoc.local_engine.compression.positions import Capped, SelfExtend
from lcdoc.local_engine.compression.recipe import Recipe
from lcdoc.local_engine.far_keys import FarKeys
from lcdoc.local_engine.sampling import Sampling
from lcdoc.tests.local_engine.compression.engines import CutBench
from lcdoc.tests.local_engine.decoding import random_tokens
from lcdoc.tests.local_engine.engines import ask, load

Make = Callable[..., Path]
CHUNK = 24
PROMPT = 100
TOKENS = random_tokens(PROMPT + 6)
THETA = 10_000.0


@pytest.fixture(scope="module")
def folder(checkpoint: Make) -> Path:
    return checkpoint("llama", max_position_embeddings=64)


def distance(scheme: SelfExtend | Capped, query: int, key: int) -> int:
    """Equation 3 and 4 of Self-Extend; the ceiling of LM-Infinite."""
    apart = query - key
    if isinstance(scheme, Capped):
        return min(apart, scheme.reach)
    if apart < scheme.neighbours:
        return apart
    return query // scheme.group + scheme.neighbours - scheme.neighbours // scheme.group - key // scheme.group


def turned(x: Tensor, by: Tensor) -> Tensor:
    """x [n, D] rotated by positions [n], in float64."""
    dim = x.shape[-1]
    frequencies = THETA ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    first, second = x.chunk(2, -1)
    cos, sin = (by[:, None] * frequencies).cos(), (by[:, None] * frequencies).sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


class Paper:
    """The model of a bench, one token after the other, with attention in float64 and distances by their definition."""

    def __init__(self, bench: CutBench, scheme: SelfExtend | Capped, window: int | None = None) -> None:
        self.decoder, self.scheme, self.window = bench.decoder, scheme, window
        config = self.decoder.config
        self.shape = (config.kv_heads, config.groups, config.head_dim)
        self.keys: list[list[Tensor]] = [[] for _ in range(config.layers)]
        self.values: list[list[Tensor]] = [[] for _ in range(config.layers)]

    def logits(self, token: int, seen: list[list[list[int]]]) -> Tensor:
        """Behind one more token, whose query sees the positions `seen` [L][H] beside its own."""
        kv_heads, groups, dim = self.shape
        eps, at = self.decoder.config.rms_norm_eps, len(self.keys[0])
        run = self.decoder.operations
        x = self.decoder.weights.embed(torch.tensor([token]))
        for index, layer in enumerate(self.decoder.weights.layers):
            qkv = layer.qkv(run.norm(x, layer.attention_norm, eps)).double()[0].view(-1, dim)
            q, k, v = qkv.split([kv_heads * groups, kv_heads, kv_heads])
            self.keys[index].append(k)
            self.values[index].append(v)
            out = []
            for head in range(kv_heads):
                there = [*seen[index][head], at]
                if self.window is not None:
                    there = [one for one in there if at - one < self.window]
                apart = torch.tensor([distance(self.scheme, at, one) for one in there])
                keys = turned(torch.stack([self.keys[index][one][head] for one in there]), -apart)
                values = torch.stack([self.values[index][one][head] for one in there])
                for group in range(groups):
                    scores = keys @ q[head * groups + group] * dim**-0.5
                    out.append(scores.softmax(0) @ values)
            x = x + layer.output(torch.cat(out)[None].float())
            x = x + layer.down(run.gate(layer.gate_up(run.norm(x, layer.mlp_norm, eps))))
        return self.decoder.logits(x)[0]


def start(bench: CutBench, recipe: str, *, window: int = 64) -> Held:
    held = bench.start(recipe, PROMPT, CHUNK)
    held.allowance = replace(held.allowance, window=window)
    return held


def compared(bench: CutBench, held: Held, *, window: int | None = None) -> None:
    """Read the prompt in chunks, then tokens one by one, and compare all logits with the paper's."""
    scheme = held.allowance.recipe.scheme
    assert isinstance(scheme, SelfExtend | Capped)
    paper, layers, heads = Paper(bench, scheme, window), bench.config.layers, bench.config.kv_heads
    computed = 0
    while computed < len(TOKENS):
        before = [[bench.positions(held, layer, head) for head in range(heads)] for layer in range(layers)]
        first, given = computed, TOKENS[: max(PROMPT, computed + 1)]
        ours, computed = bench.read_on(held, given, computed)
        for at in range(first, computed):
            seen = [[[*row, *range(first, at)] for row in rows] for rows in before]
            torch.testing.assert_close(ours[at - first], paper.logits(TOKENS[at], seen), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    "positions",
    ["self-extend:group=4,neighbours=16", "self-extend:group=7,neighbours=5", "capped:reach=30", "capped:reach=3"],
)
@pytest.mark.parametrize("kept", ["knorm+ada:alpha=0.1", "window"])
def test_every_query_has_the_papers_distances(folder: Path, positions: str, kept: str) -> None:
    bench = CutBench(folder)
    held = start(bench, f"{kept}+positions={positions}@60tok")
    compared(bench, held)
    assert held.dropped
    assert held.cuts >= 2


def test_nothing_need_be_dropped(folder: Path) -> None:
    bench = CutBench(folder)
    held = start(bench, "knorm+positions=self-extend:group=8,neighbours=8@1.0")
    compared(bench, held)
    assert held.cuts >= 2
    assert not held.dropped


@pytest.mark.parametrize("window", [None, 11])
@pytest.mark.parametrize("scheme", [SelfExtend(3, 5), Capped(6)])
def test_biases_and_windows_count_in_every_part(scheme: SelfExtend | Capped, window: int | None) -> None:
    """A row of nine entries, five of them in the cache as far ones, and eight queries."""
    generator = torch.Generator().manual_seed(0)
    first, base, count = 30, 17, 8
    stood = torch.tensor([2, 3, 9, 20, 24, 25, 27, 28, 29])
    positions = torch.cat((stood, torch.arange(first, first + count)))
    stored = int((first - stood >= scheme.near).sum())
    before, values = (torch.randn(len(positions), 8, generator=generator) for _ in range(2))
    queries, bias = torch.randn(2, count, 8, generator=generator), torch.randn(len(positions), generator=generator)
    far = FarKeys(
        scheme,
        lambda layer, x, by: turned(x.double().flatten(0, -2), by.expand(x.shape[:-1]).flatten()).view(x.shape).float(),
        (True,),
        first,
        base,
        stood[None, None],
        ((len(stood),),),
        ((stored,),),
    )
    places = torch.arange(first, first + count) - first + base
    exact = positions - first + base
    behind = base - int(scheme.far_query(torch.tensor(first)))
    held = torch.where(torch.arange(len(positions)) < stored, behind + scheme.far_key(positions), exact)
    row = RowKeys(turned(before.double(), held).float(), values, bias)
    rotated = torch.stack([turned(each.double(), places) for each in queries]).float()
    ours = combine(near_and_far(far, rotated, row, layer=0, head=0, places=places, window=window, scale=0.3))
    for index in range(count):
        at = first + index
        there = [n for n, one in enumerate(positions.tolist()) if one <= at and (window is None or at - one < window)]
        apart = torch.tensor([distance(scheme, at, int(positions[n])) for n in there])
        keys = turned(before[there].double(), -apart)
        for group in range(2):
            scores = (keys @ queries[group, index].double() * 0.3 + bias[there].double()).softmax(0)
            torch.testing.assert_close(
                ours[group, index].double(), scores @ values[there].double(), rtol=1e-4, atol=1e-4
            )


def test_sliding_windows_hide_what_is_behind_them(checkpoint: Make) -> None:
    folder = checkpoint("mistral", max_position_embeddings=64, sliding_window=40)
    bench = CutBench(folder)
    compared(bench, start(bench, "knorm+positions=self-extend:group=3,neighbours=12@1.0"), window=40)


def test_what_has_only_neighbours_is_read_as_ever(folder: Path) -> None:
    bench = CutBench(folder)
    held, plain = start(bench, "knorm+positions=capped:reach=500@1.0", window=4096), start(bench, "knorm@1.0")
    assert torch.equal(bench.read_all(held, TOKENS[:60]), bench.read_all(plain, TOKENS[:60]))
    assert held.far is not None
    assert not held.far.reached(0, 500)
    assert held.far.reached(0, 501)


def test_an_engine_answers_by_it(folder: Path) -> None:
    """Behind one long piece, in which most keys are far from the last token."""
    recipe = "knorm+positions=self-extend:group=8,neighbours=8@1.0"
    bench = CutBench(folder)
    paper = Paper(bench, SelfExtend(8, 8))
    everything: Any = [[list(range(100))] * bench.config.kv_heads] * bench.config.layers
    for at, token in enumerate(TOKENS[:100]):
        logits = paper.logits(token, [[row[:at] for row in rows] for rows in everything])
    with load(folder, step_tokens=32) as engine:
        output = ask(engine, TOKENS[:100], Sampling(max_tokens=1, logprobs=3, ignore_eos=True), kv=Recipe.parse(recipe))
    expected = logits.log_softmax(-1).topk(3)
    found = dict(output.tokens[0].top)
    assert list(found) == expected.indices.tolist()
    assert list(found.values()) == pytest.approx(expected.values.tolist(), abs=2e-3)


def test_rows_longer_than_the_window_stay_within_it(folder: Path) -> None:
    """A head may keep more than the window has places for, where all heads compete."""
    bench = CutBench(folder)
    held = start(bench, "knorm+global+positions=compact@40tok")
    bench.read_all(held, TOKENS[:PROMPT])
    assert bench.tables.lengths[held.slot].max() > 64 - CHUNK
    assert held.entries.base == 64 - CHUNK
    layout = held.entries.layout()
    assert layout.stands[layout.valid].min() >= 0
