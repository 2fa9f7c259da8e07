"""The encoder in torch, for many texts on a GPU: float32, texts padded to the longest of their pack."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from lcdoc.retrieval.bert import GELU_SCALE, Encoder, Layer, Matrix, Normalisation


class GpuEncoder:
    """The encoder's weights on a torch device (any device; a GPU is what it is for)."""

    def __init__(self, encoder: Encoder, device: str) -> None:
        self._device = torch.device(device)
        self._heads = encoder.heads
        self._words = self._tensor(encoder.words)
        self._positions = self._tensor(encoder.positions)
        self._embedding_norm = self._norm(encoder.embedding_norm)
        self._layers = [self._layer(layer) for layer in encoder.layers]
        self._epsilon = encoder.embedding_norm.epsilon

    def pooled(self, texts: Sequence[Sequence[int]]) -> Matrix:
        """As `Encoder.pooled`."""
        lengths = [len(text) for text in texts]
        inside: npt.NDArray[np.bool_] = np.arange(max(lengths)) < np.reshape(lengths, (-1, 1))
        padded = np.zeros((len(texts), max(lengths)), dtype=np.int64)
        padded[inside] = np.concatenate([np.asarray(text, dtype=np.int64) for text in texts])
        with torch.inference_mode():
            mask = torch.from_numpy(inside).to(self._device)
            x = self._words[torch.from_numpy(padded).to(self._device)] + self._positions[: padded.shape[1]]
            x = self._normalised(x, self._embedding_norm)
            for layer in self._layers:
                x = self._apply(layer, x, mask[:, None, None, :])
            # The mean and the sum have the same direction.
            sums = (x * mask[..., None]).sum(dim=1)
            vectors: Matrix = functional.normalize(sums, dim=1).cpu().numpy()
        return vectors

    def _apply(self, layer: dict[str, torch.Tensor], x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """One layer. x: (texts, tokens, width)."""
        texts, tokens, width = x.shape
        mixed = functional.linear(x, layer["query_key_value"], layer["query_key_value_bias"])
        query, key, value = mixed.view(texts, tokens, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        # The scale of the scores is already in the queries.
        states = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
        y = functional.linear(
            states.transpose(1, 2).reshape(texts, tokens, width), layer["output"], layer["output_bias"]
        )
        x = self._normalised(x + y, (layer["attention_gain"], layer["attention_bias"]))
        inner = functional.gelu(functional.linear(x, layer["up"], layer["up_bias"]), approximate="tanh")
        y = functional.linear(inner, layer["down"], layer["down_bias"])
        return self._normalised(x + y, (layer["output_gain"], layer["output_norm_bias"]))

    def _layer(self, layer: Layer) -> dict[str, torch.Tensor]:
        bias = np.zeros(len(layer.query_key_value), dtype=np.float32)
        bias[: len(layer.query_bias)] = layer.query_bias
        attention_gain, attention_bias = self._norm(layer.attention_norm)
        output_gain, output_norm_bias = self._norm(layer.output_norm)
        return {
            "query_key_value": self._tensor(layer.query_key_value),
            "query_key_value_bias": self._tensor(bias),
            "output": self._tensor(layer.output),
            "output_bias": self._tensor(layer.output_bias),
            "attention_gain": attention_gain,
            "attention_bias": attention_bias,
            "up": self._tensor(layer.up) / GELU_SCALE,
            "up_bias": self._tensor(layer.up_bias) / GELU_SCALE,
            "down": self._tensor(layer.down) * (2 * GELU_SCALE),
            "down_bias": self._tensor(layer.down_bias),
            "output_gain": output_gain,
            "output_norm_bias": output_norm_bias,
        }

    def _norm(self, norm: Normalisation) -> tuple[torch.Tensor, torch.Tensor]:
        return self._tensor(norm.gain), self._tensor(norm.bias)

    def _normalised(self, x: torch.Tensor, norm: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return functional.layer_norm(x, (x.shape[-1],), *norm, self._epsilon)

    def _tensor(self, array: Matrix) -> torch.Tensor:
        return torch.tensor(array).to(self._device)
