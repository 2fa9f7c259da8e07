"""Attention of one head on a CPU where what is far looks nearer than it is (`far_keys.py`).

Three parts, joined by their log-sum-exp: neighbours; keys that became far since the last cut, placed anew here; and
keys that are in the cache as far ones.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lcdoc.local_engine.far_keys import FarKeys

Part = tuple[Tensor, Tensor]
"""Output [G, C, D] and log-sum-exp [G, C] over some of the keys."""


class RowKeys:
    """Keys, values and biases of one row, those of the pass itself behind what the cache held before."""

    def __init__(self, keys: Tensor, values: Tensor, bias: Tensor | None) -> None:
        """[n, D] each; the bias float32 [n]."""
        self.keys, self.values, self.bias = keys, values, bias

    def part(self, first: int, end: int | None = None) -> RowKeys:
        bias = None if self.bias is None else self.bias[first:end]
        return RowKeys(self.keys[first:end], self.values[first:end], bias)


def near_and_far(
    far: FarKeys,
    queries: Tensor,
    row: RowKeys,
    *,
    layer: int,
    head: int,
    places: Tensor,
    window: int | None,
    scale: float,
) -> list[Part]:
    """The parts for the queries [G, C, D] of a key-value head, rotated to `places` (int64 [C]), their own keys last in
    `row`. With a `window` a query sees so many last tokens, its own included."""
    count = len(places)
    mine = far.queries(places)
    stored = far.far[layer][head]
    theirs = torch.cat((far.keys(layer, head, len(row.keys) - count), mine))
    distances = mine[:, None] - theirs
    visible = distances >= 0 if window is None else (distances >= 0) & (distances < window)
    near = far.scheme.near
    # Rows are in the order of the text: what is a neighbour of no query comes first, what is one of all comes last.
    never, ever = int((distances[0] >= near).sum()), int((distances[-1] >= near).sum())
    parts = [_attend(queries, row.part(stored + never), (visible & (distances < near))[:, never:], scale)]
    if not ever and not stored:
        return parts
    turned = far.turned_queries(layer, queries, mine)
    if ever:
        zone = row.part(stored, stored + ever)
        zone = RowKeys(far.turned_keys(layer, zone.keys, theirs[:ever]), zone.values, zone.bias)
        parts.append(_attend(turned, zone, (visible & (distances >= near))[:, :ever], scale))
    if stored:
        seen = torch.ones(count, stored, dtype=torch.bool)
        if window is not None:
            seen = mine[:, None] - far.positions[layer, head, :stored] < window
        parts.append(_attend(turned, row.part(0, stored), seen, scale))
    return parts


def _attend(queries: Tensor, row: RowKeys, visible: Tensor, scale: float) -> Part:
    """Queries [G, C, D] over keys, of which each sees those that are `visible` (bool [C, n]), perhaps none."""
    groups = len(queries)
    mask: Tensor | None = None
    if row.bias is not None or not bool(visible.all()):
        mask = torch.zeros(visible.shape, dtype=torch.float32).masked_fill_(~visible, -torch.inf)
        mask = (mask if row.bias is None else mask + row.bias)[None, None]
    keys, values = (each[None, None].expand(-1, groups, -1, -1) for each in (row.keys, row.values))
    output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        queries[None], keys, values, attn_mask=mask, scale=scale
    )
    nothing = ~visible.any(-1)
    return output[0].masked_fill(nothing[:, None], 0.0), lse[0].masked_fill(nothing, -torch.inf)
