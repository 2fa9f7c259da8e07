"""RMS norm with the residual stream's addition, and the gated activation: one pass over memory each."""

# Kernels are typed by Triton when they are compiled; their arguments are many, and its constants are upper case.
# ruff: noqa: N803, PLR0917
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped, no-untyped-call"

from __future__ import annotations

from typing import overload

import torch
import triton
import triton.language as tl
from torch import Tensor

from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.kernels.launch import FUSION, ceil_div, check_rows, next_power_of_two, on_device

_WIDEST_ROW = 32768
_SILU_BLOCK = 1024


@triton.jit
def _rms_norm_kernel(
    x, residual, weight, y, summed,
    x_stride, residual_stride, y_stride, summed_stride, n, eps,
    HAS_RESIDUAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < n
    value = tl.load(x + row * x_stride + column, mask=inside, other=0.0)
    if HAS_RESIDUAL:
        old = tl.load(residual + row * residual_stride + column, mask=inside, other=0.0)
        value = (old.to(tl.float32) + value.to(tl.float32)).to(value.dtype)
        tl.store(summed + row * summed_stride + column, value, mask=inside)
    wide = value.to(tl.float32)
    inverse = tl.rsqrt(tl.sum(wide * wide, axis=0) / n + eps)
    # Rounded before the weight as well as after it: transformers' LlamaRMSNorm does.
    normal = (wide * inverse).to(value.dtype).to(tl.float32)
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * y_stride + column, (normal * gain).to(value.dtype), mask=inside)


@overload
def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float,
    residual: None = None,
    *,
    out: Tensor | None = None,
    summed: Tensor | None = None,
) -> Tensor: ...
@overload
def rms_norm(
    x: Tensor, weight: Tensor, eps: float, residual: Tensor, *, out: Tensor | None = None, summed: Tensor | None = None
) -> tuple[Tensor, Tensor]: ...
def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float,
    residual: Tensor | None = None,
    *,
    out: Tensor | None = None,
    summed: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """`reference.rms_norm`: x [T, N] and residual [T, N] (rows may be strided), weight [N]; y, or (y, residual + x).

    `out` and `summed` [T, N] receive the results where given, and each may be x or the residual itself. A program
    holds one row in registers from the sum of squares to the product, so that memory is read once.
    """
    rows, n = x.shape
    if n > _WIDEST_ROW:
        raise EngineError(
            f"a row of {n} is wider than the norm kernel takes ({_WIDEST_ROW}): run this model on the CPU"
        )
    out = torch.empty((rows, n), dtype=x.dtype, device=x.device) if out is None else out
    if residual is not None and summed is None:
        summed = torch.empty((rows, n), dtype=x.dtype, device=x.device)
    check_rows(x, residual, weight, out, summed)
    if rows:
        block = next_power_of_two(n)
        with on_device(x):
            _rms_norm_kernel[(rows,)](
                x, x if residual is None else residual, weight, out, out if summed is None else summed,
                x.stride(0), 0 if residual is None else residual.stride(0),
                out.stride(0), 0 if summed is None else summed.stride(0), n, eps,
                HAS_RESIDUAL=residual is not None, BLOCK=block, num_warps=min(16, max(1, block // 512)), **FUSION,
            )  # fmt: skip
    return out if residual is None or summed is None else (out, summed)


@triton.jit
def _silu_mul_kernel(x, y, x_stride, y_stride, n, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < n
    gate = tl.load(x + row * x_stride + column, mask=inside, other=0.0)
    up = tl.load(x + row * x_stride + n + column, mask=inside, other=0.0)
    wide = gate.to(tl.float32)
    activated = (wide / (1.0 + tl.exp(-wide))).to(gate.dtype).to(tl.float32)
    tl.store(y + row * y_stride + column, (activated * up.to(tl.float32)).to(gate.dtype), mask=inside)


def silu_mul(x: Tensor, *, out: Tensor | None = None) -> Tensor:
    """`reference.silu_mul`: x [T, 2N] -> silu(x[:, :N]) * x[:, N:], [T, N]; rows may be strided."""
    rows, n = x.shape[0], x.shape[1] // 2
    out = torch.empty((rows, n), dtype=x.dtype, device=x.device) if out is None else out
    check_rows(x, out)
    if rows and n:
        with on_device(x):
            _silu_mul_kernel[(rows, ceil_div(n, _SILU_BLOCK))](
                x, out, x.stride(0), out.stride(0), n, BLOCK=_SILU_BLOCK, num_warps=4, **FUSION
            )
    return out
