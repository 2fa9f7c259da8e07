"""Random lives of a cache, beside a plain model: lists of numbers for each row of each sequence.

Every token that is appended gets numbers never used before, written to the pool where `append` says. So a page that two
rows wrote, a copy that was forgotten, or a device table that is out of date shows as a wrong number when rows are read.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lcdoc.local_engine.errors import OutOfPagesError
from lcdoc.local_engine.page_mirror import PageMirror
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import PagePool
from lcdoc.local_engine.prefix_cache import Match, PrefixCache

_LAYERS, _HEADS, _SEQUENCES = 2, 2, 4
_ROWS = [(layer, head) for layer in range(_LAYERS) for head in range(_HEADS)]

Row = list[float]


@dataclass
class Life:
    """What a sequence should hold."""

    rows: dict[tuple[int, int], Row] = field(default_factory=lambda: {row: [] for row in _ROWS})
    tokens: list[int] | None = field(default_factory=list)  # None: rows no longer hold them from the start

    def twin(self) -> Life:
        return Life(
            {row: list(held) for row, held in self.rows.items()}, None if self.tokens is None else list(self.tokens)
        )

    @property
    def ragged(self) -> bool:
        return len({len(held) for held in self.rows.values()}) > 1


class CacheMachine(RuleBasedStateMachine):
    @initialize(
        pages=st.integers(4, 90),
        page_size=st.sampled_from([2, 3, 4, 1]),
        columns=st.integers(1, 3),
        copied=st.booleans(),
    )
    def start(self, pages: int, page_size: int, columns: int, copied: bool) -> None:
        self.pool = PagePool(pages, page_size, 1, torch.float64)
        self.tables = PageTables(self.pool, _SEQUENCES, _LAYERS, _HEADS, columns)
        self.tables._mirror = PageMirror(torch.device("cpu"), copied=copied)
        self.cache = PrefixCache(self.tables, b"a model")
        self.lives: dict[int, Life] = {}
        self.known: dict[tuple[int, ...], list[Row]] = {}  # what is kept of a prefix's last block, row by row
        self.locked: list[tuple[Match, list[int]]] = []
        self.written = 0.0

    # Rules

    @precondition(lambda self: len(self.lives) < _SEQUENCES)
    @rule(data=st.data(), reserve=st.integers(0, 8), lock=st.booleans(), keep=st.booleans())
    def begin(self, data: st.DataObject, reserve: int, lock: bool, keep: bool) -> None:
        alike = data.draw(st.sampled_from([(), *sorted(self.known)]))
        tokens = [*alike, *data.draw(st.lists(st.integers(0, 1), max_size=9))]
        slot = self.tables.open()
        assert slot not in self.lives
        life = self.lives[slot] = Life()
        match = self.cache.match(tokens)
        size = self.pool.page_size
        assert match.tokens % size == 0
        assert match.tokens < max(1, len(tokens))
        expected = 0
        while tuple(tokens[: (expected + 1) * size]) in self.known and (expected + 1) * size < len(tokens):
            expected += 1
        assert match.tokens == expected * size
        if lock:
            self.cache.lock(match)
            self.locked.append((match, tokens[: match.tokens]))
        if match.tokens:
            self.tables.adopt(slot, match.blocks, match.tokens)
            for place, row in enumerate(_ROWS):
                for block in range(expected):
                    life.rows[row] += self.known[tuple(tokens[: (block + 1) * size])][place]
        life.tokens = tokens[: match.tokens]
        if reserve:
            with self._all_or_nothing():
                self.tables.reserve(slot, reserve)
        rest = tokens[match.tokens :]
        self._append([slot], [rest])
        if keep:
            self._insert(slot)

    @precondition(lambda self: self.lives)
    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        slots = data.draw(st.lists(st.sampled_from(sorted(self.lives)), unique=True, max_size=_SEQUENCES))
        pieces = [data.draw(st.lists(st.integers(0, 1), max_size=7)) for _ in slots]
        self._append(slots, pieces)

    @precondition(lambda self: self.lives)
    @rule()
    def decode(self) -> None:
        self._append(sorted(self.lives), [[1] for _ in self.lives])

    @precondition(lambda self: 0 < len(self.lives) < _SEQUENCES)
    @rule(data=st.data(), go_on=st.sampled_from(["both", "twin", "neither"]))
    def fork(self, data: st.DataObject, go_on: str) -> None:
        slot = self._pick(data)
        free = self.pool.free
        twin = self.tables.fork(slot)
        assert self.pool.free == free
        assert twin not in self.lives
        self.lives[twin] = self.lives[slot].twin()
        if go_on != "neither":
            slots = [twin, slot] if go_on == "both" else [twin]
            self._append(slots, [[0]] * len(slots))

    @precondition(lambda self: self.lives)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        slot = self._pick(data)
        life = self.lives[slot]
        shortest = min(map(len, life.rows.values()))
        tokens = data.draw(st.integers(0, shortest))
        self.tables.truncate(slot, tokens)
        for row in _ROWS:
            life.rows[row] = life.rows[row][: len(life.rows[row]) - tokens]
        if life.tokens is not None:
            life.tokens = life.tokens[: len(life.tokens) - tokens]

    @precondition(lambda self: self.lives)
    @rule(data=st.data())
    def truncate_rows(self, data: st.DataObject) -> None:
        slot = self._pick(data)
        life = self.lives[slot]
        lengths = {row: data.draw(st.integers(0, len(held))) for row, held in life.rows.items()}
        self.tables.truncate_rows(slot, np.array(list(lengths.values())).reshape(_LAYERS, _HEADS))
        for row, length in lengths.items():
            life.rows[row] = life.rows[row][:length]
        if life.tokens is not None:
            life.tokens = None if life.ragged else life.tokens[: lengths[0, 0]]

    @precondition(lambda self: self.lives)
    @rule(data=st.data())
    def reserve(self, data: st.DataObject) -> None:
        slot = self._pick(data)
        tokens: Any = data.draw(st.integers(0, 9) | st.lists(st.integers(0, 9), min_size=4, max_size=4))
        if isinstance(tokens, list):
            tokens = np.array(tokens).reshape(_LAYERS, _HEADS)
        with self._all_or_nothing():
            self.tables.reserve(slot, tokens)
            if isinstance(tokens, int):
                assert self.tables.pages_needed([slot], [tokens]) == 0

    @precondition(lambda self: self.lives)
    @rule(data=st.data())
    def trim(self, data: st.DataObject) -> None:
        slot = self._pick(data)
        free = self.pool.free
        assert self.tables.trim(slot) == self.pool.free - free
        assert (self.tables.counts[slot] == -(-self.tables.lengths[slot] // self.pool.page_size)).all()

    @precondition(lambda self: self.lives)
    @rule(data=st.data(), layers=st.lists(st.booleans(), min_size=_LAYERS, max_size=_LAYERS))
    def drop_front(self, data: st.DataObject, layers: list[bool]) -> None:
        slot = self._pick(data)
        life = self.lives[slot]
        shortest = min((len(held) for (layer, _), held in life.rows.items() if layers[layer]), default=0)
        pages = data.draw(st.integers(0, shortest // self.pool.page_size))
        self.tables.drop_front(slot, np.array(layers), pages)
        if pages and any(layers):
            life.tokens = None
            for layer, head in _ROWS:
                if layers[layer]:
                    del life.rows[layer, head][: pages * self.pool.page_size]

    @precondition(lambda self: self.lives)
    @rule(data=st.data(), behind=st.integers(0, 3), most=st.booleans())
    def compact(self, data: st.DataObject, behind: int, most: bool) -> None:
        slot = self._pick(data)
        life = self.lives[slot]
        longest = max(map(len, life.rows.values()))
        entry = st.integers(0, 9).map(bool) if most else st.booleans()
        size = _LAYERS * _HEADS * (longest + behind)
        flat = data.draw(st.lists(entry, min_size=size, max_size=size))
        keep = np.array(flat, np.bool_).reshape(_LAYERS, _HEADS, -1)
        with self._all_or_nothing():
            self.tables.compact(slot, torch.from_numpy(keep))
            for row in _ROWS:
                kept = [number for number, kept in zip(life.rows[row], keep[row], strict=False) if kept]
                if len(kept) < len(life.rows[row]):
                    life.tokens = None
                life.rows[row] = kept

    @precondition(lambda self: self.lives)
    @rule(data=st.data())
    def insert(self, data: st.DataObject) -> None:
        self._insert(self._pick(data))

    def _insert(self, slot: int) -> None:
        life = self.lives[slot]
        free = self.pool.free
        if life.tokens is None:
            assert self.cache.insert([0] * 40, slot) == 0
            return
        size = self.pool.page_size
        new = 0
        for block in range(len(life.tokens) // size):
            prefix = tuple(life.tokens[: (block + 1) * size])
            if prefix not in self.known:
                self.known[prefix] = [life.rows[row][block * size : (block + 1) * size] for row in _ROWS]
                new += 1
        assert self.cache.insert(life.tokens, slot) == new
        assert self.pool.free == free

    @rule(pages=st.integers(0, 30))
    def evict(self, pages: int) -> None:
        free, blocks = self.pool.free, len(self.cache)
        freed = self.cache.evict(pages)
        assert self.pool.free == free + freed
        assert freed < pages + _LAYERS * _HEADS
        gone = [
            prefix
            for prefix in self.known
            if len(self.cache._walk(prefix, len(prefix) // self.pool.page_size)) * self.pool.page_size < len(prefix)
        ]
        assert len(gone) == blocks - len(self.cache)
        for prefix in gone:
            del self.known[prefix]

    @precondition(lambda self: self.locked)
    @rule(data=st.data())
    def unlock(self, data: st.DataObject) -> None:
        match, _ = self.locked.pop(data.draw(st.integers(0, len(self.locked) - 1)))
        self.cache.unlock(match)

    @precondition(lambda self: self.lives)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        slot = self._pick(data)
        self.tables.free(slot)
        del self.lives[slot]

    # What must always hold

    @invariant()
    def books_are_in_order(self) -> None:
        self.tables.check_integrity()
        self.cache.check_integrity()
        for slot, life in self.lives.items():
            assert self.tables.uniform[slot] == (not life.ragged)
            assert self.tables.whole[slot] == (life.tokens is not None)

    @invariant()
    def rows_read_back(self) -> None:
        tables = self.tables.tables()
        assert tables.shape == self.tables.table.shape
        for slot, life in self.lives.items():
            for (layer, head), held in life.rows.items():
                pages = tables[slot, layer, head].long()
                for store, sign in ((self.pool.keys, 1), (self.pool.values, -1)):
                    row = (store[pages].flatten() * sign)[: len(held)].tolist()
                    assert row == held
                    assert self.tables.lengths[slot, layer, head] == len(held)

    @invariant()
    def locked_prefixes_stay(self) -> None:
        for match, tokens in self.locked:
            size = self.pool.page_size
            for block in range(match.tokens // size):
                for place, (layer, head) in enumerate(_ROWS):
                    page = match.blocks[layer, head, block]
                    assert (
                        self.pool.keys[page].flatten().tolist()
                        == self.known[tuple(tokens[: (block + 1) * size])][place]
                    )

    @invariant()
    def runs_are_the_longest(self) -> None:
        for slot in self.lives:
            columns = int(self.tables.counts[slot].max())
            breaks = [
                column
                for column in range(1, columns)
                if any(
                    column < self.tables.counts[slot][row]
                    and self.tables.table[slot][row][column] != self.tables.table[slot][row][column - 1] + 1
                    for row in _ROWS
                )
            ]
            borders = [0, *breaks, columns]
            assert self.tables.runs(slot) == (list(itertools.pairwise(borders)) if columns else [])

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for slot in self.lives:
            self.tables.free(slot)
        for match, _ in self.locked:
            self.cache.unlock(match)
        self.cache.evict(self.pool.pages)
        assert len(self.cache) == 0
        assert self.pool.free == self.pool.pages
        self.tables.check_integrity()

    # Inside

    def _pick(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.lives)))

    def _append(self, slots: list[int], pieces: list[list[int]]) -> None:
        counts = list(map(len, pieces))
        exact = self._needed_one_by_one(slots, counts)
        needed = self.tables.pages_needed(slots, counts)
        ragged = [slot for slot in slots if self.lives[slot].ragged]
        assert exact <= needed <= exact + 4 * len(_ROWS) * len(ragged)
        free = self.pool.free
        assert (needed > free) == (exact > free)
        with self._all_or_nothing() as succeeded:
            write = self.tables.append(slots, counts)
            assert self.pool.free == free - needed
            assert write.shape == (_LAYERS, sum(counts), _HEADS)
            numbers = self.written + np.arange(1, write.size + 1, dtype=np.float64).reshape(write.shape)
            self.written += write.size
            for store, sign in ((self.pool.keys, 1), (self.pool.values, -1)):
                store.view(-1)[torch.from_numpy(write.ravel())] = torch.from_numpy(sign * numbers.ravel())
            token = 0
            for slot, piece in zip(slots, pieces, strict=True):
                life = self.lives[slot]
                for layer, head in _ROWS:
                    life.rows[layer, head] += numbers[layer, token : token + len(piece), head].tolist()
                if life.tokens is not None:
                    life.tokens += piece
                token += len(piece)
        assert succeeded() == (needed <= free)

    def _needed_one_by_one(self, slots: list[int], counts: list[int]) -> int:
        size, refs, needed = self.pool.page_size, self.pool.refs.copy(), 0
        for slot, count in zip(slots, counts, strict=True):
            for row in _ROWS:
                length, held = int(self.tables.lengths[slot][row]), int(self.tables.counts[slot][row])
                needed += max(0, -(-(length + count) // size) - held)
                if count and length % size:
                    page = self.tables.table[slot][row][length // size]
                    if refs[page] > 1:
                        refs[page] -= 1
                        needed += 1
        return needed

    @contextmanager
    def _all_or_nothing(self) -> Iterator[Callable[[], bool]]:
        """Lets an OutOfPagesError pass if it left everything as it was."""
        before = self._everything()
        failed = []
        try:
            yield lambda: not failed
        except OutOfPagesError as error:
            failed.append(error)
            assert error.needed > error.free == self.pool.free
            for old, new in zip(before, self._everything(), strict=True):
                np.testing.assert_array_equal(old, new)

    def _everything(self) -> list[Any]:
        tables = self.tables
        arrays = [tables.table, tables.lengths, tables.counts, tables._reserved, self.pool.refs, tables.uniform]
        stores = [self.pool.keys.numpy(), self.pool.values.numpy()]
        return [array.copy() for array in (*arrays, *stores)] + [self.pool.free]


CacheMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCacheMachine = pytest.mark.filterwarnings("ignore")(CacheMachine.TestCase)
