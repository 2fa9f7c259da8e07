"""Rotary embedding, optional QK norm and the write into the paged cache, in one kernel: q, k and v are read once."""

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
    ceil_div,
    check_pages,
    check_rows,
    next_power_of_two,
    on_device,
    padded_head_dim,
)

# Elements a program handles: few, since decoding has one token and must still fill the GPU.
_PROGRAM_ELEMENTS = 512


@triton.jit
def _turned(
    x, head_stride, heads, weight, eps, cos, sin, head, d,
    D: tl.constexpr, HALF: tl.constexpr, HAS_NORM: tl.constexpr,
):  # fmt: skip
    """Heads of one token, [BLOCK_HEADS, BLOCK_D] float32, normalised and turned. x, cos and sin point at the token."""
    inside = (head < heads)[:, None] & (d < D)[None, :]
    here = x + head.to(tl.int64)[:, None] * head_stride
    value = tl.load(here + d[None, :], mask=inside, other=0.0).to(tl.float32)
    # The other member of each rotated pair is read again, from the cache: any HALF works, with no shuffling of lanes.
    partner = tl.where(d < HALF, d + HALF, d - HALF)
    turns = d < 2 * HALF
    if HAS_NORM:
        inverse = tl.rsqrt(tl.sum(value * value, axis=1) / D + eps)[:, None]
        value = value * inverse * tl.load(weight + d, mask=d < D, other=0.0).to(tl.float32)[None, :]
    if HALF > 0:
        other = tl.load(here + partner[None, :], mask=inside & turns[None, :], other=0.0).to(tl.float32)
        if HAS_NORM:
            other = other * inverse * tl.load(weight + partner, mask=turns, other=0.0).to(tl.float32)[None, :]
        angle = tl.where(d < HALF, d, d - HALF)
        cosine = tl.load(cos + angle, mask=turns, other=1.0)
        sine = tl.load(sin + angle, mask=turns, other=0.0)
        sine = tl.where(d < HALF, -sine, sine)
        value = value * cosine[None, :] + other * sine[None, :]
    return value


@triton.jit
def _rotate_and_write_kernel(
    q, k, v, cos, sin, write, k_pages, v_pages, q_weight, k_weight, out, eps,
    q_stride, q_head_stride, k_stride, k_head_stride, v_stride, v_head_stride,
    cos_stride, sin_stride, write_stride, write_head_stride, out_stride, out_head_stride,
    QUERY_HEADS: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr,
    NORM_QUERIES: tl.constexpr, NORM_KEYS: tl.constexpr, QUERY_BLOCKS: tl.constexpr,
    BLOCK_HEADS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    d = tl.arange(0, BLOCK_D)
    cos += token * cos_stride
    sin += token * sin_stride
    if block < QUERY_BLOCKS:
        head = block * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
        value = _turned(
            q + token * q_stride, q_head_stride, QUERY_HEADS, q_weight, eps, cos, sin, head, d, D, HALF, NORM_QUERIES
        )
        target = out + token * out_stride + head.to(tl.int64)[:, None] * out_head_stride + d[None, :]
        tl.store(target, value.to(out.dtype.element_ty), mask=(head < QUERY_HEADS)[:, None] & (d < D)[None, :])
    else:
        head = (block - QUERY_BLOCKS) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
        value = _turned(
            k + token * k_stride, k_head_stride, HEADS, k_weight, eps, cos, sin, head, d, D, HALF, NORM_KEYS
        )
        place = tl.load(write + token * write_stride + head * write_head_stride, mask=head < HEADS, other=-1).to(
            tl.int64
        )
        stored = (place >= 0)[:, None] & (d < D)[None, :]
        there = place[:, None] * D + d[None, :]
        tl.store(k_pages + there, value.to(k_pages.dtype.element_ty), mask=stored)
        here = v + token * v_stride + head.to(tl.int64)[:, None] * v_head_stride + d[None, :]
        tl.store(v_pages + there, tl.load(here, mask=stored, other=0.0), mask=stored)


def rotate_and_write(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cos: Tensor,
    sin: Tensor,
    write: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    eps: float = 1e-6,
    *,
    out: Tensor | None = None,
) -> Tensor:
    """`reference.rotate_and_write`: q [T, Hq, D], k and v [T, H, D] may be slices of one fused projection.

    cos and sin float32 [T, R/2], write int64 [T, H] (a negative place stores nothing: the padding of a captured
    batch), pages [pages, page_size, D]. Returns the turned queries, in `out` [T, Hq, D] where given; it must not
    share memory with q, which is read twice. Inside, all is float32, rounded once at the end.
    """
    tokens, query_heads, head_dim = q.shape
    heads, half = k.shape[1], cos.shape[-1]
    check_pages(q, k_pages, v_pages, heads)
    if 2 * half > head_dim:
        raise EngineError(f"{2 * half} dimensions are to be rotated of {head_dim}: check rotary_dim")
    out = torch.empty((tokens, query_heads, head_dim), dtype=q.dtype, device=q.device) if out is None else out
    check_rows(q, k, v, cos, sin, out, q_weight, k_weight)
    if tokens:
        block_d = padded_head_dim(head_dim)
        block_heads = max(1, min(_PROGRAM_ELEMENTS // block_d, next_power_of_two(query_heads)))
        query_blocks = ceil_div(query_heads, block_heads)
        with on_device(q):
            _rotate_and_write_kernel[(tokens, query_blocks + ceil_div(heads, block_heads))](
                q, k, v, cos, sin, write, k_pages, v_pages,
                q if q_weight is None else q_weight, k if k_weight is None else k_weight, out, eps,
                q.stride(0), q.stride(1), k.stride(0), k.stride(1), v.stride(0), v.stride(1),
                cos.stride(0), sin.stride(0), write.stride(0), write.stride(1), out.stride(0), out.stride(1),
                QUERY_HEADS=query_heads, HEADS=heads, D=head_dim, HALF=half,
                NORM_QUERIES=q_weight is not None, NORM_KEYS=k_weight is not None, QUERY_BLOCKS=query_blocks,
                BLOCK_HEADS=block_heads, BLOCK_D=block_d, num_warps=2, **FUSION,
            )  # fmt: skip
    return out
