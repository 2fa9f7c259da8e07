"""The span reader's network in PyTorch, to be trained; `lcdoc.agents.span_reader` runs the same in numpy.

Source: "BERT: Pre-training of Deep Bidirectional Transformers", section 4.3 (a span is a start and an end; the first
token stands for "no answer"); "DeFormer: Decomposing Pre-trained Transformers for Faster Question Answering" (the lower
layers read question and passage apart, so that a passage goes through them once for all its questions).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

NOWHERE = -1e4
"""Logit of a place where no span may start or end."""


class Layer(nn.Module):
    """One encoder layer. Products are in `dtype`, the residual stream in float32."""

    def __init__(self, width: int, inner: int, heads: int, epsilon: float) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width, eps=epsilon)
        self.up = nn.Linear(width, inner)
        self.down = nn.Linear(inner, width)
        self.output_norm = nn.LayerNorm(width, eps=epsilon)

    def forward(self, x: Tensor, mask: Tensor, dtype: torch.dtype, drop: float) -> Tensor:
        """x: (batch, tokens, width) float32; mask: (batch, 1, 1, tokens), added to the scores."""
        batch, tokens, width = x.shape
        mixed = _linear(self.query_key_value, x.to(dtype))
        query, key, value = mixed.view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        # Written out: on CPUs with bfloat16 products it is twice as fast, forward and backward, as the fused kernel.
        scores = (query * (width // self.heads) ** -0.5) @ key.transpose(-1, -2) + mask
        attended = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, tokens, width)
        x = self.attention_norm(x + self._dropped(_linear(self.output, attended), drop))
        inner = functional.gelu(_linear(self.up, x.to(dtype)))
        return self.output_norm(x + self._dropped(_linear(self.down, inner), drop))

    def _dropped(self, y: Tensor, share: float) -> Tensor:
        return functional.dropout(y.float(), share, self.training)


def _linear(module: nn.Linear, x: Tensor) -> Tensor:
    return functional.linear(x, module.weight.to(x.dtype), module.bias.to(x.dtype))


class SpanNetwork(nn.Module):
    """The upper layers, and a head. What goes in are the states of question and window after the lower layers."""

    def __init__(self, tensors: Mapping[str, np.ndarray], *, first: int, heads: int, epsilon: float) -> None:
        """The layers from number `first` on of the encoder whose weights are `tensors`."""
        super().__init__()
        self.first = first
        width, inner = tensors["encoder.layer.0.output.dense.weight"].shape
        depth = sum(name.endswith(".attention.self.query.weight") for name in tensors)
        self.layers = nn.ModuleList(Layer(width, inner, heads, epsilon) for _ in range(first, depth))
        self.kinds = nn.Parameter(torch.zeros(3, width))
        self.head = nn.Linear(width, 2)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        with torch.no_grad():
            for number, layer in enumerate(self.layers, first):
                for name, weight in _own_names(layer).items():
                    parts = [torch.tensor(tensors[f"encoder.layer.{number}.{part}"]) for part in name]
                    weight.copy_(torch.cat(parts))

    def forward(
        self, states: Tensor, kinds: Tensor, mask: Tensor, *, dtype: torch.dtype = torch.float32, drop: float = 0.0
    ) -> Tensor:
        """Logits (batch, tokens, 2) of starts and ends. states: (batch, tokens, width); kinds, mask: (batch, tokens).

        `mask` is true where there is a token. The first token stands for "no answer"; no other of the question counts.
        """
        x = states.float() + self.kinds[kinds]
        hidden = torch.zeros(mask.shape, dtype=dtype).masked_fill_(~mask, NOWHERE)[:, None, None]
        for layer in self.layers:
            x = layer(x, hidden, dtype, drop)
        logits: Tensor = self.head(x)
        allowed = mask & (kinds > 0)
        allowed[:, 0] = True
        return logits.masked_fill(~allowed[..., None], NOWHERE)

    def tensors(self) -> dict[str, Tensor]:
        """All weights, layers named as transformers' BertModel names them."""
        found: dict[str, Tensor] = {}
        for number, layer in enumerate(self.layers, self.first):
            for names, weight in _own_names(layer).items():
                for name, part in zip(names, weight.detach().chunk(len(names)), strict=True):
                    found[f"encoder.layer.{number}.{name}"] = part.clone()
        found["kinds"] = self.kinds.detach().clone()
        found["head.weight"], found["head.bias"] = self.head.weight.detach().clone(), self.head.bias.detach().clone()
        return found


def _own_names(layer: nn.Module) -> dict[tuple[str, ...], nn.Parameter]:
    """BertModel's names of each of our parameters; three that are one here are joined."""
    modules: dict[tuple[str, ...], nn.Module] = {
        tuple(f"attention.self.{part}" for part in ("query", "key", "value")): layer.query_key_value,
        ("attention.output.dense",): layer.output,
        ("attention.output.LayerNorm",): layer.attention_norm,
        ("intermediate.dense",): layer.up,
        ("output.dense",): layer.down,
        ("output.LayerNorm",): layer.output_norm,
    }
    return {
        tuple(f"{name}.{kind}" for name in names): getattr(module, kind)
        for names, module in modules.items()
        for kind in ("weight", "bias")
    }


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of starts and of ends with the shares that annotators gave them. Both (batch, tokens, 2)."""
    return -(targets * logits.log_softmax(1)).sum((1, 2)).mean() / 2


def best_spans(logits: Tensor, longest: int = 30) -> list[tuple[float, float, int, int]]:
    """For each row the score of no answer, of the best span, and that span's first and last token."""
    starts, ends = logits[:, 1:, 0], logits[:, 1:, 1]
    tokens = starts.shape[1]
    allowed = torch.ones(tokens, tokens, dtype=torch.bool).triu().tril(longest - 1)
    scores = (starts[:, :, None] + ends[:, None, :]).masked_fill(~allowed, -math.inf).flatten(1)
    best, at = scores.max(1)
    nothing = logits[:, 0].sum(-1)
    return [
        (none, score, place // tokens + 1, place % tokens + 1)
        for none, score, place in zip(nothing.tolist(), best.tolist(), at.tolist(), strict=True)
    ]
