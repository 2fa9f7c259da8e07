"""Heads with a model that has all that parts may ask for, and float64 transcriptions that several tests share."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads
from lcdoc.tests.local_engine.compression.cut_heads import random_heads

SHAPES = [(1, 1, 8, 1), (2, 7, 8, 9), (2, 45, 8, 6), (3, 40, 6, 1)]
"""H, n, D, queries"""
GROUP = 3


def turned(x: Tensor, positions: Tensor) -> Tensor:
    """Rotary embedding of two halves of a head, with frequencies 1000^(-i / half)."""
    half = x.shape[-1] // 2
    frequencies = 1000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
    angles = positions.to(x.dtype).unsqueeze(-1) * frequencies
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1)


def made(shape: tuple[int, int, int, int], *, probe: bool = False, seed: int = 0, **options: object) -> Heads:
    """As `random_heads`, with an output projection, a rotation and the input of the queries; `probe`: they see all."""
    count, n, dim, window = shape
    heads = random_heads((count, n, dim), window=window, groups=GROUP, seed=seed, **options)
    generator = torch.Generator().manual_seed(seed + 1)
    weight = torch.randn(11, count, GROUP, dim, generator=generator)
    model = replace(heads.model, rotate=turned, output=lambda: weight)
    hidden = torch.randn(window, 11, generator=generator)
    positions = 4 * n + 1 + torch.arange(window) if probe else heads.query_positions
    return replace(heads, model=model, hidden=hidden, query_positions=positions)


def attention(heads: Heads) -> Tensor:
    """float64 [H, G, w, n], one number after the other."""
    keys, queries = heads.keys.double(), heads.queries.double()
    count, group, window, _ = queries.shape
    result = torch.zeros(count, group, window, keys.shape[1], dtype=torch.float64)
    for h in range(count):
        for g in range(group):
            for q in range(window):
                weights = [
                    math.exp(float(queries[h, g, q] @ keys[h, i]) * heads.model.scale)
                    if heads.rotated_at[h, i] <= heads.query_positions[q]
                    else 0.0
                    for i in range(keys.shape[1])
                ]
                for i, each in enumerate(weights):
                    result[h, g, q, i] = each / (sum(weights) or 1.0)
    return result


def projected(heads: Heads, order: int) -> Tensor:
    """|W_o v_i| of each query head: float64 [H, G, n]."""
    weight = heads.model.output().double()
    count, n, _ = heads.values.shape
    result = torch.zeros(count, GROUP, n, dtype=torch.float64)
    for h in range(count):
        for g in range(GROUP):
            for i in range(n):
                result[h, g, i] = (weight[:, h, g] @ heads.values[h, i].double()).norm(p=order)
    return result


def close(ours: Tensor, theirs: Tensor, tolerance: float = 2e-5) -> None:
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), theirs, rtol=tolerance, atol=tolerance)
