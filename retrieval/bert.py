"""The forward pass of a BERT encoder in numpy, for short texts on a few CPU cores.

Source: "BERT: Pre-training of Deep Bidirectional Transformers", section 3; "Attention Is All You Need", section 3.
Texts are packed one behind the other, never padded: only attention looks at where one ends. The caller runs several
packs at once, each in a thread of its own with a single-threaded BLAS, so that the element-wise work is spread over the
cores as well as the matrix products. Those products take four fifths of the time, at the speed of a core's multipliers;
what lies between two of them goes a few rows at a time, which stay in the core's cache.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

FEED_FORWARD_ROWS = 512
"""Tokens that go through a feed-forward block together, which bounds its memory: 512 x 1536 floats are 3 MiB."""
GELU_ROWS = 64
"""Of these, tokens that go through GELU together: two buffers of 64 x 1536 floats are 768 KiB."""
HEADS_AT_ONCE = 4
"""Attention heads computed together."""
SCORES_AT_ONCE = 256 * 256
"""Scores of one head computed together, of several texts where they are short: with four heads, 1 MiB."""

# GELU(x) = x/2 (1 + tanh(x (a + b x^2))), "Gaussian Error Linear Units", section 2. With z = b^(1/3) x the argument is
# z^3 + (a / b^(1/3)) z. The scale goes into the product before it and x/2 into the product after it.
_A = math.sqrt(2 / math.pi)
GELU_SCALE = (_A * 0.044715) ** (1 / 3)
_LINEAR = np.float32(_A / GELU_SCALE)


def read_safetensors(path: Path) -> dict[str, Matrix]:
    """The float32 tensors of a safetensors file, mapped, not read: pages are loaded when they are touched.

    Raises ValueError when the file is not a whole safetensors file.
    """
    data = np.memmap(path, dtype=np.uint8, mode="r")
    header_bytes = int.from_bytes(data[:8].tobytes(), "little")
    if header_bytes > len(data) - 8:
        raise ValueError(f"{path}: not a safetensors file, or cut short")
    header = json.loads(data[8 : 8 + header_bytes].tobytes())
    body = data[8 + header_bytes :]
    tensors: dict[str, Matrix] = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        start, end = entry["data_offsets"]
        if end > len(body):
            raise ValueError(f"{path}: tensor {name} is cut short")
        tensors[name] = body[start:end].view(np.float32).reshape(entry["shape"])
    return tensors


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Layer normalisation: gain and bias of shape (width,)."""

    gain: Matrix
    bias: Matrix
    epsilon: float

    def apply(self, x: Matrix) -> None:
        """Normalise the rows of `x` in place."""
        width = x.shape[1]
        x -= x.mean(axis=1, keepdims=True)
        variance = np.einsum("ij,ij->i", x, x)
        variance *= 1 / width
        variance += self.epsilon
        np.sqrt(variance, out=variance)
        np.reciprocal(variance, out=variance)
        x *= variance[:, None]
        x *= self.gain
        x += self.bias


@dataclass(frozen=True, slots=True)
class Layer:
    """One encoder layer. Weights are (out, in), each column in one piece, since products with tokens are then a
    twentieth faster than with rows in one piece; the scale of the scores and of GELU is folded into them.

    Keys need no bias (it adds the same to every score of a query), and the bias of the values passes through attention
    unchanged (its weights sum to 1), so it is folded into the bias of the output.
    """

    query_key_value: Matrix
    query_bias: Matrix
    output: Matrix
    output_bias: Matrix
    attention_norm: Normalisation
    up: Matrix
    up_bias: Matrix
    down: Matrix
    down_bias: Matrix
    output_norm: Normalisation


@dataclass(frozen=True, slots=True)
class Encoder:
    """A BERT encoder with mean pooling."""

    words: Matrix
    positions: Matrix
    embedding_norm: Normalisation
    layers: tuple[Layer, ...]
    heads: int

    @property
    def width(self) -> int:
        return int(self.words.shape[1])

    def pooled(self, texts: Sequence[Sequence[int]]) -> Matrix:
        """The mean of the last layer's states over each text's tokens, as rows of length 1.

        `texts` are token ids, special ones included; neighbours of equal length share their attention products.
        """
        lengths = [len(text) for text in texts]
        x = self.embedded(texts)
        runs = equal_runs(lengths)
        for layer in self.layers:
            attended = attention(layer, x, runs, self.heads)
            x = feed_forward(layer, attention_output(layer, attended, x))
        means = np.add.reduceat(x, np.cumsum([0, *lengths[:-1]]), axis=0)
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return means

    def embedded(self, texts: Sequence[Sequence[int]]) -> Matrix:
        """What goes into the first layer: (tokens of all texts, width)."""
        x: Matrix = self.words[np.concatenate([np.asarray(text, dtype=np.int64) for text in texts])]
        x += self.positions[np.concatenate([np.arange(len(text)) for text in texts])]
        self.embedding_norm.apply(x)
        return x


def equal_runs(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """Runs of equal lengths as (first token, texts, tokens in each)."""
    runs: list[tuple[int, int, int]] = []
    start = 0
    for length in lengths:
        if runs and runs[-1][2] == length:
            first, count, _ = runs[-1]
            runs[-1] = (first, count + 1, length)
        else:
            runs.append((start, 1, length))
        start += length
    return runs


def attention(layer: Layer, x: Matrix, runs: Sequence[tuple[int, int, int]], heads: int) -> Matrix:
    """Self-attention of every text, before its output projection. x: (tokens, width)."""
    width = x.shape[1]
    mixed = x @ layer.query_key_value.T
    mixed[:, :width] += layer.query_bias
    attended = np.empty_like(x)
    for start, count, length in runs:
        rows = slice(start, start + count * length)
        # (3, texts, heads, tokens, head width), all views
        split = mixed[rows].reshape(count, length, 3, heads, width // heads).transpose(2, 0, 3, 1, 4)
        target = attended[rows].reshape(count, length, heads, width // heads).transpose(0, 2, 1, 3)
        texts = max(1, SCORES_AT_ONCE // length**2)
        for text in range(0, count, texts):
            for head in range(0, heads, HEADS_AT_ONCE):
                some = slice(text, text + texts), slice(head, head + HEADS_AT_ONCE)
                _attend(split[0][some], split[1][some], split[2][some], target[some])
    return attended


def attention_output(layer: Layer, attended: Matrix, x: Matrix) -> Matrix:
    """Output projection, residual and normalisation."""
    y = attended @ layer.output.T
    y += layer.output_bias
    y += x
    layer.attention_norm.apply(y)
    return y


def _attend(query: Matrix, key: Matrix, value: Matrix, out: Matrix) -> None:
    """softmax(query key^T) value into `out`; all (texts, heads, tokens, head width).

    The usual subtraction of each row's maximum only guards the exponential's range and costs as much as the
    exponential, so it is done only where the range was in fact left. Rows are summed by a product, which takes a
    quarter of a sum's time.
    """
    ones = np.ones(key.shape[-2], dtype=np.float32)
    weights = query @ key.swapaxes(-1, -2)
    with np.errstate(over="ignore", invalid="ignore"):
        np.exp(weights, out=weights)
        sums = weights @ ones
    if not (sums.min() > 1e-25 and sums.max() < 1e35):
        weights = query @ key.swapaxes(-1, -2)
        weights -= weights.max(axis=-1, keepdims=True)
        np.exp(weights, out=weights)
        sums = weights @ ones
    np.divide(weights @ value, sums[..., None], out=out)


def feed_forward(layer: Layer, x: Matrix) -> Matrix:
    """The two-layer perceptron with GELU, residual and normalisation, in blocks of rows."""
    result = np.empty_like(x)
    buffer = np.empty((min(GELU_ROWS, len(x)), len(layer.up)), dtype=np.float32)
    for start in range(0, len(x), FEED_FORWARD_ROWS):
        block = x[start : start + FEED_FORWARD_ROWS]
        inner = block @ layer.up.T
        for row in range(0, len(inner), GELU_ROWS):
            z = inner[row : row + GELU_ROWS]
            z += layer.up_bias
            gate = np.multiply(z, z, out=buffer[: len(z)])
            gate += _LINEAR
            gate *= z
            np.tanh(gate, out=gate)
            gate += 1
            z *= gate
        y = np.matmul(inner, layer.down.T, out=result[start : start + FEED_FORWARD_ROWS])
        y += layer.down_bias
        y += block
        layer.output_norm.apply(y)
    return result


def encoder_from(tensors: Mapping[str, Matrix], *, heads: int, epsilon: float) -> Encoder:
    """The encoder whose weights are `tensors`, named as transformers' BertModel names them.

    Raises KeyError naming a tensor that is missing.
    """

    def norm(prefix: str) -> Normalisation:
        return Normalisation(tensors[f"{prefix}.weight"], tensors[f"{prefix}.bias"], epsilon)

    def layer(number: int) -> Layer:
        prefix = f"encoder.layer.{number}"
        query, key, value = (f"{prefix}.attention.self.{part}" for part in ("query", "key", "value"))
        output = f"{prefix}.attention.output.dense"
        up, down = f"{prefix}.intermediate.dense", f"{prefix}.output.dense"
        scale = np.float32(1 / math.sqrt(tensors[f"{query}.weight"].shape[0] // heads))
        return Layer(
            query_key_value=np.asfortranarray(
                np.concatenate(
                    [tensors[f"{query}.weight"] * scale, tensors[f"{key}.weight"], tensors[f"{value}.weight"]]
                )
            ),
            query_bias=tensors[f"{query}.bias"] * scale,
            output=np.asfortranarray(tensors[f"{output}.weight"]),
            output_bias=tensors[f"{output}.bias"] + tensors[f"{output}.weight"] @ tensors[f"{value}.bias"],
            attention_norm=norm(f"{prefix}.attention.output.LayerNorm"),
            up=np.multiply(tensors[f"{up}.weight"], np.float32(GELU_SCALE), order="F"),
            up_bias=tensors[f"{up}.bias"] * np.float32(GELU_SCALE),
            down=np.multiply(tensors[f"{down}.weight"], np.float32(0.5 / GELU_SCALE), order="F"),
            down_bias=tensors[f"{down}.bias"],
            output_norm=norm(f"{prefix}.output.LayerNorm"),
        )

    depth = sum(name.endswith(".attention.self.query.weight") for name in tensors)
    return Encoder(
        words=tensors["embeddings.word_embeddings.weight"],
        positions=tensors["embeddings.position_embeddings.weight"]
        + tensors["embeddings.token_type_embeddings.weight"][0],
        embedding_norm=norm("embeddings.LayerNorm"),
        layers=tuple(layer(number) for number in range(depth)),
        heads=heads,
    )
