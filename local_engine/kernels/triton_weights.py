"""Linear layers whose weights are kept in 8 or 4 bits and widened on the way to the arithmetic (weight-only
quantization).

A few rows (decoding) are bound by reading the weight: a program takes a few output columns and sums over all of K in
registers. Many rows (prefill) are bound by arithmetic: a tiled product whose weight tile is widened to x's type for
the matrix units.
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
from lcdoc.local_engine.kernels.launch import (
    FUSION,
    MIN_DOT,
    ceil_div,
    check_rows,
    dot_precision,
    next_power_of_two,
    on_device,
    processors,
)

# Up to so many rows of x the weight is multiplied without matrix units.
_FEW_ROWS = 4
_COLUMNS = 4


@triton.jit
def _int8_few_kernel(
    x, weight, scale, y, rows, n, k, x_stride, weight_stride, y_stride,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    row = tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    acc = tl.zeros((ROWS, COLUMNS, BLOCK_K), tl.float32)
    for start in range(0, k, BLOCK_K):
        place = start + tl.arange(0, BLOCK_K)
        w_mask = (column < n)[:, None] & (place < k)[None, :]
        w = tl.load(weight + column.to(tl.int64)[:, None] * weight_stride + place[None, :], mask=w_mask, other=0)
        x_mask = (row < rows)[:, None] & (place < k)[None, :]
        part = tl.load(x + row[:, None] * x_stride + place[None, :], mask=x_mask, other=0.0)
        acc += part.to(tl.float32)[:, None, :] * w.to(tl.float32)[None, :, :]
    result = tl.sum(acc, axis=2) * tl.load(scale + column, mask=column < n, other=0.0).to(tl.float32)[None, :]
    inside = (row < rows)[:, None] & (column < n)[None, :]
    tl.store(y + row[:, None] * y_stride + column[None, :], result.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _int4_few_kernel(
    x, packed, scale, zero, y, rows, n, k, x_stride, packed_stride, scale_stride, zero_stride, y_stride,
    GROUP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_BYTES: tl.constexpr,
):  # fmt: skip
    row = tl.arange(0, ROWS)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    wide_column = column.to(tl.int64)[:, None]
    acc = tl.zeros((ROWS, COLUMNS, BLOCK_BYTES), tl.float32)
    for start in range(0, k // 2, BLOCK_BYTES):
        byte = start + tl.arange(0, BLOCK_BYTES)
        there = byte < k // 2
        w_mask = (column < n)[:, None] & there[None, :]
        codes = tl.load(packed + wide_column * packed_stride + byte[None, :], mask=w_mask, other=0)
        group = byte[None, :] // (GROUP // 2)
        factor = tl.load(scale + wide_column * scale_stride + group, mask=w_mask, other=0.0).to(tl.float32)
        shift = tl.load(zero + wide_column * zero_stride + group, mask=w_mask, other=0.0).to(tl.float32)
        low = (codes & 15).to(tl.float32) * factor + shift
        high = (codes >> 4).to(tl.float32) * factor + shift
        x_mask = (row < rows)[:, None] & there[None, :]
        here = x + row[:, None] * x_stride + 2 * byte[None, :]
        even = tl.load(here, mask=x_mask, other=0.0).to(tl.float32)
        odd = tl.load(here + 1, mask=x_mask, other=0.0).to(tl.float32)
        acc += even[:, None, :] * low[None, :, :] + odd[:, None, :] * high[None, :, :]
    result = tl.sum(acc, axis=2)
    inside = (row < rows)[:, None] & (column < n)[None, :]
    tl.store(y + row[:, None] * y_stride + column[None, :], result.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _tile_of(program, rows, n, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr):
    """Row and column block of a program: eight row blocks walk through the columns together, so that tiles meet in the
    L2.
    """
    row_blocks = tl.cdiv(rows, BLOCK_ROWS)
    band = 8 * tl.cdiv(n, BLOCK_COLUMNS)
    first = program // band * 8
    height = tl.minimum(row_blocks - first, 8)
    return first + program % band % height, program % band // height


@triton.jit
def _int8_many_kernel(
    x, weight, scale, y, rows, n, k, x_stride, weight_stride, y_stride,
    BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    row_block, column_block = _tile_of(tl.program_id(0), rows, n, BLOCK_ROWS, BLOCK_COLUMNS)
    row = row_block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = column_block * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    here = x + row.to(tl.int64)[:, None] * x_stride
    there = weight + column.to(tl.int64)[None, :] * weight_stride
    acc = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    for start in range(0, k, BLOCK_K):
        place = start + tl.arange(0, BLOCK_K)
        part = tl.load(here + place[None, :], mask=(row < rows)[:, None] & (place < k)[None, :], other=0.0)
        w = tl.load(there + place[:, None], mask=(place < k)[:, None] & (column < n)[None, :], other=0)
        # Codes are exact in every float type; the scale waits for the float32 sum.
        acc = tl.dot(part, w.to(tl.float32).to(part.dtype), acc, input_precision=PRECISION)
    acc *= tl.load(scale + column, mask=column < n, other=0.0).to(tl.float32)[None, :]
    inside = (row < rows)[:, None] & (column < n)[None, :]
    tl.store(y + row.to(tl.int64)[:, None] * y_stride + column[None, :], acc.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _int4_many_kernel(
    x, packed, scale, zero, y, rows, n, k, x_stride, packed_stride, scale_stride, zero_stride, y_stride,
    GROUP: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr, BLOCK_K: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    row_block, column_block = _tile_of(tl.program_id(0), rows, n, BLOCK_ROWS, BLOCK_COLUMNS)
    row = row_block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = column_block * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    here = x + row.to(tl.int64)[:, None] * x_stride
    wide_column = column.to(tl.int64)
    there = packed + wide_column[:, None] * packed_stride
    known = column < n
    acc = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    for start in range(0, k, BLOCK_K):
        # A block lies within one group, so that scale and zero are one number a column.
        group = start // GROUP
        place = start + tl.arange(0, BLOCK_K)
        byte = start // 2 + tl.arange(0, BLOCK_K // 2)
        part = tl.load(here + place[None, :], mask=(row < rows)[:, None], other=0.0)
        codes = tl.load(there + byte[None, :], mask=known[:, None], other=0)
        factor = tl.load(scale + wide_column * scale_stride + group, mask=known, other=0.0).to(tl.float32)
        shift = tl.load(zero + wide_column * zero_stride + group, mask=known, other=0.0).to(tl.float32)
        low = (codes & 15).to(tl.float32) * factor[:, None] + shift[:, None]
        high = (codes >> 4).to(tl.float32) * factor[:, None] + shift[:, None]
        w = tl.interleave(low.to(part.dtype), high.to(part.dtype))
        acc = tl.dot(part, tl.trans(w), acc, input_precision=PRECISION)
    inside = (row < rows)[:, None] & known[None, :]
    tl.store(y + row.to(tl.int64)[:, None] * y_stride + column[None, :], acc.to(y.dtype.element_ty), mask=inside)


def _tile(rows: int, n: int, x: Tensor) -> tuple[int, int]:
    """Rows and columns of a tile of many rows: narrower columns where wide ones would leave processors idle."""
    most = 128 if x.element_size() <= 2 else 32
    tile_rows = min(most, max(MIN_DOT, next_power_of_two(rows)))
    tile_columns = most
    while tile_columns > MIN_DOT and ceil_div(rows, tile_rows) * ceil_div(n, tile_columns) < processors(x.device):
        tile_columns //= 2
    return tile_rows, tile_columns


def _block_k(x: Tensor) -> int:
    return 64 if x.element_size() <= 2 else 32


def int8_linear(x: Tensor, weight: Tensor, scale: Tensor, *, out: Tensor | None = None) -> Tensor:
    """`reference.int8_linear`: x [T, K] (rows may be strided), weight int8 [N, K], scale [N] -> [T, N] in x's type."""
    rows, k = x.shape
    n = weight.shape[0]
    if weight.dtype != torch.int8 or weight.shape[1] != k:
        raise EngineError(f"the weight is {weight.dtype} {tuple(weight.shape)}: int8 with {k} columns is needed")
    out = torch.empty((rows, n), dtype=x.dtype, device=x.device) if out is None else out
    check_rows(x, weight, scale, out)
    if rows == 0:
        return out
    strides = x.stride(0), weight.stride(0), out.stride(0)
    with on_device(x):
        if rows <= _FEW_ROWS:
            padded = next_power_of_two(rows)
            _int8_few_kernel[(ceil_div(n, _COLUMNS),)](
                x, weight, scale, out, rows, n, k, *strides,
                ROWS=padded, COLUMNS=_COLUMNS, BLOCK_K=1024 // padded, num_warps=4, **FUSION,
            )  # fmt: skip
        else:
            tile_rows, tile_columns = _tile(rows, n, x)
            _int8_many_kernel[(ceil_div(rows, tile_rows) * ceil_div(n, tile_columns),)](
                x, weight, scale, out, rows, n, k, *strides,
                BLOCK_ROWS=tile_rows, BLOCK_COLUMNS=tile_columns, BLOCK_K=_block_k(x), PRECISION=dot_precision(x),
                num_warps=8 if tile_rows * tile_columns >= 128 * 128 else 4, num_stages=3, **FUSION,
            )  # fmt: skip
    return out


def int4_linear(x: Tensor, packed: Tensor, scale: Tensor, zero: Tensor, *, out: Tensor | None = None) -> Tensor:
    """`reference.int4_linear`: x [T, K] (rows may be strided), packed uint8 [N, K/2], scale and zero [N, K/g] -> [T,
    N].

    The group size g is a power of two from 16 to 256. With many rows a weight is rounded to x's type before it is
    multiplied.
    """
    rows, k = x.shape
    n, groups = scale.shape
    group = k // max(1, groups)
    if group * groups != k or not MIN_DOT <= group <= 256 or group != next_power_of_two(group):
        raise EngineError(f"{groups} scales for {k} columns: groups of 16, 32, 64, 128 or 256 columns are needed")
    if packed.dtype != torch.uint8 or packed.shape != (n, k // 2) or zero.shape != scale.shape:
        raise EngineError(
            f"codes {packed.dtype} {tuple(packed.shape)}, scales {tuple(scale.shape)} and zeros {tuple(zero.shape)} "
            f"do not fit together: codes uint8 {(n, k // 2)} are needed"
        )
    out = torch.empty((rows, n), dtype=x.dtype, device=x.device) if out is None else out
    check_rows(x, packed, scale, zero, out)
    if rows == 0:
        return out
    strides = x.stride(0), packed.stride(0), scale.stride(0), zero.stride(0), out.stride(0)
    with on_device(x):
        if rows <= _FEW_ROWS:
            padded = next_power_of_two(rows)
            _int4_few_kernel[(ceil_div(n, _COLUMNS),)](
                x, packed, scale, zero, out, rows, n, k, *strides,
                GROUP=group, ROWS=padded, COLUMNS=_COLUMNS, BLOCK_BYTES=512 // padded, num_warps=4, **FUSION,
            )  # fmt: skip
        else:
            tile_rows, tile_columns = _tile(rows, n, x)
            _int4_many_kernel[(ceil_div(rows, tile_rows) * ceil_div(n, tile_columns),)](
                x, packed, scale, zero, out, rows, n, k, *strides,
                GROUP=group, BLOCK_ROWS=tile_rows, BLOCK_COLUMNS=tile_columns, BLOCK_K=min(group, _block_k(x)),
                PRECISION=dot_precision(x), num_warps=8 if tile_rows * tile_columns >= 128 * 128 else 4,
                num_stages=3, **FUSION,
            )  # fmt: skip
    return out
