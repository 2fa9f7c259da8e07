"""Weights in large pages, as the kernel tells of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from lcdoc.local_engine.huge_pages import HugePages, _outside

_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def in_huge_pages() -> int:
    """Bytes of this process."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("AnonHugePages:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has them")
def test_memory_allocated_in_the_block_lies_in_large_pages() -> None:
    if not _SETTING.exists() or "[never]" in _SETTING.read_text():
        pytest.skip("this kernel gives no large pages")
    if tuple(int(part) for part in Path("/proc/sys/kernel/osrelease").read_text().split(".")[:2]) < (6, 1):
        pytest.skip("this kernel gathers pages in its own time")
    earlier = torch.ones(16 << 20, dtype=torch.uint8)
    before = in_huge_pages()
    with HugePages() as gathering:
        weights = torch.ones(64 << 20, dtype=torch.uint8)
    gathering.wait()
    assert in_huge_pages() - before > 48 << 20
    assert bool((weights == 1).all())
    assert bool((earlier == 1).all())


def test_only_new_ranges_are_asked_for() -> None:
    assert list(_outside([(0, 10), (20, 30)], [(0, 10), (20, 30)])) == []
    assert list(_outside([(0, 12), (20, 30), (40, 50)], [(2, 4), (6, 8), (18, 25)])) == [
        (0, 2),
        (4, 6),
        (8, 12),
        (25, 30),
        (40, 50),
    ]
