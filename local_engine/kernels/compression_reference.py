"""What the kernels of compression compute, in plain PyTorch: slow, obvious, and the oracle of their tests.

Rows are the (layer, head) pairs of one sequence, as many as the caller puts together: `table` int [H, max_pages] lists
the pages of each, in order, and `lengths` int [H] says how many entries it holds. Columns and entries beyond hold
anything. Pages are `[pages, page_size, D]`. As in `reference.py`, float64 input is computed in float64 and the rest in
float32.
"""

# The tensors of a layer are many, and the kernels take them in this order.
# ruff: noqa: PLR0917

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

OverWindow = Literal["sum", "max"]
OverGroup = Literal["mean", "max"]
Pooling = Literal["mean", "max"]


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _places(row: Tensor, entries: Tensor, page_size: int) -> Tensor:
    """Where `entries` of a row stand in the pool seen as [pages * page_size, ...]."""
    entries = entries.long()
    return row.long()[entries // page_size] * page_size + entries % page_size


def _entries(pages: Tensor, row: Tensor, length: int) -> Tensor:
    """The first `length` entries of a row, [length, ...]."""
    places = _places(row, torch.arange(length, device=row.device), pages.shape[1])
    return pages.flatten(0, 1)[places]


def window_scores(
    q: Tensor,
    k_pages: Tensor,
    table: Tensor,
    lengths: Tensor,
    positions: Tensor,
    query_positions: Tensor,
    scale: float,
    over_window: OverWindow = "sum",
    over_group: OverGroup = "mean",
    pool: int = 1,
    pooling: Pooling = "mean",
    pooled: Tensor | None = None,
    bias_pages: Tensor | None = None,
) -> Tensor:
    """The attention that a window of queries pays each entry: float32 [H, n], or float64 if q is.

    q [H, G, w, D] rotated, positions int [H, n] of the entries, query_positions int [w]: an entry behind a query is not
    seen by it (where rows were packed, both are what keys and queries are rotated to). bias_pages float32 [pages,
    page_size] is added to the scaled products. Attention weights are summed over the window, or their maximum taken;
    then comes the mean or the maximum over the G query heads; then, with an odd `pool` above 1, the mean or maximum
    over so many neighbours. A mean counts what lies beyond either end as 0, as SnapKV does (Li et al., 2024). Only the
    first pooled[h] entries of a row meet in the pool (default: all), those before the window for one; the others keep
    what they got. Behind the end of a row stands -inf.
    """
    heads, groups = q.shape[:2]
    out = torch.full_like(positions, -torch.inf, dtype=torch.promote_types(q.dtype, torch.float32))
    for head in range(heads):
        length = int(lengths[head])
        end = length if pooled is None else max(0, min(length, int(pooled[head])))
        if length == 0:
            continue
        keys = _wide(_entries(k_pages, table[head], length))
        visible = positions[head, :length][None] <= query_positions[:, None]
        each = []
        for group in range(groups):
            products = _wide(q[head, group]) @ keys.T * scale
            if bias_pages is not None:
                products = products + _entries(bias_pages, table[head], length).to(products.dtype)
            weights = products.masked_fill(~visible, -torch.inf).softmax(-1).nan_to_num()
            each.append(weights.sum(0) if over_window == "sum" else weights.amax(0))
        stacked = torch.stack(each)
        score = stacked.mean(0) if over_group == "mean" else stacked.amax(0)
        if pool > 1 and end:
            smooth = torch.nn.functional.avg_pool1d if pooling == "mean" else torch.nn.functional.max_pool1d
            score = torch.cat([smooth(score[None, :end], pool, 1, pool // 2)[0], score[end:]])
        out[head, :length] = score
    return out


def add_attention_mass(
    mass: Tensor,
    q: Tensor,
    lse: Tensor,
    k_pages: Tensor,
    table: Tensor,
    lengths: Tensor,
    scale: float,
    window: int | None = None,
    bias_pages: Tensor | None = None,
) -> Tensor:
    """Add to mass [H, n] the attention that each entry of a row got from a chunk of queries; returns mass.

    q [T, Hq, D] and lse [T, Hq] are one sequence's chunk as `reference.paged_prefill` took and gave them: the row holds
    lengths[h] entries from before the chunk and then the chunk's own, and token i sees the first lengths[h] + i + 1 of
    them, or the last `window` of these. The weights exp(q k scale + bias - lse) are summed over tokens and over the
    query heads of the group (H2O, Zhang et al., 2023, sums over tokens alike).
    """
    tokens, query_heads, _ = q.shape
    heads = table.shape[0]
    groups = query_heads // heads
    for query_head in range(query_heads):
        head = query_head // groups
        before = int(lengths[head])
        keys = _wide(_entries(k_pages, table[head], before + tokens))
        products = _wide(q[:, query_head]) @ keys.T * scale
        if bias_pages is not None:
            products = products + _entries(bias_pages, table[head], before + tokens).to(products.dtype)
        place = torch.arange(before + tokens, device=q.device)[None]
        seen = before + 1 + torch.arange(tokens, device=q.device)[:, None]
        visible = place < seen
        if window is not None:
            visible &= place >= seen - window
        weights = torch.exp(products - lse[:, query_head, None].to(products.dtype)).masked_fill(~visible, 0.0)
        mass[head, : before + tokens] += weights.sum(0).to(mass.dtype)
    return mass


def _turn(keys: Tensor, shift: Tensor, frequencies: Tensor) -> Tensor:
    """keys [m, D] turned on by `shift` [m] positions: dimensions i and i + R/2 are a pair, the last D - R stay."""
    half = frequencies.shape[0]
    angles = shift.to(torch.float64)[:, None] * frequencies.to(torch.float64)
    cos, sin = angles.cos().to(keys.dtype), angles.sin().to(keys.dtype)
    first, second, rest = keys[:, :half], keys[:, half : 2 * half], keys[:, 2 * half :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def compact(
    k_pages: Tensor,
    v_pages: Tensor,
    table: Tensor,
    kept: Tensor,
    counts: Tensor,
    target: Tensor | None = None,
    shift: Tensor | None = None,
    frequencies: Tensor | None = None,
    destination: Tensor | None = None,
    weights: Tensor | None = None,
    merge_keys: bool = True,
    bias_pages: Tensor | None = None,
) -> None:
    """Move the kept entries of each row to its front: entry kept[h, r] becomes entry r, for r < counts[h].

    kept int [H, m] ascends along each row up to counts [H]. The new pages are those of `target` int [H, max_pages],
    which may name a row's own pages in the same columns (default: all of them, compaction in place).

    With shift int [H, m] and frequencies float32 [R/2], keys are turned on by so many positions, the new one less the
    old (rotations add up: RoFormer, Su et al., 2021, section 3.2). With destination int [H, n] and weights float32 [H,
    n], entry i adds weights[h, i] of itself to what becomes entry destination[h, i], or to none if that is negative; a
    kept entry's destination is its own rank r, and its weight its own share. Keys are merged before they are turned, or
    not at all with `merge_keys` False. bias_pages [pages, page_size] moves along.
    """
    target = table if target is None else target
    page_size, head_dim = k_pages.shape[1:]
    for head in range(table.shape[0]):
        count = int(counts[head])
        chosen = kept[head, :count].long()
        there = _places(table[head], chosen, page_size)
        here = _places(target[head], torch.arange(count, device=table.device), page_size)
        for pages in (k_pages, v_pages):
            flat = pages.view(-1, head_dim)
            rows = _wide(flat[there])
            if destination is not None and weights is not None and (merge_keys or pages is v_pages):
                goes = destination[head] >= 0
                entries = torch.arange(destination.shape[1], device=table.device)[goes]
                given = _wide(flat[_places(table[head], entries, page_size)])
                share = weights[head, goes].to(rows.dtype)[:, None]
                rows = torch.zeros_like(rows).index_add_(0, destination[head, goes].long(), given * share)
            if pages is k_pages and shift is not None and frequencies is not None:
                rows = _turn(rows, shift[head, :count], frequencies)
            flat[here] = rows.to(pages.dtype)
        if bias_pages is not None:
            flat_bias = bias_pages.view(-1)
            flat_bias[here] = flat_bias[there]


def adjacent_similarity(k_pages: Tensor, table: Tensor, lengths: Tensor, width: int) -> Tensor:
    """The cosine of each key and the next one of its row: float32 [H, width], or float64 if the pages are.

    A key of length 0 is like no other: 0. Entries without a next one, the last of each row and all beyond, get -inf.
    """
    dtype = torch.promote_types(k_pages.dtype, torch.float32)
    out = torch.full((table.shape[0], width), -torch.inf, dtype=dtype, device=k_pages.device)
    for head in range(table.shape[0]):
        length = int(lengths[head])
        if length < 2:
            continue
        keys = _wide(_entries(k_pages, table[head], length))
        norms = torch.linalg.vector_norm(keys, dim=-1)
        product = norms[:-1] * norms[1:]
        cosine = (keys[:-1] * keys[1:]).sum(-1) / torch.where(product == 0, 1.0, product)
        out[head, : length - 1] = cosine
    return out


def merge_segments(
    k_pages: Tensor,
    v_pages: Tensor,
    table: Tensor,
    lengths: Tensor,
    segments: Tensor,
    pivots: Tensor,
    sigma: Tensor,
) -> None:
    """Merge each segment of neighbouring entries into its pivot, in place (KVMerger, Wang et al., 2024).

    segments int [H, n] numbers each entry's segment and does not descend along a row; segment s of row h has the pivot
    entry pivots[h, s] and the width sigma[h, s], float32 [H, S]. The pivot's key and value become the sums of the
    segment's, weighted by exp(-|k_i - k_pivot|^2 / 2 sigma^2) over the sum of these weights. Other entries stay as they
    are: `compact` with the pivots as what is kept drops them. With a sigma of 0 only keys equal to the pivot's count.
    """
    page_size, head_dim = k_pages.shape[1:]
    flat_keys, flat_values = k_pages.view(-1, head_dim), v_pages.view(-1, head_dim)
    for head in range(table.shape[0]):
        length = int(lengths[head])
        for segment in sorted(set(segments[head, :length].tolist())):
            members = (segments[head, :length] == segment).nonzero().squeeze(1)
            places = _places(table[head], members, page_size)
            pivot = _places(table[head], pivots[head, segment].view(1), page_size)
            keys, values = _wide(flat_keys[places]), _wide(flat_values[places])
            distance = (keys - _wide(flat_keys[pivot])).square().sum(-1)
            width = sigma[head, segment].to(keys.dtype)
            share = torch.exp(-distance / (2 * width.square())) if width > 0 else (distance == 0).to(keys.dtype)
            share = (share / share.sum())[:, None]
            flat_keys[pivot] = (keys * share).sum(0, keepdim=True).to(k_pages.dtype)
            flat_values[pivot] = (values * share).sum(0, keepdim=True).to(v_pages.dtype)


def load_pages(
    keys: Tensor,
    values: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    table: Tensor,
    lengths: Tensor,
    key_scale: Tensor | None = None,
    value_scale: Tensor | None = None,
) -> None:
    """Put the first lengths[h] entries of keys and values [H, n, D] into the pages of each row.

    They are of any float type, or int8 with a scale for each entry, float32 [H, n]: an entry is code * scale then.
    """
    page_size, head_dim = k_pages.shape[1:]
    for source, scale, pages in ((keys, key_scale, k_pages), (values, value_scale, v_pages)):
        for head in range(table.shape[0]):
            length = int(lengths[head])
            entries = source[head, :length]
            if scale is not None:
                wide = torch.promote_types(pages.dtype, torch.float32)
                entries = entries.to(wide) * scale[head, :length].to(wide)[:, None]
            places = _places(table[head], torch.arange(length, device=table.device), page_size)
            pages.view(-1, head_dim)[places] = entries.to(pages.dtype)
