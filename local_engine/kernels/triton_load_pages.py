"""A snapshot's keys and values on their way into the pages of a cache: one pass that scatters, and widens 8-bit codes.

What is read lies side by side, so that a file mapped to memory is copied to the GPU in one piece, and 8-bit codes halve
that copy; only pages are written.
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

# Elements of keys and of values that a program moves.
_PROGRAM_ELEMENTS = 4096


@triton.jit(do_not_specialize=["k_scale_stride", "v_scale_stride"])
def _load_pages_kernel(
    keys, values, key_scale, value_scale, k_pages, v_pages, table, lengths,
    k_stride, k_entry_stride, v_stride, v_entry_stride, k_scale_stride, v_scale_stride, table_stride,
    PAGE_SIZE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_ENTRIES: tl.constexpr,
    SCALED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    length = tl.load(lengths + row).to(tl.int32)
    entry = tl.program_id(0) * BLOCK_ENTRIES + tl.arange(0, BLOCK_ENTRIES)
    d = tl.arange(0, BLOCK_D)
    there = entry < length
    inside = there[:, None] & (d < D)[None, :]
    page = tl.load(table + row * table_stride + entry // PAGE_SIZE, mask=there, other=0)
    # In 64 bits: a pool's elements soon pass 2^31.
    place = (page.to(tl.int64) * PAGE_SIZE + entry % PAGE_SIZE)[:, None] * D + d[None, :]
    wide = entry.to(tl.int64)[:, None]
    k = tl.load(keys + row * k_stride + wide * k_entry_stride + d[None, :], mask=inside, other=0)
    v = tl.load(values + row * v_stride + wide * v_entry_stride + d[None, :], mask=inside, other=0)
    if SCALED:
        k = k.to(tl.float32) * tl.load(key_scale + row * k_scale_stride + entry, mask=there, other=0.0)[:, None]
        v = v.to(tl.float32) * tl.load(value_scale + row * v_scale_stride + entry, mask=there, other=0.0)[:, None]
    tl.store(k_pages + place, k.to(k_pages.dtype.element_ty), mask=inside)
    tl.store(v_pages + place, v.to(v_pages.dtype.element_ty), mask=inside)


def load_pages(
    keys: Tensor,
    values: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    table: Tensor,
    lengths: Tensor,
    key_scale: Tensor | None = None,
    value_scale: Tensor | None = None,
) -> None:
    """`compression_reference.load_pages`: keys and values [H, n, D] (heads and entries may be strided), of a float type
    or int8 with scales float32 [H, n], into pages [pages, page_size, D] by table int32 [H, max_pages] and lengths int
    [H].

    Raises EngineError for codes without scales, and for scales without codes.
    """
    heads, width, head_dim = keys.shape
    check_pool(k_pages, v_pages, head_dim)
    check_rows(keys, values, table, lengths, key_scale, value_scale)
    scaled = key_scale is not None and value_scale is not None
    coded = [side.dtype == torch.int8 for side in (keys, values)]
    if values.shape != keys.shape or coded != [scaled] * 2 or (key_scale is None) != (value_scale is None):
        raise EngineError(
            f"keys {keys.dtype} {tuple(keys.shape)} and values {values.dtype} {tuple(values.shape)} "
            f"come {'with' if scaled else 'without'} scales for both: int8 needs them, floats have none"
        )
    if heads == 0 or width == 0:
        return
    block_d = padded_head_dim(head_dim)
    entries = max(1, _PROGRAM_ELEMENTS // block_d)
    with on_device(k_pages):
        _load_pages_kernel[(ceil_div(width, entries), heads)](
            keys, values, keys if key_scale is None else key_scale, values if value_scale is None else value_scale,
            k_pages, v_pages, table, lengths,
            keys.stride(0), keys.stride(1), values.stride(0), values.stride(1),
            0 if key_scale is None else key_scale.stride(0), 0 if value_scale is None else value_scale.stride(0),
            table.stride(0),
            PAGE_SIZE=k_pages.shape[1], D=head_dim, BLOCK_D=block_d, BLOCK_ENTRIES=entries, SCALED=scaled,
            num_warps=4, **FUSION,
        )  # fmt: skip
