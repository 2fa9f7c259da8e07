"""Which neighbouring keys are alike (KVMerger, Wang et al., 2024): the cosine of each key and its successor.

Keys are read where they lie in the cache. Choosing runs and pivots by it is a few numbers for each entry and PyTorch's
work; the sums are made where entries move (`triton_compact.py`).
"""

# Kernels are typed by Triton when they are compiled; their arguments are many, and its constants are upper case.
# ruff: noqa: N803, PLR0917
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped, no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lcdoc.local_engine.kernels.launch import FUSION, ceil_div, check_pool, check_rows, on_device, padded_head_dim

# Elements of keys that a program compares.
_PROGRAM_ELEMENTS = 4096


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
