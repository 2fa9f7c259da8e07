"""The probe's network: a Llama for training on long rows, its parameters named as in `LlamaForCausalLM`'s files.

It shares its parts with small_model_network.py. What differs is that rows share no prefix, and that positions may be
given: a gap between two of them makes a short row look far away, so that distances are learnt which no row is long
enough for. Caches that something was evicted from have such gaps as well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from lcdoc.benchmarks.small_model_network import Network, Shape

_WRITTEN_OUT = 512
"""Up to this length attention written out is faster in bfloat16 on a CPU than the fused one."""


class ProbeNetwork(Network):
    """As `Network`, run otherwise."""

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:  # type: ignore[override]
        """The last hidden states [B, T, hidden] of `tokens` [B, T] at `positions` [T]; see `logits`."""
        shape = self.shape
        half = torch.arange(0, shape.head_dim, 2, device=tokens.device) / shape.head_dim
        angles = positions[:, None] * shape.rope_theta**-half
        angles = torch.cat([angles, angles], -1)
        turns = angles.cos(), angles.sin()
        x = self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            x = x + _attend(layer.self_attn, layer.input_layernorm(x), shape, turns)
            hidden = layer.post_attention_layernorm(x)
            x = x + layer.mlp.down_proj(silu(layer.mlp.gate_proj(hidden)) * layer.mlp.up_proj(hidden))
        return self.model.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., vocabulary]"""
        return hidden @ self.model.embed_tokens.weight.T


def _attend(attention: nn.Module, x: Tensor, shape: Shape, turns: tuple[Tensor, Tensor]) -> Tensor:
    query, key, value = (
        projected(x).unflatten(-1, (-1, shape.head_dim)).transpose(1, 2)
        for projected in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = _turned(query, *turns).to(value.dtype), _turned(key, *turns).to(value.dtype)
    groups = shape.heads // shape.kv_heads
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    length = x.shape[1]
    if x.device.type == "cpu" and value.dtype == torch.bfloat16 and length <= _WRITTEN_OUT:
        given = _written_out(query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)).unflatten(0, query.shape[:2])
    else:
        given = scaled_dot_product_attention(query, key, value, is_causal=True)
    return attention.o_proj(given.transpose(1, 2).flatten(2))


def _written_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention of [N, T, D]."""
    with torch.autocast("cpu", enabled=False):
        length = query.shape[1]
        bias = torch.full((length, length), -torch.inf, dtype=query.dtype).triu(1)
        scores = torch.baddbmm(
            bias.expand(len(query), -1, -1), query, key.transpose(1, 2), alpha=query.shape[-1] ** -0.5
        )
        return torch.bmm(scores.softmax(-1), value)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat([-high, low], -1) * sin


