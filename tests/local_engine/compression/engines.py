"""Engines and sequences of small random models whose caches are cut."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcdoc.local_engine.batch import Piece, gather
from lcdoc.local_engine.compression.allowance import Allowance
from lcdoc.local_engine.compression.compressor import Compressor, Held
from lcdoc.local_engine.compression.marks import Marks
from lcdoc.local_engine.compression.recipe import Recipe
from lcdoc.tests.local_engine.decoding import CPU, Bench


class CutBench(Bench):
    """A decoder, a cache, and a compressor over it: one sequence at a time, as the loop would run it."""

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, **options)
        self.compressor = Compressor(self.tables, encode=lambda words: [9 + ord(each) % 90 for each in words])
        self.peak = 0

    def start(self, recipe: str, prompt: int, chunk: int, marks: Marks | None = None) -> Held:
        allowance = Allowance(Recipe.parse(recipe), prompt, chunk)
        return self.compressor.begin(self.decoder, self.tables.open(), allowance, marks)

    def read_on(self, held: Held, tokens: Sequence[int], computed: int) -> tuple[Tensor, int]:
        """Read the next piece of `tokens`; the logits of all of it, and how many are computed then."""
        rows = self.compressor.rows(held.slot)
        size = held.allowance.readable(computed, len(tokens), rows)
        size = min(size, held.allowance.chunk)
        piece = Piece(held.slot, tokens[computed : computed + size], computed - held.shift, held.allowance.prompt, size)
        batch = gather([held.placed(piece)], self.tables, CPU, self.compressor.observer([held]))
        logits = self.decoder.forward(batch)
        self.peak = max(self.peak, self.tables.pool.pages - self.tables.pool.free)
        with torch.inference_mode():
            self.compressor.settle(self.decoder, held, tokens, computed + size)
        return logits, computed + size

    def read_all(self, held: Held, tokens: Sequence[int]) -> Tensor:
        """Logits of all tokens, read in chunks and cut on the way."""
        logits, computed = [], 0
        while computed < len(tokens):
            part, computed = self.read_on(held, tokens, computed)
            logits.append(part)
        return torch.cat(logits)

    def row(self, held: Held, layer: int, head: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a row, [n, D] each."""
        length = int(self.tables.lengths[held.slot, layer, head])
        size = self.tables.pool.page_size
        pages = torch.from_numpy(self.tables.table[held.slot, layer, head, : -(-length // size)].astype("int64"))
        return tuple(store[pages].flatten(0, 1)[:length] for store in (self.tables.pool.keys, self.tables.pool.values))

    def positions(self, held: Held, layer: int, head: int) -> list[int]:
        """Where in the text a row's entries stand."""
        layout = held.entries.layout()
        return layout.positions[layer, head][layout.valid[layer, head]].tolist()
