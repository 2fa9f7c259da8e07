"""Neighbouring keys that are alike, and the merging of their runs (KVMerger, Wang et al., 2024).

Two kernels: the cosine of each key and its successor, from which runs are cut, and the Gaussian sum of a run at its
pivot. Both read keys where they lie in the cache; what lies between them, choosing runs and pivots, is a few numbers
for each entry and PyTorch's work.
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
from lcdoc.local_engine.kernels.launch import FUSION, ceil_div, check_pool, check_rows, on_device, padded_head_dim
from lcdoc.local_engine.kernels.triton_softmax import LOG2_E

# Elements of keys that a program of the first kernel compares.
_PROGRAM_ELEMENTS = 4096
# Entries of a run that one step of the second takes; most runs are short.
_BLOCK_MEMBERS = 8


@triton.jit
def load_entries(pages, row, entry, there, d, PAGE_SIZE: tl.constexpr, D: tl.constexpr):
    """Entries [N] of the row whose pages `row` points at, [N, BLOCK_D] float32; 0 where they are not `there`."""
    page = tl.load(row + entry // PAGE_SIZE, mask=there, other=0)
    # In 64 bits: a pool's elements soon pass 2^31.
    place = page.to(tl.int64) * PAGE_SIZE + entry % PAGE_SIZE
    inside = there[:, None] & (d < D)[None, :]
    return tl.load(pages + place[:, None] * D + d[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["width", "out_stride"])
def _similarity_kernel(
    k_pages, table, lengths, out, width, table_stride, out_stride,
    PAGE_SIZE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_KEYS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    length = tl.load(lengths + head).to(tl.int32)
    row = table + head * table_stride
    d = tl.arange(0, BLOCK_D)
    key = tl.program_id(0) * BLOCK_KEYS + tl.arange(0, BLOCK_KEYS)
    paired = key + 1 < length
    # The successors are the tile once more, one further: it comes from the cache, with no shuffling of lanes.
    k = load_entries(k_pages, row, key, paired, d, PAGE_SIZE, D)
    following = load_entries(k_pages, row, key + 1, paired, d, PAGE_SIZE, D)
    # Roots before the product, which could leave float32's range.
    norms = tl.sqrt(tl.sum(k * k, axis=1)) * tl.sqrt(tl.sum(following * following, axis=1))
    cosine = tl.sum(k * following, axis=1) / tl.where(norms == 0.0, 1.0, norms)
    tl.store(out + head * out_stride + key, tl.where(paired, cosine, float("-inf")), mask=key < width)


def adjacent_similarity(
    k_pages: Tensor, table: Tensor, lengths: Tensor, width: int, *, out: Tensor | None = None
) -> Tensor:
    """`compression_reference.adjacent_similarity`: k_pages [pages, page_size, D], table int32 [H, max_pages], lengths
    int [H] -> float32 [H, width], in `out` where given."""
    heads, (page_size, head_dim) = table.shape[0], k_pages.shape[1:]
    check_pool(k_pages, k_pages, head_dim)
    out = torch.empty((heads, width), dtype=torch.float32, device=k_pages.device) if out is None else out
    check_rows(table, lengths, out)
    if heads == 0 or width == 0:
        return out
    block_d = padded_head_dim(head_dim)
    block_keys = max(1, _PROGRAM_ELEMENTS // block_d)
    with on_device(k_pages):
        _similarity_kernel[(ceil_div(width, block_keys), heads)](
            k_pages, table, lengths, out, width, table.stride(0), out.stride(0),
            PAGE_SIZE=page_size, D=head_dim, BLOCK_D=block_d, BLOCK_KEYS=block_keys, num_warps=4, **FUSION,
        )  # fmt: skip
    return out


@triton.jit(do_not_specialize=["starts_stride", "pivots_stride", "sigma_stride"])
def _merge_segments_kernel(
    k_pages, v_pages, table, starts, pivots, sigma,
    table_stride, starts_stride, pivots_stride, sigma_stride,
    PAGE_SIZE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_MEMBERS: tl.constexpr,
):  # fmt: skip
    segment = tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    begin = tl.load(starts + head * starts_stride + segment).to(tl.int32)
    end = tl.load(starts + head * starts_stride + segment + 1).to(tl.int32)
    # A run of one is its pivot as it is.
    if end - begin < 2:
        return
    row = table + head * table_stride
    d = tl.arange(0, BLOCK_D)
    pivot = tl.load(pivots + head * pivots_stride + segment).to(tl.int32)
    width = tl.load(sigma + head * sigma_stride + segment)
    place = (tl.load(row + pivot // PAGE_SIZE).to(tl.int64) * PAGE_SIZE + pivot % PAGE_SIZE) * D + d
    centre = tl.load(k_pages + place, mask=d < D, other=0.0).to(tl.float32)
    steepness = LOG2_E / (2.0 * tl.where(width > 0.0, width * width, 1.0))

    total = 0.0
    key_sum = tl.zeros((BLOCK_D,), tl.float32)
    value_sum = tl.zeros((BLOCK_D,), tl.float32)
    for first in range(begin, end, BLOCK_MEMBERS):
        member = first + tl.arange(0, BLOCK_MEMBERS)
        there = member < end
        k = load_entries(k_pages, row, member, there, d, PAGE_SIZE, D)
        v = load_entries(v_pages, row, member, there, d, PAGE_SIZE, D)
        away = k - centre[None, :]
        distance = tl.sum(away * away, axis=1)
        share = tl.where(width > 0.0, tl.exp2(-distance * steepness), tl.where(distance == 0.0, 1.0, 0.0))
        share = tl.where(there, share, 0.0)
        total += tl.sum(share, axis=0)
        key_sum += tl.sum(share[:, None] * k, axis=0)
        value_sum += tl.sum(share[:, None] * v, axis=0)
    # The pivot is a member too: all threads are to have read it before one writes.
    tl.debug_barrier()
    tl.store(k_pages + place, (key_sum / total).to(k_pages.dtype.element_ty), mask=d < D)
    tl.store(v_pages + place, (value_sum / total).to(v_pages.dtype.element_ty), mask=d < D)


def merge_segments(
    k_pages: Tensor,
    v_pages: Tensor,
    table: Tensor,
    lengths: Tensor,
    segments: Tensor,
    pivots: Tensor,
    sigma: Tensor,
) -> None:
    """`compression_reference.merge_segments`: pages [pages, page_size, D], table int32 [H, max_pages], lengths int [H],
    segments int [H, n], pivots int [H, S] and sigma float32 [H, S] of as many segments as the fullest row has.

    A program takes one segment, in one warp: segments are many and mostly short, and none reads what another writes.
    """
    heads, (page_size, head_dim) = table.shape[0], k_pages.shape[1:]
    check_pool(k_pages, v_pages, head_dim)
    most = pivots.shape[1]
    if sigma.shape != pivots.shape:
        raise EngineError(f"{tuple(pivots.shape)} pivots have {tuple(sigma.shape)} widths: each segment needs one")
    check_rows(table, pivots, sigma)
    if heads == 0 or most == 0 or segments.shape[1] == 0:
        return
    column = torch.arange(segments.shape[1], device=segments.device)
    numbered = segments.masked_fill(column >= lengths[:, None], most)
    wanted = torch.arange(most + 1, dtype=numbered.dtype, device=segments.device).expand(heads, -1)
    starts = torch.searchsorted(numbered, wanted.contiguous(), out_int32=True)
    with on_device(k_pages):
        _merge_segments_kernel[(most, heads)](
            k_pages, v_pages, table, starts, pivots, sigma,
            table.stride(0), starts.stride(0), pivots.stride(0), sigma.stride(0),
            PAGE_SIZE=page_size, D=head_dim, BLOCK_D=padded_head_dim(head_dim), BLOCK_MEMBERS=_BLOCK_MEMBERS,
            num_warps=1, **FUSION,
        )  # fmt: skip
