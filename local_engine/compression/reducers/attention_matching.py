"""Attention biases, and values if wanted, fitted so that the kept entries answer queries as the whole cache did.

Zweiger et al., "Fast KV Compaction via Attention Matching". What attention makes of a stretch of cache is a mass, the
sum of exp(q k), and a mean of values. With the kept keys chosen, both can be matched for a set of reference queries by
least squares, the mass by a bias on each key, the means by new values: nothing is trained, and each head is by itself.

The paper fits to tens of thousands of queries, of the model repeating the text and asking itself about it. Here there
are some hundred, and a text has more entries than these can tell apart; both fits are therefore drawn to what was
there, weights to 1 and values to themselves, and an entry that no reference query attends to stays what it was.

Still, what a kept value takes on so that queries whose own target is gone get their answers, it has for all: it no
longer says what it said to the question that needs it. A bias cannot do that, and so only biases are fitted unless
`values` asks for more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lcdoc.local_engine.compression.parts import Heads, Needs, Reduced
from lcdoc.local_engine.compression.reducers.nearest import packed, taken
from lcdoc.local_engine.errors import InvalidRequestError

_HELD = 1 << 24
"""Attention weights computed at once: 64 MiB of float32."""
_LOG_WEIGHT = 7.0
"""Biases stay within this: a fit beyond it has lost its footing."""
_STEPS = 100
"""Of the gradient descent, whose error shrinks at least by 1 - sqrt(ridge) in each."""


@dataclass(frozen=True, slots=True)
class AttentionMatching:
    """Fits what is kept and not protected, per head, to reference queries of all its query heads together."""

    window: int = 64
    """How many last tokens' queries are asked for, unless a scorer has the model read a probe: then those of the probe
    are the references."""
    references: int = 512
    """At most so many queries for a head are fitted to, evenly taken from all."""
    values: bool = False
    """Whether values are fitted, too: nearer to the reference queries, further from questions about single facts."""
    ridge: float = 1e-2
    """How strongly weights and values are held at what they were, as a share of what the fit has to bear; above 0. What
    is held less follows the references more closely, and other queries less: below 0.001 these may fare worse than
    after plain dropping."""

    def __post_init__(self) -> None:
        for name in ("window", "references"):
            if getattr(self, name) < 1:
                raise InvalidRequestError(f"match's {name} is {getattr(self, name)}: choose 1 or more")
        if not 0 < self.ridge < math.inf:
            raise InvalidRequestError(f"match's ridge is {self.ridge}: choose a number above 0, such as 0.001")

    @property
    def needs(self) -> Needs:
        return Needs(window=self.window)

    @property
    def biased(self) -> bool:
        return True

    def reduce(self, heads: Heads, keep: Tensor, scores: Tensor) -> Reduced:
        """Raises InvalidRequestError where no queries came with the entries."""
        if heads.queries is None or heads.query_positions is None or not heads.queries.shape[2]:
            raise InvalidRequestError("match fits to queries and none were kept: let a window or a probe be read first")
        queries, seen_from = self._references(heads.queries, heads.query_positions)
        group = max(1, _HELD // (queries.shape[1] * keep.shape[1]))
        fitted = [
            self._fit(_some(heads, slice(begin, begin + group)), keep[begin : begin + group], references, seen_from)
            for begin, references in zip(range(0, len(keep), group), torch.split(queries, group), strict=True)
        ]
        values, biases = zip(*fitted, strict=True)
        return Reduced(heads.keys, torch.cat(values), torch.cat(biases))

    def _references(self, queries: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """float32 [H, R, D] and int64 [R], the query heads of a head in a row."""
        count = queries.shape[1] * queries.shape[2]
        flat, seen_from = queries.flatten(1, 2), positions.repeat(queries.shape[1])
        if count > self.references:
            chosen = torch.arange(self.references, device=queries.device) * count // self.references
            flat, seen_from = flat[:, chosen], seen_from[chosen]
        return flat.to(torch.float32), seen_from

    def _fit(self, heads: Heads, keep: Tensor, queries: Tensor, seen_from: Tensor) -> tuple[Tensor, Tensor]:
        """The values and biases of some heads."""
        bias = heads.state["bias"]
        kept, there = packed(keep)
        if not kept.shape[1]:
            return heads.values, bias
        free = there & ~heads.protected.gather(1, kept) & (~keep).any(-1, keepdim=True)
        attention, outputs = _attend(heads, queries, seen_from, kept)
        attention = attention * there[:, None]
        weights = _weights(attention, free, self.ridge)
        biases = bias.scatter_add(1, kept, torch.where(free, weights.log(), 0.0))
        if not self.values:
            return heads.values, biases
        matched = attention * weights[:, None]
        matched = matched / matched.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        fitted = _values(matched, free, taken(heads.values, kept), outputs, self.ridge)

        wide = kept[..., None].expand_as(fitted)
        new = torch.where(free[..., None], fitted.to(heads.values.dtype), heads.values.gather(1, wide))
        return heads.values.scatter(1, wide, new), biases


def _some(heads: Heads, part: slice) -> Heads:
    """Of `heads` those in `part`, with what is read of them here; a bias where they had none is 0."""
    bias = heads.state.get("bias")
    return replace(
        heads,
        keys=heads.keys[part],
        values=heads.values[part],
        rotated_at=heads.rotated_at[part],
        protected=heads.protected[part],
        state={"bias": torch.zeros_like(heads.rotated_at[part], dtype=torch.float32) if bias is None else bias[part]},
    )


def _attend(heads: Heads, queries: Tensor, seen_from: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """What the whole cache answers: the attention that kept entries get, [H, R, K], and the outputs, [H, R, D]."""
    keys, values, bias = heads.keys.to(torch.float32), heads.values.to(torch.float32), heads.state["bias"]
    strip = max(1, _HELD // heads.rotated_at.numel())
    attentions, outputs = [], []
    for begin in range(0, queries.shape[1], strip):
        rows = slice(begin, begin + strip)
        logits = queries[:, rows] @ keys.mT * heads.model.scale + bias[:, None]
        hidden = heads.rotated_at[:, None] > seen_from[rows, None]
        attention = logits.masked_fill_(hidden, -torch.inf).softmax(-1).nan_to_num_(0.0)
        outputs.append(attention @ values)
        attentions.append(attention.gather(2, kept[:, None].expand(-1, attention.shape[1], -1)))
    return torch.cat(attentions, 1), torch.cat(outputs, 1)


def _weights(attention: Tensor, free: Tensor, ridge: float) -> Tensor:
    """By how much each kept key's attention must be multiplied for that of all of them to add up to 1 again.

    `attention` [H, R, K] is what they got beside everything else, so that its rows are divided by the mass that is to
    be matched: errors count by their share of it. Minimises |A w - 1|^2 + r |w - 1|^2 over free, bounded w by projected
    gradient steps with Nesterov's momentum; float32 [H, K], 1 for what is not free.
    """
    movable = attention * free[:, None]
    # The product of the largest column and row sums bounds the largest eigenvalue.
    curve = (movable.sum(1).amax(-1) * movable.sum(2).amax(-1)).clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    pull = ridge * curve
    # What is solved for is w - 1: missing is what the kept entries lack as they are.
    missing = (1 - attention.sum(-1))[..., None]
    least, most = math.exp(-_LOG_WEIGHT) - 1, math.exp(_LOG_WEIGHT) - 1
    change = ahead = torch.zeros(free.shape, device=free.device)
    pace = 1.0
    for _ in range(_STEPS):
        slope = (movable.mT @ (movable @ ahead[..., None] - missing))[..., 0] + pull * ahead
        step = (ahead - slope / (curve + pull)).clamp(least, most)
        faster = (1 + math.sqrt(1 + 4 * pace * pace)) / 2
        # Momentum that points uphill is given up, head by head.
        uphill = ((ahead - step) * (step - change)).sum(-1, keepdim=True) > 0
        ahead = step + torch.where(uphill, 0.0, (pace - 1) / faster) * (step - change)
        change, pace = step, faster
    return torch.where(free, change + 1, 1.0)


def _values(matched: Tensor, free: Tensor, old: Tensor, outputs: Tensor, ridge: float) -> Tensor:
    """Values [H, K, D] that bring `matched` [H, R, K] times them nearest to `outputs`, held at `old` by the ridge.

    Solved for the change, over queries rather than entries, of which there may be far more; in float64, since attention
    weights of neighbouring queries are nearly alike.
    """
    lacking = (outputs - matched @ old).to(torch.float64)
    movable = matched.to(torch.float64) * free[:, None]
    gram = movable @ movable.mT
    diagonal = gram.diagonal(dim1=1, dim2=2)
    hold = (ridge * diagonal.mean(-1)).clamp(min=torch.finfo(torch.float64).tiny)
    gram.diagonal(dim1=1, dim2=2).add_(hold[:, None])
    change: Tensor = movable.mT @ torch.linalg.solve(gram, lacking)
    return old + change.to(torch.float32)
