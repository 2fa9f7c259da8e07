"""Runs of similar neighbours merged into one entry.

Wang et al., "Model Tells You Where to Merge: Adaptive KV Cache Merging for LLMs on Long-Context Tasks", sections on
merging sets and Gaussian kernel weighted merging. Keys of neighbours are alike, by the model's nature rather than the
text's, so that a run of them may be held as one.

There, similarity alone says how many entries remain. Here a budget has said it before, and only kept entries have a
place to hold something. The sets are therefore these:

- A *run* is a stretch of entries, neighbours in the cache, each with a cosine above `threshold` to the next. Protected
  entries are in no run: they stay as they are.
- Every kept entry of a run is the pivot of a set, and the merged entry takes its place: it is what the scorer found
  most attended thereabouts, as the paper's pivot is. An evicted entry of that run joins the kept one before or behind
  it, whichever key is nearer.
- A run of which nothing is kept has no place. Its pivot is its highest score; all of it joins the set of the kept
  entry most similar to that pivot, out of those that are not protected, if their cosine is above `threshold` too; else
  it is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from lcdoc.local_engine.compression.parts import Heads, Merged, Needs
from lcdoc.local_engine.compression.reducers.nearest import merged, nearest, summed
from lcdoc.local_engine.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class KVMerger:
    """k = (k_p + sum g_i k_i) / (1 + sum g_i), and v alike, for a set with the pivot p and other members i:
    g_i = exp(-|k_i - k_p|^2 / (2 s^2)), and s^2 is the mean of |k_i - k_p|^2 over the set, its pivot included."""

    threshold: float = 0.75
    """The cosine above which neighbours are alike; -1 to 1."""
    log_count: bool = False
    """Whether attention to a merged entry is raised by the log of how many it stands for, as their sum would be. Not in
    the paper, where a merged entry is attended like any other."""

    def __post_init__(self) -> None:
        if not -1 <= self.threshold <= 1:
            raise InvalidRequestError(f"kvmerger's threshold is {self.threshold}: choose a cosine from -1 to 1")

    @property
    def needs(self) -> Needs:
        return Needs()

    @property
    def biased(self) -> bool:
        return self.log_count

    def reduce(self, heads: Heads, keep: Tensor, scores: Tensor) -> Merged:
        keys = heads.keys.to(torch.float32)
        target = self._targets(heads, keys, keep, scores)
        joins = target >= 0
        target = target.clamp(min=0)

        distances = _distances(keys, joins, target)
        spread = summed(distances, target) / (1 + summed(joins.to(torch.float32), target))
        near = torch.exp(-distances / (2 * spread.gather(1, target)).clamp(min=torch.finfo(torch.float32).tiny))
        # An entry that stands for several, after an earlier cut, counts so often.
        counts = torch.ones_like(distances)
        if self.log_count and "bias" in heads.state:
            counts = heads.state["bias"].exp()
        weights = torch.where(joins, counts * near, 0.0)
        bias = None
        if self.log_count:
            bias = (counts + summed(torch.where(joins, counts, 0.0), target)).log()
        return merged(keep, target, weights, counts, bias=bias)

    def _targets(self, heads: Heads, keys: Tensor, keep: Tensor, scores: Tensor) -> Tensor:
        """Which kept entry, that is not protected, each evicted one is merged into: int64 [H, n], -1 for none."""
        n, protected = keep.shape[1], heads.protected
        index = torch.arange(n, device=keep.device).expand_as(keep)
        places = keep & ~protected
        alike = heads.kernels.adjacent_similarity(heads) > self.threshold
        joined = pad(alike & ~protected[:, 1:] & ~protected[:, :-1], (1, 0))
        run = (~joined).cumsum(-1) - 1

        before = torch.where(places, index, -1).cummax(-1).values
        behind = torch.where(places, index, n).flip(-1).cummin(-1).values.flip(-1)
        has_before = (before >= 0) & (run.gather(1, before.clamp(min=0)) == run)
        has_behind = (behind < n) & (run.gather(1, behind.clamp(max=n - 1)) == run)
        evicted = ~keep & ~protected
        to_before = _distances(keys, evicted & has_before, before.clamp(min=0))
        to_behind = _distances(keys, evicted & has_behind, behind.clamp(max=n - 1))
        first = has_before & (~has_behind | (to_before <= to_behind))
        target = torch.where(first, before, torch.where(has_behind, behind, -1))

        homeless = evicted & (target < 0)
        pivot = _pivots(run, scores, index)
        cosines, found = nearest(keys, homeless & (pivot == index), places)
        refuge = torch.where(cosines > self.threshold, found, -1).gather(1, pivot)
        return torch.where(evicted, torch.where(homeless, refuge, target), -1)


def _pivots(run: Tensor, scores: Tensor, index: Tensor) -> Tensor:
    """For each entry the first one of the highest score in its run: int64 [H, n]."""
    best = torch.full_like(scores, -torch.inf).scatter_reduce(1, run, scores, "amax").gather(1, run)
    candidates = torch.where(scores == best, index, index.shape[1] - 1)
    return torch.full_like(index, index.shape[1] - 1).scatter_reduce(1, run, candidates, "amin").gather(1, run)


def _distances(keys: Tensor, asking: Tensor, target: Tensor) -> Tensor:
    """|k_i - k_target|^2 for entries that ask, 0 for others: float32 [H, n]."""
    row, column = asking.nonzero(as_tuple=True)
    squares = (keys[row, column] - keys[row, target[row, column]]).square().sum(-1)
    return torch.zeros(asking.shape, device=keys.device).index_put_((row, column), squares)
