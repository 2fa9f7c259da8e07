"""The second step of split-KV attention (FlashDecoding, 2023): partial results are joined by their log-sum-exps."""

# Kernels are typed by Triton when they are compiled; their arguments are many, and its constants are upper case.
# ruff: noqa: N803, PLR0917
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped, no-untyped-call"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.kernels.launch import FUSION, ceil_div, next_power_of_two, on_device
from lcdoc.local_engine.kernels.triton_softmax import LN_2

_BLOCK_D = 32


@triton.jit
def _combine_kernel(
    part, part_lse, out, lse, heads, splits, out_stride, out_head_stride, lse_stride, lse_head_stride,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_SPLITS: tl.constexpr,
):  # fmt: skip
    query = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    split = tl.arange(0, BLOCK_SPLITS)
    each = tl.load(part_lse + query * splits + split, mask=split < splits, other=float("-inf"))
    top = tl.max(each, axis=0)
    base = tl.where(top == float("-inf"), 0.0, top)
    weights = tl.exp2(each - base)
    total = tl.sum(weights, axis=0)
    # A piece without keys stored its -inf alone; its output was never written.
    used = (each > float("-inf"))[:, None] & (d < D)[None, :]
    values = tl.load(part + (query * splits + split)[:, None] * D + d[None, :], mask=used, other=0.0)
    nothing = total == 0.0
    divisor = tl.where(nothing, 1.0, total)
    joined = tl.sum(values * weights[:, None], axis=0) / divisor
    token = query // heads
    head = query % heads
    tl.store(out + token * out_stride + head * out_head_stride + d, joined.to(out.dtype.element_ty), mask=d < D)
    if tl.program_id(1) == 0:
        natural = tl.where(nothing, float("-inf"), (top + tl.log2(divisor)) * LN_2)
        tl.store(lse + token * lse_stride + head * lse_head_stride, natural)


def workspace_elements(queries: int, head_dim: int, splits: int) -> int:
    """How many float32 elements the partial results of `queries` (tokens times query heads) take; 0 without splits."""
    return queries * splits * (head_dim + 1) if splits > 1 else 0


def partial_results(
    workspace: Tensor | None, queries: int, head_dim: int, splits: int, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs [queries, splits, D] and log2-sum-exps [queries, splits], float32, cut from the workspace if given."""
    needed = workspace_elements(queries, head_dim, splits)
    if workspace is None:
        workspace = torch.empty(needed, dtype=torch.float32, device=like.device)
    elif workspace.dtype != torch.float32 or workspace.numel() < needed or not workspace.is_contiguous():
        raise EngineError(
            f"the workspace holds {workspace.numel()} elements of {workspace.dtype}, and {needed} contiguous "
            "ones of float32 are needed: size it with workspace_elements"
        )
    flat = workspace.view(-1)
    outputs = queries * splits * head_dim
    return flat[:outputs], flat[outputs:needed]


def combine(part: Tensor, part_lse: Tensor, splits: int, out: Tensor, lse: Tensor) -> None:
    """Join the parts of every query of out [T, Hq, D] and lse float32 [T, Hq], which are overwritten."""
    tokens, heads, head_dim = out.shape
    with on_device(out):
        _combine_kernel[(tokens * heads, ceil_div(head_dim, _BLOCK_D))](
            part, part_lse, out, lse, heads, splits, out.stride(0), out.stride(1), lse.stride(0), lse.stride(1),
            D=head_dim, BLOCK_D=_BLOCK_D, BLOCK_SPLITS=next_power_of_two(splits), num_warps=4, **FUSION,
        )  # fmt: skip
