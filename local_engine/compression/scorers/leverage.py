"""How much of the row space of all keys is lost with a key: its statistical leverage.

"Compactor: Calibrated Query-Agnostic KV Cache Compression with Approximate Leverage Scores", section 3: a key that
others can stand for has little of it, whatever attends to it. It is found among keys sketched to few dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sketch(dim: int, dimensions: int, seed: int, device: torch.device) -> Tensor:
    """float32 [D, k], normal with variance 1 / k: the same for all cuts, as long as a layer's keys."""
    drawn = torch.randn(dim, dimensions, generator=torch.Generator().manual_seed(seed))
    return (drawn / math.sqrt(dimensions)).to(device)


def leverage_scores(keys: Tensor, sketch: Tensor, ridge: float) -> Tensor:
    """x_i (X'X + eps I)^-1 x_i for X = (keys - their mean) `sketch`: float32 [H, n], each from 0 to 1.

    `keys` float32 [H, n, D] before rotation, `sketch` [D, k]; eps is `ridge` times the mean of the diagonal of X'X.
    """
    sketched = (keys - keys.mean(dim=1, keepdim=True)) @ sketch
    gram = sketched.mT @ sketched
    mean = gram.diagonal(dim1=1, dim2=2).mean(dim=-1).clamp(min=torch.finfo(torch.float32).tiny / ridge)
    gram = gram + torch.diag_embed((ridge * mean).unsqueeze(-1).expand(-1, gram.shape[-1]))
    factor = torch.linalg.cholesky(gram)
    halves: Tensor = torch.linalg.solve_triangular(factor, sketched.mT, upper=False)
    return halves.square().sum(dim=1)
