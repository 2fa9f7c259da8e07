"""A small Llama for training, whose parameters are named as in `LlamaForCausalLM`'s files.

What it has beside transformers' own: a prefix that all sequences of a batch share is computed once. With lcdoc's
prompts that prefix, the instructions, is half of all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu


@dataclass(frozen=True, slots=True)
class Shape:
    """Of the model. At 1,536 tokens of vocabulary it has 787 thousand parameters."""

    vocabulary: int
    hidden: int = 128
    feed_forward: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    window: int = 2048
    rope_theta: float = 10_000.0
    eps: float = 1e-5

    def config(self, **ids: int) -> dict[str, Any]:
        """The `config.json` of `LlamaForCausalLM`."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.feed_forward,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "max_position_embeddings": self.window,
            "rms_norm_eps": self.eps,
            "rope_theta": self.rope_theta,
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            **ids,
        }


class Norm(nn.Module):
    """Root mean square normalisation with a weight for each channel."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight.shape, self.weight, self._eps)


class Attention(nn.Module):
    """Grouped-query attention of sequences [B, T, hidden] behind one shared prefix [1, P, hidden]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._shape = shape
        self.q_proj = nn.Linear(shape.hidden, shape.heads * shape.head_dim, bias=False)
        self.k_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head_dim, bias=False)
        self.v_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head_dim, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_dim, shape.hidden, bias=False)

    def forward(
        self, prefix: Tensor, x: Tensor, turns: tuple[Tensor, Tensor], visible: Tensor
    ) -> tuple[Tensor, Tensor]:
        length, count = prefix.shape[1], len(x)
        of_prefix = self._heads(prefix, turns[0][:length], turns[1][:length])
        query, key, value = self._heads(x, turns[0][length:], turns[1][length:])
        first = scaled_dot_product_attention(*of_prefix, is_causal=True)
        key = torch.cat([of_prefix[1].expand(count, -1, -1, -1), key], 2)
        value = torch.cat([of_prefix[2].expand(count, -1, -1, -1), value], 2)
        second = _attention(query, key, value, visible)
        return self.o_proj(first.transpose(1, 2).flatten(2)), self.o_proj(second.transpose(1, 2).flatten(2))

    @torch.no_grad()
    def begin_alike(self) -> None:
        """Make queries like keys, and what goes out like what comes in."""
        shape = self._shape
        groups, of_heads = shape.heads // shape.kv_heads, (shape.kv_heads, shape.head_dim, shape.hidden)
        keys, values = (
            one.weight.view(of_heads).repeat_interleave(groups, 0).flatten(0, 1) for one in (self.k_proj, self.v_proj)
        )
        self.q_proj.weight.add_(keys)
        self.o_proj.weight.mul_(0.3).add_(0.7 * values.T)

    def _heads(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        size, groups = self._shape.head_dim, self._shape.heads // self._shape.kv_heads
        query, key, value = (
            projected(x).unflatten(-1, (-1, size)).transpose(1, 2)
            for projected in (self.q_proj, self.k_proj, self.v_proj)
        )
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        return _turned(query, cos, sin), _turned(key, cos, sin), value


class FeedForward(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.feed_forward, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.feed_forward, bias=False)
        self.down_proj = nn.Linear(shape.feed_forward, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.hidden, shape.eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.hidden, shape.eps)
        self.mlp = FeedForward(shape)

    def forward(
        self, prefix: Tensor, x: Tensor, turns: tuple[Tensor, Tensor], visible: Tensor
    ) -> tuple[Tensor, Tensor]:
        first, second = self.self_attn(self.input_layernorm(prefix), self.input_layernorm(x), turns, visible)
        prefix, x = prefix + first, x + second
        return (
            prefix + self.mlp(self.post_attention_layernorm(prefix)),
            x + self.mlp(self.post_attention_layernorm(x)),
        )


class Decoder(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.hidden, shape.eps)


class Network(nn.Module):
    """The whole model; its output weights are its embeddings.

    Heads begin by looking for tokens like their own and by passing on what they see, after "Mimetic Initialization of
    Self-Attention Layers" (section 4): copying is then learnt in far fewer steps.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Decoder(shape)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02 if "embed" in name else shape.hidden**-0.5)
        for layer in self.model.layers:
            layer.self_attn.begin_alike()

    def forward(self, prefix: Tensor, tokens: Tensor, asked: Tensor) -> Tensor:
        """Logits [N, vocabulary] at the N positions of `tokens` [B, T] where `asked` is true, behind `prefix` [P]."""
        length, width = len(prefix), tokens.shape[1]
        turns = _rotation(self.shape, length + width)
        visible = torch.ones(width, length + width, dtype=torch.bool).tril(length)
        first, x = self.model.embed_tokens(prefix[None]), self.model.embed_tokens(tokens)
        for layer in self.model.layers:
            first, x = layer(first, x, turns, visible)
        return self.model.norm(x[asked]) @ self.model.embed_tokens.weight.T


def _rotation(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    half = torch.arange(0, shape.head_dim, 2) / shape.head_dim
    angles = torch.arange(length)[:, None] * shape.rope_theta**-half
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def _attention(query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> Tensor:
    """Attention written out, in bfloat16 where the rest is: faster on CPUs than the fused one with heads this small."""
    if not torch.is_autocast_enabled("cpu"):
        return scaled_dot_product_attention(query, key, value, attn_mask=visible)
    of_heads = query.shape[1]
    with torch.autocast("cpu", enabled=False):
        query, key, value = (one.bfloat16().flatten(0, 1) for one in (query, key, value))
        bias = torch.zeros(visible.shape, dtype=query.dtype).masked_fill(~visible, -torch.inf)
        bias = bias.expand(len(query), -1, -1)
        scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=query.shape[-1] ** -0.5)
        given = torch.bmm(scores.softmax(-1), value)
    return given.unflatten(0, (-1, of_heads))


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat([-high, low], -1) * sin
