"""The attention that each entry got from a chunk of queries, by a second pass that needs no strip of weights.

H2O (Zhang et al., 2023) sums attention over all queries. Flash attention never holds those weights, but it leaves each
query's log-sum-exp, and with that a weight is one product and one power away. A program takes a tile of keys and walks
over the queries that see it: keys stay, queries pass, and the sums are in one order whatever else runs.
"""

# Kernels are typed by Triton when they are compiled; their arguments are many, and its constants are upper case.
# ruff: noqa: N803, PLR0917
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped, no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.kernels.launch import (
    FUSION,
    MIN_DOT,
    ceil_div,
    check_pages,
    check_rows,
    dot_precision,
    next_power_of_two,
    on_device,
    padded_head_dim,
    processors,
)
from lcdoc.local_engine.kernels.triton_softmax import LOG2_E


@triton.jit(do_not_specialize=["tokens", "window", "width", "mass_stride"])
def _attention_mass_kernel(
    mass, q, lse, k_pages, bias_pages, table, lengths,
    scale, tokens, window, width,
    mass_stride, q_stride, q_head_stride, lse_stride, lse_head_stride, table_stride,
    GROUPS: tl.constexpr, PAGE_SIZE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_KEYS: tl.constexpr,
    HAS_WINDOW: tl.constexpr, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    past = tl.load(lengths + head).to(tl.int32)
    stored = tl.minimum(past + tokens, width)
    first_key = tl.program_id(0) * BLOCK_KEYS
    if first_key >= stored:
        return
    key = first_key + tl.arange(0, BLOCK_KEYS)
    there = key < stored
    d = tl.arange(0, BLOCK_D)
    page = tl.load(table + head * table_stride + key // PAGE_SIZE, mask=there, other=0)
    # In 64 bits: a pool's elements soon pass 2^31.
    place = page.to(tl.int64) * PAGE_SIZE + key % PAGE_SIZE
    k = tl.load(k_pages + place[:, None] * D + d[None, :], mask=there[:, None] & (d < D)[None, :], other=0.0)
    if HAS_BIAS:
        bias = tl.load(bias_pages + place, mask=there, other=0.0) * LOG2_E

    # Token t of the chunk sees keys up to past + t, so that a key's first token is key - past.
    begin = tl.maximum(first_key - past, 0) * GROUPS // BLOCK_ROWS * BLOCK_ROWS
    end = tokens * GROUPS
    if HAS_WINDOW:
        end = tl.minimum(end, tl.maximum(first_key + BLOCK_KEYS - 1 - past + window, 0) * GROUPS)
    paid = tl.zeros((BLOCK_KEYS, BLOCK_ROWS), tl.float32)
    for start in range(begin, end, BLOCK_ROWS):
        row = start + tl.arange(0, BLOCK_ROWS)
        token = row // GROUPS
        known = token < tokens
        wide = token.to(tl.int64)
        query_head = head * GROUPS + row % GROUPS
        here = q + wide * q_stride + query_head * q_head_stride
        queries = tl.load(here[None, :] + d[:, None], mask=known[None, :] & (d < D)[:, None], other=0.0)
        total = tl.load(lse + wide * lse_stride + query_head * lse_head_stride, mask=known, other=float("inf"))
        # A query that sees no key pays nothing.
        total = tl.where(total == float("-inf"), float("inf"), total * LOG2_E)
        scores = tl.dot(k, queries, input_precision=PRECISION) * scale
        if HAS_BIAS:
            scores += bias[:, None]
        visible = key[:, None] <= (past + token)[None, :]
        if HAS_WINDOW:
            visible = visible & (key[:, None] > (past + token - window)[None, :])
        # Masked before the power, which of an unseen pair may overflow.
        paid += tl.exp2(tl.where(visible, scores - total[None, :], float("-inf")))
    target = mass + head * mass_stride + key
    tl.store(target, tl.load(target, mask=there, other=0.0) + tl.sum(paid, axis=1) / GROUPS, mask=there)


def _tile(rows: int, heads: int, width: int, head_dim: int, q: Tensor) -> tuple[int, int, int]:
    """Rows of queries and keys of a tile, and stages: fewer keys where large tiles would leave processors idle."""
    padded = padded_head_dim(head_dim)
    if q.element_size() > 2:
        most, stages = (32, 3) if padded <= 64 else (16, 3)
    else:
        most, stages = (64, 3) if padded <= 128 else (32, 3)
    keys = most
    while keys > MIN_DOT and heads * ceil_div(width, keys) < processors(q.device):
        keys //= 2
    return max(MIN_DOT, min(most, next_power_of_two(rows))), keys, stages


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
    """`compression_reference.add_attention_mass`: mass float32 [H, n], which is added to and returned, q [T, Hq, D] and
    lse float32 [T, Hq] as `paged_prefill` took and gave them, k_pages [pages, page_size, D], table int32 [H,
    max_pages], lengths int [H], the entries before the chunk.

    n bounds the entries, the chunk's included. Nothing is read on the host.
    """
    tokens, query_heads, head_dim = q.shape
    heads, width = mass.shape
    check_pages(q, k_pages, k_pages, heads)
    check_rows(mass, table, lengths, bias_pages)
    if table.shape[0] != heads or lse.shape != q.shape[:2]:
        raise EngineError(
            f"mass {tuple(mass.shape)}, table {tuple(table.shape)} and log-sum-exp {tuple(lse.shape)} "
            f"do not fit queries {tuple(q.shape)}: they need one row a KV head and one number a query"
        )
    if tokens == 0 or heads == 0 or width == 0:
        return mass
    groups = query_heads // heads
    rows, keys, stages = _tile(tokens * groups, heads, width, head_dim, q)
    with on_device(q):
        _attention_mass_kernel[(ceil_div(width, keys), heads)](
            mass, q, lse, k_pages, k_pages if bias_pages is None else bias_pages, table, lengths,
            scale * LOG2_E.value, tokens, window or 0, width,
            mass.stride(0), q.stride(0), q.stride(1), lse.stride(0), lse.stride(1), table.stride(0),
            GROUPS=groups, PAGE_SIZE=k_pages.shape[1], D=head_dim, BLOCK_D=padded_head_dim(head_dim),
            BLOCK_ROWS=rows, BLOCK_KEYS=keys, HAS_WINDOW=window is not None, HAS_BIAS=bias_pages is not None,
            PRECISION=dot_precision(q), num_warps=4, num_stages=stages, **FUSION,
        )  # fmt: skip
    return mass
