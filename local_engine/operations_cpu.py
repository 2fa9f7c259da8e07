"""The arithmetic between the matrices on a CPU.

Decoding goes through compiled loops (`kernels/cpu_loops.py`), where they are there; prompts through PyTorch, in as few
passes over memory as its operators allow.
"""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from lcdoc.local_engine.attention_cpu import CpuAttention
from lcdoc.local_engine.batch import Batch
from lcdoc.local_engine.config import ModelConfig
from lcdoc.local_engine.kernels import cpu_loops

logger = logging.getLogger(__name__)

_FEW_ROWS = 16
"""Rows up to which one thread of the compiled loops is faster than PyTorch's operators."""


class CpuOperations:
    """See `decoder.Operations`."""

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._attention = CpuAttention(config.head_dim**-0.5)
        reason = cpu_loops.missing()
        self._compiled = reason is None
        if reason is not None:
            logger.warning("decoding on this CPU goes without compiled loops, more slowly: %s", reason)
        self._attends_compiled = self._compiled and config.head_dim <= cpu_loops.MOST_DIM

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        if self._few(x):
            return cpu_loops.norm(x, weight, eps)
        # PyTorch's own rms_norm takes ten times as long on bfloat16; a vector norm in float32 is exact, and fast.
        wide = x.float()
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale: Tensor = length.square_().mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
        if wide.dtype == x.dtype:
            return (wide * scale).mul_(weight)
        return wide.mul_(scale).to(x.dtype).mul_(weight)

    def add_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        if self._few(x):
            return cpu_loops.norm(x, weight, eps, residual=residual.contiguous()), x
        total = x.add_(residual)
        return self.norm(total, weight, eps), total

    def gate(self, x: Tensor) -> Tensor:
        if self._few(x):
            return cpu_loops.gate(x)
        gate, up = x.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    def attend(
        self, layer: int, qkv: Tensor, head_norm: Tensor | None, rotation: tuple[Tensor, Tensor] | None, batch: Batch
    ) -> Tensor:
        config = self._config
        tokens, heads = len(qkv), config.heads
        compiled = (
            self._attends_compiled
            and batch.singles == len(batch.slots)
            and not batch.tables.biased[batch.slots].any()
            and not any(batch.far)
            and qkv.dtype in cpu_loops.DTYPES
        )
        if compiled:
            out = cpu_loops.attend(
                layer,
                qkv.contiguous(),
                head_norm,
                rotation,
                batch,
                scale=self._attention.scale,
                eps=config.rms_norm_eps,
                window=config.windows[layer],
            )
            if batch.observer is None:
                return out
        each = qkv.view(tokens, heads + 2 * config.kv_heads, config.head_dim)
        qk, v = each[:, : heads + config.kv_heads], each[:, heads + config.kv_heads :]
        if head_norm is not None:
            qk = self.norm(qk, head_norm, config.rms_norm_eps)
        before = qk
        if rotation is not None:
            qk = rotate(qk, *rotation)
        if not compiled:
            out = self._attention(layer, (qk[:, :heads], qk[:, heads:], v), config.windows[layer], batch)
        if batch.observer is not None:
            batch.observer.attends(layer, before[:, :heads], qk[:, :heads], None, batch)
        return out.view(tokens, heads * config.head_dim)

    def _few(self, x: Tensor) -> bool:
        """Whether the compiled loops take x [T, N]."""
        return (
            self._compiled
            and x.dim() == 2
            and len(x) <= _FEW_ROWS
            and x.dtype in cpu_loops.DTYPES
            and x.is_contiguous()
        )


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [T, H, D] with its first dimensions rotated by cos and sin, [T, R / 2] each; the others stay."""
    half = cos.shape[-1]
    cos, sin = cos[:, None].to(x.dtype), sin[:, None].to(x.dtype)
    # The heads' parts lie together afterwards: attention takes them as matrices.
    out = torch.empty(x.shape[1], x.shape[0], x.shape[2], dtype=x.dtype).transpose(0, 1)
    first, second = x[..., :half], x[..., half : 2 * half]
    torch.mul(first, cos, out=out[..., :half]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out[..., half : 2 * half]).addcmul_(first, sin)
    if 2 * half < x.shape[2]:
        out[..., 2 * half :] = x[..., 2 * half :]
    return out
