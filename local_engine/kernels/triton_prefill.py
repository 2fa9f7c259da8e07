"""Attention of a chunk of tokens a sequence over the paged cache: causal inside the chunk, everything before it in
sight.

FlashAttention-2 (Dao, 2023) over pages. The rows of a tile are pairs of token and query head, token-major, so that
the heads that share a KV head read each key once and a short chunk still fills a tile. A tile's keys fall into three
ranges: the edge of the sliding window, the keys that all its rows see (no mask at all), and the causal diagonal; what
lies before the window is never read. Chunks too few to fill the GPU, such as drafts under verification, cut the past
into pieces as decoding does.
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
    capability,
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


@triton.jit(do_not_specialize=["splits", "window"])
def _prefill_kernel(
    q, k_pages, v_pages, bias_pages, table, slots, query_starts, lengths, out, lse,
    scale, splits, window,
    q_stride, q_head_stride, table_stride, table_head_stride, lengths_stride, lengths_head_stride,
    out_stride, out_head_stride, lse_stride, lse_head_stride,
    QUERY_HEADS: tl.constexpr, GROUPS: tl.constexpr, PAGE_SIZE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_KEYS: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_BIAS: tl.constexpr, PARTIAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    # The last tile of a chunk sees the most keys: it goes first, and the short ones fill the gaps at the end.
    tile = tl.num_programs(0) // splits - 1 - tl.program_id(0) // splits
    split = tl.program_id(0) % splits
    head = tl.program_id(1)
    sequence = tl.program_id(2).to(tl.int64)
    start = tl.load(query_starts + sequence)
    tokens = tl.load(query_starts + sequence + 1) - start
    if tile * BLOCK_ROWS >= tokens * GROUPS:
        return
    past = tl.load(lengths + sequence * lengths_stride + head * lengths_head_stride)
    slot = tl.load(slots + sequence).to(tl.int64)
    table_row = table + slot * table_stride + head.to(tl.int64) * table_head_stride

    row = tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    token = row // GROUPS
    query_head = head * GROUPS + row % GROUPS
    query = (start + token).to(tl.int64)
    last = past + token + 1
    first = last - window
    # What the tile's first and last tokens see bounds what any, and what all, of its rows see.
    low = past + tile * BLOCK_ROWS // GROUPS + 1
    high = past + tl.minimum((tile * BLOCK_ROWS + BLOCK_ROWS - 1) // GROUPS, tokens - 1) + 1
    begin = 0
    all_from = 0
    if HAS_WINDOW:
        begin = tl.maximum(low - window, 0) // BLOCK_KEYS * BLOCK_KEYS
        all_from = tl.cdiv(tl.maximum(high - window, 0), BLOCK_KEYS) * BLOCK_KEYS
    all_to = low // BLOCK_KEYS * BLOCK_KEYS
    piece = tl.cdiv(tl.cdiv(high - begin, BLOCK_KEYS), splits) * BLOCK_KEYS
    begin += split * piece
    end = tl.minimum(high, begin + piece)
    diagonal = tl.minimum(tl.maximum(all_to, begin), end)
    inner = tl.minimum(tl.maximum(all_from, begin), diagonal)

    d = tl.arange(0, BLOCK_D)
    rows = (token < tokens)[:, None] & (d < D)[None, :]
    queries = tl.load(
        q + query[:, None] * q_stride + query_head[:, None] * q_head_stride + d[None, :], mask=rows, other=0.0
    )
    top = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_ROWS,), tl.float32)
    acc = tl.zeros((BLOCK_ROWS, BLOCK_D), tl.float32)
    if HAS_WINDOW:
        top, total, acc = attend_range(
            queries, top, total, acc, begin, inner, high, first, last, table_row, k_pages, v_pages, bias_pages, scale,
            PAGE_SIZE, D, BLOCK_D, BLOCK_KEYS, HAS_BIAS, True, True, True, PRECISION,
        )  # fmt: skip
    top, total, acc = attend_range(
        queries, top, total, acc, inner, diagonal, high, first, last, table_row, k_pages, v_pages, bias_pages, scale,
        PAGE_SIZE, D, BLOCK_D, BLOCK_KEYS, HAS_BIAS, False, False, False, PRECISION,
    )  # fmt: skip
    top, total, acc = attend_range(
        queries, top, total, acc, diagonal, end, high, first, last, table_row, k_pages, v_pages, bias_pages, scale,
        PAGE_SIZE, D, BLOCK_D, BLOCK_KEYS, HAS_BIAS, True, True, HAS_WINDOW, PRECISION,
    )  # fmt: skip
    result, result_lse = finish(top, total, acc)
    if PARTIAL:
        place = (query * QUERY_HEADS + query_head) * splits + split
        tl.store(lse + place, result_lse, mask=token < tokens)
        tl.store(out + place[:, None] * D + d[None, :], result, mask=rows & (result_lse > float("-inf"))[:, None])
    else:
        tl.store(lse + query * lse_stride + query_head * lse_head_stride, result_lse * LN_2, mask=token < tokens)
        target = out + query[:, None] * out_stride + query_head[:, None] * out_head_stride + d[None, :]
        tl.store(target, result.to(out.dtype.element_ty), mask=rows)


def _tile(rows: int, head_dim: int, q: Tensor) -> tuple[int, int, int, int]:
    """Rows and keys of a tile, warps, and stages, for at most `rows` rows: the largest that compile without spilling.

    Datacenter GPUs from Hopper on have matrix units that read shared memory, and 227 KiB of it; others get less than
    100 KiB.
    """
    width = padded_head_dim(head_dim)
    large = capability(q.device)[0] in {9, 10}
    if q.element_size() > 2:
        most, keys, warps, stages = (
            (32, 32, 4, 3) if width <= 64 else (16, 32, 4, 3) if width <= 128 else (16, 16, 4, 3)
        )
    elif width <= 64:
        most, keys, warps, stages = 128, 64 if large else 32, 4, 5 if large else 4
    elif width <= 128:
        most, keys, warps, stages = (128, 64, 8, 5) if large else (128, 32, 8, 4)
    else:
        most, keys, warps, stages = 64, 32, 8, 3
    tile_rows = min(most, max(MIN_DOT, next_power_of_two(rows)))
    return tile_rows, keys, warps if tile_rows == most else 4, stages


def prefill_splits(
    sequences: int, heads: int, groups: int, head_dim: int, max_query: int, max_length: int, q: Tensor
) -> int:
    """Into how many pieces `paged_prefill` cuts rows of at most max_length keys, the chunk's own included."""
    tile_rows, tile_keys, _, _ = _tile(max_query * groups, head_dim, q)
    tiles = sequences * heads * ceil_div(max_query * groups, tile_rows)
    count = processors(q.device)
    # Once half the GPU works, a partial result of every query costs more than the idle half.
    return 1 if 2 * tiles >= count else choose_splits(tiles, max_length, tile_keys, count, most=64, least_tiles=4)


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
    *,
    max_query: int,
    max_length: int | None = None,
    splits: int | None = None,
    out: Tensor | None = None,
    lse: Tensor | None = None,
    workspace: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`reference.paged_prefill`: q [T, Hq, D], pages [pages, page_size, D], table int32 [S, H, max_pages] (may be
    strided), slots int [B], query_starts int32 [B + 1], lengths int32 [B, H], the keys before the chunk, bias_pages
    float32 [pages, page_size] -> o [T, Hq, D], lse float32 [T, Hq].

    max_query bounds the tokens of one sequence's chunk (it sizes the grid: tokens beyond it would get no result),
    max_length the keys of a row, chunk included (default: what the table's columns hold). Nothing is read on the
    host. `out`, `lse` and the flat float32 `workspace` are used where given; `prefill_splits` and
    `workspace_elements` (of T * Hq queries) size it.
    """
    tokens, query_heads, head_dim = q.shape
    sequences, heads, page_size = slots.shape[0], table.shape[1], k_pages.shape[1]
    check_pages(q, k_pages, v_pages, heads)
    groups = query_heads // heads
    out = torch.empty((tokens, query_heads, head_dim), dtype=q.dtype, device=q.device) if out is None else out
    lse = torch.empty((tokens, query_heads), dtype=torch.float32, device=q.device) if lse is None else lse
    check_rows(table, out, bias_pages)
    if tokens == 0 or sequences == 0:
        return out, lse
    if splits is None:
        bound = table.shape[2] * page_size if max_length is None else max_length
        bound = bound if window is None else min(bound, window + max_query)
        splits = prefill_splits(sequences, heads, groups, head_dim, max_query, bound, q)
    tile_rows, tile_keys, warps, stages = _tile(max_query * groups, head_dim, q)
    part, part_lse = out, lse
    if splits > 1:
        part, part_lse = partial_results(workspace, tokens * query_heads, head_dim, splits, q)
    with on_device(q):
        _prefill_kernel[(ceil_div(max_query * groups, tile_rows) * splits, heads, sequences)](
            q, k_pages, v_pages, k_pages if bias_pages is None else bias_pages,
            table, slots, query_starts, lengths, part, part_lse, scale * LOG2_E.value, splits, window or 0,
            q.stride(0), q.stride(1), table.stride(0), table.stride(1), lengths.stride(0), lengths.stride(1),
            out.stride(0), out.stride(1), lse.stride(0), lse.stride(1),
            QUERY_HEADS=query_heads, GROUPS=groups, PAGE_SIZE=page_size, D=head_dim, BLOCK_D=padded_head_dim(head_dim),
            BLOCK_ROWS=tile_rows, BLOCK_KEYS=tile_keys,
            HAS_WINDOW=window is not None, HAS_BIAS=bias_pages is not None, PARTIAL=splits > 1,
            PRECISION=dot_precision(q), num_warps=warps, num_stages=stages, **FUSION,
        )  # fmt: skip
    if splits > 1:
        combine(part, part_lse, splits, out, lse)
    return out, lse
