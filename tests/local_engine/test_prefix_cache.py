"""Prefixes that are kept: found again, shared, locked, and forgotten in the right order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lcdoc.local_engine import prefix_cache
from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import PagePool
from lcdoc.local_engine.prefix_cache import Match, PrefixCache

_LAYERS, _HEADS, _SIZE, _PAGES = 2, 3, 4, 300
_BLOCK = _LAYERS * _HEADS


def _caches() -> tuple[PageTables, PrefixCache]:
    tables = PageTables(PagePool(_PAGES, _SIZE, 2, torch.float32), 8, _LAYERS, _HEADS, 4)
    return tables, PrefixCache(tables, b"model")


def _read(tables: PageTables, slot: int, tokens: list[int]) -> int:
    """A sequence that computed `tokens`."""
    tables.append([slot], [len(tokens)])
    return slot


def _keep(tables: PageTables, cache: PrefixCache, tokens: list[int]) -> None:
    """Computes and inserts `tokens` with a sequence that then ends."""
    slot = _read(tables, tables.open(), tokens)
    cache.insert(tokens, slot)
    tables.free(slot)


def _tokens(cache: PrefixCache, tokens: list[int]) -> int:
    """How much of `tokens` is known, all of it included."""
    return cache.match([*tokens, 0]).tokens


def _check(tables: PageTables, cache: PrefixCache) -> None:
    tables.check_integrity()
    cache.check_integrity()


def test_a_prompt_that_begins_alike_finds_the_same_pages() -> None:
    tables, cache = _caches()
    document = list(range(18))
    slot = _read(tables, tables.open(), document)
    assert cache.insert(document, slot) == 4
    match = cache.match([*document[:13], 99, 98, 97])
    assert match.tokens == 12
    np.testing.assert_array_equal(match.blocks, tables.table[slot, ..., :3])
    other = tables.open()
    tables.adopt(other, match.blocks, match.tokens)
    tables.append([other], [4])
    np.testing.assert_array_equal(tables.table[other, ..., :3], tables.table[slot, ..., :3])
    assert not np.isin(tables.table[other, ..., 3], tables.table[slot]).any()
    _check(tables, cache)


def test_at_least_the_last_token_is_left_to_compute() -> None:
    tables, cache = _caches()
    tokens = list(range(12))
    _keep(tables, cache, tokens)
    assert [cache.match(tokens[:length]).tokens for length in (0, 1, 4, 5, 8, 9, 12)] == [0, 0, 0, 4, 4, 8, 8]
    assert cache.match([*tokens, 1]).tokens == 12


def test_only_the_very_beginning_matches() -> None:
    tables, cache = _caches()
    _keep(tables, cache, [1, 2, 3, 4, 5, 6, 7, 8])
    assert cache.match([5, 6, 7, 8, 9]).tokens == 0
    assert cache.match([1, 2, 3, 5, 5, 6, 7, 8, 9]).tokens == 0
    assert cache.match([1, 2, 3, 4, 1, 2, 3, 4, 5]).tokens == 4


def test_prefixes_of_another_salt_are_others() -> None:
    tables, cache = _caches()
    other = PrefixCache(tables, b"the same model, compressed")
    slot = _read(tables, tables.open(), [1] * 9)
    cache.insert([1] * 9, slot)
    assert other.match([1] * 9).tokens == 0
    other.insert([1] * 9, slot)
    assert set(cache._numbers).isdisjoint(other._numbers)
    _check(tables, other)


def test_pages_outlive_the_sequence_that_computed_them() -> None:
    tables, cache = _caches()
    _keep(tables, cache, list(range(11)))
    assert tables.pool.free == _PAGES - 2 * _BLOCK
    assert cache.pages == 2 * _BLOCK
    assert len(cache) == 2
    assert cache.evict(1) == _BLOCK
    assert cache.evict(10**6) == _BLOCK
    assert tables.pool.free == _PAGES
    assert cache.evict(1) == 0
    _check(tables, cache)


def test_a_branch_shares_its_trunk() -> None:
    tables, cache = _caches()
    trunk = list(range(8))
    _keep(tables, cache, [*trunk, 1, 1, 1, 1])
    slot = tables.open()
    match = cache.match([*trunk, 2, 2, 2, 2])
    tables.adopt(slot, match.blocks, match.tokens)
    tables.append([slot], [4])
    assert cache.insert([*trunk, 2, 2, 2, 2], slot) == 1
    assert len(cache) == 4
    assert cache.insert([*trunk, 2, 2, 2, 2], slot) == 0
    _check(tables, cache)


def test_blocks_that_two_sequences_computed_are_kept_once() -> None:
    tables, cache = _caches()
    tokens = list(range(8))
    first, second = (_read(tables, tables.open(), tokens) for _ in range(2))
    assert cache.insert(tokens, first) == 2
    assert cache.insert(tokens, second) == 0
    tables.free(second)
    assert tables.pool.free == _PAGES - 2 * _BLOCK
    np.testing.assert_array_equal(cache.match([*tokens, 1]).blocks, tables.table[first, ..., :2])
    _check(tables, cache)


def test_no_more_is_kept_than_was_computed() -> None:
    tables, cache = _caches()
    slot = _read(tables, tables.open(), [1] * 6)
    tables.reserve(slot, 20)
    assert cache.insert([1] * 20, slot) == 1
    assert cache.insert([1] * 3, slot) == 0
    _check(tables, cache)


def test_sequences_that_lost_entries_are_not_kept() -> None:
    tables, cache = _caches()
    tokens = list(range(16))
    lose = [
        lambda slot: tables.drop_front(slot, np.ones(_LAYERS, np.bool_), 1),
        lambda slot: tables.compact(slot, torch.arange(16).ne(3).expand(_LAYERS, _HEADS, 16)),
        lambda slot: tables.truncate_rows(slot, np.arange(8, 8 + _BLOCK).reshape(_LAYERS, _HEADS)),
        tables.free,
    ]
    for change in lose:
        slot = _read(tables, tables.open(), tokens)
        change(slot)
        assert cache.insert(tokens, slot) == 0
    assert len(cache) == 0
    slot = _read(tables, tables.open(), tokens)
    tables.truncate(slot, 5)
    tables.compact(slot, torch.ones(_LAYERS, _HEADS, 11, dtype=torch.bool))
    assert cache.insert(tokens[:11], tables.fork(slot)) == 2
    _check(tables, cache)


def test_the_least_recently_used_goes_first_and_children_before_parents() -> None:
    tables, cache = _caches()
    old, middle, new = ([n] * 8 for n in (1, 2, 3))
    for tokens in (old, middle, new):
        _keep(tables, cache, tokens)
    cache.match([*old, 0])
    assert cache.evict(_BLOCK) == _BLOCK
    assert cache.evict(1) == _BLOCK
    known = {}
    for name, tokens in (("old", old), ("middle", middle), ("new", new)):
        known[name] = len(cache._walk(tokens, 2))
    assert known == {"old": 2, "middle": 0, "new": 2}
    assert cache.evict(_BLOCK) == _BLOCK
    assert (len(cache._walk(new, 2)), len(cache._walk(old, 2))) == (1, 2)
    _check(tables, cache)


def test_a_locked_prefix_stays_until_it_is_unlocked_as_often() -> None:
    tables, cache = _caches()
    tokens = list(range(12))
    _keep(tables, cache, tokens)
    match = cache.match(tokens)
    assert match.tokens == 8
    cache.lock(match)
    cache.lock(match)
    assert cache.evict(10**6) == _BLOCK  # what lies behind it
    cache.unlock(match)
    assert cache.evict(10**6) == 0
    slot = tables.open()
    tables.adopt(slot, match.blocks, match.tokens)
    tables.free(slot)
    cache.unlock(match)
    with pytest.raises(EngineError, match="not locked"):
        cache.unlock(match)
    assert cache.evict(10**6) == 2 * _BLOCK
    _check(tables, cache)


def test_a_trunk_stays_as_long_as_one_of_its_branches() -> None:
    tables, cache = _caches()
    trunk = list(range(8))
    for branch in ([1] * 4, [2] * 4, [3] * 4):
        _keep(tables, cache, [*trunk, *branch])
    locked = cache.match([*trunk, *([2] * 4), 0])
    cache.lock(locked)
    assert cache.evict(_BLOCK) == _BLOCK
    cache.check_integrity()
    assert cache.evict(10**6) == _BLOCK
    assert _tokens(cache, [*trunk, *([2] * 4)]) == 12
    cache.unlock(locked)
    _check(tables, cache)


def test_an_empty_match_can_be_locked_too() -> None:
    _, cache = _caches()
    match = cache.match([1, 2, 3])
    assert match.tokens == 0
    assert match.blocks.shape == (_LAYERS, _HEADS, 0)
    cache.lock(match)
    cache.unlock(match)


def test_a_match_that_was_evicted_cannot_be_locked_even_when_it_came_back() -> None:
    tables, cache = _caches()
    tokens = list(range(9))
    _keep(tables, cache, tokens)
    match = cache.match(tokens)
    cache.evict(10**6)
    with pytest.raises(EngineError, match="evicted before it was locked"):
        cache.lock(match)
    tables.append([tables.open()], [1])  # takes the pages it had
    _keep(tables, cache, tokens)
    with pytest.raises(EngineError, match="evicted before it was locked"):
        cache.lock(match)
    cache.lock(cache.match(tokens))


def test_what_running_sequences_hold_is_not_forgotten_for_nothing() -> None:
    tables, cache = _caches()
    running = _read(tables, tables.open(), [1] * 8)
    cache.insert([1] * 8, running)
    _keep(tables, cache, [2] * 8)
    assert cache.evict(10**6) == 2 * _BLOCK
    assert _tokens(cache, [1] * 8) == 8
    assert _tokens(cache, [2] * 8) == 0
    tables.free(running)
    assert cache.evict(10**6) == 2 * _BLOCK
    assert tables.pool.free == _PAGES


def test_pages_that_a_sequence_still_holds_in_part_are_counted_when_they_are_free() -> None:
    tables, cache = _caches()
    slot = _read(tables, tables.open(), [1] * 4)
    cache.insert([1] * 4, slot)
    tables.drop_front(slot, np.array([True, False]), 1)
    assert cache.evict(10**6) == _HEADS
    assert tables.pool.free == _PAGES - _HEADS
    _check(tables, cache)


def test_equal_hashes_of_other_tokens_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefix_cache, "_digest", lambda parent, block: bytes([len(parent) % 2]) * 3)
    tables, cache = _caches()
    first = [1] * 8
    slot = _read(tables, tables.open(), first)
    assert cache.insert(first, slot) == 2  # two keys are all there are
    other = _read(tables, tables.open(), [2] * 8)
    assert cache.match([*([2] * 8), 0]).tokens == 0
    assert cache.insert([2] * 8, other) == 0
    assert cache.match([*first, 0]).tokens == 8
    assert cache.insert([*first, 3, 3, 3, 3], _read(tables, tables.open(), [0] * 12)) == 0
    tables.check_integrity()


def test_hits_are_counted_in_matches_and_tokens() -> None:
    tables, cache = _caches()
    _keep(tables, cache, list(range(8)))
    cache.match(list(range(8)))
    cache.match([7, 7, 7, 7, 7])
    assert (cache.queries, cache.hits, cache.queried_tokens, cache.hit_tokens) == (2, 1, 13, 4)


def test_disorder_is_found() -> None:
    for spoil, message in (
        (lambda cache: cache._tokens.__setitem__(1, b"other"), "is not that of its tokens"),
        (lambda cache: cache._children.__setitem__(0, 2), "counted wrongly"),
        (lambda cache: cache._touched.__setitem__(0, 0), "evicted before its child"),
        (lambda cache: cache._kept.__setitem__(0, False), "differ"),
        (lambda cache: cache._pages.__setitem__((0, 0, 0), _PAGES - 1), "a page that is free"),
    ):
        tables, cache = _caches()
        _keep(tables, cache, list(range(8)))
        _check(tables, cache)
        spoil(cache)
        with pytest.raises(EngineError, match=message):
            cache.check_integrity()


def test_many_prefixes_come_and_go() -> None:
    """More than the arrays begin with, so that they grow and numbers are used again."""
    tables = PageTables(PagePool(2000, 1, 1, torch.float32), 1, 1, 1, 8)
    cache = PrefixCache(tables)
    for round_number in range(6):
        _keep(tables, cache, [round_number * 1000 + at for at in range(300)])
        _check(tables, cache)
        assert cache.evict(100) == 100
    kept = [_tokens(cache, [n * 1000 + at for at in range(300)]) for n in range(6)]
    assert sum(kept) == len(cache) == 6 * 200
    assert cache.evict(10**6) == 1200
    assert isinstance(cache.match([1, 2]), Match)
