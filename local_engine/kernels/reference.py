"""What every kernel computes, in plain PyTorch: slow, obvious, and the oracle of the Triton kernels' tests.

The cache is a pool of pages. A page, `[page_size, D]`, belongs to one KV head of one layer of one sequence;
`table[slot, h]` lists the pages of a row, in order, and columns beyond the row's length hold anything. Every function
computes in float64 if its input is float64 and in float32 otherwise, and rounds to the input's type where
transformers does.
"""

# The tensors of a layer are many, and the kernels take them in this order.
# ruff: noqa: PLR0917

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


@overload
def rms_norm(x: Tensor, weight: Tensor, eps: float, residual: None = None) -> Tensor: ...
@overload
def rms_norm(x: Tensor, weight: Tensor, eps: float, residual: Tensor) -> tuple[Tensor, Tensor]: ...
def rms_norm(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
    """x / rms(x) * weight over the last dimension of x [T, N] (Root Mean Square Layer Normalization, 2019).

    The quotient is rounded to x's type before it meets the weight, as in transformers. With a residual [T, N] the sum
    residual + x, rounded to x's type, is what is normalised; the result is then (y, sum).
    """
    summed = x if residual is None else residual + x
    wide = _wide(summed)
    y = (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight
    return y if residual is None else (y, summed)


def silu_mul(x: Tensor) -> Tensor:
    """The gated activation of an MLP: x [T, 2N] holds gate and up side by side; silu(gate) * up is [T, N]."""
    gate, up = x.chunk(2, dim=-1)
    return torch.nn.functional.silu(_wide(gate)).to(x.dtype) * up


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first R dimensions of x [T, H, D] by the angles whose cosines and sines are [T, R/2], half-split."""
    half = cos.shape[-1]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    cos, sin = cos[:, None].to(x.dtype), sin[:, None].to(x.dtype)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


def rotate_and_write(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    write: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """Rotate queries and keys (RoFormer, 2021) and store keys and values in the cache; returns the queries, a new
    tensor.

    q [T, Hq, D], k and v [T, H, D], cos and sin [T, R/2] float32 with R <= D (0: no rotation), write int64 [T, H]:
    the place of each new key in the pages [pages, page_size, D] seen as [pages * page_size, D]; a negative place
    stores nothing. With weights [D], queries and keys are RMS-normalised over D before they are turned (Qwen3's QK
    norm).
    """

    def turned(x: Tensor, weight: Tensor | None) -> Tensor:
        x = _wide(x)
        if weight is not None:
            x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight.to(x.dtype)
        return _rotate(x, cos, sin)

    stored = write >= 0
    head_dim = k_pages.shape[-1]
    k_pages.view(-1, head_dim)[write[stored]] = turned(k, k_weight)[stored].to(k_pages.dtype)
    v_pages.view(-1, head_dim)[write[stored]] = v[stored].to(v_pages.dtype)
    return turned(q, q_weight).to(q.dtype)


def _row(pages: Tensor, row: Tensor, length: int) -> Tensor:
    """The first `length` entries of a row, [length, ...], read through its list of pages."""
    page_size = pages.shape[1]
    used = row[: (length + page_size - 1) // page_size].long()
    return pages[used].flatten(0, 1)[:length]


def _attend(
    q: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, visible: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention of q [M, D] over keys [n, D], where visible [M, n]: output [M, D] and log-sum-exp of the scores [M]."""
    q, keys, values = _wide(q), _wide(keys), _wide(values)
    scores = q @ keys.T * scale
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    scores = scores.masked_fill(~visible, -torch.inf)
    lse = torch.logsumexp(scores, dim=-1)
    weights = torch.exp(scores - torch.where(lse == -torch.inf, 0.0, lse)[:, None])
    return weights @ values, lse


def paged_decode(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    table: Tensor,
    slots: Tensor,
    lengths: Tensor,
    scale: float,
    window: int | None = None,
    bias_pages: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One new token a sequence: q [B, Hq, D] over the first lengths[b, h] keys of the rows table[slots[b], h].

    The pages are [pages, page_size, D], table int [S, H, max_pages], slots int [B], lengths int [B, H] (the new
    token's own key included). With a window only the last `window` keys of a row are seen. bias_pages, float32
    [pages, page_size], is added to the scaled scores. Returns the output [B, Hq, D] and the log-sum-exp, float32 [B,
    Hq] (float64 if q is); a row without keys gives 0 and -inf.
    """
    sequences = q.shape[0]
    starts = torch.arange(sequences + 1, device=q.device)
    return paged_prefill(q, k_pages, v_pages, table, slots, starts, lengths - 1, scale, window, bias_pages)


def paged_prefill(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    table: Tensor,
    slots: Tensor,
    query_starts: Tensor,
    lengths: Tensor,
    scale: float,
    window: int | None = None,
    bias_pages: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A chunk of every sequence: tokens query_starts[b] to query_starts[b + 1] of q [T, Hq, D] belong to sequence b.

    The row table[slots[b], h] holds lengths[b, h] keys from before the chunk, and the chunk's own keys behind them:
    token i of the chunk sees the row's first lengths[b, h] + i + 1 keys, or the last `window` of these. Heads of one
    sequence may differ in length. Everything else is as in `paged_decode`.
    """
    tokens, query_heads, _ = q.shape
    heads = table.shape[1]
    groups = query_heads // heads
    output = torch.zeros_like(q)
    lse = torch.full(
        (tokens, query_heads), -torch.inf, dtype=torch.promote_types(q.dtype, torch.float32), device=q.device
    )
    for sequence, slot in enumerate(slots.tolist()):
        first, end = int(query_starts[sequence]), int(query_starts[sequence + 1])
        for query_head in range(query_heads):
            head = query_head // groups
            seen = int(lengths[sequence, head]) + 1 + torch.arange(end - first, device=q.device)
            length = max(seen.tolist(), default=0)
            if length <= 0:
                continue
            row = table[slot, head]
            place = torch.arange(length, device=q.device)
            visible = place[None] < seen[:, None]
            if window is not None:
                visible &= place[None] >= seen[:, None] - window
            bias = None if bias_pages is None else _row(bias_pages, row, length)
            part, part_lse = _attend(
                q[first:end, query_head], _row(k_pages, row, length), _row(v_pages, row, length), bias, visible, scale
            )
            output[first:end, query_head] = part.to(q.dtype)
            lse[first:end, query_head] = part_lse
    return output, lse


def int8_linear(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """x [T, K] times the transpose of weight int8 [N, K] * scale [N]: [T, N] in x's type."""
    wide = _wide(x)
    return (wide @ weight.to(wide.dtype).T * scale.to(wide.dtype)).to(x.dtype)


def int4_linear(x: Tensor, packed: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """x [T, K] times the transpose of the packed weight: [T, N] in x's type.

    packed uint8 [N, K/2] holds two codes a byte, the even column in the low half; scale and zero [N, K/g]; a weight is
    code * scale + zero of its group of g columns.
    """
    wide = _wide(x)
    codes = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)
    group = codes.shape[1] // scale.shape[1]
    weight = codes.to(wide.dtype) * scale.to(wide.dtype).repeat_interleave(group, 1)
    weight += zero.to(wide.dtype).repeat_interleave(group, 1)
    return (wide @ weight.T).to(x.dtype)
