"""Attention of one new token a sequence over the paged cache.

Decoding reads every key once and does little with it, so the kernel is built to keep the memory busy: the query heads
that share a KV head are the rows of one matrix product (each key is read once for the group), and a long row is cut
into pieces that run at once (FlashDecoding, Dao et al., 2023), joined by `triton_combine`.
"""

# Kernels are typed by Triton when they are compiled; their arguments are many, and its constants are upper case.
# ruff: noqa: N803, PLR0917
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped, no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lcdoc.local_engine.kernels.launch import (
    FUSION,
    MIN_DOT,
    ceil_div,
    check_pages,
    check_rows,
    choose_splits,
    dot_precision,
    next_power_of_two,
    on_device,
    padded_head_dim,
    processors,
)
from lcdoc.local_engine.kernels.triton_combine import combine, partial_results
from lcdoc.local_engine.kernels.triton_softmax import LN_2, LOG2_E, attend_range, finish

# Programs that run on one processor at a time.
_RESIDENT = 2
_MOST_GROUP_ROWS = 64


@triton.jit(do_not_specialize=["splits", "window"])
def _decode_kernel(
    q, k_pages, v_pages, bias_pages, table, slots, lengths, out, lse,
    scale, splits, window,
    q_stride, q_head_stride, table_stride, table_head_stride, lengths_stride, lengths_head_stride,
    out_stride, out_head_stride, lse_stride, lse_head_stride,
    QUERY_HEADS: tl.constexpr, GROUPS: tl.constexpr, PAGE_SIZE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_GROUPS: tl.constexpr, BLOCK_KEYS: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_BIAS: tl.constexpr, PARTIAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    sequence = tl.program_id(1).to(tl.int64)
    split = tl.program_id(2) % splits
    group = tl.program_id(2) // splits * BLOCK_GROUPS + tl.arange(0, BLOCK_GROUPS)
    query_head = head * GROUPS + group
    d = tl.arange(0, BLOCK_D)
    length = tl.load(lengths + sequence * lengths_stride + head * lengths_head_stride)
    slot = tl.load(slots + sequence).to(tl.int64)
    row = table + slot * table_stride + head.to(tl.int64) * table_head_stride

    oldest = 0
    if HAS_WINDOW:
        oldest = tl.maximum(length - window, 0)
    # Pieces are whole tiles of what this row really holds: a short row of a long batch leaves its last pieces empty.
    tiles = tl.cdiv(tl.maximum(length - oldest, 0), BLOCK_KEYS)
    tiles_each = tl.maximum(tl.cdiv(tiles, splits), 2)
    begin = oldest + split * tiles_each * BLOCK_KEYS
    end = tl.minimum(length, begin + tiles_each * BLOCK_KEYS)

    rows = (group < GROUPS)[:, None] & (d < D)[None, :]
    queries = tl.load(q + sequence * q_stride + query_head[:, None] * q_head_stride + d[None, :], mask=rows, other=0.0)
    top = tl.full((BLOCK_GROUPS,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_GROUPS,), tl.float32)
    acc = tl.zeros((BLOCK_GROUPS, BLOCK_D), tl.float32)
    top, total, acc = attend_range(
        queries, top, total, acc, begin, end, length, group, group, row, k_pages, v_pages, bias_pages, scale,
        PAGE_SIZE, D, BLOCK_D, BLOCK_KEYS, HAS_BIAS, True, False, False, PRECISION,
    )  # fmt: skip
    result, result_lse = finish(top, total, acc)
    if PARTIAL:
        place = (sequence * QUERY_HEADS + query_head) * splits + split
        tl.store(lse + place, result_lse, mask=group < GROUPS)
        tl.store(out + place[:, None] * D + d[None, :], result, mask=rows & (result_lse > float("-inf"))[:, None])
    else:
        tl.store(lse + sequence * lse_stride + query_head * lse_head_stride, result_lse * LN_2, mask=group < GROUPS)
        target = out + sequence * out_stride + query_head[:, None] * out_head_stride + d[None, :]
        tl.store(target, result.to(out.dtype.element_ty), mask=rows)


def decode_splits(sequences: int, heads: int, groups: int, head_dim: int, max_length: int, q: Tensor) -> int:
    """Into how many pieces `paged_decode` cuts rows of at most max_length keys: for sizing its workspace beforehand."""
    block_keys, _ = _tile(head_dim, q.element_size())
    blocks = ceil_div(groups, min(_MOST_GROUP_ROWS, next_power_of_two(groups)))
    return choose_splits(sequences * heads * blocks, max_length, block_keys, processors(q.device) * _RESIDENT)


def _tile(head_dim: int, element_size: int) -> tuple[int, int]:
    """Keys of a tile and stages of the pipeline.

    Page numbers and the keys that they name share the stages: five keep two tiles of keys and of values in flight, in
    at most 76 KiB, so that two programs share a processor of an A100 or H100; three keep one.
    """
    width = padded_head_dim(head_dim) * element_size
    return (64, 5) if width <= 256 else (32, 5) if width <= 512 else (16, 3)


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
    *,
    max_length: int | None = None,
    splits: int | None = None,
    out: Tensor | None = None,
    lse: Tensor | None = None,
    workspace: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`reference.paged_decode`: q [B, Hq, D], pages [pages, page_size, D], table int32 [S, H, max_pages] (a strided
    view of all layers' will do), slots int [B], lengths int32 [B, H], bias_pages float32 [pages, page_size] -> o [B,
    Hq, D], lse [B, Hq].

    max_length bounds the lengths (default: what the table's columns hold) and decides, with B, H and the GPU, the
    number of pieces; no length is read on the host. For a CUDA graph capture with the bound that its replays keep.
    `out` [B, Hq, D], `lse` float32 [B, Hq] and the flat float32 `workspace` are used where given; `decode_splits` and
    `workspace_elements` say how large the last must be.
    """
    sequences, query_heads, head_dim = q.shape
    heads, page_size = table.shape[1], k_pages.shape[1]
    check_pages(q, k_pages, v_pages, heads)
    groups = query_heads // heads
    out = torch.empty((sequences, query_heads, head_dim), dtype=q.dtype, device=q.device) if out is None else out
    lse = torch.empty((sequences, query_heads), dtype=torch.float32, device=q.device) if lse is None else lse
    check_rows(table, out, bias_pages)
    if sequences == 0:
        return out, lse
    bound = table.shape[2] * page_size if max_length is None else max_length
    bound = bound if window is None else min(bound, window)
    block_keys, stages = _tile(head_dim, q.element_size())
    group_rows = min(_MOST_GROUP_ROWS, next_power_of_two(groups))
    if splits is None:
        splits = decode_splits(sequences, heads, groups, head_dim, bound, q)
    part, part_lse = out, lse
    if splits > 1:
        part, part_lse = partial_results(workspace, sequences * query_heads, head_dim, splits, q)
    with on_device(q):
        _decode_kernel[(heads, sequences, splits * ceil_div(groups, group_rows))](
            q, k_pages, v_pages, k_pages if bias_pages is None else bias_pages, table, slots, lengths, part, part_lse,
            scale * LOG2_E.value, splits, window or 0,
            q.stride(0), q.stride(1), table.stride(0), table.stride(1), lengths.stride(0), lengths.stride(1),
            out.stride(0), out.stride(1), lse.stride(0), lse.stride(1),
            QUERY_HEADS=query_heads, GROUPS=groups, PAGE_SIZE=page_size, D=head_dim, BLOCK_D=padded_head_dim(head_dim),
            BLOCK_GROUPS=max(MIN_DOT, group_rows), BLOCK_KEYS=block_keys,
            HAS_WINDOW=window is not None, HAS_BIAS=bias_pages is not None, PARTIAL=splits > 1,
            PRECISION=dot_precision(q), num_warps=4, num_stages=stages, **FUSION,
        )  # fmt: skip
    if splits > 1:
        combine(part, part_lse, splits, out, lse)
    return out, lse
