"""Runs recipes: what is seen of each sequence, when it is cut, and the cut itself.

After a pass the loop has every request with a recipe `settle`d. A cut looks at the cache layer by layer: the scorer
says which entries matter, the budget compares whole sequences, the reducer merges, and the page tables forget the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lcdoc.local_engine.batch import Observer
from lcdoc.local_engine.compaction import Merging, Turn
from lcdoc.local_engine.compression.allowance import Allowance
from lcdoc.local_engine.compression.budgets.uniform import Uniform
from lcdoc.local_engine.compression.entries import Cut, Entries
from lcdoc.local_engine.compression.held import Held
from lcdoc.local_engine.compression.layers import layer_model
from lcdoc.local_engine.compression.look import Look
from lcdoc.local_engine.compression.marks import Marks
from lcdoc.local_engine.compression.observation import Sightings, Watch
from lcdoc.local_engine.compression.parts import Merged, Scores
from lcdoc.local_engine.compression.probes import Probed, Prober
from lcdoc.local_engine.compression.rows import places, write_rows
from lcdoc.local_engine.compression.scorers.snapkv import SnapKV
from lcdoc.local_engine.compression.scoring import scored
from lcdoc.local_engine.compression.two_distances import far_keys
from lcdoc.local_engine.decoder import Decoder
from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.page_tables import PageTables


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

    def begin(
        self,
        decoder: Decoder,
        slot: int,
        allowance: Allowance,
        marks: Marks | None = None,
        begun: Entries | None = None,
    ) -> Held:
        """What is known of a sequence that is about to be read, or read on where it holds what is `begun`."""
        tables = self._tables
        entries = begun or Entries(tables.layers, tables.kv_heads, tables.pool.device)
        recipe = allowance.recipe
        seen = Sightings(decoder.config, recipe.needs, entries, skipped=0 if begun else recipe.sinks)
        return Held(slot, allowance, marks or Marks(), entries, seen, far=far_keys(decoder, entries, recipe.scheme))

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
        held.prompt = held.prompt or tokens[: allowance.prompt]
        if not self._due(held, len(tokens), computed):
            return False
        self._cut(decoder, held, tokens, allowance.budget(computed))
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
        look = Look.at(decoder, tables, held, budget - held.allowance.kept)
        valid = look.layout.valid & look.in_window
        merging = None
        if self.rows(held.slot) > budget:
            valid, merging = self._chosen(look, valid, tokens)
        before = int(tables.lengths[held.slot].sum())
        plan = held.entries.planned(valid, held.allowance.scheme)
        turn = _turn(decoder, held, plan) if recipe.moves else None
        tables.compact(held.slot, valid, merging=merging, turn=turn)
        held.entries.cut(plan)
        held.far = far_keys(decoder, held.entries, recipe.scheme)
        held.sightings.forget()
        held.cuts += 1
        dropped = before - int(tables.lengths[held.slot].sum())
        held.dropped += dropped
        self.cuts += 1
        self.dropped += dropped

    def _chosen(self, look: Look, valid: Tensor, tokens: Sequence[int]) -> tuple[Tensor, Merging | None]:
        """Which of the `valid` entries are kept, bool [L, H, n], and how the others are to be merged into them."""
        recipe = look.held.allowance.recipe
        probed = self._probe(look, tokens)
        exempt = valid & look.exempt
        valid = valid & ~exempt
        values = scored(look, probed).masked_fill(~valid, -torch.inf)
        protected = look.protected & valid
        _, recent = recipe.protects(look.budget)
        scores = Scores(values, valid, protected, look.budget, recent, look.spread)
        keep = (recipe.budget.keep(scores) & valid) | exempt
        if not bool((keep | ~protected).all()):
            raise EngineError(f"{recipe.chosen_budget.name} dropped what is protected: take another budget")
        return keep, None if recipe.drops else self._reduce(look, keep, values, probed)

    def _probe(self, look: Look, tokens: Sequence[int]) -> list[Probed]:
        held = look.held
        needs = held.allowance.recipe.scorer.needs
        if needs.probe is None:
            return []
        prober = Prober(
            look.decoder, self._tables, self._encode, self._make_room, lambda slot: self._cut_fork(look, slot)
        )
        self._tables.trim(held.slot)  # what is reserved for the text is free for the probe until the cut
        return list(prober.run(needs, held, tokens, look.read))

    def _cut_fork(self, look: Look, slot: int) -> None:
        """Cut a fork of the sequence to the budget by SnapKV's score, for a draft."""
        values = torch.full(look.layout.positions.shape, -torch.inf, device=look.layout.positions.device)
        scorer = SnapKV()
        for group in look.groups:
            values[group.entries] = scorer.score(look.heads(group, look.held.sightings))
        exempt = look.layout.valid & look.exempt
        scores = Scores(values, look.layout.valid & ~exempt, look.protected & ~exempt, look.budget, 0)
        keep = Uniform().keep(scores) | exempt
        self._make_room(self._tables.pages_for(look.budget) - self._tables.pool.free)
        self._tables.compact(slot, keep)

    def _reduce(self, look: Look, keep: Tensor, values: Tensor, probed: list[Probed]) -> Merging | None:
        """Writes what the reducer makes of the kept entries, or returns what is to go into them as they move."""
        merging = None
        held, tables = look.held, self._tables
        reducer = held.allowance.recipe.reducer
        sightings = Prober.together(probed) if probed else held.sightings
        for group in look.groups:
            seen, kept = look.heads(group, sightings), keep[group.entries]
            made = reducer.reduce(seen, kept, values[group.entries])
            look.keep_figures(seen, group)
            where = places(tables, held.slot, group.layer, group.heads, group.length)
            if isinstance(made, Merged):
                merging = merging or Merging.nothing(keep, keys=made.keys)
                merging.into[group.entries], merging.shares[group.entries] = made.into, made.shares
            else:
                write_rows(tables.pool.keys, where, made.keys, kept)
                write_rows(tables.pool.values, where, made.values, kept)
            if made.bias is not None:
                write_rows(tables.pool.with_bias(), where, made.bias, kept)
                tables.biased[held.slot] = True
        return merging


def _turn(decoder: Decoder, held: Held, plan: Cut) -> Turn:
    """By how much kept keys are to be rotated further, to where they stand after a cut."""
    rotates = torch.tensor(decoder.config.rotates, device=plan.stood.device)[:, None, None]
    shift = (plan.placed.places - plan.stood).masked_fill(~(plan.valid & rotates), 0)

    def rotate(layer: int, keys: Tensor, by: Tensor) -> Tensor:
        return layer_model(decoder, layer, held.allowance.prompt, slice(None)).rotate(keys, by)

    return Turn(shift, rotate, decoder.rope.frequencies)
