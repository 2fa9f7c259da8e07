"""A snapshot's keys and values on their way into the pages of a cache: one pass that scatters, and widens 8-bit codes.

What is read lies side by side, row behind row, so that a file mapped to memory is copied to the GPU in large pieces,
and 8-bit codes halve that copy; only pages are written.
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


@triton.jit(do_not_specialize=["count"])
def _load_pages_kernel(
    keys, values, key_scale, value_scale, k_pages, v_pages, where, count, k_stride, v_stride,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_ENTRIES: tl.constexpr, SCALED: tl.constexpr,
):  # fmt: skip
    entry = tl.program_id(0) * BLOCK_ENTRIES + tl.arange(0, BLOCK_ENTRIES)
    d = tl.arange(0, BLOCK_D)
    there = entry < count
    inside = there[:, None] & (d < D)[None, :]
    # In 64 bits: a pool's elements soon pass 2^31.
    place = tl.load(where + entry, mask=there, other=0).to(tl.int64)[:, None] * D + d[None, :]
    wide = entry.to(tl.int64)[:, None]
    k = tl.load(keys + wide * k_stride + d[None, :], mask=inside, other=0)
    v = tl.load(values + wide * v_stride + d[None, :], mask=inside, other=0)
    if SCALED:
        k = k.to(tl.float32) * tl.load(key_scale + entry, mask=there, other=0.0).to(tl.float32)[:, None]
        v = v.to(tl.float32) * tl.load(value_scale + entry, mask=there, other=0.0).to(tl.float32)[:, None]
    tl.store(k_pages + place, k.to(k_pages.dtype.element_ty), mask=inside)
    tl.store(v_pages + place, v.to(v_pages.dtype.element_ty), mask=inside)


def load_pages(
    keys: Tensor,
    values: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    where: Tensor,
    key_scale: Tensor | None = None,
    value_scale: Tensor | None = None,
) -> None:
    """`compression_reference.load_pages`: keys and values [E, D], of a float type or int8 with scales of a float type
    [E], to the places `where` int [E] of pages [pages, page_size, D].

    Raises EngineError for codes without scales, and for scales without codes.
    """
    count, head_dim = keys.shape
    check_pool(k_pages, v_pages, head_dim)
    check_rows(keys, values, where, key_scale, value_scale)
    scaled = key_scale is not None and value_scale is not None
    coded = [side.dtype == torch.int8 for side in (keys, values)]
    if values.shape != keys.shape or coded != [scaled] * 2 or (key_scale is None) != (value_scale is None):
        raise EngineError(
            f"keys {keys.dtype} {tuple(keys.shape)} and values {values.dtype} {tuple(values.shape)} "
            f"come {'with' if scaled else 'without'} scales for both: int8 needs them, floats have none"
        )
    if count == 0:
        return
    block_d = padded_head_dim(head_dim)
    entries = max(1, _PROGRAM_ELEMENTS // block_d)
    with on_device(k_pages):
        _load_pages_kernel[(ceil_div(count, entries),)](
            keys, values, keys if key_scale is None else key_scale, values if value_scale is None else value_scale,
            k_pages, v_pages, where, count, keys.stride(0), values.stride(0),
            D=head_dim, BLOCK_D=block_d, BLOCK_ENTRIES=entries, SCALED=scaled, num_warps=4, **FUSION,
        )  # fmt: skip
