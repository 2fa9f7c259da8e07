"""Probes: what the model is made to read behind the text, only to see what its queries attend to.

A probe runs on a fork of the sequence, which is freed again, so that the sequence itself never holds it. `repeat` is
KVzip's (the text once more, piece by piece), `task` that of Finch and of "Beyond RAG" (a description of the task), and
`draft` SpecKV's (an answer, drafted greedily on a cache that was cut to the recipe's budget by SnapKV's score).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lcdoc.local_engine.batch import Batch, Piece, gather
from lcdoc.local_engine.compression.entries import Entries
from lcdoc.local_engine.compression.observation import Sightings, Watch
from lcdoc.local_engine.compression.parts import Needs
from lcdoc.local_engine.compression.scorers.kvzip import FIRST_PROMPT, HINT_TOKENS, LATER_PROMPT, PIECE_TOKENS
from lcdoc.local_engine.decoder import Decoder
from lcdoc.local_engine.page_tables import PageTables

if TYPE_CHECKING:
    from lcdoc.local_engine.compression.held import Held

_REFERENCES = 512
"""Queries of all pieces together that reducers are shown."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What was seen of one piece of a probe."""

    sightings: Sightings
    repeated: tuple[int, int]
    """The positions (first, end) of the text that it repeats."""


class Prober:
    """Runs probes over one cache."""

    def __init__(
        self,
        decoder: Decoder,
        tables: PageTables,
        encode: Callable[[str], Sequence[int]],
        make_room: Callable[[int], object],
        cut_fork: Callable[[int], object],
    ) -> None:
        """`cut_fork` cuts the sequence of that slot as the draft's cache is."""
        self._decoder = decoder
        self._tables = tables
        self._encode = encode
        self._make_room = make_room
        self._cut_fork = cut_fork

    def run(self, needs: Needs, held: Held, tokens: Sequence[int], read: int) -> Iterator[Probed]:
        """What is seen of each piece, for a sequence that has `read` of its `tokens`. Raises OutOfPagesError."""
        if needs.probe == "repeat":
            first = held.entries.first
            while first < read:
                end = min(first + PIECE_TOKENS, read)
                yield self._read(needs, held, self._repetition(tokens, first, end), (first, end))
                first = end
        elif needs.probe == "task":
            # The end of the whole prompt, where the question stands, also while only its beginning was read.
            end = min(needs.window, max(1, len(held.prompt) // 2))
            task = list(held.marks.task) or list(held.prompt[-end:])
            yield self._read(needs, held, task, (0, 0))
        else:
            yield self._draft(needs, held, tokens[read - 1])

    @staticmethod
    def together(probed: Sequence[Probed]) -> Sightings:
        """Queries of all pieces, evenly taken, as of one."""
        return Sightings.joined([piece.sightings for piece in probed], _REFERENCES)

    def _repetition(self, tokens: Sequence[int], first: int, end: int) -> list[int]:
        if not first:
            return [*self._encode(FIRST_PROMPT), *tokens[:end]]
        return [*self._encode(LATER_PROMPT), *tokens[max(0, first - HINT_TOKENS) : first], *tokens[first:end]]

    def _read(self, needs: Needs, held: Held, probe: Sequence[int], repeated: tuple[int, int]) -> Probed:
        seen = self._sightings(needs)
        with self._fork(held, len(probe)) as slot:
            at = held.entries.base + held.entries.new
            chunk = held.allowance.chunk
            for first in range(0, len(probe), chunk):
                part = probe[first : first + chunk]
                piece = Piece(slot, part, at + first, held.allowance.prompt, logits=0)
                self._decoder.hidden(self._gather(piece, seen))
        return Probed(seen, repeated)

    def _draft(self, needs: Needs, held: Held, token: int) -> Probed:
        """The last `token` is read once more, in the place behind its own, since what it foretold is gone."""
        seen = self._sightings(needs)
        with self._fork(held, needs.window) as slot:
            self._cut_fork(slot)
            at = held.entries.base + held.entries.new
            for step in range(needs.window):
                piece = Piece(slot, (token,), at + step, held.allowance.prompt, logits=1)
                token = int(self._decoder.forward(self._gather(piece, seen))[-1].argmax())
        return Probed(seen, (0, 0))

    def _sightings(self, needs: Needs) -> Sightings:
        tables = self._tables
        wanted = Needs(window=needs.window, hidden=needs.hidden)
        entries = Entries(tables.layers, tables.kv_heads, tables.pool.device)
        return Sightings(self._decoder.config, wanted, entries, probe=True)

    def _gather(self, piece: Piece, seen: Sightings) -> Batch:
        device = self._tables.pool.device
        return gather((piece,), self._tables, device, Watch([seen]))

    @contextmanager
    def _fork(self, held: Held, tokens: int) -> Iterator[int]:
        slot = self._tables.fork(held.slot)
        try:
            short = self._tables.pages_needed([slot], [tokens]) - self._tables.pool.free
            if short > 0:
                self._make_room(short)
            yield slot
        finally:
            self._tables.free(slot)
