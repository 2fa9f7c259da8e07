"""The scores of a whole cache: a scorer asked layer by layer, and of each piece of a probe."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lcdoc.local_engine.compression.layer_groups import deciding_layers
from lcdoc.local_engine.compression.look import PROBED, Group, Look, narrowed
from lcdoc.local_engine.compression.probes import Probed


def scored(look: Look, probed: Sequence[Probed]) -> Tensor:
    """float32 [L, H, n], by the recipe's scorer. Of an entry that several pieces score the highest score counts."""
    held = look.held
    scorer = held.allowance.recipe.scorer
    values = torch.full(look.layout.positions.shape, -torch.inf, device=look.layout.positions.device)
    if scorer.needs.probe == "repeat":
        return _scored_by_repetition(look, probed)
    deciding = deciding_layers(look.decoder.config.windows, scorer.needs.groups)
    for sightings in [piece.sightings for piece in probed] or [held.sightings]:
        for group in look.groups:
            if deciding[group.layer] == group.layer:
                seen = look.heads(group, sightings)
                values[group.entries] = torch.maximum(values[group.entries], scorer.score(seen))
                look.keep_figures(seen, group)
    for layer, first in enumerate(deciding):
        if first != layer:
            values[layer] = _of_layer(look, values[first], first, layer)
    return values


def _of_layer(look: Look, values: Tensor, first: int, layer: int) -> Tensor:
    """float32 [H, n]: the scores of a layer's entries, from `values` [H, n] of the layer `first`; -inf for what is at
    no place that is there."""
    valid, positions = look.layout.valid[first], look.layout.positions
    known = positions[first].masked_fill(~valid, torch.iinfo(torch.int64).max)
    places = torch.searchsorted(known, positions[layer]).clamp(max=known.shape[-1] - 1)
    there = known.gather(-1, places) == positions[layer]
    return values.gather(-1, places).masked_fill(~there, -torch.inf)


def _scored_by_repetition(look: Look, probed: Sequence[Probed]) -> Tensor:
    """A query that repeats a piece of the text shares its attention among the sinks, that piece, and what it repeated
    so far; only the piece is scored ("KVzip", section 3.2). Entries from before the last cut keep their scores."""
    held = look.held
    values = held.entries.figure(PROBED)  # written in place, so that it goes where the entries go
    sinks, _ = held.allowance.recipe.protects(look.budget)
    for piece in probed:
        for group in look.groups:
            columns, own = _shown(look, group, sinks, piece.repeated)
            seen = narrowed(look.heads(group, piece.sightings), columns)
            score = held.allowance.recipe.scorer.score(seen)
            values[group.layer, group.heads, columns[own]] = score[:, own]
    return values


def _shown(look: Look, group: Group, sinks: int, repeated: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Columns of a group's rows, int64 [m], that a repeating query sees, and which of them it repeats, bool [m].

    What is repeated was read since the last cut, and is therefore at one place in rows of one length.
    """
    positions = look.layout.positions[group.entries]
    first, end = repeated
    own = (positions >= first) & (positions < end)
    columns = ((positions < sinks) | own).all(0).nonzero()[:, 0]
    return columns, own[0, columns]
