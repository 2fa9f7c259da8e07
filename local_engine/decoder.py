"""The decoder of the Llama family: tokens in, logits out, keys and values into the cache.

One class covers every model that `config.py` reads; what differs between them is data (biases, norms of queries and
keys, windows, rotations). Projections that read the same input are one matrix: q, k, v, and gate and up.

Source: "LLaMA: Open and Efficient Foundation Language Models", section 2.2; "GQA: Training Generalized Multi-Query
Transformer Models from Multi-Head Checkpoints".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lcdoc.local_engine.batch import Batch
from lcdoc.local_engine.config import ModelConfig
from lcdoc.local_engine.linear import Linear
from lcdoc.local_engine.rope import Rope


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer."""

    attention_norm: Tensor
    qkv: Linear
    """[hidden] -> [(heads + 2 * kv_heads) * head_dim]"""
    head_norm: Tensor | None
    """[heads + kv_heads, head_dim]: QK norm's weights, a row for each head; None without it."""
    output: Linear
    mlp_norm: Tensor
    gate_up: Linear
    """[hidden] -> [2 * intermediate], the gate first"""
    down: Linear


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights of a model."""

    embed: Callable[[Tensor], Tensor]
    """Token ids [T] -> vectors [T, hidden]."""
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Linear

    @property
    def nbytes(self) -> int:
        """Bytes of the matrices; the norms are not worth counting."""
        of_layers = sum(
            each.nbytes for layer in self.layers for each in (layer.qkv, layer.output, layer.gate_up, layer.down)
        )
        return of_layers + self.head.nbytes


class Operations(Protocol):
    """The arithmetic between the matrices, for one kind of device."""

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """RMS norm over the last dimension of x [T, N], taken in float32."""
        ...

    def add_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """(norm of the sum, the sum)."""
        ...

    def gate(self, x: Tensor) -> Tensor:
        """silu(gate) * up for x [T, 2 * N]."""
        ...

    def attend(
        self, layer: int, qkv: Tensor, head_norm: Tensor | None, rotation: tuple[Tensor, Tensor] | None, batch: Batch
    ) -> Tensor:
        """Rotate, write the cache, attend: [T, (heads + 2 * kv_heads) * head_dim] -> [T, heads * head_dim]."""
        ...


class Decoder:
    """A model with its weights, on one device."""

    def __init__(self, config: ModelConfig, weights: Weights, rope: Rope, operations: Operations) -> None:
        self.config = config
        self.weights = weights
        self.rope = rope
        self.operations = operations

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """Logits [R, vocabulary] of the rows that the batch asks for; fills the cache for all its tokens."""
        return self.logits(self.hidden(batch)[batch.logits_rows])

    @torch.inference_mode()
    def hidden(self, batch: Batch) -> Tensor:
        """The last layer's output [T, hidden], before the final norm."""
        eps, run = self.config.rms_norm_eps, self.operations
        rotation = self.rope.rotation(batch.positions, batch.lengths)
        x = self.weights.embed(batch.tokens)
        change: Tensor | None = None
        for index, layer in enumerate(self.weights.layers):
            if change is None:
                h = run.norm(x, layer.attention_norm, eps)
            else:
                h, x = run.add_norm(change, x, layer.attention_norm, eps)
            if batch.observer is not None:
                batch.observer.takes_in(index, h, batch)
            rotated = rotation if self.config.rotates[index] else None
            attended = run.attend(index, layer.qkv(h), layer.head_norm, rotated, batch)
            h, x = run.add_norm(layer.output(attended), x, layer.mlp_norm, eps)
            change = layer.down(run.gate(layer.gate_up(h)))
        x = x if change is None else x + change
        if batch.observer is not None:
            batch.observer.ends(x, self.logits, batch)
        return x

    @torch.inference_mode()
    def logits(self, x: Tensor) -> Tensor:
        """Logits [R, vocabulary] for rows of what `hidden` gives."""
        return self.weights.head(self.operations.norm(x, self.weights.norm, self.config.rms_norm_eps))
