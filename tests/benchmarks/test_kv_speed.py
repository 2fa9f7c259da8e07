"""How figures of compression's speed become a table."""

from __future__ import annotations

from lcdoc.benchmarks.kv_speed import Column, Measured, table


def test_times_are_against_the_first_column_whichever_way_is_better() -> None:
    theirs, ours, failed = (Column(engine, "", kv) for engine, kv in (("t", "full"), ("l", "a@0.1"), ("l", "b@0.1")))
    measured = Measured()
    for prefill in (90.0, 100.0, 500.0):
        measured.add(theirs, 4096, {"prefill_tps": prefill, "decode_tps": 2.0, "peak_mb": 3000.0, "cache_mb": None})
    measured.add(ours, 4096, {"prefill_tps": 250.0, "decode_tps": 9.0, "peak_mb": 1500.0, "cache_mb": 1.5})
    measured.failures[failed, 4096] = "exit 1: no memory"
    shown = table(measured, [theirs, ours, failed], [4096])
    assert "| t full | 100 | 2.00 | 3,000 | - |" in shown
    assert "| l a@0.1 | 250 (x2.50) | 9.00 (x4.50) | 1,500 (x2.00) | 1.50 |" in shown
    assert "| l b@0.1 | - | - | - | - |" in shown
    assert shown.endswith("l b@0.1 failed at 4,096 tokens: exit 1: no memory")
