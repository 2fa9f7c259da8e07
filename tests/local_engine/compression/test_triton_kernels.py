"""Whole requests with the Triton kernels, interpreted, against the same requests on PyTorch's operators."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from lcdoc.local_engine import assembly
from lcdoc.local_engine.compression_kernels_torch import TORCH
from lcdoc.local_engine.engine import Engine, KVConfig, Sampling
from lcdoc.local_engine.snapshot import Snapshot
from lcdoc.tests.local_engine.checkpoints import save_checkpoint
from lcdoc.tests.local_engine.engines import BLOCK_BYTES, PAGE_SIZE, ask, held_bits, ids, prompt_of
from lcdoc.tests.local_engine.kernel_process import outcomes, report

TEXT, QUESTION = prompt_of(110), prompt_of(9, 1)
SHORT = Sampling(max_tokens=4, temperature=0, ignore_eos=True)


class Watched:
    """The Triton kernels, and which of them were called."""

    def __init__(self) -> None:
        from lcdoc.local_engine.compression_kernels_triton import TritonKernels

        self.kernels = TritonKernels()
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.called.add(name)
        return getattr(self.kernels, name)


@contextmanager
def engines(
    family: str, dtype: str, watched: Watched, operations: bool, **overrides: Any
) -> Iterator[tuple[Engine, Engine]]:
    """One with PyTorch's operators and one with the kernels; `operations`: passes are computed by Triton's, too."""
    from lcdoc.local_engine.operations_triton import TritonOperations

    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory())
        folder = save_checkpoint(Path(name), family, **{"num_hidden_layers": 2, **overrides})

        def load() -> Engine:
            kv = KVConfig(page_size=PAGE_SIZE, max_memory=400 * BLOCK_BYTES)
            return stack.enter_context(Engine.load(folder, dtype=dtype, device="cpu", kv=kv, step_tokens=48))

        plain = load()
        stack.enter_context(patch.object(assembly, "kernels_on", lambda _: watched))
        if operations:
            stack.enter_context(patch.object(assembly, "operations_on", TritonOperations))
        yield plain, load()


def check_requests(
    recipe: str,
    called: set[str],
    family: str = "qwen2",
    dtype: str = "float32",
    operations: bool = False,
    **overrides: Any,
) -> None:
    """What is kept of a text, what stands in the pages, and what is answered, at once and behind the snapshot."""
    watched, tolerance = Watched(), {"float32": 2e-4, "bfloat16": 2e-2}[dtype]
    with engines(family, dtype, watched, operations, **overrides) as (plain, triton):
        wanted, ours = (asyncio.run(each.prefill(TEXT, kv=recipe)) for each in (plain, triton))
        assert 0 < ours.lengths.sum() < len(TEXT) * ours.lengths.size
        assert (ours.lengths == wanted.lengths).all()
        assert torch.equal(ours.positions, wanted.positions)
        assert torch.equal(ours.rotated_at, wanted.rotated_at)
        for mine, theirs in ((ours.keys, wanted.keys), (ours.values, wanted.values)):
            torch.testing.assert_close(mine.numbers, theirs.numbers, rtol=tolerance, atol=tolerance)
        assert (ours.bias is None) == (wanted.bias is None)
        if ours.bias is not None:
            torch.testing.assert_close(ours.bias, wanted.bias, rtol=1e-3, atol=1e-3)
        answers = [ids(ask(each, TEXT + QUESTION, SHORT, kv=recipe)) for each in (plain, triton)]
        assert answers[0] == answers[1]
        behind = [ids(ask(each, QUESTION, SHORT, prefix=wanted)) for each in (plain, triton)]
        assert behind[0] == behind[1]
        triton._scheduler.tables.check_integrity()
    assert watched.called == called | {"move", "load"}


def check_snapshots(quantize: str | None, dtype: str) -> None:
    """From a file into pages: the same bits, where nothing is rounded."""
    watched = Watched()
    with engines("qwen2", dtype, watched, False) as (plain, triton), tempfile.TemporaryDirectory() as name:
        path = Path(name) / "text.kv"
        asyncio.run(plain.prefill(TEXT, kv="snapkv+ada+match@24tok")).save(path, quantize=quantize)
        held = []
        for engine in (plain, triton):
            snapshot = Snapshot.load(path)
            assert snapshot.quantized == (quantize is not None)
            ask(engine, QUESTION, SHORT, prefix=snapshot)
            held.append(held_bits(engine, snapshot))
        assert len(held[0]) == 3
        # The interpreter cuts what does not fit bfloat16 off, where PyTorch rounds.
        tolerance = 1e-2 if quantize and dtype == "bfloat16" else 0.0
        for mine, theirs in zip(*held, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=0.0)
    assert watched.called == {"load"}


def check_choice() -> None:
    from lcdoc.local_engine.compression_kernels_triton import TritonKernels

    assert isinstance(assembly.kernels_on(torch.device("cuda")), TritonKernels)
    assert assembly.kernels_on(torch.device("cpu")) is TORCH


SCORES, MASS, LSE, NEAR = "window_scores", "add_attention_mass", "log_mass", "adjacent_similarity"
CASES: dict[str, Any] = {
    f"{recipe} {options}": (check_requests, {"recipe": recipe, "called": called} | options)
    for recipe, called, options in [
        ("knorm@24tok", set(), {}),
        ("snapkv+ada@24tok", {SCORES}, {}),
        ("snapkv@24tok", {SCORES}, {"dtype": "bfloat16"}),
        ("snapkv+when=end@0.25", {SCORES}, {}),
        ("tova@24tok", {SCORES}, {}),
        ("chunkkv@24tok", {SCORES}, {}),
        ("task+ada@24tok", {SCORES, LSE}, {}),
        ("speckv:window=8@24tok", {SCORES, LSE}, {}),
        ("kvzip+global@24tok", {SCORES, LSE}, {}),
        ("kvzip+:leverage=1@24tok", {SCORES, LSE}, {"family": "mistral", "sliding_window": 100}),
        ("h2o+ada@24tok", {MASS}, {"operations": True, "family": "mistral", "sliding_window": 48}),
        ("h2o+match@24tok", {MASS}, {"operations": True}),
        ("snapkv+d2o@24tok", {SCORES}, {}),
        ("snapkv+ada+value-merge@24tok", {SCORES}, {}),
        ("snapkv+kvmerger:threshold=0.3@24tok", {SCORES, NEAR}, {}),
        ("snapkv+ada+kvmerger:threshold=0.3,log_count=true@24tok", {SCORES, NEAR}, {}),
        ("window+positions=compact@24tok", set(), {}),
        ("snapkv+ada+d2o+positions=compact@24tok", {SCORES}, {}),
        ("knorm+ada+positions=compact@24tok", set(), {"family": "smollm3", "num_hidden_layers": 4}),
    ]
}
CASES |= {
    f"snapshot {quantize} {dtype}": (check_snapshots, {"quantize": quantize, "dtype": dtype})
    for quantize, dtype in [(None, "float32"), ("int8", "float32"), ("int8", "bfloat16"), (None, "bfloat16")]
}
CASES["a GPU has them"] = (check_choice, {})


@pytest.fixture(scope="module")
def results() -> dict[str, str | None]:
    return outcomes(__file__, CASES, "interpreted")


@pytest.mark.parametrize("case", CASES)
def test_requests_end_alike(results: dict[str, str | None], case: str) -> None:
    assert results[case] is None, results[case]


if __name__ == "__main__":
    report(CASES)
