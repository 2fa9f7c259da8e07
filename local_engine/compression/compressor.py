"""Runs recipes: what is seen of each sequence, when it is cut, and the cut itself.

After a pass the loop has every request with a recipe `settle`d. A cut looks at the cache layer by layer: the scorer
says which entries matter, the budget compares whole sequences, the reducer merges, and the page tables forget the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from lcdoc.local_engine.batch import Observer
from lcdoc.local_engine.compression.allowance import Allowance
from lcdoc.local_engine.compression.budgets.d2o_layers import attention_spread
from lcdoc.local_engine.compression.budgets.uniform import Uniform
from lcdoc.local_engine.compression.entries import Entries, Layout
from lcdoc.local_engine.compression.layers import layer_model
from lcdoc.local_engine.compression.marks import Marks
from lcdoc.local_engine.compression.observation import MASS, Sightings, Watch
from lcdoc.local_engine.compression.parts import Heads, Moments, Scores
from lcdoc.local_engine.compression.positions import rerotated
from lcdoc.local_engine.compression.probes import Probed, Prober
from lcdoc.local_engine.compression.rows import places, read_bias, read_rows, write_rows
from lcdoc.local_engine.compression.scorers.snapkv import SnapKV
from lcdoc.local_engine.decoder import Decoder
from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.page_tables import PageTables

BIAS: Final = "bias"
_PROBED: Final = "probed"
"""The figure that keeps the highest score an entry had from any piece of a repetition."""
_GIVEN: Final = ("seen", "surprise", BIAS)
"""Figures that are worked out for each cut and not kept."""


@dataclass(eq=False)
class Held:
    """A sequence with a recipe, from its admission to its end."""

    slot: int
    allowance: Allowance
    marks: Marks
    entries: Entries
    sightings: Sightings
    tokens: Tensor
    """int64: those that were read up to the last cut"""
    prompt_done: bool = False
    cuts: int = 0
    dropped: int = 0
    """Entries of all rows that cuts have taken away."""

    @property
    def shift(self) -> int:
        return self.entries.shift


@dataclass(frozen=True, slots=True)
class _Group:
    """Heads of one layer with rows of one length."""

    layer: int
    heads: slice
    length: int

    @property
    def entries(self) -> tuple[int, slice, slice]:
        """Where they are in what is [L, H, n]."""
        return self.layer, self.heads, slice(0, self.length)


@dataclass(frozen=True)
class _Look:
    """What a cut has before it."""

    held: Held
    tokens: Tensor
    """int64 [read]"""
    layout: Layout
    lengths: list[list[int]]
    """[L][H]"""
    protected: Tensor
    budget: int
    surprise: Tensor
    """float32 [read], or empty"""

    def groups(self, layer: int) -> Iterator[_Group]:
        """Heads that are looked at together, which is all of a layer where they are equally long."""
        lengths = self.lengths[layer]
        if len(set(lengths)) == 1:
            yield _Group(layer, slice(0, len(lengths)), lengths[0])
            return
        for head, length in enumerate(lengths):
            yield _Group(layer, slice(head, head + 1), length)


class Compressor:
    """Over one cache. Not thread-safe: the engine's own thread uses it."""

    def __init__(
        self,
        tables: PageTables,
        *,
        encode: Callable[[str], Sequence[int]],
        make_room: Callable[[int], object] = lambda _: None,
    ) -> None:
        """`encode` makes tokens of a probe's words; `make_room` frees so many pages, if it can."""
        self._tables = tables
        self._encode = encode
        self._make_room = make_room
        self.cuts = 0
        self.dropped = 0

    def begin(self, decoder: Decoder, slot: int, allowance: Allowance, marks: Marks | None = None) -> Held:
        """What is known of a sequence that is about to be read."""
        tables = self._tables
        entries = Entries(tables.layers, tables.kv_heads, tables.pool.device)
        recipe = allowance.recipe
        seen = Sightings(decoder.config, recipe.needs, entries, skipped=recipe.sinks)
        none = torch.zeros(0, dtype=torch.int64, device=tables.pool.device)
        return Held(slot, allowance, marks or Marks(), entries, seen, none)

    @staticmethod
    def observer(helds: Sequence[Held | None]) -> Observer | None:
        """What looks at a pass over these sequences, in the order of its pieces; None where nothing is to be seen."""
        seen = [held.sightings if held is not None and held.allowance.recipe.observes else None for held in helds]
        return Watch(seen) if any(seen) else None

    def settle(self, decoder: Decoder, held: Held, tokens: Sequence[int], computed: int) -> bool:
        """After a pass: cut, if it is time to. `computed` of `tokens` are in the cache. Returns whether it was cut.

        Room for the next pass is taken at once: nobody may get what the request was admitted with.
        """
        held.entries.read = computed
        allowance = held.allowance
        if not self._due(held, len(tokens), computed):
            return False
        self._cut(decoder, held, tokens[:computed], allowance.budget(computed))
        unread = len(tokens) - computed
        if unread > 1:
            self._tables.reserve(held.slot, min(unread, allowance.chunk))
        return True

    def rows(self, slot: int) -> int:
        """Entries that a row holds on average."""
        lengths = self._tables.lengths[slot]
        return -(-int(lengths.sum()) // int(lengths.size))

    def _due(self, held: Held, tokens: int, computed: int) -> bool:
        allowance, rows = held.allowance, self.rows(held.slot)
        if computed < allowance.prompt and allowance.recipe.when == "end":
            return False
        if allowance.leaves_window(held.entries.base + held.entries.new, max(1, tokens - computed)):
            held.prompt_done |= computed >= allowance.prompt
            return True
        if computed < allowance.prompt:
            return rows + min(tokens - computed, allowance.chunk) > allowance.capacity(tokens)
        if not held.prompt_done:
            held.prompt_done = True
            return rows > allowance.budget(computed)
        if tokens - computed > 1:  # an answer that is read again
            return rows + min(tokens - computed, allowance.chunk) > allowance.capacity(tokens)
        return rows >= allowance.budget(computed) + allowance.margin

    def _cut(self, decoder: Decoder, held: Held, tokens: Sequence[int], budget: int) -> None:
        recipe, tables = held.allowance.recipe, self._tables
        look = self._look(decoder, held, tokens, budget)
        valid = look.layout.valid & self._in_window(decoder, look)
        if self.rows(held.slot) > budget:
            valid = self._chosen(decoder, look, valid, tokens)
        before = int(tables.lengths[held.slot].sum())
        tables.compact(held.slot, valid)
        stood = held.entries.cut(valid, recipe.scheme)
        if recipe.moves:
            self._turn(decoder, held, stood)
        held.sightings.forget()
        held.cuts += 1
        dropped = before - int(tables.lengths[held.slot].sum())
        held.dropped += dropped
        self.cuts += 1
        self.dropped += dropped

    def _chosen(self, decoder: Decoder, look: _Look, valid: Tensor, tokens: Sequence[int]) -> Tensor:
        """bool [L, H, n]: which of the `valid` entries are kept; the others are merged into them by the reducer."""
        held, budget = look.held, look.budget
        recipe = held.allowance.recipe
        probed = self._probe(decoder, look, tokens)
        values = self._scored(decoder, look, probed)
        values = values.float().masked_fill(~valid, -torch.inf)
        protected = look.protected & valid
        _, recent = recipe.protects(budget)
        scores = Scores(values, valid, protected, budget, recent, self._spread(look))
        keep = recipe.budget.keep(scores) & valid
        if not bool((keep | ~protected).all()):
            raise EngineError(f"{recipe.chosen_budget.name} dropped what is protected: take another budget")
        if not recipe.drops:
            self._reduce(decoder, look, keep, values, probed)
        return keep

    def _look(self, decoder: Decoder, held: Held, tokens: Sequence[int], budget: int) -> _Look:
        lengths = self._tables.lengths[held.slot]
        if not np.array_equal(held.entries.lengths.cpu().numpy(), lengths):
            raise EngineError(f"sequence {held.slot} of the cache does not hold what was noted of it")
        layout = held.entries.layout()
        recipe, positions = held.allowance.recipe, layout.positions
        sinks, recent = recipe.protects(budget)
        named = held.marks.kept(positions, recipe.protect)
        protected = (positions < sinks) | (positions >= len(tokens) - recent) | named
        late = torch.tensor(tokens[len(held.tokens) :], dtype=torch.int64, device=positions.device)
        held.tokens = torch.cat((held.tokens, late))
        surprise = torch.tensor(held.sightings.surprise, device=positions.device)
        return _Look(held, held.tokens, layout, lengths.tolist(), protected & layout.valid, budget, surprise)

    def _in_window(self, decoder: Decoder, look: _Look) -> Tensor:
        """bool [L, 1, n]: what a sliding window still shows. Behind it nothing is ever seen again."""
        now = len(look.tokens)
        firsts = [0 if window is None else now - window + 1 for window in decoder.config.windows]
        return look.layout.positions >= torch.tensor(firsts, device=look.tokens.device)[:, None, None]

    def _spread(self, look: _Look) -> Tensor | None:
        recipe, figures = look.held.allowance.recipe, look.held.entries
        if not recipe.budget.needs.mass:
            return None
        seen = (len(look.tokens) - look.layout.positions).clamp(min=1)
        relative = figures.figure(MASS) / seen
        spreads = [
            sum(attention_spread(relative[group.entries]) for group in look.groups(layer))
            / len(list(look.groups(layer)))
            for layer in range(self._tables.layers)
        ]
        return torch.tensor(spreads)

    def _probe(self, decoder: Decoder, look: _Look, tokens: Sequence[int]) -> list[Probed]:
        needs = look.held.allowance.recipe.scorer.needs
        if needs.probe is None:
            return []
        prober = Prober(
            decoder, self._tables, self._encode, self._make_room, lambda slot: self._cut_fork(decoder, look, slot)
        )
        self._tables.trim(look.held.slot)  # what is reserved for the text is free for the probe until the cut
        return list(prober.run(needs, look.held, tokens))

    def _cut_fork(self, decoder: Decoder, look: _Look, slot: int) -> None:
        """Cut a fork of the sequence to the budget by SnapKV's score, for a draft."""
        values = torch.full(look.layout.positions.shape, -torch.inf, device=look.tokens.device)
        scorer = SnapKV()
        for layer in range(self._tables.layers):
            for group in look.groups(layer):
                seen = self._heads(decoder, look, group, look.held.sightings)
                values[group.entries] = scorer.score(seen)
        keep = Uniform().keep(Scores(values, look.layout.valid, look.protected, look.budget, 0))
        self._make_room(self._tables.pages_for(look.budget) - self._tables.pool.free)
        self._tables.compact(slot, keep)

    def _scored(self, decoder: Decoder, look: _Look, probed: list[Probed]) -> Tensor:
        """float32 [L, H, n]"""
        held = look.held
        scorer = held.allowance.recipe.scorer
        values = torch.zeros(look.layout.positions.shape, device=look.tokens.device)
        if not probed:
            for layer in range(self._tables.layers):
                for group in look.groups(layer):
                    seen = self._heads(decoder, look, group, held.sightings)
                    values[group.entries] = scorer.score(seen)
                    self._keep_figures(look, seen, group)
            return values
        repeats = scorer.needs.probe == "repeat"
        if repeats:
            values = held.entries.figure(_PROBED)  # written in place, so that it goes where the entries go
        sinks, _ = held.allowance.recipe.protects(look.budget)
        for piece in probed:
            for layer in range(self._tables.layers):
                for group in look.groups(layer):
                    seen = self._heads(decoder, look, group, piece.sightings)
                    if not repeats:
                        scored = scorer.score(seen)
                        values[group.entries] = torch.maximum(values[group.entries], scored)
                        self._keep_figures(look, seen, group)
                        continue
                    # A repeating query shares its attention among the sinks and what it repeats (KVzip, section 3.2).
                    first, end = piece.repeated
                    shown = (seen.positions < sinks) | ((seen.positions >= first) & (seen.positions < end))
                    for each in range(len(shown)):
                        row = slice(group.heads.start + each, group.heads.start + each + 1)
                        part = narrowed(seen, each, shown[each])
                        best = values[layer, row, : group.length]
                        best[:, shown[each]] = torch.maximum(best[:, shown[each]], scorer.score(part))
        return values

    def _reduce(self, decoder: Decoder, look: _Look, keep: Tensor, values: Tensor, probed: list[Probed]) -> None:
        held, tables = look.held, self._tables
        reducer = held.allowance.recipe.reducer
        sightings = Prober.together(probed) if probed else held.sightings
        for layer in range(tables.layers):
            for group in look.groups(layer):
                seen = self._heads(decoder, look, group, sightings)
                kept = keep[group.entries]
                made = reducer.reduce(seen, kept, values[group.entries])
                self._keep_figures(look, seen, group)
                where = places(tables, held.slot, group.layer, group.heads, group.length)
                write_rows(tables.pool.keys, where, made.keys, kept)
                write_rows(tables.pool.values, where, made.values, kept)
                if made.bias is not None:
                    write_rows(tables.pool.with_bias(), where, made.bias, kept)
                    tables.biased[held.slot] = True

    def _turn(self, decoder: Decoder, held: Held, stood: Tensor) -> None:
        """Rotate the kept keys to where they stand after a cut."""
        tables = self._tables
        lengths = tables.lengths[held.slot].tolist()
        for layer in range(tables.layers):
            for head, length in enumerate(lengths[layer]):
                row = slice(head, head + 1)
                where = places(tables, held.slot, layer, row, length)
                keys, _ = read_rows(tables, where)
                old, new = stood[layer, row, :length], held.entries.stands[layer, row, :length]
                model = layer_model(decoder, layer, held.allowance.prompt, row)
                moved = rerotated(model, keys, old, new)
                write_rows(tables.pool.keys, where, moved, torch.ones_like(new, dtype=torch.bool))

    def _heads(self, decoder: Decoder, look: _Look, group: _Group, sightings: Sightings) -> Heads:
        held, tables = look.held, self._tables
        where = places(tables, held.slot, group.layer, group.heads, group.length)
        keys, values = read_rows(tables, where)
        positions = look.layout.positions[group.entries]
        state = {name: held.entries.figure(name)[group.entries] for name in held.entries.figures if name != _PROBED}
        needs = held.allowance.recipe.needs
        if needs.mass:
            state["seen"] = (len(look.tokens) - positions).float()
        if needs.surprise:
            state["surprise"] = look.surprise[positions]
        bias = read_bias(tables, held.slot, where)
        if bias is not None:
            state[BIAS] = bias
        queries = sightings.queries(group.layer)
        return Heads(
            model=layer_model(decoder, group.layer, held.allowance.prompt, group.heads),
            keys=keys,
            values=values,
            positions=positions,
            rotated_at=look.layout.stands[group.entries],
            tokens=look.tokens[positions],
            protected=look.protected[group.entries],
            new=held.entries.new,
            queries=None if queries is None else queries[group.heads],
            query_positions=sightings.query_positions,
            hidden=sightings.hidden(group.layer),
            moments=_moments(held.sightings, group.layer, group.heads),
            state=state,
            sentence_starts=held.marks.begins(positions),
            first=group.heads.start,
        )

    @staticmethod
    def _keep_figures(look: _Look, seen: Heads, group: _Group) -> None:
        entries = look.held.entries
        for name, figure in seen.state.items():
            if name not in _GIVEN:
                entries.figure(name)[group.entries] = figure


def _moments(sightings: Sightings, layer: int, heads: slice) -> Moments | None:
    moments = sightings.moments(layer)
    return None if moments is None else Moments(moments.mean[heads], moments.covariance[heads])


def narrowed(heads: Heads, head: int, shown: Tensor) -> Heads:
    """One of the heads with only the entries that are `shown` (bool [n])."""
    row = slice(head, head + 1)
    model = heads.model

    def part(each: Tensor | None) -> Any:
        return None if each is None else each[row][:, shown]

    moments = heads.moments
    return Heads(
        model=type(model)(
            model.layer,
            model.layers,
            model.scale,
            model.rotate,
            lambda: model.output()[:, row],
            model.kv_heads,
        ),
        keys=part(heads.keys),
        values=part(heads.values),
        positions=part(heads.positions),
        rotated_at=part(heads.rotated_at),
        tokens=part(heads.tokens),
        protected=part(heads.protected),
        new=min(heads.new, int(shown.sum())),
        queries=None if heads.queries is None else heads.queries[row],
        query_positions=heads.query_positions,
        hidden=heads.hidden,
        moments=None if moments is None else Moments(moments.mean[row], moments.covariance[row]),
        state={name: part(figure) for name, figure in heads.state.items()},
        sentence_starts=part(heads.sentence_starts),
        first=heads.first + head,
    )
