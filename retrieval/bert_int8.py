"""The encoder with 8-bit integer products, for many texts on a CPU that has instructions for them (VNNI).

Sources: "LLM.int8()", section 3 (a few hidden channels are many times larger than the rest, and spoil the steps of all)
and "SmoothQuant", section 4 (divide such a channel by a factor and multiply its weights by it). Weights are rounded per
output channel. Inputs of the attention and feed-forward blocks have fixed steps, found on passages of our own; GELU's
outputs, whose range differs most between tokens, have a step for each token. Nothing depends on a text's neighbours, so
a text always has the same vector.

The products are oneDNN's, through the operators that PyTorch's own compiler uses; torch's quantized tensors are on
their way out of PyTorch and are not used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from lcdoc.retrieval import bert
from lcdoc.retrieval.bert import GELU_SCALE, Encoder, Matrix, equal_runs
from lcdoc.retrieval.packs import one_blas_thread

CHANNEL_LIMIT = 3.0
"""A hidden channel that grew beyond this on the calibration passages is divided down to it."""
HEADROOM = 1.2
"""How much larger than on the calibration passages a value may grow before it is cut off."""

LEAST_TOKENS = 16
"""Rounding errors average out over a text's tokens; a text of a few words is not accurate enough."""


class Range(NamedTuple):
    """The largest absolute value of each channel at the inputs of a layer's products, each (width,)."""

    attention: Matrix
    output: Matrix
    feed_forward: Matrix


def observe(encoder: Encoder, texts: Sequence[Sequence[int]]) -> list[Range]:
    """The ranges of every layer over `texts`, in float32."""
    runs = equal_runs([len(text) for text in texts])
    x = encoder.embedded(texts)
    ranges = []
    for layer in encoder.layers:
        attended = bert.attention(layer, x, runs, encoder.heads)
        y = bert.attention_output(layer, attended, x)
        ranges.append(Range(*(np.abs(values).max(axis=0) for values in (x, attended, y))))
        x = bert.feed_forward(layer, y)
    return ranges


class Int8Encoder:
    """An encoder whose weight products are 8-bit; the rest is float32."""

    def __init__(self, encoder: Encoder, calibration: Sequence[Sequence[int]]) -> None:
        """Raises AttributeError or RuntimeError where torch or the processor has no such products."""
        self._encoder = encoder
        self._layers = [
            _Layer.of(layer, seen) for layer, seen in zip(encoder.layers, observe(encoder, calibration), strict=True)
        ]

    def pooled(self, texts: Sequence[Sequence[int]]) -> Matrix:
        """As `Encoder.pooled`. Texts of fewer than LEAST_TOKENS tokens are embedded in float32."""
        short = np.array([len(text) < LEAST_TOKENS for text in texts])
        vectors = np.empty((len(texts), self._encoder.width), dtype=np.float32)
        for rows, pooled in ((short, self._encoder.pooled), (~short, self._pooled)):
            if rows.any():
                vectors[rows] = pooled([text for text, chosen in zip(texts, rows, strict=True) if chosen])
        return vectors

    def _pooled(self, texts: Sequence[Sequence[int]]) -> Matrix:
        torch.set_num_threads(1)  # a setting of the calling thread, of which there are several
        lengths = [len(text) for text in texts]
        runs = equal_runs(lengths)
        with torch.inference_mode():
            x = torch.from_numpy(self._encoder.embedded(texts))
            for layer in self._layers:
                x = layer.apply(x, runs, self._encoder.heads)
            means = torch.stack([states.mean(dim=0) for states in torch.split(x, lengths)])
            vectors: Matrix = functional.normalize(means, dim=1).numpy()
        return vectors


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Torch and BLAS work in the calling thread alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with one_blas_thread():
            yield
    finally:
        torch.set_num_threads(before)


class _Linear:
    """An 8-bit product of inputs (n, in) with weights (out, in)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._scales = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        rounded = (weight / self._scales[:, None]).round().to(torch.int8)
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._bias = bias

    def apply(self, x: torch.Tensor, step: float, *, gelu: bool = False) -> torch.Tensor:
        """x: (n, in) bytes, each 128 + value / step. Returns (n, out) float32."""
        weight = (self._weight, self._scales, self._zeros, self._bias)
        name, algorithm = ("gelu", "tanh") if gelu else ("none", "")
        product: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
            x, step, 128, *weight, 1.0, 0, torch.float32, name, [], algorithm
        )
        return product


_MIDDLE = torch.tensor(128.5)  # half a step more than the zero point, since conversion to bytes rounds down


def _to_bytes(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return torch.addcmul(_MIDDLE, x, factor).clamp_(0, 255).to(torch.uint8)


@dataclass(frozen=True, slots=True)
class _Layer:
    query_key_value: _Linear
    attention_factor: torch.Tensor
    attention_step: float
    output: _Linear
    output_factor: torch.Tensor
    output_step: float
    attention_norm: tuple[torch.Tensor, torch.Tensor]
    up: _Linear
    up_factor: torch.Tensor
    up_step: float
    down: _Linear
    down_bias: torch.Tensor
    output_norm: tuple[torch.Tensor, torch.Tensor]
    epsilon: float

    @classmethod
    def of(cls, layer: bert.Layer, seen: Range) -> _Layer:
        attention_divisor, attention_step = _smoothing(seen.attention)
        output_step = float(seen.output.max()) * HEADROOM / 127
        up_divisor, up_step = _smoothing(seen.feed_forward)
        bias = np.zeros(len(layer.query_key_value), dtype=np.float32)
        bias[: len(layer.query_bias)] = layer.query_bias
        return cls(
            query_key_value=_Linear(_tensor(layer.query_key_value) * attention_divisor, _tensor(bias)),
            attention_factor=1 / (attention_divisor * attention_step),
            attention_step=attention_step,
            output=_Linear(_tensor(layer.output), _tensor(layer.output_bias)),
            output_factor=torch.tensor(1 / output_step),
            output_step=output_step,
            attention_norm=(_tensor(layer.attention_norm.gain), _tensor(layer.attention_norm.bias)),
            up=_Linear(_tensor(layer.up) / GELU_SCALE * up_divisor, _tensor(layer.up_bias) / GELU_SCALE),
            up_factor=1 / (up_divisor * up_step),
            up_step=up_step,
            down=_Linear(_tensor(layer.down) * (2 * GELU_SCALE), None),
            down_bias=_tensor(layer.down_bias),
            output_norm=(_tensor(layer.output_norm.gain), _tensor(layer.output_norm.bias)),
            epsilon=layer.output_norm.epsilon,
        )

    def apply(self, x: torch.Tensor, runs: Sequence[tuple[int, int, int]], heads: int) -> torch.Tensor:
        """One layer. x: (tokens, width) float32."""
        width = x.shape[1]
        mixed = self.query_key_value.apply(_to_bytes(x, self.attention_factor), self.attention_step)
        attended = torch.empty_like(x)
        for start, count, length in runs:
            rows = slice(start, start + count * length)
            query, key, value = mixed[rows].view(count, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            # The scale of the scores is already in the queries.
            states = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
            attended[rows] = states.transpose(1, 2).reshape(-1, width)
        y = self.output.apply(_to_bytes(attended, self.output_factor), self.output_step)
        y = functional.layer_norm(y.add_(x), (width,), *self.attention_norm, self.epsilon)
        inner = self.up.apply(_to_bytes(y, self.up_factor), self.up_step, gelu=True)
        # GELU is never below -0.17, so a token's largest value bounds them all as long as it is above that.
        largest = inner.amax(dim=1, keepdim=True).clamp_(min=0.2)
        scaled = inner.mul_(127 / largest).add_(128.5).to(torch.uint8)
        y = torch.addcmul(y.add_(self.down_bias), self.down.apply(scaled, 1 / 127), largest)
        return functional.layer_norm(y, (width,), *self.output_norm, self.epsilon)


def _smoothing(largest: Matrix) -> tuple[torch.Tensor, float]:
    """What to divide each channel by, and the step that then fits all of them."""
    divisor = torch.from_numpy(np.maximum(largest / CHANNEL_LIMIT, 1).astype(np.float32))
    reached = float((torch.from_numpy(largest) / divisor).max())
    return divisor, reached * HEADROOM / 127


def _tensor(array: Matrix) -> torch.Tensor:
    """A copy, since the array may be a read-only map of the file; rows in one piece, as packed products take them."""
    return torch.tensor(array).contiguous()
