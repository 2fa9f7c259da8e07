"""kvzip, task and speckv: scores by what a probe's queries attend to."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from lcdoc.local_engine import compression_kernels_torch
from lcdoc.local_engine.compression.registry import part_class
from lcdoc.local_engine.compression.scorers import kvzip
from lcdoc.local_engine.compression.scorers.kvzip import KVzip, KVzipPlus
from lcdoc.local_engine.compression.scorers.speckv import SpecKV
from lcdoc.local_engine.compression.scorers.task import TaskAware
from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.tests.local_engine.compression.whole_model import SHAPES, attention, close, made, projected, turned

DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kvzip_is_the_most_attention_of_any_query(
    shape: tuple[int, int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression_kernels_torch, "_QUERIES", 4)
    heads = made(shape, probe=True, dtype=dtype)
    close(KVzip().score(heads), attention(heads).amax((1, 2)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_kvzip_plus_is_the_most_that_any_query_takes(
    shape: tuple[int, int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression_kernels_torch, "_QUERIES", 4)
    heads = made(shape, probe=True, dtype=dtype)
    taken = attention(heads) * projected(heads, 2).unsqueeze(2)
    taken = taken / heads.hidden.double().norm(dim=-1).view(1, 1, -1, 1)
    close(KVzipPlus().score(heads), taken.amax((1, 2)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_kvzip_shares_attention_with_what_stands_beside(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as with the keys beside among the entries, whose log-sum-exp is all that a scorer sees of them."""
    monkeypatch.setattr(compression_kernels_torch, "_QUERIES", 4)
    heads = made((2, 45, 8, 6), probe=True, dtype=dtype)
    own = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(9)).double()
    logits = torch.einsum("hgqd,hkd->hgqk", heads.queries.double(), own) * heads.model.scale
    logits = logits.masked_fill(torch.ones(6, 6, dtype=torch.bool).triu(1), -torch.inf)  # what was repeated so far
    inside = torch.einsum("hgqd,hkd->hgqk", heads.queries.double(), heads.keys.double()) * heads.model.scale
    both = torch.cat([inside, logits], -1).softmax(-1)[..., :45]
    beside = logits.logsumexp(-1).float()
    close(KVzip().score(replace(heads, beside=beside)), both.amax((1, 2)))
    taken = both * projected(heads, 2).unsqueeze(2) / heads.hidden.double().norm(dim=-1).view(1, 1, -1, 1)
    close(KVzipPlus().score(replace(heads, beside=beside)), taken.amax((1, 2)))


@pytest.mark.parametrize("scorer", [KVzip, KVzipPlus])
@pytest.mark.parametrize("power", [0.5, 2.0])
def test_kvzip_takes_leverage_into_account(scorer: type[KVzip | KVzipPlus], power: float) -> None:
    heads = made((2, 60, 8, 6), probe=True)
    plain, weighed = scorer().score(heads), scorer(leverage=power).score(heads)
    drawn = torch.randn(8, 48, generator=torch.Generator().manual_seed(0)).double() / 48**0.5
    for head in range(2):
        x = turned(heads.keys[head].double(), -heads.rotated_at[head])
        x = (x - x.mean(0)) @ drawn
        gram = x.T @ x
        gram += 1e-3 * gram.diagonal().mean() * torch.eye(48, dtype=torch.float64)
        leverage = torch.stack([row @ torch.linalg.solve(gram, row) for row in x])
        close(weighed[head], plain[head].double() * (60 * leverage) ** power, 1e-3)


def test_of_entries_looked_at_alike_the_odd_key_stays() -> None:
    heads = made((1, 60, 8, 20), probe=True)
    keys = 0.01 * heads.keys + heads.keys[:, :1]  # before rotation, all alike but one
    keys[0, 33] = -keys[0, 33]
    plain = replace(heads, keys=turned(keys, heads.rotated_at), queries=heads.queries * 0.0)
    assert KVzip().score(plain).std() < 1e-6
    assert int(KVzip(leverage=1.0).score(plain).argmax()) == 33


def test_kvzip_keeps_what_one_query_of_many_needs() -> None:
    heads = made((1, 60, 8, 20), probe=True)
    queries = heads.queries * 0.1
    queries[0, 1, 7] = heads.keys[0, 33] * 5
    scores = KVzip().score(replace(heads, queries=queries))
    assert int(scores.argmax()) == 33
    assert float(scores.max()) > 0.5


def test_probes_ask_for_what_they_score() -> None:
    assert KVzip().needs.probe == "repeat"
    assert KVzipPlus().needs.hidden
    assert KVzip().needs.window > kvzip.PIECE_TOKENS
    assert TaskAware(window=9).needs == part_class("task")(window=9).needs
    assert (TaskAware().needs.probe, SpecKV().needs.probe) == ("task", "draft")
    with pytest.raises(ValueError, match="without its input"):
        KVzipPlus().score(replace(made((1, 5, 8, 2), probe=True), hidden=None))
    with pytest.raises(ValueError, match="without queries"):
        KVzip().score(replace(made((1, 5, 8, 2), probe=True), queries=None))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("window", [2, 50])
def test_task_and_draft_are_the_mean_attention_of_the_last_queries_pooled(
    shape: tuple[int, int, int, int], window: int
) -> None:
    heads = made(shape, probe=True)
    seen = attention(heads)[:, :, -window:].mean((1, 2))
    close(TaskAware(window=window, kernel=1).score(heads), seen)
    n = seen.shape[1]
    near = [[j for j in range(i - 2, i + 3) if 0 <= j < n] for i in range(n)]
    averaged = torch.stack([seen[:, each].sum(1) / 5 for each in near], 1)
    close(TaskAware(window=window).score(heads), averaged)
    near = [[j for j in range(i - 3, i + 4) if 0 <= j < n] for i in range(n)]
    close(SpecKV(window=window).score(heads), torch.stack([seen[:, each].amax(1) for each in near], 1))


def test_a_description_keeps_what_it_names() -> None:
    heads = made((1, 60, 8, 4), probe=True)
    queries, keys = heads.queries * 0.1, heads.keys.clone()
    keys[0, 21] = queries[0, :, 1] = 5.0
    kept = TaskAware().score(replace(heads, queries=queries, keys=keys)).topk(5).indices[0].tolist()
    assert sorted(kept) == [19, 20, 21, 22, 23]


@pytest.mark.parametrize("name", ["task", "speckv"])
def test_options_out_of_range_are_named(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{name} looks at the last 0 queries"):
        part_class(name)(window=0)
    with pytest.raises(InvalidRequestError, match=f"{name} pools over 4 entries"):
        part_class(name)(kernel=4)
    for repeating in ("kvzip", "kvzip+"):
        with pytest.raises(InvalidRequestError, match=f"{re.escape(repeating)}: leverage is -1"):
            part_class(repeating)(leverage=-1.0)
