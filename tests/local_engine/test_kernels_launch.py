"""What the kernels' launchers decide on the host."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lcdoc.local_engine.kernels.launch import choose_splits, padded_head_dim

SLOTS = 264


@pytest.mark.parametrize("rows", [1, 2, 7, 16, 72, 128, 263, 264, 300, 1000])
@pytest.mark.parametrize("keys", [1, 127, 129, 4096, 65536])
def test_pieces_fill_the_gpu_and_none_is_tiny(rows: int, keys: int) -> None:
    splits = choose_splits(rows, keys, 64, SLOTS)
    most = min(128, max(1, -(-keys // 128)))
    assert 1 <= splits <= most
    waves = -(-rows * splits // SLOTS)
    assert splits >= 0.9 * most or rows * splits / (waves * SLOTS) >= 0.8


def test_a_full_gpu_gets_whole_rows() -> None:
    assert choose_splits(SLOTS, 65536, 64, SLOTS) == 1
    assert choose_splits(0, 65536, 64, SLOTS) == 1


def test_heads_are_padded_to_what_matrix_units_take() -> None:
    assert [padded_head_dim(size) for size in (8, 16, 40, 64, 80, 256)] == [16, 16, 64, 64, 128, 256]


def test_the_package_imports_neither_triton_nor_the_kernels() -> None:
    script = (
        "import sys, lcdoc.local_engine.kernels.reference; "
        "print([name for name in sys.modules if name.startswith('lcdoc.local_engine.kernels.triton')])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
