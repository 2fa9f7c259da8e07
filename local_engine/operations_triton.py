"""The arithmetic between the matrices on an NVIDIA GPU: our Triton kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from lcdoc.local_engine.batch import Batch
from lcdoc.local_engine.config import ModelConfig
from lcdoc.local_engine.kernels.triton_decode import paged_decode
from lcdoc.local_engine.kernels.triton_norm import rms_norm, silu_mul
from lcdoc.local_engine.kernels.triton_prefill import paged_prefill
from lcdoc.local_engine.kernels.triton_rotary import rotate_and_write


class TritonOperations:
    """See `decoder.Operations`. Nothing here waits for the GPU, so a pass can be captured in a CUDA graph."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._config = config
        self._scale = config.head_dim**-0.5
        self._no_angles = torch.empty(1, 0, device=device)

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return rms_norm(x, weight, eps)

    def add_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        return rms_norm(x, weight, eps, residual)

    def gate(self, x: Tensor) -> Tensor:
        return silu_mul(x)

    def attend(
        self, layer: int, qkv: Tensor, head_norm: Tensor | None, rotation: tuple[Tensor, Tensor] | None, batch: Batch
    ) -> Tensor:
        config, pool = self._config, batch.tables.pool
        tokens, heads, kv_heads, window = len(qkv), config.heads, config.kv_heads, config.windows[layer]
        each = qkv.view(tokens, heads + 2 * kv_heads, config.head_dim)
        q, k, v = each[:, :heads], each[:, heads : heads + kv_heads], each[:, heads + kv_heads :]
        cos, sin = rotation if rotation is not None else (self._no_angles.expand(tokens, 0),) * 2
        q_weight, k_weight = (None, None) if head_norm is None else (head_norm[0], head_norm[-1])
        q = rotate_and_write(
            q, k, v, cos, sin, batch.write[layer], pool.keys, pool.values, q_weight, k_weight, config.rms_norm_eps
        )
        table, rows, slots = batch.tables.tables()[:, layer], batch.device_rows[layer], batch.device_slots
        out, single = torch.empty_like(q), batch.singles
        lse = torch.empty(tokens, heads, dtype=torch.float32, device=q.device)
        if single:
            paged_decode(
                q[:single], pool.keys, pool.values, table, slots[:single], rows[:single], self._scale, window,
                max_length=batch.longest_row, bias_pages=pool.bias, out=out[:single], lse=lse[:single],
            )  # fmt: skip
        if single < len(batch.slots):
            paged_prefill(
                q[single:], pool.keys, pool.values, table, slots[single:], batch.device_starts, rows[single:],
                self._scale, window, max_query=int(batch.counts.max()), max_length=batch.longest_row,
                bias_pages=pool.bias, out=out[single:], lse=lse[single:],
            )  # fmt: skip
        if batch.observer is not None:
            before = each[:, :heads]
            if q_weight is not None:
                before = rms_norm(before.reshape(-1, config.head_dim), q_weight, config.rms_norm_eps).view_as(before)
            batch.observer.attends(layer, before, q, lse, batch)
        return out.view(tokens, heads * config.head_dim)
