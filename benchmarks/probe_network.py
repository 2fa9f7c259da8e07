"""The probe's network: a Llama for training on long rows, its parameters named as in `LlamaForCausalLM`'s files.

It shares its parts with small_model_network.py. What differs is that rows share no prefix, that positions may be
given, and how the weights begin. A gap between two positions makes a short row look far away, so that distances are
learnt which no row is long enough for. Caches that something was evicted from have such gaps as well.

Weights begin with the circuit that copies (A Mathematical Framework for Transformer Circuits, "Induction heads"): heads
of the first layer look one, two and three tokens back and write down what they see, and heads of the next two look for
where that is what stands here now, and pass on the token they find. Training finds this circuit by itself, but on one
core it takes longer than everything after it; from here copying is right after ten steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from lcdoc.benchmarks.small_model_network import Network, Shape

_SPREAD = 0.1
"""Of embeddings; what layers add at first is in proportion to it."""
_CONSTANT = 5.0
"""The first channel of every embedding, in spreads: heads that look back by distance alone know it by this."""
_POINTED, _ALIKE = 1.4, 1.5
"""How sharply heads look back, and how sharply they look for what is alike."""
_OF_POSITION, _OF_CONTENT = 8, 6
"""Heads that look back use so many of the fastest rotations; those that compare use all but so many."""
_LOGITS = 0.7
_WRITTEN_OUT = 512
"""Up to this length attention written out is faster in bfloat16 on a CPU than the fused one."""


class ProbeNetwork(Network):
    """As `Network`, begun and run otherwise."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        _begin_copying(self)

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


@torch.no_grad()
def _begin_copying(network: ProbeNetwork) -> None:
    shape = network.shape
    hidden, size, groups = shape.hidden, shape.head_dim, shape.heads // shape.kv_heads
    embeddings = network.model.embed_tokens.weight
    embeddings.normal_(std=_SPREAD)
    embeddings[:, 0] = _CONSTANT * _SPREAD
    for layer in network.model.layers:
        layer.self_attn.o_proj.weight.mul_(0.2 * _SPREAD)
        layer.mlp.down_proj.weight.mul_(0.2 * _SPREAD)
    network.model.norm.weight.fill_(_LOGITS)
    network.model.norm.weight[0] = 0
    frequencies = shape.rope_theta ** -(torch.arange(0, size, 2) / size)
    fast = torch.arange(size // 2) < _OF_POSITION
    slow = (torch.arange(size) % (size // 2) >= _OF_CONTENT)[:, None]
    places = _orthogonal(hidden, hidden)
    places[0] = 0
    back = network.model.layers[0].self_attn
    seen: list[tuple[Tensor, Tensor]] = []
    for head in range(shape.kv_heads):
        rows = slice(head * size, (head + 1) * size)
        reads, writes = _reading(hidden, size), places[:, rows]
        seen.append((reads, writes))
        angles = (head + 1) * frequencies
        back.k_proj.weight[rows] = 0.02 * torch.randn(size, hidden)
        back.k_proj.weight[rows, 0] = _POINTED * torch.cat([fast * angles.cos(), fast * angles.sin()])
        back.v_proj.weight[rows] = reads
        for of_query in _queries(head, groups, size):
            back.q_proj.weight[of_query] = 0.02 * torch.randn(size, hidden)
            back.q_proj.weight[of_query, 0] = _POINTED * torch.cat([fast, torch.zeros_like(fast)])
            back.o_proj.weight[:, of_query] = writes * _SPREAD / groups
    for number, layer in enumerate(network.model.layers[1:3]):
        alike = layer.self_attn
        for head in range(shape.kv_heads):
            rows = slice(head * size, (head + 1) * size)
            # In the first of these layers a head for each distance, in the second all for the token before.
            here, before = seen[head if number == 0 else 0]
            found = _reading(hidden, size)
            alike.k_proj.weight[rows] = _ALIKE * slow * before.T + 0.02 * torch.randn(size, hidden)
            alike.v_proj.weight[rows] = found
            for of_query in _queries(head, groups, size):
                alike.q_proj.weight[of_query] = _ALIKE * slow * here + 0.02 * torch.randn(size, hidden)
                alike.o_proj.weight[:, of_query] = found.T * _SPREAD


def _queries(head: int, groups: int, size: int) -> list[slice]:
    """Where the weights of the query heads of a key-value head are."""
    return [slice(one * size, (one + 1) * size) for one in range(head * groups, (head + 1) * groups)]


def _reading(hidden: int, size: int) -> Tensor:
    """[size, hidden]: a random view of all channels but the constant one."""
    return torch.cat([torch.zeros(size, 1), _orthogonal(hidden - 1, size).T], 1)


def _orthogonal(rows: int, columns: int) -> Tensor:
    basis: Tensor = torch.linalg.qr(torch.randn(rows, columns))[0]
    return basis
