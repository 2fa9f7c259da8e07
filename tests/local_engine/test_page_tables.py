"""Page tables: rows that grow, are shared, are cut, and are compacted. Random lives are in test_page_machine.py."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from lcdoc.local_engine.errors import EngineError, OutOfPagesError
from lcdoc.local_engine.page_mirror import PageMirror
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import PagePool

_LAYERS, _HEADS, _SIZE = 3, 2, 4


def _tables(pages: int = 200, sequences: int = 4, columns: int = 2) -> PageTables:
    return PageTables(PagePool(pages, _SIZE, 1, torch.float32), sequences, _LAYERS, _HEADS, columns)


def _fill(tables: PageTables, slot: int, tokens: int, first: float = 1.0) -> None:
    """Appends tokens whose keys are numbers from `first` on, different in every row; values are their negatives."""
    write = torch.from_numpy(tables.append([slot], [tokens]))
    numbers = first + torch.arange(write.numel(), dtype=torch.float32).view(write.shape)
    tables.pool.keys.view(-1)[write] = numbers
    tables.pool.values.view(-1)[write] = -numbers


def _read(tables: PageTables, slot: int) -> list[list[float]]:
    rows = []
    for layer in range(_LAYERS):
        for head in range(_HEADS):
            pages = tables.tables()[slot, layer, head].long()
            length = tables.lengths[slot, layer, head]
            keys, values = (store[pages].flatten()[:length] for store in (tables.pool.keys, tables.pool.values))
            assert torch.equal(keys, -values)
            rows.append(keys.tolist())
    return rows


def _ragged(tables: PageTables, slot: int, drop: list[int]) -> None:
    """Drops the first tokens of each row."""
    longest = int(tables.lengths[slot].max())
    keep = torch.arange(longest) >= torch.tensor(drop)[:, None]
    tables.compact(slot, keep.view(_LAYERS, _HEADS, longest))


def test_the_places_of_a_batch_are_those_of_each_sequence_alone() -> None:
    tables = _tables()
    first, second = tables.open(), tables.open()
    tables.append([first, second], [3, 6])
    write = tables.append([second, first], [2, 5])
    assert write.shape == (_LAYERS, 7, _HEADS)
    for layer in range(_LAYERS):
        for head in range(_HEADS):
            places = [(second, 6), (second, 7), *((first, 3 + token) for token in range(5))]
            expected = [tables.table[slot, layer, head, at // _SIZE] * _SIZE + at % _SIZE for slot, at in places]
            assert write[layer, :, head].tolist() == expected


def test_an_append_of_nothing_gives_no_places() -> None:
    tables = _tables()
    slot = tables.open()
    assert tables.append([], []).shape == (_LAYERS, 0, _HEADS)
    assert tables.append([slot], [0]).shape == (_LAYERS, 0, _HEADS)
    assert tables.pool.free == 200


def test_a_full_row_that_gets_no_token_needs_no_page() -> None:
    tables = _tables(pages=12, columns=1)
    slots = [tables.open(), tables.open()]
    tables.append(slots, [4, 3])
    assert tables.pages_needed(slots, [0, 1]) == 0
    assert tables.append(slots, [0, 1]).shape == (_LAYERS, 1, _HEADS)


def test_each_reserved_row_is_one_run_and_an_append_takes_nothing_more() -> None:
    tables = _tables()
    slot = tables.open()
    tables.reserve(slot, 30)
    assert tables.runs(slot) == [(0, 8)]
    assert tables.pool.free == 200 - tables.pages_for(30)
    tables.append([slot], [30])
    assert tables.pool.free == 200 - tables.pages_for(30)
    assert tables.runs(slot) == [(0, 8)]


def test_runs_break_where_any_row_does() -> None:
    tables = _tables()
    first, second = tables.open(), tables.open()
    tables.append([first], [12])
    tables.append([second], [1])
    tables.append([first], [8])
    assert tables.runs(first) == [(0, 3), (3, 5)]
    tables.append([second], [8])
    tables.append([first], [1])
    assert [end for _, end in tables.runs(first)][-1] == 6
    assert tables.runs(tables.open()) == []


def test_a_reserve_outlives_truncation_and_ends_with_trim() -> None:
    tables = _tables()
    slot = tables.open()
    tables.reserve(slot, 24)
    tables.append([slot], [20])
    for _ in range(3):
        tables.truncate(slot, 9)
        assert tables.pool.free == 200 - tables.pages_for(24)
        assert tables.runs(slot) == [(0, 6)]
        tables.append([slot], [9])
    tables.truncate(slot, 15)
    assert tables.trim(slot) == tables.pages_for(24) - tables.pages_for(5)
    assert tables.trim(slot) == 0


def test_a_reserve_may_differ_from_row_to_row() -> None:
    tables = _tables()
    slot = tables.open()
    tokens = np.array([[1, 4], [5, 0], [9, 40]])
    tables.reserve(slot, tokens)
    assert tables.counts[slot].tolist() == [[1, 1], [2, 0], [3, 10]]
    assert tables.runs(slot) == [(0, 10)]
    tables.check_integrity()


def test_without_a_reserve_truncation_frees_pages() -> None:
    tables = _tables()
    slot = tables.open()
    _fill(tables, slot, 20)
    before = _read(tables, slot)
    tables.truncate(slot, 9)
    assert tables.pool.free == 200 - tables.pages_for(11)
    assert _read(tables, slot) == [row[:11] for row in before]
    with pytest.raises(EngineError, match=r"has 11 to 11 tokens a row and cannot be cut to -1 to -1"):
        tables.truncate(slot, 12)


def test_a_fork_shares_all_pages_and_copies_only_the_one_it_writes() -> None:
    tables = _tables()
    slot = tables.open()
    _fill(tables, slot, 10)
    before, free = _read(tables, slot), tables.pool.free
    twin = tables.fork(slot)
    assert tables.pool.free == free
    assert tables.pages_needed([twin], [1]) == _LAYERS * _HEADS
    _fill(tables, twin, 2, first=1000)
    assert tables.pool.free == free - _LAYERS * _HEADS
    np.testing.assert_array_equal(tables.table[slot, ..., :2], tables.table[twin, ..., :2])
    assert (tables.table[slot, ..., 2] != tables.table[twin, ..., 2]).all()
    assert tables.pages_needed([slot], [2]) == 0
    _fill(tables, slot, 2, first=2000)
    assert [row[:10] for row in _read(tables, slot)] == before
    assert [row[:10] for row in _read(tables, twin)] == before
    assert all(
        row[10:] == [2000 + at, 2002 + at] for at, row in zip((0, 1, 4, 5, 8, 9), _read(tables, slot), strict=True)
    )


def test_a_fork_of_full_pages_copies_none() -> None:
    tables = _tables()
    slot = tables.open()
    _fill(tables, slot, 8)
    twin = tables.fork(slot)
    free = tables.pool.free
    tables.append([slot, twin], [1, 1])
    assert tables.pool.free == free - 2 * _LAYERS * _HEADS  # a new page each
    assert (tables.pool.refs == 2).sum() == 2 * _LAYERS * _HEADS


def test_of_forks_that_go_on_together_one_keeps_the_page() -> None:
    tables = _tables()
    slot = tables.open()
    _fill(tables, slot, 6)
    slots = [slot, tables.fork(slot), tables.fork(slot)]
    free, before = tables.pool.free, _read(tables, slot)
    assert tables.pages_needed(slots[:2], [1, 1]) == 2 * _LAYERS * _HEADS  # the third still reads it
    assert tables.pages_needed(slots, [1, 1, 1]) == 2 * _LAYERS * _HEADS
    write = tables.append(slots, [1, 1, 1])
    assert tables.pool.free == free - 2 * _LAYERS * _HEADS
    assert len(np.unique(write)) == write.size
    assert all([row[:6] for row in _read(tables, each)] == before for each in slots)
    tables.check_integrity()


def test_a_reserve_after_a_fork_makes_the_copy_beforehand() -> None:
    tables = _tables()
    slot = tables.open()
    _fill(tables, slot, 6)
    twin = tables.fork(slot)
    tables.reserve(twin, 5)
    assert tables.pages_needed([twin], [5]) == 0
    assert tables.pool.refs.max() == 1 + 1  # only the full page is shared
    assert (tables.pool.refs == 2).sum() == _LAYERS * _HEADS


def test_truncating_into_a_shared_page_does_not_write_it() -> None:
    tables = _tables()
    slot = tables.open()
    tables.reserve(slot, 20)
    _fill(tables, slot, 14)
    before = _read(tables, slot)
    twin = tables.fork(slot)
    tables.truncate(slot, 9)  # into the second page; the third and fourth are reserved, but shared
    tables.check_integrity()
    _fill(tables, slot, 9, first=1000)
    assert _read(tables, twin) == before
    assert [row[:5] for row in _read(tables, slot)] == [row[:5] for row in before]
    tables.check_integrity()


def test_the_front_of_some_layers_is_forgotten() -> None:
    tables = _tables()
    slot = tables.open()
    _fill(tables, slot, 14)
    twin = tables.fork(slot)
    before, free = _read(tables, slot), tables.pool.free
    tables.drop_front(slot, np.array([True, False, True]), 2)
    assert tables.pool.free == free  # the twin still has them
    assert _read(tables, slot) == [row[8:] if at not in {2, 3} else row for at, row in enumerate(before)]
    assert not tables.uniform[slot]
    tables.free(twin)
    assert tables.pool.free == free + 2 * 2 * _HEADS
    with pytest.raises(EngineError, match="2 pages cannot go from the front of sequence 0: a row there has 6 tokens"):
        tables.drop_front(slot, np.array([True, True, False]), 2)
    tables.drop_front(slot, np.array([False, True, False]), 2)
    assert tables.uniform[slot]
    assert not tables.whole[slot]
    tables.check_integrity()


def test_compaction_leaves_shared_pages_as_they_are() -> None:
    tables = _tables()
    slot = tables.open()
    _fill(tables, slot, 16)
    twin = tables.fork(slot)
    before = _read(tables, slot)
    keep = torch.rand(_LAYERS, _HEADS, 16, generator=torch.Generator().manual_seed(5)) < 0.6
    keep[..., :5] = True
    keep[..., 5] = False
    keep[0, 0] = True
    kept = [
        [number for number, stays in zip(row, mask, strict=True) if stays]
        for row, mask in zip(before, keep.view(-1, 16).tolist(), strict=True)
    ]
    free = tables.pool.free
    tables.compact(slot, keep)
    assert _read(tables, slot) == kept
    assert _read(tables, twin) == before
    np.testing.assert_array_equal(tables.table[slot, ..., 0], tables.table[twin, ..., 0])  # still one page
    np.testing.assert_array_equal(tables.table[slot, 0, 0], tables.table[twin, 0, 0])  # nothing was dropped
    taken = sum(-(-len(row) // _SIZE) - 1 for row in kept[1:])
    assert tables.pool.free == free - taken
    tables.check_integrity()


def test_compaction_of_pages_of_ones_own_takes_none_and_frees_the_rest() -> None:
    tables = _tables(pages=4 * _LAYERS * _HEADS)
    slot = tables.open()
    _fill(tables, slot, 16)
    assert tables.pool.free == 0
    before = _read(tables, slot)
    _ragged(tables, slot, [0, 1, 4, 7, 15, 16])
    assert _read(tables, slot) == [row[n:] for row, n in zip(before, [0, 1, 4, 7, 15, 16], strict=True)]
    assert tables.counts[slot].ravel().tolist() == [4, 4, 3, 3, 1, 0]
    assert tables.pool.free == 9
    tables.check_integrity()


def test_what_is_moved_in_several_stretches_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lcdoc.local_engine.compaction._MOVE_BYTES", 3 * 4)
    test_compaction_leaves_shared_pages_as_they_are()
    test_compaction_of_pages_of_ones_own_takes_none_and_frees_the_rest()


def test_a_mask_that_is_too_short_is_refused() -> None:
    tables = _tables()
    slot = tables.open()
    _fill(tables, slot, 6)
    with pytest.raises(EngineError, match=r"shape \(3, 2, 5\) does not cover 3 layers x 2 heads x 6 tokens"):
        tables.compact(slot, torch.ones(_LAYERS, _HEADS, 5, dtype=torch.bool))


def test_rows_that_differ_get_their_pages_together() -> None:
    """Or some row would need a page in nearly every step."""
    tables = _tables()
    slot = tables.open()
    _fill(tables, slot, 20)
    _ragged(tables, slot, [0, 1, 2, 3, 4, 5])
    grew = []
    for _ in range(3 * _SIZE):
        free = tables.pool.free
        needed = tables.pages_needed([slot], [1])
        tables.append([slot], [1])
        assert free - tables.pool.free == needed
        grew.append(needed > 0)
    assert sum(grew) == 3


def test_rows_that_differ_keep_a_page_ahead_when_drafts_are_taken_back() -> None:
    tables = _tables()
    slot = tables.open()
    _fill(tables, slot, 20)
    _ragged(tables, slot, [0, 1, 2, 3, 4, 5])
    changes = 0
    for _ in range(2 * _SIZE):
        free = tables.pool.free
        tables.append([slot], [2])
        tables.truncate(slot, 1)
        changes += tables.pool.free != free
    assert changes <= 3
    tables.truncate(slot, 15)
    assert (tables.counts[slot] <= -(-tables.lengths[slot] // _SIZE) + 1).all()
    assert tables.trim(slot) > 0
    tables.check_integrity()


def test_with_few_pages_left_rows_that_differ_take_only_what_they_need() -> None:
    tables = _tables(pages=5 * _LAYERS * _HEADS)
    slot = tables.open()
    _fill(tables, slot, 20)
    _ragged(tables, slot, [0, 5, 6, 7, 5, 5])
    assert tables.pool.free == 5
    assert tables.pages_needed([slot], [1]) == 1
    tables.append([slot], [1])
    assert tables.pool.free == 4
    tables.check_integrity()


def test_out_of_pages_leaves_a_batch_as_it_was() -> None:
    tables = _tables(pages=5 * _LAYERS * _HEADS)
    first = tables.open()
    _fill(tables, first, 6)
    second = tables.fork(first)
    before = _read(tables, first)
    needed = tables.pages_needed([first, second], [5, 8])
    assert needed == (1 + 1 + 2) * _LAYERS * _HEADS
    with pytest.raises(OutOfPagesError) as caught:
        tables.append([first, second], [5, 8])
    assert (caught.value.needed, caught.value.free) == (needed, 3 * _LAYERS * _HEADS)
    assert _read(tables, first) == _read(tables, second) == before
    tables.check_integrity()
    tables.append([first, second], [2, 2])


def test_columns_double_and_rows_stay() -> None:
    tables = _tables(columns=1)
    slot, other = tables.open(), tables.open()
    _fill(tables, other, 3)
    _fill(tables, slot, 3, first=100)
    rows = _read(tables, slot), _read(tables, other)
    widths = [tables.tables().shape[3]]
    for _ in range(16):
        _fill(tables, slot, 1, first=1000)
        if tables.tables().shape[3] != widths[-1]:
            widths.append(tables.tables().shape[3])
    assert widths == [1, 2, 4, 8]
    assert [row[:3] for row in _read(tables, slot)] == rows[0]
    assert _read(tables, other) == rows[1]


def test_slots_are_used_again_and_their_number_is_a_limit() -> None:
    tables = _tables(sequences=2)
    first, second = tables.open(), tables.open()
    with pytest.raises(EngineError, match="all 2 sequences of the cache are in use"):
        tables.open()
    _fill(tables, first, 9)
    _ragged(tables, first, [0, 1, 2, 3, 4, 5])
    with pytest.raises(EngineError, match="all 2 sequences"):
        tables.fork(first)
    tables.free(first)
    assert tables.pool.free == 200
    again = tables.open()
    assert again == first
    assert tables.uniform[again]
    assert tables.whole[again]
    assert not tables.lengths[again].any()
    tables.free(second)
    with pytest.raises(EngineError, match="sequence 1 of the cache is not open"):
        tables.free(second)


def test_mistakes_in_a_batch_are_refused() -> None:
    tables = _tables()
    slot = tables.open()
    for slots, counts, message in (
        ([slot, slot], [1, 1], "named twice"),
        ([slot, 1], [1, 1], "is not open"),
        ([-1], [1], "is not open"),
        ([9], [1], "is not open"),
        ([slot], [-1], "must not be negative"),
        ([slot], [1, 2], "do not belong together"),
    ):
        for ask in (tables.append, tables.pages_needed):
            with pytest.raises(EngineError, match=message):
                ask(slots, counts)
    assert tables.pool.free == 200


def test_only_fitting_pages_are_adopted_and_only_by_an_empty_sequence() -> None:
    tables = _tables()
    slot, other = tables.open(), tables.open()
    _fill(tables, slot, 8)
    blocks = tables.table[slot, ..., :2].copy()
    for wrong, tokens in ((blocks, 9), (blocks, 4), (blocks[:2], 8), (blocks[:, :1], 8)):
        with pytest.raises(EngineError, match="are not"):
            tables.adopt(other, wrong, tokens)
    tables.adopt(other, blocks, 8)
    assert _read(tables, other) == _read(tables, slot)
    with pytest.raises(EngineError, match="has pages already"):
        tables.adopt(other, blocks, 8)
    tables.free(slot)
    tables.free(other)
    assert tables.pool.free == 200


def test_the_device_gets_only_sequences_that_changed() -> None:
    tables = _tables(sequences=3)
    mirror = PageMirror(torch.device("cpu"), copied=True)
    tables._mirror = mirror
    slots = [tables.open(), tables.open()]
    tables.append(slots, [9, 3])
    device = tables.tables()
    assert device.data_ptr() != tables.table.ctypes.data
    assert torch.equal(device, torch.from_numpy(tables.table))
    device[slots[0]] = -7  # shows whether it is sent again
    tables.append([slots[1]], [1])  # has room: nothing changes
    tables.append([slots[1]], [1])
    assert tables.tables() is device
    assert (device[slots[0]] == -7).all()
    assert device[slots[1], ..., :2].tolist() == tables.table[slots[1], ..., :2].tolist()
    tables.truncate(slots[0], 4)
    tables.tables()
    assert device[slots[0], ..., :2].tolist() == tables.table[slots[0], ..., :2].tolist()


def test_on_a_cpu_the_device_table_is_the_same_memory() -> None:
    tables = _tables()
    slot = tables.open()
    tables.append([slot], [3])
    assert tables.tables().data_ptr() == tables.table.ctypes.data
    assert tables.tables().dtype == torch.int32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_tables_on_a_gpu_follow_those_on_the_host() -> None:
    pool = PagePool(400, _SIZE, 8, torch.bfloat16, "cuda")
    tables = PageTables(pool, 4, _LAYERS, _HEADS, 1)
    random = np.random.default_rng(3)
    slots = [tables.open(), tables.open()]
    for step in range(12):
        write = torch.from_numpy(tables.append(slots, random.integers(1, 5, 2))).cuda()
        pool.keys.view(-1, 8)[write] = torch.randn(*write.shape, 8, device="cuda", dtype=torch.bfloat16)
        if step == 5:
            slots.append(tables.fork(slots[0]))
            slots.pop(0)
        if step == 8:
            longest = int(tables.lengths[slots[0]].max())
            tables.compact(slots[0], torch.rand(_LAYERS, _HEADS, longest, device="cuda") < 0.5)
        for slot in slots:
            for layer in range(_LAYERS):
                for head in range(_HEADS):
                    count = tables.counts[slot, layer, head]
                    here = tables.tables()[slot, layer, head, :count].cpu()
                    assert here.tolist() == tables.table[slot, layer, head, :count].tolist()
        tables.check_integrity()


def test_disorder_is_found() -> None:
    for spoil, message in (
        (lambda tables: tables.pool.take(1), "is held 0 times but counted 1 times"),
        (lambda tables: tables.table.__setitem__((0, 0, 0, 0), 150), "is held"),
        (lambda tables: tables.table.__setitem__((0, 0, 0, 3), 1), "behind the end of a row"),
        (lambda tables: tables.lengths.__setitem__((0, 0, 0), 13), "more tokens than its pages hold"),
        (lambda tables: tables.uniform.__setitem__(0, False), "shape of sequence 0 is remembered wrongly"),
        (lambda tables: tables._room.__setitem__(0, 5), "room of sequence 0 is remembered wrongly"),
        (lambda tables: tables.pool.refs.__setitem__(199, 1), "cache pages are free, but"),
    ):
        tables = _tables(columns=4)
        tables.append([tables.open()], [9])
        tables.check_integrity()
        spoil(tables)
        with pytest.raises(EngineError, match=message):
            tables.check_integrity()


def test_an_append_never_goes_backwards_in_a_row() -> None:
    tables = _tables()
    slot = tables.open()
    write = np.concatenate([tables.append([slot], [count]) for count in (1, 7, 2, 5)], axis=1)
    row = write[1, :, 1]
    pages = tables.table[slot, 1, 1]
    assert row.tolist() == [int(pages[at // _SIZE]) * _SIZE + at % _SIZE for at in range(15)]
    assert all(a // _SIZE != b // _SIZE or b == a + 1 for a, b in pairwise(row.tolist()))
