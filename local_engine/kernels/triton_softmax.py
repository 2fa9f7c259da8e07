"""The heart of both attention kernels: a tile of query rows meets a range of one row of the paged cache.

Online softmax as in FlashAttention-2 (Dao, 2023), in powers of two, over pages as in PagedAttention (Kwon et al.,
2023). A tile of keys has its own size, whatever the page's: each key looks its page up, which the compiler pipelines
ahead of the keys.
"""

# Kernels are typed by Triton when they are compiled; their arguments are many, and its constants are upper case.
# ruff: noqa: N803, PLR0917
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped, no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def attend_range(
    q, top, total, acc, begin, end, stored, first, last,
    row, k_pages, v_pages, bias_pages, scale,
    PAGE_SIZE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_KEYS: tl.constexpr,
    HAS_BIAS: tl.constexpr, GUARDED: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Take keys [begin, end) into the running softmax (top, total [M] and acc [M, BLOCK_D]) of the queries q [M,
    BLOCK_D].

    row points at the row's list of pages. scale is the softmax's, times log2(e), and so is `top`, the running
    maximum. GUARDED: keys at `stored` and beyond, which the last tile may reach, are not read. CAUSAL, WINDOWED:
    query i sees keys below last[i], from first[i] on. Without any of the three every query sees every key, and end -
    begin must be whole tiles.
    """
    d = tl.arange(0, BLOCK_D)
    for start in range(begin, end, BLOCK_KEYS):
        key = start + tl.arange(0, BLOCK_KEYS)
        if GUARDED:
            there = key < stored
            page = tl.load(row + key // PAGE_SIZE, mask=there, other=0)
        else:
            page = tl.load(row + key // PAGE_SIZE)
        # In 64 bits: a pool's elements soon pass 2^31.
        place = page.to(tl.int64) * PAGE_SIZE + key % PAGE_SIZE

        k_tile = k_pages + place[None, :] * D + d[:, None]
        v_tile = v_pages + place[:, None] * D + d[None, :]
        # What is not read counts as 0: the rest of a last page may hold anything, and 0 * NaN is NaN.
        if GUARDED:
            k = tl.load(k_tile, mask=there[None, :] & (d < D)[:, None], other=0.0)
            v = tl.load(v_tile, mask=there[:, None] & (d < D)[None, :], other=0.0)
        elif BLOCK_D != D:
            k = tl.load(k_tile, mask=(d < D)[:, None], other=0.0)
            v = tl.load(v_tile, mask=(d < D)[None, :], other=0.0)
        else:
            k = tl.load(k_tile)
            v = tl.load(v_tile)

        scores = tl.dot(q, k, input_precision=PRECISION) * scale
        if HAS_BIAS:
            bias = tl.load(bias_pages + place, mask=there, other=0.0) if GUARDED else tl.load(bias_pages + place)
            scores += bias[None, :] * LOG2_E
        if GUARDED:
            scores = tl.where(there[None, :], scores, float("-inf"))
        if CAUSAL:
            scores = tl.where(key[None, :] < last[:, None], scores, float("-inf"))
        if WINDOWED:
            scores = tl.where(key[None, :] >= first[:, None], scores, float("-inf"))

        new_top = tl.maximum(top, tl.max(scores, axis=1))
        # A row that has seen nothing yet has the top -inf, and -inf - -inf is NaN.
        base = tl.where(new_top == float("-inf"), 0.0, new_top)
        weights = tl.exp2(scores - base[:, None])
        shrink = tl.exp2(top - base)
        total = total * shrink + tl.sum(weights, axis=1)
        acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
        top = new_top
    return top, total, acc


@triton.jit
def finish(top, total, acc):
    """The output [M, BLOCK_D] and the log-sum-exp [M] in units of log2; 0 and -inf for a query that saw no key."""
    nothing = total == 0.0
    divisor = tl.where(nothing, 1.0, total)
    lse = tl.where(nothing, float("-inf"), top + tl.log2(divisor))
    return acc / divisor[:, None], lse
