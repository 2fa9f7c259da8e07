"""What a cut has before it: the entries of all rows, and the heads of each layer as scorers and reducers see them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from lcdoc.local_engine.compression.budgets.d2o_layers import attention_spread
from lcdoc.local_engine.compression.entries import Layout
from lcdoc.local_engine.compression.held import Held
from lcdoc.local_engine.compression.layers import layer_model
from lcdoc.local_engine.compression.observation import MASS, SURPRISE, Sightings
from lcdoc.local_engine.compression.parts import Heads, Moments, on_demand
from lcdoc.local_engine.compression.rows import Stored, places, read_bias
from lcdoc.local_engine.decoder import Decoder
from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.page_tables import PageTables

BIAS: Final = "bias"
PROBED: Final = "probed"
"""The figure that keeps the highest score an entry had from any piece of a repetition. Scorers do not see it."""
_GIVEN: Final = ("seen", BIAS)
"""Figures that are worked out for each cut and not kept."""


@dataclass(frozen=True, slots=True)
class Group:
    """Heads of one layer with rows of one length."""

    layer: int
    heads: slice
    length: int

    @property
    def entries(self) -> tuple[int, slice, slice]:
        """Where they are in what is [L, H, n]."""
        return self.layer, self.heads, slice(0, self.length)


@dataclass(frozen=True)
class Look:
    """One sequence at one cut."""

    decoder: Decoder
    tables: PageTables
    held: Held
    read: int
    """Tokens that were read."""
    layout: Layout
    lengths: list[list[int]]
    """[L][H]"""
    protected: Tensor
    """bool [L, H, n]"""
    budget: int
    sentence_starts: Tensor | None
    """bool [L, H, n]"""

    @classmethod
    def at(cls, decoder: Decoder, tables: PageTables, held: Held, budget: int) -> Look:
        """At a sequence as it is now. Raises EngineError where the cache holds what was not noted.

        Takes time for what is kept and what came in since the last cut, not for all that was read.
        """
        lengths = held.entries.lengths.tolist()
        if lengths != tables.lengths[held.slot].tolist():
            raise EngineError(f"sequence {held.slot} of the cache does not hold what was noted of it")
        layout = held.entries.layout()
        sinks, recent = held.allowance.recipe.protects(budget)
        positions, read = layout.positions, held.entries.read
        protected = (positions < sinks) | (positions >= read - recent) | held.marks.kept(positions)
        if held.sightings.surprise:
            held.entries.note(SURPRISE, torch.tensor(held.sightings.surprise, device=positions.device))
            held.sightings.surprise.clear()
        starts = held.marks.begins(positions)
        return cls(decoder, tables, held, read, layout, lengths, protected & layout.valid, budget, starts)

    @property
    def groups(self) -> Iterator[Group]:
        """Heads that are looked at together, which is all of a layer where they are equally long."""
        for layer in range(len(self.lengths)):
            yield from self._groups(layer)

    def _groups(self, layer: int) -> Iterator[Group]:
        lengths = self.lengths[layer]
        if len(set(lengths)) == 1:
            yield Group(layer, slice(0, len(lengths)), lengths[0])
            return
        for head, length in enumerate(lengths):
            yield Group(layer, slice(head, head + 1), length)

    @property
    def in_window(self) -> Tensor:
        """bool [L, 1, n]: what a sliding window still shows. Behind it nothing is ever seen again."""
        firsts = [0 if window is None else self.read - window + 1 for window in self.decoder.config.windows]
        return self.layout.positions >= torch.tensor(firsts, device=self.layout.positions.device)[:, None, None]

    @property
    def exempt(self) -> Tensor:
        """bool [L, H, n]: entries of a snapshot that is kept, which are no part of what is cut."""
        return self.layout.positions < self.held.allowance.exempt

    @property
    def spread(self) -> Tensor | None:
        """float32 [L]: how evenly each layer's attention is spread; None where the budget does not ask for it."""
        held = self.held
        if not held.allowance.recipe.budget.needs.mass:
            return None
        seen = (self.read - self.layout.positions).clamp(min=1)
        relative = held.entries.figure(MASS) / seen
        spreads = []
        for layer in range(len(self.lengths)):
            each = [attention_spread(relative[group.entries]) for group in self._groups(layer)]
            spreads.append(sum(each) / len(each))
        return torch.tensor(spreads)

    def heads(self, group: Group, sightings: Sightings) -> Heads:
        """What parts see of a group, with the queries of `sightings`."""
        held, tables, rows = self.held, self.tables, group.heads
        where = places(tables, held.slot, group.layer, rows, group.length)
        stored = Stored(tables.kernels, tables.pool, where)
        positions = self.layout.positions[group.entries]
        queries, beside = sightings.queries(group.layer), sightings.beside(group.layer)
        moments = held.sightings.moments(group.layer)
        return Heads(
            model=layer_model(self.decoder, group.layer, held.allowance.prompt, rows),
            keys=on_demand(stored.keys),
            values=on_demand(stored.values),
            positions=positions,
            rotated_at=self.layout.stands[group.entries],
            protected=self.protected[group.entries],
            new=held.entries.new,
            queries=None if queries is None else queries[rows],
            query_positions=sightings.query_positions,
            beside=None if beside is None else beside[rows],
            hidden=sightings.hidden(group.layer),
            moments=None if moments is None else Moments(moments.mean[rows], moments.covariance[rows]),
            state=self._state(group, positions, read_bias(tables, held.slot, where)),
            sentence_starts=None if self.sentence_starts is None else self.sentence_starts[group.entries],
            first=rows.start,
            stored=stored,
        )

    def _state(self, group: Group, positions: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
        entries, needs = self.held.entries, self.held.allowance.recipe.needs
        state = {name: entries.figure(name)[group.entries] for name in entries.figures if name != PROBED}
        if needs.mass:
            state["seen"] = (self.read - positions).float()
        if bias is not None:
            state[BIAS] = bias
        return state

    def keep_figures(self, seen: Heads, group: Group) -> None:
        """Write down what a part noted of each entry."""
        for name, figure in seen.state.items():
            if name not in _GIVEN:
                self.held.entries.figure(name)[group.entries] = figure


def narrowed(heads: Heads, columns: Tensor) -> Heads:
    """The heads with only some of their entries: `columns` int64 [m], rising."""

    def part(each: Tensor) -> Tensor:
        return each[:, columns]

    starts, stored = heads.sentence_starts, None if heads.stored is None else heads.stored.narrowed(columns)
    return replace(
        heads,
        keys=on_demand((lambda: part(heads.keys)) if stored is None else stored.keys),
        values=on_demand((lambda: part(heads.values)) if stored is None else stored.values),
        positions=part(heads.positions),
        rotated_at=part(heads.rotated_at),
        protected=part(heads.protected),
        new=min(heads.new, len(columns)),
        state={name: part(figure) for name, figure in heads.state.items()},
        sentence_starts=None if starts is None else part(starts),
        stored=stored,
    )
