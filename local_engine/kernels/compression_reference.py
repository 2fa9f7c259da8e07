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


def window_lse(
    q: Tensor,
    k_pages: Tensor,
    table: Tensor,
    lengths: Tensor,
    positions: Tensor,
    query_positions: Tensor,
    scale: float,
    reach: int | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """The log of the sum of exp(q k scale + bias) over the entries that each query sees: float32 [H, G, w], or float64
    if q is; -inf where it sees none.

    q [H, G, w, D] rotated, positions int [H, n] of the entries, query_positions int [w]: an entry behind a query is not
    seen by it (where rows were packed, both are what keys and queries are rotated to), nor is one `reach` positions or
    more before it. bias float32 [H, n] is added to the scaled products.
    """
    products = _products(q, k_pages, table, lengths, positions, query_positions, scale, bias)
    if reach is not None:
        far = query_positions[:, None] - positions[:, None] >= reach
        products = products.masked_fill(far[:, None], -torch.inf)
    return products.logsumexp(-1)


def window_scores(
    q: Tensor,
    k_pages: Tensor,
    table: Tensor,
    lengths: Tensor,
    positions: Tensor,
    query_positions: Tensor,
    scale: float,
    lse: Tensor,
    over_window: OverWindow = "sum",
    over_group: OverGroup = "mean",
    bias: Tensor | None = None,
) -> Tensor:
    """The attention that a window of queries pays each entry: float32 [H, n], or float64 if q is.

    As for `window_lse`, whose result `lse` [H, G, w] is, or what else takes part in the softmax; what its queries count
    more or less by is to be taken off it as a log. Attention weights are summed over the window, or their maximum
    taken; then comes the mean or the maximum over the G query heads. Behind the end of a row stands -inf.
    """
    products = _products(q, k_pages, table, lengths, positions, query_positions, scale, bias)
    weights = torch.exp(products - torch.where(lse == -torch.inf, torch.inf, lse.to(products.dtype))[..., None])
    each = weights.sum(2) if over_window == "sum" else weights.amax(2)
    scores = each.mean(1) if over_group == "mean" else each.amax(1)
    return scores.masked_fill(torch.arange(scores.shape[1], device=q.device) >= lengths[:, None], -torch.inf)


def _products(
    q: Tensor,
    k_pages: Tensor,
    table: Tensor,
    lengths: Tensor,
    positions: Tensor,
    query_positions: Tensor,
    scale: float,
    bias: Tensor | None,
) -> Tensor:
    """q k scale + bias where a query may see the entry, -inf where not: [H, G, w, n]."""
    made = torch.full((*q.shape[:3], positions.shape[1]), -torch.inf, dtype=_wide(q).dtype, device=q.device)
    for head, length in enumerate(lengths.tolist()):
        keys = _wide(_entries(k_pages, table[head], length))
        products = _wide(q[head]) @ keys.T * scale
        if bias is not None:
            products = products + bias[head, :length].to(products.dtype)
        hidden = positions[head, :length] > query_positions[:, None]
        made[head, :, :, :length] = products.masked_fill(hidden, -torch.inf)
    return made


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
    them, or the last `window` of these. The weights exp(q k scale + bias - lse) are summed over tokens, and the mean is
    taken over the query heads of the group (H2O, Zhang et al., 2023, sums over tokens alike).
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
        mass[head, : before + tokens] += weights.sum(0).to(mass.dtype) / groups
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


def load_pages(
    keys: Tensor,
    values: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    where: Tensor,
    key_scale: Tensor | None = None,
    value_scale: Tensor | None = None,
) -> None:
    """Put keys and values [E, D] where `where` int [E] says, in pages seen as [pages * page_size, D].

    They are of any float type, or int8 with a scale for each entry, of a float type [E]: an entry is code * scale then.
    """
    for entries, scale, pages in ((keys, key_scale, k_pages), (values, value_scale, v_pages)):
        wide = entries
        if scale is not None:
            dtype = torch.promote_types(pages.dtype, torch.float32)
            wide = entries.to(dtype) * scale.to(dtype)[:, None]
        pages.view(-1, pages.shape[-1])[where.long()] = wide.to(pages.dtype)
