"""What a window of queries pays each entry of a row, without the w x n strip of attention weights ever being stored.

SnapKV (Li et al., 2024) and its relatives score the cache by the attention of the last few queries. A first pass over
the keys finds each query's log-sum-exp, cut into pieces as decoding is; a second computes the weights of a tile of keys
again, and sums them away in registers. Between the two stands what else a query attends to, or by how much it counts:
both are a number for each query, added to its log-sum-exp.

Neighbours are pooled by PyTorch afterwards: a score is one number where a key is a hundred.
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
from lcdoc.local_engine.kernels.compression_reference import OverGroup, OverWindow
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
# No distance is longer: positions are compared in 32 bits.
_ANY = (1 << 31) - 1


@triton.jit
def load_keys(
    row, key, stored, k_pages, bias,
    PAGE_SIZE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Keys [BLOCK_D, N] and their bias [N], times log2(e), of the row whose pages `row` and whose biases `bias` points
    at; the bias of a key at `stored` and beyond is -inf and the key is not read."""
    d = tl.arange(0, BLOCK_D)
    there = key < stored
    page = tl.load(row + key // PAGE_SIZE, mask=there, other=0)
    # In 64 bits: a pool's elements soon pass 2^31.
    place = page.to(tl.int64) * PAGE_SIZE + key % PAGE_SIZE
    k = tl.load(k_pages + place[None, :] * D + d[:, None], mask=there[None, :] & (d < D)[:, None], other=0.0)
    if HAS_BIAS:
        added = tl.load(bias + key, mask=there, other=float("-inf")) * LOG2_E
    else:
        added = tl.where(there, 0.0, float("-inf"))
    return k, added


@triton.jit(do_not_specialize=["splits", "window", "reach", "positions_stride", "bias_stride"])
def _window_lse_kernel(
    q, k_pages, bias, table, lengths, positions, query_positions, part,
    scale, splits, window, reach,
    q_stride, q_group_stride, q_window_stride, table_stride, positions_stride, bias_stride,
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
    seen_from = tl.load(query_positions + query % window).to(tl.int32)
    top = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_ROWS,), tl.float32)
    for first in range(begin, end, BLOCK_KEYS):
        key = first + tl.arange(0, BLOCK_KEYS)
        k, added = load_keys(
            table + head * table_stride, key, length, k_pages, bias + head * bias_stride,
            PAGE_SIZE, D, BLOCK_D, HAS_BIAS,
        )  # fmt: skip
        position = tl.load(positions + head * positions_stride + key, mask=key < length, other=0).to(tl.int32)
        scores = tl.dot(queries, k, input_precision=PRECISION) * scale + added[None, :]
        away = seen_from[:, None] - position[None, :]
        scores = tl.where((away >= 0) & (away < reach), scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        # A query that has seen nothing yet has the top -inf, and -inf - -inf is NaN.
        base = tl.where(new_top == float("-inf"), 0.0, new_top)
        total = total * tl.exp2(top - base) + tl.sum(tl.exp2(scores - base[:, None]), axis=1)
        top = new_top
    lse = tl.where(total == 0.0, float("-inf"), (top + tl.log2(tl.where(total == 0.0, 1.0, total))) * LN_2)
    tl.store(part + (head * GROUPS * window + query) * splits + split, lse, mask=known)


@triton.jit(do_not_specialize=["window", "width", "positions_stride", "bias_stride", "out_stride"])
def _window_scores_kernel(
    q, k_pages, bias, table, lengths, positions, query_positions, lse, out,
    scale, window, width,
    q_stride, q_group_stride, q_window_stride, table_stride, positions_stride, bias_stride, out_stride,
    GROUPS: tl.constexpr, PAGE_SIZE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_KEYS: tl.constexpr, MAX_WINDOW: tl.constexpr, MAX_GROUP: tl.constexpr,
    HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    length = tl.load(lengths + head).to(tl.int32)
    first = tl.program_id(0) * BLOCK_KEYS
    key = first + tl.arange(0, BLOCK_KEYS)
    target = out + head * out_stride + key
    if first >= length:
        tl.store(target, tl.full((BLOCK_KEYS,), float("-inf"), tl.float32), mask=key < width)
        return

    d = tl.arange(0, BLOCK_D)
    k, added = load_keys(
        table + head * table_stride, key, length, k_pages, bias + head * bias_stride, PAGE_SIZE, D, BLOCK_D, HAS_BIAS
    )
    position = tl.load(positions + head * positions_stride + key, mask=key < length, other=0).to(tl.int32)
    # Weights are never below 0, so that a maximum may begin there.
    score = tl.zeros((BLOCK_KEYS,), tl.float32)
    for group in range(GROUPS):
        paid = tl.zeros((BLOCK_KEYS,), tl.float32)
        for begin in range(0, window, BLOCK_ROWS):
            query = begin + tl.arange(0, BLOCK_ROWS)
            known = query < window
            here = q + head * q_stride + group * q_group_stride + query * q_window_stride
            queries = tl.load(here[:, None] + d[None, :], mask=known[:, None] & (d < D)[None, :], other=0.0)
            seen_from = tl.load(query_positions + query, mask=known, other=0).to(tl.int32)
            scores = tl.dot(queries, k, input_precision=PRECISION) * scale + added[None, :]
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
    tl.store(target, tl.where(key < length, score, float("-inf")), mask=key < width)


def _tile(head_dim: int, element_size: int) -> tuple[int, int, int]:
    """Most rows of queries, keys of a tile and stages of the pipeline: the largest that compile without spilling (but
    for 256 numbers a head in float32, which hardly anybody asks of a GPU)."""
    width = padded_head_dim(head_dim)
    if element_size > 2:
        return (32, 32, 3) if width <= 64 else (16, 32, 3) if width <= 128 else (16, 16, 3)
    return (64, 64, 3) if width <= 128 else (32, 64, 3)


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
    """`compression_reference.window_lse`: q [H, G, w, D] (may be strided), k_pages [pages, page_size, D], table int
    [H, max_pages], lengths int [H], positions int [H, n], query_positions int [w], bias float32 [H, n] -> float32 [H,
    G, w].

    n bounds the lengths. Nothing is read on the host.
    """
    heads, groups, window, head_dim = q.shape
    width = positions.shape[1]
    _check(q, k_pages, table, lengths, positions, query_positions, bias)
    most_rows, block_keys, stages = _tile(head_dim, q.element_size())
    rows = max(MIN_DOT, min(most_rows, next_power_of_two(groups * window)))
    row_blocks = ceil_div(groups * window, rows)
    splits = choose_splits(heads * row_blocks, max(1, width), block_keys, processors(q.device) * _RESIDENT)
    part = torch.empty((heads, groups, window, splits), dtype=torch.float32, device=q.device)
    if heads and width:
        with on_device(q):
            _window_lse_kernel[(splits, row_blocks, heads)](
                q, k_pages, k_pages if bias is None else bias, table, lengths, positions, query_positions, part,
                scale * LOG2_E.value, splits, window, _ANY if reach is None else reach,
                q.stride(0), q.stride(1), q.stride(2), table.stride(0), positions.stride(0),
                0 if bias is None else bias.stride(0),
                GROUPS=groups, PAGE_SIZE=k_pages.shape[1], D=head_dim, BLOCK_D=padded_head_dim(head_dim),
                BLOCK_ROWS=rows, BLOCK_KEYS=block_keys, HAS_BIAS=bias is not None, PRECISION=dot_precision(q),
                num_warps=4, num_stages=stages, **FUSION,
            )  # fmt: skip
    else:
        part.fill_(-torch.inf)
    return part.logsumexp(-1)


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
    *,
    out: Tensor | None = None,
) -> Tensor:
    """`compression_reference.window_scores`: as for `window_lse`, lse float32 [H, G, w] -> float32 [H, n], in `out`
    where given."""
    heads, groups, window, head_dim = q.shape
    width = positions.shape[1]
    _check(q, k_pages, table, lengths, positions, query_positions, bias)
    check_rows(out)
    if lse.shape != q.shape[:3]:
        raise EngineError(f"log-sum-exps {tuple(lse.shape)} do not fit queries {tuple(q.shape)}: each needs one")
    out = torch.empty((heads, width), dtype=torch.float32, device=q.device) if out is None else out
    if heads == 0 or width == 0:
        return out
    most_rows, block_keys, stages = _tile(head_dim, q.element_size())
    with on_device(q):
        _window_scores_kernel[(ceil_div(width, block_keys), heads)](
            q, k_pages, k_pages if bias is None else bias, table, lengths, positions, query_positions,
            lse.contiguous(), out, scale * LOG2_E.value, window, width,
            q.stride(0), q.stride(1), q.stride(2), table.stride(0), positions.stride(0),
            0 if bias is None else bias.stride(0), out.stride(0),
            GROUPS=groups, PAGE_SIZE=k_pages.shape[1], D=head_dim, BLOCK_D=padded_head_dim(head_dim),
            BLOCK_ROWS=max(MIN_DOT, min(most_rows, next_power_of_two(window))), BLOCK_KEYS=block_keys,
            MAX_WINDOW=over_window == "max", MAX_GROUP=over_group == "max",
            HAS_BIAS=bias is not None, PRECISION=dot_precision(q), num_warps=4, num_stages=stages, **FUSION,
        )  # fmt: skip
    return out


def _check(q: Tensor, k_pages: Tensor, table: Tensor, *rows: Tensor | None) -> None:
    if q.shape[2] == 0:
        raise EngineError("a window without queries scores nothing: at least one query is needed")
    check_pages(q[:, :, 0], k_pages, k_pages, 1)
    check_rows(q, table, *rows)
