"""What the cache's books cost a step: sequences whose rows are alike, beside sequences whose rows differ in length.

    python benchmarks/page_tables.py [--layers 24] [--kv-heads 2] [--sequences 8] [--tokens 4096] [--page-size 16]

Times of the host's bookkeeping, without any model: median microseconds of a call. `decode` appends one token to each
sequence: `room` while every row has room, `all` the mean over many steps, with those that take pages. `write` is a
prefill piece of 512 tokens for which pages are reserved, `piece` one that takes them, `truncate` takes a token off one
sequence. Ragged sequences went through a compaction that keeps between a quarter and three quarters of each row.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import PagePool

_PIECE = 512
_STEPS = 160


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--page-size", type=int, default=16)
    shape = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}; "
        f"{shape.sequences} sequences of {shape.tokens} tokens x {shape.layers} layers x {shape.kv_heads} heads, "
        f"pages of {shape.page_size}"
    )
    uniform, ragged = _measure(shape, ragged=False), _measure(shape, ragged=True)
    print(f"{'us':24}{'uniform':>10}{'ragged':>10}{'ratio':>8}")
    for name, alike in uniform.items():
        print(f"{name:24}{alike:10.1f}{ragged[name]:10.1f}{ragged[name] / alike:8.2f}")


def _measure(shape: argparse.Namespace, *, ragged: bool) -> dict[str, float]:
    rows = shape.layers * shape.kv_heads
    longest = shape.tokens + 2 * _PIECE + 2 * _STEPS
    pages = (shape.sequences + 1) * rows * (-(-longest // shape.page_size) + 2)
    pool = PagePool(pages, shape.page_size, 1, torch.float32)
    tables = PageTables(pool, shape.sequences, shape.layers, shape.kv_heads, -(-longest // shape.page_size))
    random = np.random.default_rng(1)
    slots = np.array([tables.open() for _ in range(shape.sequences)])
    for slot in slots.tolist():
        tables.append([slot], [shape.tokens])
        if ragged:
            shares = torch.from_numpy(random.uniform(0.25, 0.75, (shape.layers, shape.kv_heads, 1)))
            tables.compact(slot, torch.from_numpy(random.random((*shares.shape[:2], shape.tokens))) < shares)
    ones = np.ones(len(slots), np.int64)
    one, piece = slots[:1], np.array([_PIECE])

    with_room, all_steps = [], []
    for _ in range(_STEPS):
        needs = tables.pages_needed(slots, ones) > 0
        spent = _once(lambda: tables.append(slots, ones))
        all_steps.append(spent)
        if not needs:
            with_room.append(spent)

    taking, reserved = [], []
    for _ in range(40):
        taking.append(_once(lambda: tables.append(one, piece)))
        tables.truncate(int(one[0]), _PIECE)
    tables.reserve(int(one[0]), _PIECE)
    for _ in range(40):
        reserved.append(_once(lambda: tables.append(one, piece)))
        tables.truncate(int(one[0]), _PIECE)
    return {
        "decode, room": statistics.median(with_room),
        "decode, all": statistics.mean(sorted(all_steps)[: -_STEPS // 20]),  # without the machine's hiccups
        "pages_needed": statistics.median(_once(lambda: tables.pages_needed(slots, ones)) for _ in range(100)),
        f"write of {_PIECE}": statistics.median(reserved),
        f"piece of {_PIECE}": statistics.median(taking),
        "truncate": statistics.median(_once(lambda: tables.truncate(int(slots[-1]), 1)) for _ in range(60)),
        "runs": statistics.median(_once(lambda: _fresh_runs(tables, int(slots[-1]))) for _ in range(20)),
    }


def _fresh_runs(tables: PageTables, slot: int) -> None:
    tables._runs.clear()
    tables.runs(slot)


def _once(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e6


if __name__ == "__main__":
    main()
