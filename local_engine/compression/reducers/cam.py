"""Values of what is evicted spread over the kept entries that follow, with a probability by how much it was attended.

Zhang et al., "CaM: Cache Merging for Memory-efficient LLMs Inference", section on cache merging. Neighbours share
attention, so an evicted value comes out again, on average, if those behind it carry a part of it; drawing which ones do
keeps little attended values from adding up to noise.

The paper evicts one entry a step. Where a long text is cut at once there are many evicted entries for each kept one,
and what that takes on would outweigh its own value: so it is bounded, and drawn entries share what there is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from lcdoc.local_engine.compression.parts import Heads, Needs, Reduced
from lcdoc.local_engine.compression.reducers.nearest import packed, summed, taken
from lcdoc.local_engine.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class CaM:
    """Each of the m kept entries j that follow an evicted one gets v_j + v_i / m with the probability
    min(1, A_i / mean A_j), one draw for all of them; A is the attention an entry got from the queries that saw it, on
    average. Keys stay, protected entries take part, and an entry that none follows is dropped."""

    following: int = 32
    """How many kept entries share an evicted value; fewer do near the end."""
    most: float = 0.1
    """The most that all values which an entry takes on may weigh, beside 1 of its own; above 0."""
    seed: int = 0
    """Of the draws. They depend on nothing else but layer, head and position, so that a text compresses alike however
    it is cut into pieces."""

    def __post_init__(self) -> None:
        if self.following < 1:
            raise InvalidRequestError(f"cam merges into {self.following} following entries: choose 1 or more")
        if not self.most > 0:
            raise InvalidRequestError(f"cam's most is {self.most}: choose a number above 0, such as 0.1")
        if not 0 <= self.seed < 1 << 63:
            raise InvalidRequestError(f"cam's seed is {self.seed}: choose one from 0 to 2^63 - 1")

    @property
    def needs(self) -> Needs:
        return Needs(mass=True)

    @property
    def biased(self) -> bool:
        return False

    def reduce(self, heads: Heads, keep: Tensor, scores: Tensor) -> Reduced:
        attended = heads.state["mass"] / heads.state["seen"].clamp(min=1)
        kept, there = packed(keep)
        if not kept.shape[1]:
            return Reduced(heads.keys, heads.values)
        # Kept entries are named by their rank from here on: rank r of an evicted entry is that of the next kept one.
        rank = keep.cumsum(-1)
        count = (there.sum(-1, keepdim=True) - rank).clamp(min=0, max=self.following)
        behind = _ahead(attended.gather(1, kept).masked_fill(~there, 0.0)[..., None], self.following)[..., 0]
        mean = pad(behind, (0, 1)).gather(1, rank) / count.clamp(min=1)
        drawn = _draws(heads, self.seed) < attended / mean
        weights = torch.where(drawn & ~keep & (count > 0), 1.0 / count.clamp(min=1), 0.0)
        # All evicted entries before one kept entry are spread alike, so they are added up first.
        target, size = rank.clamp(max=keep.shape[1] - 1), kept.shape[1]
        gained = _behind(summed(weights, target, heads.values)[:, :size], self.following)
        weighs = _behind(summed(weights, target)[:, :size, None], self.following)
        gained *= (self.most / weighs.clamp(min=torch.finfo(torch.float32).tiny)).clamp(max=1)
        values = (taken(heads.values, kept) + gained).to(heads.values.dtype)
        old = heads.values.gather(1, kept[..., None].expand_as(values))
        values = torch.where(there[..., None], values, old)
        return Reduced(heads.keys, heads.values.scatter(1, kept[..., None].expand_as(values), values))


def _ahead(entries: Tensor, m: int) -> Tensor:
    """The sum of each entry and the m - 1 behind it: [H, n, D] to [H, n, D]."""
    return pad(entries, (0, 0, 0, m - 1)).unfold(1, m, 1).sum(-1)


def _behind(entries: Tensor, m: int) -> Tensor:
    """The sum of each entry and the m - 1 before it: [H, n, D] to [H, n, D]."""
    return _ahead(entries.flip(1), m).flip(1)


def _draws(heads: Heads, seed: int) -> Tensor:
    """A number in [0, 1) for each entry, float32 [H, n]: SplitMix64's finish of seed, layer, head and position."""
    head = heads.first + torch.arange(len(heads.positions), device=heads.positions.device)[:, None]
    mixed = torch.full_like(heads.positions, seed)
    for part in (heads.model.layer, head, heads.positions):
        mixed = mixed * 1_000_003 + part
    mixed = (mixed + 1) * -0x61C8864680B583EB
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        mixed = (mixed ^ ((mixed >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return ((mixed >> 40) & 0xFFFFFF).to(torch.float32) / (1 << 24)
