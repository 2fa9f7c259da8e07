"""What a window of queries pays each entry of a row, without the w x n strip of attention weights ever being stored.

SnapKV (Li et al., 2024) and its relatives score the cache by the attention of the last few queries. A first pass over
the keys finds each query's log-sum-exp, cut into pieces as decoding is; a second computes the weights of a tile of keys
again, and sums them away in registers. Neighbours are pooled in that pass as well: tiles overlap by what a pool
reaches, so that each program has its own.
"""

# Kernels are typed by Triton when they are compiled; their arguments are many, and its constants are upper case.
# ruff: noqa: N803, PLR0917
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped, no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.kernels.compression_reference import OverGroup, OverWindow, Pooling
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
from lcdoc.local_engine.kernels.triton_softmax import LN_2, LOG2_E

# Programs that run on one processor at a time.
_RESIDENT = 2


@triton.jit
def load_keys(
    row, key, stored, k_pages, bias_pages,
    PAGE_SIZE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Keys [BLOCK_D, N] and their bias [N], times log2(e), of the row whose pages `row` points at; the bias of a key
    below 0, or at `stored` and beyond, is -inf and the key is not read."""
    d = tl.arange(0, BLOCK_D)
    there = (key >= 0) & (key < stored)
    page = tl.load(row + key // PAGE_SIZE, mask=there, other=0)
    # In 64 bits: a pool's elements soon pass 2^31.
    place = page.to(tl.int64) * PAGE_SIZE + key % PAGE_SIZE
    k = tl.load(k_pages + place[None, :] * D + d[:, None], mask=there[None, :] & (d < D)[:, None], other=0.0)
    if HAS_BIAS:
        bias = tl.load(bias_pages + place, mask=there, other=float("-inf")) * LOG2_E
    else:
        bias = tl.where(there, 0.0, float("-inf"))
    return k, bias


@triton.jit(do_not_specialize=["splits", "window", "positions_stride"])
def _window_lse_kernel(
    q, k_pages, bias_pages, table, lengths, positions, query_positions, part,
    scale, splits, window,
    q_stride, q_group_stride, q_window_stride, table_stride, positions_stride,
    GROUPS: tl.constexpr, PAGE_SIZE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_KEYS: tl.constexpr, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    split = tl.program_id(0)
    head = tl.program_id(2).to(tl.int64)
    length = tl.load(lengths + head).to(tl.int32)
    tiles_each = tl.cdiv(tl.cdiv(length, BLOCK_KEYS), splits)
    begin = split * tiles_each * BLOCK_KEYS
    end = tl.minimum(length, begin + tiles_each * BLOCK_KEYS)

    # All query heads of the group are rows of one product: each key is read once for them.
    query = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    known = query < GROUPS * window
    d = tl.arange(0, BLOCK_D)
    here = q + head * q_stride + query // window * q_group_stride + query % window * q_window_stride
    queries = tl.load(here[:, None] + d[None, :], mask=known[:, None] & (d < D)[None, :], other=0.0)
    seen_from = tl.load(query_positions + query % window)
    top = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_ROWS,), tl.float32)
    for first in range(begin, end, BLOCK_KEYS):
        key = first + tl.arange(0, BLOCK_KEYS)
        k, bias = load_keys(
            table + head * table_stride, key, length, k_pages, bias_pages, PAGE_SIZE, D, BLOCK_D, HAS_BIAS
        )
        position = tl.load(positions + head * positions_stride + key, mask=key < length, other=0)
        scores = tl.dot(queries, k, input_precision=PRECISION) * scale + bias[None, :]
        scores = tl.where(position[None, :] <= seen_from[:, None], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        # A query that has seen nothing yet has the top -inf, and -inf - -inf is NaN.
        base = tl.where(new_top == float("-inf"), 0.0, new_top)
        total = total * tl.exp2(top - base) + tl.sum(tl.exp2(scores - base[:, None]), axis=1)
        top = new_top
    lse = tl.where(total == 0.0, float("-inf"), (top + tl.log2(tl.where(total == 0.0, 1.0, total))) * LN_2)
    tl.store(part + (head * GROUPS * window + query) * splits + split, lse, mask=known)


@triton.jit(do_not_specialize=["window", "width", "positions_stride", "out_stride"])
def _window_scores_kernel(
    q, k_pages, bias_pages, table, lengths, pooled, positions, query_positions, lse, out,
    scale, window, width,
    q_stride, q_group_stride, q_window_stride, table_stride, positions_stride, out_stride,
    GROUPS: tl.constexpr, PAGE_SIZE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_KEYS: tl.constexpr, POOL: tl.constexpr,
    MAX_WINDOW: tl.constexpr, MAX_GROUP: tl.constexpr, MAX_POOL: tl.constexpr, HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    length = tl.load(lengths + head).to(tl.int32)
    reach: tl.constexpr = POOL // 2
    owned: tl.constexpr = BLOCK_KEYS - 2 * reach
    first = tl.program_id(0) * owned
    lane = tl.arange(0, BLOCK_KEYS)
    key = first - reach + lane
    owns = (lane >= reach) & (lane < reach + owned) & (key < width)
    target = out + head * out_stride + key
    if first >= length:
        tl.store(target, tl.full((BLOCK_KEYS,), float("-inf"), tl.float32), mask=owns)
        return

    d = tl.arange(0, BLOCK_D)
    k, bias = load_keys(table + head * table_stride, key, length, k_pages, bias_pages, PAGE_SIZE, D, BLOCK_D, HAS_BIAS)
    position = tl.load(positions + head * positions_stride + key, mask=(key >= 0) & (key < length), other=0)
    # Weights are never below 0, so that a maximum may begin there.
    score = tl.zeros((BLOCK_KEYS,), tl.float32)
    for group in range(GROUPS):
        paid = tl.zeros((BLOCK_KEYS,), tl.float32)
        for begin in range(0, window, BLOCK_ROWS):
            query = begin + tl.arange(0, BLOCK_ROWS)
            known = query < window
            here = q + head * q_stride + group * q_group_stride + query * q_window_stride
            queries = tl.load(here[:, None] + d[None, :], mask=known[:, None] & (d < D)[None, :], other=0.0)
            seen_from = tl.load(query_positions + query, mask=known, other=0)
            scores = tl.dot(queries, k, input_precision=PRECISION) * scale + bias[None, :]
            scores = tl.where(position[None, :] <= seen_from[:, None], scores, float("-inf"))
            place = (head * GROUPS + group) * window + query
            total = tl.load(lse + place, mask=known, other=float("-inf")) * LOG2_E
            # A query that sees no key pays nothing.
            total = tl.where(total == float("-inf"), float("inf"), total)
            weights = tl.exp2(scores - total[:, None])
            if MAX_WINDOW:
                paid = tl.maximum(paid, tl.max(weights, axis=0))
            else:
                paid += tl.sum(weights, axis=0)
        score = tl.maximum(score, paid) if MAX_GROUP else score + paid / GROUPS
    if POOL > 1:
        # Lane i of the pooled tile takes the lanes of the other within reach: a band matrix.
        meets = (key >= 0) & (key < tl.minimum(length, tl.load(pooled + head).to(tl.int32)))
        away = lane[:, None] - lane[None, :]
        band = (away <= reach) & (away >= -reach) & meets[None, :]
        near = tl.where(band, score[None, :], 0.0)
        smooth = tl.max(near, axis=1) if MAX_POOL else tl.sum(near, axis=1) / POOL
        score = tl.where(meets, smooth, score)
    tl.store(target, tl.where(key < length, score, float("-inf")), mask=owns)


def _tile(head_dim: int, element_size: int) -> tuple[int, int, int]:
    """Most rows of queries, keys of a tile and stages of the pipeline: the largest that compile without spilling (but
    for 256 numbers a head in float32, which hardly anybody asks of a GPU)."""
    width = padded_head_dim(head_dim)
    if element_size > 2:
        return (32, 32, 3) if width <= 64 else (16, 32, 3) if width <= 128 else (16, 16, 3)
    return (64, 64, 3) if width <= 128 else (32, 64, 3)


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
    *,
    out: Tensor | None = None,
) -> Tensor:
    """`compression_reference.window_scores`: q [H, G, w, D] (may be strided), k_pages [pages, page_size, D], table
    int32 [H, max_pages], lengths and pooled int [H], positions int [H, n], query_positions int [w] -> float32 [H, n],
    in `out` where given.

    n bounds the lengths. A pool is odd and at most 15 wide. Nothing is read on the host.
    """
    heads, groups, window, head_dim = q.shape
    page_size, width = k_pages.shape[1], positions.shape[1]
    check_pages(q[:, :, 0].flatten(0, 1) if window else q, k_pages, k_pages, heads)
    check_rows(q, table, lengths, pooled, positions, query_positions, bias_pages, out)
    if pool % 2 == 0 or not 1 <= pool <= 15:
        raise EngineError(f"a pool of {pool} entries: the kernel takes odd numbers from 1 to 15")
    if window == 0:
        raise EngineError("a window without queries scores nothing: at least one query is needed")
    out = torch.empty((heads, width), dtype=torch.float32, device=q.device) if out is None else out
    if heads == 0 or width == 0:
        return out
    most_rows, block_keys, stages = _tile(head_dim, q.element_size())
    rows = max(MIN_DOT, min(most_rows, next_power_of_two(groups * window)))
    row_blocks = ceil_div(groups * window, rows)
    splits = choose_splits(heads * row_blocks, width, block_keys, processors(q.device) * _RESIDENT)
    part = torch.empty((heads, groups * window, splits), dtype=torch.float32, device=q.device)
    bias = k_pages if bias_pages is None else bias_pages
    block_d, precision = padded_head_dim(head_dim), dot_precision(q)
    with on_device(q):
        _window_lse_kernel[(splits, row_blocks, heads)](
            q, k_pages, bias, table, lengths, positions, query_positions, part, scale * LOG2_E.value, splits, window,
            q.stride(0), q.stride(1), q.stride(2), table.stride(0), positions.stride(0),
            GROUPS=groups, PAGE_SIZE=page_size, D=head_dim, BLOCK_D=block_d, BLOCK_ROWS=rows, BLOCK_KEYS=block_keys,
            HAS_BIAS=bias_pages is not None, PRECISION=precision, num_warps=4, num_stages=stages, **FUSION,
        )  # fmt: skip
        lse = part.logsumexp(-1)
        _window_scores_kernel[(ceil_div(width, block_keys - pool + 1), heads)](
            q, k_pages, bias, table, lengths, lengths if pooled is None else pooled, positions, query_positions, lse,
            out, scale * LOG2_E.value, window, width,
            q.stride(0), q.stride(1), q.stride(2), table.stride(0), positions.stride(0), out.stride(0),
            GROUPS=groups, PAGE_SIZE=page_size, D=head_dim, BLOCK_D=block_d,
            BLOCK_ROWS=max(MIN_DOT, min(most_rows, next_power_of_two(window))), BLOCK_KEYS=block_keys,
            POOL=pool, MAX_WINDOW=over_window == "max", MAX_GROUP=over_group == "max", MAX_POOL=pooling == "max",
            HAS_BIAS=bias_pages is not None, PRECISION=precision, num_warps=4, num_stages=stages, **FUSION,
        )  # fmt: skip
    return out
