"""The kernels of compression compile for the GPUs that they are written for."""

from __future__ import annotations

import pytest
import torch

from lcdoc.tests.local_engine.kernel_compiling import AMPERE, HOPPER, check
from lcdoc.tests.local_engine.kernel_process import TYPES, outcomes, report


def empty_rows(head_dim: int, kind: str, page_size: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pages of keys, the table of two rows, and their lengths."""
    pages = torch.empty(8, page_size, head_dim, dtype=TYPES[kind])
    return pages, torch.zeros(2, 4, dtype=torch.int32), torch.ones(2, dtype=torch.int32)


def window(head_dim: int, groups: int, kind: str, over: tuple[str, str] = ("sum", "mean"), bias: bool = False) -> None:
    from lcdoc.local_engine.kernels.triton_window_scores import window_lse, window_scores

    # As the engine names single entries.
    pages, lengths = empty_rows(head_dim, kind)[0].view(-1, 1, head_dim), torch.full((2,), 64, dtype=torch.int32)
    table = torch.zeros(2, 64, dtype=torch.int64)
    q, positions = torch.empty(2, groups, 32, head_dim, dtype=TYPES[kind]), torch.zeros(2, 64, dtype=torch.int64)
    seen = (q, pages, table, lengths, positions, positions[0, :32], 0.1)
    added = torch.empty(2, 64) if bias else None
    window_lse(*seen, 99 if bias else None, added)
    window_scores(*seen, torch.empty(2, groups, 32), *over, added)


def mass(head_dim: int, groups: int, kind: str, window: int | None = None, bias: bool = False) -> None:
    from lcdoc.local_engine.kernels.triton_attention_mass import add_attention_mass

    pages, table, lengths = empty_rows(head_dim, kind)
    q = torch.empty(512, 2 * groups, head_dim, dtype=TYPES[kind])
    rest = (0.1, window, torch.empty(8, 16) if bias else None)
    add_attention_mass(torch.empty(2, 4096), q, torch.empty(512, 2 * groups), pages, table, lengths, *rest)


def compaction(head_dim: int, kind: str, rotary: int = 0, merge: bool = False) -> None:
    from lcdoc.local_engine.kernels.triton_compact import compact

    pages, table, counts = empty_rows(head_dim, kind)
    kept = torch.zeros(2, 4096, dtype=torch.int64)
    compact(
        pages, pages, table, kept, counts, table,
        kept if rotary else None, torch.ones(rotary // 2) if rotary else None,
        kept if merge else None, torch.empty(2, 4096) if merge else None, True, torch.empty(8, 16),
    )  # fmt: skip


def adjacent(head_dim: int, kind: str) -> None:
    from lcdoc.local_engine.kernels.triton_adjacent import adjacent_similarity

    pages, table, lengths = empty_rows(head_dim, kind)
    adjacent_similarity(pages, table, lengths, 64)


def loading(head_dim: int, kind: str, coded: bool) -> None:
    from lcdoc.local_engine.kernels.triton_load_pages import load_pages

    pages, _, _ = empty_rows(head_dim, kind)
    source = torch.empty(64, head_dim, dtype=torch.int8 if coded else TYPES[kind])
    scale = torch.empty(64, dtype=torch.float16) if coded else None
    load_pages(source, source, pages, pages, torch.zeros(64, dtype=torch.int64), scale, scale)


CASES = {
    f"{launch.__name__} {options} for {capability}": (
        check,
        {"capability": capability, "launch": launch, "options": options, "unit": unit},
    )
    for capability, launch, options, unit in [
        (80, window, {"head_dim": 128, "groups": 7, "kind": "bfloat16", "over": ("max", "max")}, AMPERE),
        (90, window, {"head_dim": 80, "groups": 8, "kind": "bfloat16", "bias": True}, ""),
        (80, window, {"head_dim": 64, "groups": 3, "kind": "float32"}, AMPERE),
        (80, mass, {"head_dim": 128, "groups": 8, "kind": "bfloat16"}, AMPERE),
        (90, mass, {"head_dim": 64, "groups": 7, "kind": "bfloat16", "window": 99, "bias": True}, HOPPER),
        (80, mass, {"head_dim": 80, "groups": 2, "kind": "float32"}, AMPERE),
        (80, compaction, {"head_dim": 64, "kind": "bfloat16"}, ""),
        (90, compaction, {"head_dim": 128, "kind": "bfloat16", "rotary": 128}, ""),
        (80, compaction, {"head_dim": 80, "kind": "float32", "rotary": 32, "merge": True}, ""),
        (80, adjacent, {"head_dim": 128, "kind": "bfloat16"}, ""),
        (90, adjacent, {"head_dim": 80, "kind": "float32"}, ""),
        (80, loading, {"head_dim": 80, "kind": "bfloat16", "coded": True}, ""),
        (90, loading, {"head_dim": 128, "kind": "bfloat16", "coded": False}, ""),
    ]
}


@pytest.fixture(scope="module")
def results() -> dict[str, str | None]:
    return outcomes(__file__, CASES, "compiled")


@pytest.mark.parametrize("name", CASES)
def test_kernel_compiles(results: dict[str, str | None], name: str) -> None:
    assert results[name] is None, results[name]


if __name__ == "__main__":
    report(CASES)
