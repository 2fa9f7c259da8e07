"""For each entry that goes, the most similar one that stays: what merging methods begin with.

Rows of one layer may keep different numbers of entries. Their indices are packed to the left of a rectangle, with a
mask of what is really there, so that all heads are compared at once; and the entries that go are taken in strips, so
that no comparison of everything with everything is ever held.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lcdoc.local_engine.compression.parts import Merged

_STRIP = 1 << 24
"""Similarities held at once: 64 MiB of float32."""


def packed(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Where `mask` (bool [H, n]) is true, in order: indices int64 [H, m] and which of them count, bool [H, m].

    m is the most that a row has; a shorter row is filled up with other indices of its own, each of them once. Waits for
    the device.
    """
    counts = mask.sum(-1)
    most = int(counts.max())
    indices = (~mask).to(torch.uint8).argsort(dim=-1, stable=True)[:, :most]
    return indices, torch.arange(most, device=mask.device) < counts[:, None]


def taken(entries: Tensor, indices: Tensor) -> Tensor:
    """`entries` [H, n, D] at `indices` [H, m]: float32 [H, m, D]."""
    return entries.gather(1, indices[..., None].expand(-1, -1, entries.shape[-1])).to(torch.float32)


def nearest(keys: Tensor, asking: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """The highest cosine of each entry in `asking` with an entry in `among` (bool [H, n]), and which entry that is.

    `keys` is [H, n, D]. Returns float32 [H, n], -inf for entries that do not ask or have no choice, and int64 [H, n],
    which names an entry itself where it does not ask.
    """
    similarity = torch.full(asking.shape, -torch.inf, device=keys.device)
    target = torch.arange(asking.shape[1], device=keys.device).repeat(len(asking), 1)
    offered, there = packed(among)
    asked, _ = packed(asking)
    if not offered.shape[1]:
        return similarity, target
    directions = normalize(taken(keys, offered), dim=-1)
    strip = max(1, _STRIP // (len(keys) * offered.shape[1]))
    for begin in range(0, asked.shape[1], strip):
        part = asked[:, begin : begin + strip]
        cosines = normalize(taken(keys, part), dim=-1) @ directions.mT
        best, which = cosines.masked_fill_(~there[:, None], -torch.inf).max(-1)
        similarity.scatter_(1, part, best)
        target.scatter_(1, part, offered.gather(1, which))
    alone = ~asking | ~among.any(-1, keepdim=True)
    itself = torch.arange(asking.shape[1], device=keys.device)
    return similarity.masked_fill_(alone, -torch.inf), torch.where(alone, itself, target)


def merged(
    keep: Tensor, target: Tensor, weights: Tensor, own: Tensor, *, keys: bool = True, bias: Tensor | None = None
) -> Merged:
    """Every kept entry j as (own_j x_j + sum of weights_i x_i) / (own_j + sum of weights_i), over all evicted i whose
    `target` is j.

    `weights` and `own` are float32 [H, n]; a weight is 0 for what is dropped.
    """
    goes = ~keep & (weights > 0)
    share = torch.where(keep, own, torch.where(goes, weights, 0.0))
    into = torch.where(keep, torch.arange(keep.shape[1], device=keep.device), torch.where(goes, target, -1))
    total = torch.zeros_like(share).scatter_add_(1, into.clamp(min=0), share)
    return Merged(into, share / total.gather(1, into.clamp(min=0)).masked_fill_(into < 0, 1.0), keys, bias)


def summed(weights: Tensor, target: Tensor, entries: Tensor | None = None) -> Tensor:
    """For each entry j the sum of weights_i entries_i over all i whose `target` is j; of the weights without `entries`.

    `weights` is float32 [H, n] and 0 for what is not merged, `target` int64 [H, n], `entries` [H, n, D]. Returns
    float32 [H, n, D] or [H, n]. Only what has a weight is read.
    """
    heads, n = weights.shape
    row, column = weights.nonzero(as_tuple=True)
    parts = weights[row, column]
    if entries is not None:
        parts = parts[:, None] * entries[row, column].to(torch.float32)
    total = torch.zeros(heads * n, *parts.shape[1:], device=weights.device)
    return total.index_add_(0, row * n + target[row, column], parts).view(heads, n, *parts.shape[1:])
