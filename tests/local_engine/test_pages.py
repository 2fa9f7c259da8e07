"""The pool: what is handed out, what is held, and what a mistake in holding is answered with."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.local_engine.errors import EngineError, OutOfPagesError
from lcdoc.local_engine.pages import PagePool

_STATM = Path("/proc/self/statm")


def _pool(pages: int) -> PagePool:
    return PagePool(pages, 2, 3, torch.float32)


def _with_free(pages: int, free: list[int]) -> PagePool:
    pool = _pool(pages)
    pool.take(pages)
    pool.release(np.array(free, np.int32))
    return pool


def test_storage_has_the_shape_and_begins_as_zeros_on_a_border() -> None:
    pool = PagePool(7, 5, 3, torch.bfloat16)
    for store in (pool.keys, pool.values):
        assert store.shape == (7, 5, 3)
        assert store.dtype == torch.bfloat16
        assert store.data_ptr() % 64 == 0
        assert not store.any()
    assert pool.page_bytes == 2 * 5 * 3 * 2


@pytest.mark.skipif(not _STATM.exists(), reason="reads /proc")
def test_memory_is_only_used_as_it_is_written() -> None:
    before = int(_STATM.read_text().split()[1])
    pool = PagePool(1 << 16, 16, 128, torch.float32)  # 2 x 512 MiB
    assert (int(_STATM.read_text().split()[1]) - before) * mmap.PAGESIZE < 64 << 20
    assert not pool.keys[-1].any()


def test_one_stretch_is_found_where_it_first_fits() -> None:
    pool = _with_free(20, [1, 2, 4, 5, 6, 9, 10, 11, 12])
    assert pool.take(3).tolist() == [4, 5, 6]
    assert pool.take(4).tolist() == [9, 10, 11, 12]
    assert pool.free == 2


def test_without_a_stretch_the_lowest_free_pages_are_taken() -> None:
    pool = _with_free(20, [1, 2, 5, 7, 8, 11])
    assert pool.take(4).tolist() == [1, 2, 5, 7]


def test_stretches_of_a_row_come_before_loose_pages() -> None:
    pool = _with_free(20, [0, 3, 4, 7, 9, 10, 11, 12, 15])
    assert pool.take(8, run=2).tolist() == [3, 4, 9, 10, 11, 12, 0, 7]
    assert pool.free == 1


def test_rows_of_different_needs_get_neighbours() -> None:
    pool = _with_free(20, [0, 2, 3, 4, 7, 8, 12])
    pages = pool.take_rows(np.array([1, 3, 0, 2]))
    assert pages.tolist() == [0, 2, 3, 4, 7, 8]


def test_pages_far_behind_full_ones_are_found() -> None:
    pool = _with_free(200_000, [5, *range(150_000, 150_010), 199_999])
    assert pool.take(10).tolist() == list(range(150_000, 150_010))
    assert pool.take(2).tolist() == [5, 199_999]
    assert pool.free == 0


def test_too_few_pages_take_none_and_say_how_many() -> None:
    pool = _with_free(10, [1, 3, 4])
    for take in (lambda: pool.take(4), lambda: pool.take_rows(np.array([2, 2]))):
        with pytest.raises(OutOfPagesError, match="4 cache pages are needed and 3 are free") as caught:
            take()
        assert (caught.value.needed, caught.value.free) == (4, 3)
    assert pool.free == 3
    assert pool.take(0).tolist() == []


def test_a_page_is_free_only_when_all_who_hold_it_let_go() -> None:
    pool = _pool(4)
    page = pool.take(1)
    pool.retain(np.repeat(page, 2))
    pool.release(np.repeat(page, 2))
    assert pool.free == 3
    pool.release(page)
    assert pool.free == 4
    page = pool.take(1)
    pool.retain(page)
    pool.release(np.repeat(page, 2))
    assert pool.free == 4
    pool.check_integrity()


def test_a_double_free_is_refused_and_changes_nothing() -> None:
    pool = _pool(4)
    pages = pool.take(2)
    for wrong in ([0, 1, 1], [0, 3], [2]):
        with pytest.raises(EngineError, match="released more often than it is held"):
            pool.release(np.array(wrong, np.int32))
        assert pool.refs.tolist() == [1, 1, 0, 0]
    pool.release(pages)
    with pytest.raises(EngineError, match="released more often"):
        pool.release(pages)
    pool.check_integrity()


def test_a_free_page_cannot_be_shared() -> None:
    pool = _pool(4)
    pool.take(1)
    with pytest.raises(EngineError, match="cache page 2 is free and cannot be shared"):
        pool.retain(np.array([0, 2], np.int32))
    assert pool.refs.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("page", [-1, 4])
def test_pages_that_do_not_exist_are_refused(page: int) -> None:
    pool = _pool(4)
    pool.take(4)
    for change in (pool.release, pool.retain):
        with pytest.raises(EngineError, match="the pool has 0 to 3"):
            change(np.array([0, page], np.int32))


def test_whole_pages_are_copied_keys_and_values() -> None:
    pool = _pool(6)
    torch.nn.init.normal_(pool.keys)
    torch.nn.init.normal_(pool.values)
    before = pool.keys.clone(), pool.values.clone()
    pool.copy(np.array([0, 0, 4], np.int32), np.array([5, 1, 2], np.int32))
    for store, old in zip((pool.keys, pool.values), before, strict=True):
        assert torch.equal(store, old[[0, 0, 4, 3, 4, 0]])


@pytest.mark.parametrize("shape", [(0, 2, 3), (3, 0, 3), (3, 2, 0)])
def test_an_empty_pool_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(EngineError, match="at least one page"):
        PagePool(*shape, torch.float32)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), pages=st.integers(1, 3000))
def test_pages_are_handed_out_once_and_come_back(data: st.DataObject, pages: int) -> None:
    pool = _pool(pages)
    held: list[np.ndarray] = []
    for _ in range(data.draw(st.integers(1, 12))):
        if held and data.draw(st.booleans()):
            pool.release(held.pop(data.draw(st.integers(0, len(held) - 1))))
        else:
            needs = np.array(data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=12)))
            if needs.sum() > pool.free:
                with pytest.raises(OutOfPagesError):
                    pool.take_rows(needs)
                continue
            held.append(pool.take_rows(needs))
            assert len(held[-1]) == needs.sum()
        out = np.concatenate([*held, np.empty(0, np.int32)])
        assert len(np.unique(out)) == len(out)
        assert pool.free == pages - len(out)
        assert set(np.flatnonzero(pool.refs)) == set(out.tolist())
        pool.check_integrity()
    for pages_held in held:
        pool.release(pages_held)
    assert pool.free == pages
    assert pool.take(pages).tolist() == list(range(pages))
