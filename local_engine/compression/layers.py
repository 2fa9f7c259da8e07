"""What parts may ask of the model: how it rotates, and what its heads write."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import LayerModel
from lcdoc.local_engine.decoder import Decoder
from lcdoc.local_engine.linear import Linear


def layer_model(decoder: Decoder, layer: int, length: int, heads: slice) -> LayerModel:
    """Of some heads of a layer, for a text whose rotations go by `length` (see `batch.Piece.prompt_length`)."""
    config = decoder.config

    def rotate(x: Tensor, positions: Tensor) -> Tensor:
        return _rotated(decoder, x, positions, length) if config.rotates[layer] else x

    def output() -> Tensor:
        matrix = _matrix(decoder.weights.layers[layer].output, config.heads * config.head_dim, _like(decoder, layer))
        return matrix.view(len(matrix), config.kv_heads, -1, config.head_dim)[:, heads]

    return LayerModel(layer, config.layers, config.head_dim**-0.5, rotate, output, config.kv_heads)


def _like(decoder: Decoder, layer: int) -> Tensor:
    """A tensor of the type and on the device that the layer computes in."""
    return decoder.weights.layers[layer].attention_norm


def _rotated(decoder: Decoder, x: Tensor, positions: Tensor, length: int) -> Tensor:
    flat = positions.reshape(-1)
    cos, sin = decoder.rope.rotation(flat, torch.full_like(flat, length))
    # What a rotation is scaled by, in the cache, stays as it is: turning there and back changes nothing.
    factor = decoder.rope.attention_factor
    cos, sin = ((part / factor).view(*positions.shape, part.shape[-1]) for part in (cos, sin))
    half = cos.shape[-1]
    wide = x.float()
    first, second = wide[..., :half], wide[..., half : 2 * half]
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin, wide[..., 2 * half :]), -1)
    return turned.to(x.dtype)


def _matrix(linear: Linear, inputs: int, like: Tensor) -> Tensor:
    """A matrix [outputs, inputs] in whatever form it is held: what it makes of the unit vectors, without the bias."""
    units = torch.eye(inputs, dtype=like.dtype, device=like.device)
    made: Callable[[Tensor], Tensor] = linear
    bias = getattr(linear, "bias", None)
    columns = made(units)
    return (columns if bias is None else columns - bias).T.contiguous()
