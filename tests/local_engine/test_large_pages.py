"""Weights in large pages, as the kernel tells of them."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
import torch

from lcdoc.local_engine.large_pages import LargePages

_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
ONLY_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="read from Linux's /proc")


def counted(name: str) -> int:
    """Bytes of this process."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell")


@ONLY_LINUX
def test_what_is_held_lies_in_large_pages() -> None:
    if not _SETTING.exists() or "[never]" in _SETTING.read_text():
        pytest.skip("this kernel gives no large pages")
    before = counted("AnonHugePages")
    held = LargePages().hold(torch.ones(48 << 20, dtype=torch.uint8))
    assert counted("AnonHugePages") - before > 40 << 20
    assert bool((held == 1).all())


@ONLY_LINUX
def test_memory_goes_back_with_the_last_tensor_in_it() -> None:
    pages = LargePages()
    held = [pages.hold(torch.ones(60 << 20, dtype=torch.uint8)) for _ in range(2)]
    del pages
    before = counted("Rss")
    del held
    gc.collect()
    assert before - counted("Rss") > 100 << 20


def test_tensors_do_not_overlap() -> None:
    pages = LargePages()
    sizes = [1, 7, 100_000, 70 << 20, 3, 0, 20 << 20]
    held = [pages.empty((size,), torch.float32 if size % 2 else torch.bfloat16) for size in sizes]
    for number, tensor in enumerate(held):
        tensor.fill_(number)
    assert all(bool((tensor == number).all()) for number, tensor in enumerate(held))
    assert all(tensor.data_ptr() % 64 == 0 for tensor in held if len(tensor))
