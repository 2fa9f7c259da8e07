"""Scores of a cache that never was, for tests of budgets."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from lcdoc.local_engine.compression.parts import Scores


def made(
    values: Tensor,
    budget: int,
    *,
    lengths: Tensor | None = None,
    protected: Tensor | None = None,
    window: int = 0,
    spread: Tensor | None = None,
) -> Scores:
    """`values` [L, H, n] of which each row has `lengths` [L, H] entries; `window` last ones are protected too."""
    layers, heads, size = values.shape
    lengths = torch.full((layers, heads), size) if lengths is None else lengths
    place = torch.arange(size)
    valid = place < lengths.unsqueeze(-1)
    kept = torch.zeros_like(valid) if protected is None else protected & valid
    kept = kept | valid & (place >= lengths.unsqueeze(-1) - window)
    return Scores(values.masked_fill(~valid, -torch.inf), valid, kept, budget, window, spread)


@st.composite
def any_scores(draw: st.DrawFn, *, even: bool = False) -> Scores:
    """Any shape, with ties, infinite scores, rows of any length and any entries protected; `even`: all rows alike."""
    layers, heads, size = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 17))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    values = torch.randn(layers, heads, size, generator=generator)
    if draw(st.booleans()):
        values = values.round()
    if draw(st.booleans()):
        values[values > 1.2] = torch.inf
        values[values < -1.2] = -torch.inf
    rate = draw(st.sampled_from([0.0, 0.1, 0.5]))
    shape = (1, 1) if even else (layers, heads)
    lengths = torch.randint(0 if not even else size, size + 1, shape, generator=generator).expand(layers, heads)
    protected = (torch.rand(*shape, size, generator=generator) < rate).expand(layers, heads, size)
    window = draw(st.integers(0, 5))
    spread = torch.randn(layers, generator=generator)
    budget = draw(st.integers(0, size + 3))
    return made(values, budget, lengths=lengths, protected=protected, window=window, spread=spread)
