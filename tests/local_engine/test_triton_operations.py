"""A whole decoder on the Triton kernels, interpreted, against the same decoder on PyTorch's operators."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from lcdoc.local_engine.batch import Piece
from lcdoc.local_engine.config import read_config
from lcdoc.tests.local_engine.checkpoints import save_model
from lcdoc.tests.local_engine.decoding import CPU, Bench, random_tokens
from lcdoc.tests.local_engine.kernel_process import outcomes, report


def benches(family: str, **overrides: Any) -> tuple[Bench, Bench]:
    from lcdoc.local_engine.operations_triton import TritonOperations

    with tempfile.TemporaryDirectory() as name:
        folder = save_model(Path(name), family, **overrides)
        operations = TritonOperations(read_config(folder), CPU)
        return Bench(folder), Bench(folder, operations=operations)


def steps(bench: Bench) -> list[torch.Tensor]:
    """Prompts and decoding in one pass, drafts, a page border."""
    first, second = bench.tables.open(), bench.tables.open()
    text, other = random_tokens(30), random_tokens(21, seed=1)
    return [
        bench.run(Piece(first, text[:14], 0, 30, 2)),
        bench.run(Piece(first, text[14:29], 14, 30, 1), Piece(second, other[:7], 0, 21, 1)),
        bench.run(Piece(first, text[29:], 29, 30, 1), Piece(second, other[7:18], 7, 21, 1)),
        bench.run(Piece(first, [9], 30, 30, 1), Piece(second, other[18:], 18, 21, 3)),
        bench.run(Piece(first, [10], 31, 30, 1), Piece(second, [11], 21, 21, 1)),
    ]


def check_passes(family: str, overrides: dict[str, Any]) -> None:
    plain, triton = benches(family, num_hidden_layers=2, **overrides)
    for ours, wanted in zip(steps(triton), steps(plain), strict=True):
        assert torch.allclose(ours, wanted, atol=2e-4, rtol=1e-3), (ours - wanted).abs().max()


def check_padded_decoding() -> None:
    """What a CUDA graph replays: buffers for more sequences and longer rows than there are."""
    from lcdoc.local_engine.graphed_decoding import GraphedDecoder

    plain, triton = benches("qwen2", num_hidden_layers=2)
    graphed = GraphedDecoder(triton.decoder, capture=False)
    slots = []
    for seed in range(3):
        for bench in (plain, triton):
            slot = bench.tables.open()
            bench.run(Piece(slot, random_tokens(5 + seed, seed=seed), 0, 5 + seed, 1))
        slots.append(slot)
    before = triton.tables.pool.keys.clone()
    for step in range(3):
        # The last step has fewer sequences, so that one is stale in the buffers.
        pieces = [Piece(slot, [20 + slot], 5 + slot + step, 5 + slot, 1) for slot in slots[: 3 - step // 2]]
        ours = graphed.forward(triton.batch(*pieces)).clone()
        assert torch.allclose(ours, plain.run(*pieces), atol=2e-4, rtol=1e-3)
    changed = (triton.tables.pool.keys != before).any(-1).sum()
    assert changed == (3 + 3 + 2) * 2 * 2  # a key for each token, layer and head, and nothing else
    triton.tables.check_integrity()


CASES: dict[str, Any] = {
    "llama": (check_passes, {"family": "llama", "overrides": {}}),
    "qwen3, QK norm": (check_passes, {"family": "qwen3", "overrides": {}}),
    "window": (check_passes, {"family": "mistral", "overrides": {"sliding_window": 12}}),
    "some layers without rotation": (check_passes, {"family": "smollm3", "overrides": {}}),
    "padded decoding": (check_padded_decoding, {}),
}


@pytest.fixture(scope="module")
def results() -> dict[str, str | None]:
    return outcomes(__file__, CASES, "interpreted")


@pytest.mark.parametrize("case", CASES)
def test_triton_operations(results: dict[str, str | None], case: str) -> None:
    assert results[case] is None, results[case]


if __name__ == "__main__":
    report(CASES)
