"""What the GPU's kernels are held to is what the parts of a recipe, and the engine, do by other code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from lcdoc.local_engine.compaction import move_kept
from lcdoc.local_engine.compression.attention_mass import attention_mass, log_mass
from lcdoc.local_engine.compression.parts import Heads, Merged
from lcdoc.local_engine.compression.reducers.d2o import D2O
from lcdoc.local_engine.compression.reducers.value_merge import ValueMerge
from lcdoc.local_engine.compression_kernels_torch import TORCH
from lcdoc.local_engine.kernels import compression_reference
from lcdoc.local_engine.operations_cpu import rotate
from lcdoc.local_engine.pages import PagePool
from lcdoc.tests.local_engine.compression.cut_heads import carried_out, random_heads

PAGE = 16


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(25)


def paged(*entries: Tensor) -> tuple[list[Tensor], Tensor]:
    """Pages [pages, page_size, D] of each of `entries` [H, n, D], backwards in the pool, and the table of the rows."""
    heads, n, dim = entries[0].shape
    each = -(-n // PAGE)
    table = torch.arange(heads * each, dtype=torch.int32).flip(0).view(heads, each)
    pools = []
    for side in entries:
        pool = torch.empty(heads * each, PAGE, dim)
        pool[table.long()] = pad(side, (0, 0, 0, each * PAGE - n)).view(heads, each, PAGE, dim)
        pools.append(pool)
    return pools, table


def rows(pages: Tensor, table: Tensor, count: int) -> Tensor:
    return pages[table.long()].flatten(1, 2)[:, :count]


def scored(heads: Heads, *over: str) -> Tensor:
    """By the reference of the kernels, over pages."""
    assert heads.queries is not None and heads.query_positions is not None
    (keys,), table = paged(heads.keys)
    lengths = torch.full((len(table),), heads.keys.shape[1])
    seen = (heads.queries, keys, table, lengths, heads.rotated_at, heads.query_positions, heads.model.scale)
    bias = heads.state.get("bias")
    lse = compression_reference.window_lse(*seen, bias=bias)
    return compression_reference.window_scores(*seen, lse, *over, bias)  # type: ignore[arg-type]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("window", [1, 8, 20])
def test_window_scores_are_the_attention_of_strips(window: int, biased: bool) -> None:
    heads = random_heads((3, 45, 16), seed=1, groups=3, window=window)
    if biased:
        heads.state["bias"] = torch.randn(3, 45)
    assert heads.queries is not None and heads.query_positions is not None
    mean, most = (TORCH.window_scores(heads, heads.queries, heads.query_positions, over) for over in ("mean", "max"))
    torch.testing.assert_close(scored(heads, "sum", "mean") / window, mean)
    torch.testing.assert_close(scored(heads, "max", "max"), most)


@pytest.mark.parametrize("window", [None, 6])
def test_masses_are_those_of_strips(window: int | None) -> None:
    keys, queries = torch.randn(2, 30, 16), torch.randn(9, 2, 3, 16)
    (pages,), table = paged(keys)
    before = torch.full((2,), 21)
    places = torch.arange(30)
    seen = (pages, table, torch.full((2,), 30), places.expand(2, -1), places[21:], 0.25)
    lse = compression_reference.window_lse(queries.permute(1, 2, 0, 3), *seen, window)
    torch.testing.assert_close(lse.permute(2, 0, 1), log_mass(queries, keys, 0.25, window=window))
    mass = compression_reference.add_attention_mass(
        torch.zeros(2, 30), queries.flatten(1, 2), lse.permute(2, 0, 1).flatten(1), pages, table, before, 0.25, window
    )
    torch.testing.assert_close(mass, attention_mass(queries, keys, 0.25, window=window))


@pytest.mark.parametrize("both", [True, False])
def test_compaction_merges_as_reducers_do(both: bool) -> None:
    heads = random_heads((3, 50, 16), seed=3, alike=4)
    keep = torch.rand(3, 50) < 0.4
    keep[:, 7] = True
    counts, most = keep.sum(1), int(keep.sum(1).max())
    ranks = keep.cumsum(1) - 1
    reducer = D2O() if both else ValueMerge()
    made = reducer.reduce(heads, keep, torch.zeros(3, 50))
    assert isinstance(made, Merged)
    merged = carried_out(reducer, heads, keep, torch.zeros(3, 50))
    destination = torch.where(made.into >= 0, ranks.gather(1, made.into.clamp(min=0)), -1)
    (keys, values), table = paged(heads.keys, heads.values)
    kept = keep.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    compression_reference.compact(
        keys, values, table, kept, counts, destination=destination, weights=made.shares, merge_keys=made.keys
    )
    for mine, theirs in ((keys, merged.keys), (values, merged.values)):
        for row, wanted, chosen, count in zip(rows(mine, table, most), theirs, keep, counts.tolist(), strict=True):
            torch.testing.assert_close(row[:count], wanted[chosen])


def test_compaction_moves_as_the_engine_does() -> None:
    keys, values = torch.randn(2, 40, 8), torch.randn(2, 40, 8)
    (key_pages, value_pages), table = paged(keys, values)
    pool = PagePool(len(key_pages), PAGE, 8, torch.float32)
    pool.keys.copy_(key_pages)
    pool.values.copy_(value_pages)
    keep = torch.rand(1, 2, 40) < 0.5
    pages = table.numpy()[None]
    move_kept(pool, keep, pages, pages)
    counts = keep[0].sum(1)
    kept = keep[0].to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    compression_reference.compact(key_pages, value_pages, table, kept, counts)
    assert torch.equal(key_pages, pool.keys) and torch.equal(value_pages, pool.values)


def test_keys_turned_while_they_move_are_keys_rotated_to_their_new_positions() -> None:
    frequencies = 1 / 100 ** (torch.arange(0, 12, 2) / 12)
    plain, positions = torch.randn(1, 30, 16), torch.arange(30) * 3 + 5

    def at(keys: Tensor, where: Tensor) -> Tensor:
        angles = where[:, None] * frequencies
        return rotate(keys.transpose(0, 1), angles.cos(), angles.sin()).transpose(0, 1)

    (keys, values), table = paged(at(plain, positions), plain)
    kept, new = torch.arange(1, 30, 2)[None], torch.arange(15)
    shift = (new - positions[kept[0]])[None]
    compression_reference.compact(keys, values, table, kept, torch.tensor([15]), shift=shift, frequencies=frequencies)
    torch.testing.assert_close(rows(keys, table, 15), at(plain[:, 1::2], new), atol=1e-4, rtol=1e-4)
    assert torch.equal(rows(values, table, 15), plain[:, 1::2])
