"""What queries to come are expected to attend to.

Devoto et al., "Expected Attention: KV Cache Compression by Estimating Attention from Future Queries Distribution",
section 3: queries before rotation are nearly normal, so that the mean of exp(q k) over them, rotated to positions to
come, has a closed form. The question need not be known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs
from lcdoc.local_engine.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class ExpectedAttention:
    """s_i = (mean over the group of softmax(z)_i + epsilon) |v_i|,
    z_i = scale mu' k_i + scale^2 k_i' Sigma k_i / 2, with mu = R mean and Sigma = R covariance R' of the queries before
    rotation, R the mean of the rotations to the next `future` positions."""

    future: int = 512
    """Positions over which rotations are averaged."""
    epsilon: float = 0.01
    """What an entry counts that nobody is expected to attend to: long values stay."""
    sinks: int = 4
    """The first tokens of the text, which the softmax leaves out: they would take nearly all of it."""

    def __post_init__(self) -> None:
        if self.future < 1 or self.epsilon < 0 or self.sinks < 0:
            raise InvalidRequestError(
                f"expected looks {self.future} positions ahead with epsilon {self.epsilon} behind {self.sinks} sinks: "
                "set future to 1 or more, the others to 0 or more"
            )

    @property
    def needs(self) -> Needs:
        return Needs(moments=True)

    def score(self, heads: Heads) -> Tensor:
        if heads.moments is None:
            raise ValueError(f"layer {heads.model.layer} came without moments: ask for them by `Needs.moments`")
        keys = heads.keys.to(torch.float32)
        attention = torch.zeros_like(heads.positions, dtype=torch.float32)
        sinks = heads.positions < self.sinks
        rotation = self._mean_rotation(heads)
        scale, group = heads.model.scale, heads.moments.mean.shape[1]
        # One query head at a time: keys times a covariance are as large as the keys.
        for head in range(group):
            mean = heads.moments.mean[:, head, None] @ rotation
            covariance = rotation.mT @ heads.moments.covariance[:, head] @ rotation
            logits = (keys @ mean.mT).squeeze(-1) * scale
            logits += ((keys @ covariance) * keys).sum(-1) * (scale**2 / 2)
            total = logits.masked_fill(sinks, -torch.inf).logsumexp(-1, keepdim=True)
            # A sink may have more than all the others, or be all there is.
            attention += (logits - total).clamp(max=0).exp()
        lengths: Tensor = torch.linalg.vector_norm(heads.values, dim=-1, dtype=torch.float32)
        return (attention / group + self.epsilon) * lengths

    def _mean_rotation(self, heads: Heads) -> Tensor:
        """Row i is what rotation makes of the i-th unit vector: float32 [D, D], to multiply from the right."""
        dim = heads.keys.shape[-1]
        ahead = heads.rotated_at.max() + 1 + torch.arange(self.future, device=heads.keys.device)
        units = torch.eye(dim, device=heads.keys.device).unsqueeze(1).expand(dim, self.future, dim)
        return heads.model.rotate(units, ahead).mean(1)
