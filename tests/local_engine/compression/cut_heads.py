"""Heads about to be cut, made up, and what queries get from them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lcdoc.local_engine.compaction import Merging, merge_kept
from lcdoc.local_engine.compression.parts import Heads, LayerModel, Reduced, Reducer
from lcdoc.local_engine.pages import PagePool


def layer_model(dim: int, *, layer: int = 0, kv_heads: int = 1) -> LayerModel:
    """For parts that ask for nothing but the scale."""

    def unasked(*_: Tensor) -> Tensor:
        raise AssertionError("a reducer asked for what it has no use for")

    return LayerModel(layer, layer + 1, dim**-0.5, unasked, unasked, kv_heads)


def random_heads(
    shape: tuple[int, int, int],
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    groups: int = 2,
    window: int = 0,
    sinks: int = 0,
    recent: int = 0,
    spread: float = 1.0,
    alike: int = 1,
    layer: int = 0,
) -> Heads:
    """Heads of `shape` [H, n, D]. Neighbours in stretches of `alike` have nearly one key; mass falls to 0 over
    the row; the queries are those of the last `window` entries, which see what a causal mask lets them."""
    count, n, dim = shape
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator)

    keys = normal(count, -(-n // alike), dim).repeat_interleave(alike, 1)[:, :n]
    keys = spread * (keys + (0.3 * normal(*shape) if alike > 1 else 0))
    protected = torch.zeros(count, n, dtype=torch.bool)
    protected[:, :sinks] = True
    protected[:, max(0, n - recent) :] = True
    # As after earlier cuts: positions have gaps, and not the same ones in all heads.
    positions = (1 + torch.randint(0, 3, (count, n), generator=generator)).cumsum(-1)
    positions = positions - positions[:, -1:] + 4 * n
    return Heads(
        layer_model(dim, layer=layer, kv_heads=count),
        keys.to(dtype),
        normal(*shape).to(dtype),
        positions,
        positions,
        protected,
        new=n,
        queries=normal(count, groups, window, dim).to(dtype) if window else None,
        query_positions=4 * n + 1 - torch.arange(window, 0, -1) if window else None,
        state={
            "mass": torch.rand(count, n, generator=generator) * torch.arange(n, 0, -1),
            "seen": torch.arange(n, 0, -1).float().repeat(count, 1),
        },
    )


def random_keep(heads: Heads, share: float, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Keeps what is protected and about `share` of the rest, in each head another number; and random scores."""
    scores = torch.rand(heads.positions.shape, generator=torch.Generator().manual_seed(seed))
    return (scores < share) | heads.protected, -scores


def carried_out(reducer: Reducer, heads: Heads, keep: Tensor, scores: Tensor) -> Reduced:
    """What a reducer makes of the entries; merges are made in a cache with a page for each row."""
    made = reducer.reduce(heads, keep, scores)
    if isinstance(made, Reduced):
        return made
    count, n, dim = heads.keys.shape
    pool = PagePool(count, n, dim, heads.keys.dtype)
    pool.keys.copy_(heads.keys)
    pool.values.copy_(heads.values)
    merging = Merging(made.into[None], made.shares[None], made.keys)
    merge_kept(pool, keep[None], np.arange(count, dtype=np.int32).reshape(1, count, 1), merging)
    return Reduced(pool.keys, pool.values, made.bias)


def attend(heads: Heads, reduced: Reduced | None = None, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """In float64 what the queries get, [H, G, w, D], and the log of the mass it was divided by, [H, G, w]: from all
    entries, or from those of `reduced` that are kept."""
    queries = heads.queries.double()
    keys, values = (
        x.double() for x in ((heads.keys, heads.values) if reduced is None else (reduced.keys, reduced.values))
    )
    bias = heads.state.get("bias") if reduced is None else reduced.bias
    logits = torch.einsum("hgwd,hnd->hgwn", queries, keys) * heads.model.scale
    if bias is not None:
        logits = logits + bias[:, None, None].double()
    seen = heads.rotated_at[:, None, None] <= heads.query_positions[:, None]
    if keep is not None:
        seen = seen & keep[:, None, None]
    logits = logits.masked_fill(~seen, -torch.inf)
    return torch.einsum("hgwn,hnd->hgwd", logits.softmax(-1), values), logits.logsumexp(-1)


def distance(heads: Heads, reduced: Reduced, keep: Tensor) -> float:
    """How far what the queries get from the reduced cache is from what they get from all of it, relative to that."""
    whole, _ = attend(heads)
    return ((attend(heads, reduced, keep)[0] - whole).norm() / whole.norm()).item()
