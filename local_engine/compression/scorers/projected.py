"""How much an entry's value can change the layer's output: the length of its projection.

A value counts by what the output projection makes of it; two values of one length can differ much in that.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 1024


def projected_lengths(values: Tensor, output: Tensor) -> Tensor:
    """Euclidean length of each entry's value behind each query head's projection: float32 [H, G, n].

    `values` [H, n, D], `output` [hidden, H, G, D] as `LayerModel.output` gives it. By the D x D Gram matrix, so that no
    vector of the hidden size is written for an entry.
    """
    weight = output.to(torch.float32)
    gram = torch.einsum("ohgd,ohge->hgde", weight, weight)
    values = values.to(torch.float32).unsqueeze(1)
    return ((values @ gram) * values).sum(dim=-1).clamp(min=0).sqrt()


def projected_sums(values: Tensor, output: Tensor) -> Tensor:
    """Sum of magnitudes (1-norm) of each entry's value behind each query head's projection: float32 [H, G, n]."""
    weight = output.to(torch.float32).permute(1, 2, 3, 0)
    blocks = torch.split(values.to(torch.float32).unsqueeze(1), _BLOCK, dim=2)
    return torch.cat([(block @ weight).abs().sum(dim=-1) for block in blocks], dim=-1)
