"""Masks of allowed tokens, spread out over the vocabulary on the device of the logits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def forbidden(masks: list[Tensor], scores: Tensor) -> Tensor:
    """What masks do not allow, bool [r, V] on the device of `scores`."""
    tokens = scores.shape[1]
    words = np.zeros((len(masks), -(-tokens // 32)), np.int32)
    for line, mask in zip(words, masks, strict=True):
        given = mask.numpy()
        if mask.dtype == torch.bool:
            octets = np.packbits(given[:tokens], bitorder="little")
            line.view(np.uint8)[: len(octets)] = octets
        else:
            line[: len(given)] = given[: len(line)]
    np.invert(words, out=words)
    if scores.device.type == "cpu":
        bits = np.unpackbits(words.view(np.uint8), axis=1, count=tokens, bitorder="little")
        return torch.from_numpy(bits.view(np.bool_))
    sent = torch.from_numpy(words).to(scores.device, non_blocking=True)
    shifts = torch.arange(32, dtype=torch.int32, device=scores.device)
    return ((sent[:, :, None] >> shifts) & 1).bool().flatten(1)[:, :tokens]
