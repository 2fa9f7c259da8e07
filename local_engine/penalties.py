"""Penalties on tokens that were already said.

- repetition (CTRL, Keskar et al. 2019): the logit of every token of prompt and answer is divided by the penalty where
  positive, multiplied where negative, as in transformers.
- presence and frequency (OpenAI): subtracted for tokens of the *answer*, once, and once per occurrence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from lcdoc.local_engine.sampling import Sampling

Ids = np.ndarray[tuple[int], np.dtype[np.integer]]


def penalised(scores: Tensor, rows: Sequence[tuple[Sampling, Sequence[int] | Ids, int]]) -> Tensor:
    """`scores` [R, V], changed in place, for rows of (sampling, history, answer tokens at its end).

    Only the tokens of the histories are touched: one gather and one scatter for all rows together.
    """
    places, factors, offsets = [], [], []
    for number, (sampling, history, answered) in enumerate(rows):
        if not sampling.penalises:
            continue
        said = np.asarray(history, np.int64)
        answer = said[len(said) - answered :]
        # Ids may stand there twice: they are read before any is written, and all copies are written alike.
        ids = answer if sampling.repetition_penalty == 1 else said
        if not len(ids):
            continue
        counts = np.bincount(answer, minlength=int(ids.max()) + 1)[ids]
        places.append(number * scores.shape[1] + ids)
        factors.append(np.full(len(ids), sampling.repetition_penalty))
        offsets.append(sampling.frequency_penalty * counts + sampling.presence_penalty * (counts > 0))
    if not places:
        return scores
    where = torch.from_numpy(np.concatenate(places)).to(scores.device, non_blocking=True)
    terms = torch.from_numpy(np.stack((np.concatenate(factors), np.concatenate(offsets))).astype(np.float32))
    factor, offset = terms.to(scores.device, non_blocking=True)
    flat = scores.view(-1)
    said_scores = flat[where]
    flat[where] = torch.where(said_scores < 0, said_scores * factor, said_scores / factor) - offset
    return scores
