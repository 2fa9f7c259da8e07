"""The decode kernel against its float64 reference, interpreted, over poisoned caches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lcdoc.local_engine.kernels import reference
from lcdoc.tests.local_engine.kernel_caches import make_cache
from lcdoc.tests.local_engine.kernel_process import TYPES, WAYS, assert_close, outcomes, poisoned, report


def check_decode(  # noqa: PLR0917
    lengths: list[list[int]],
    groups: int,
    head_dim: int,
    page_size: int,
    kind: str,
    window: int | None = None,
    bias: bool = False,
    splits: int | None = None,
    max_length: int | None = None,
) -> None:
    from lcdoc.local_engine.kernels.triton_combine import workspace_elements
    from lcdoc.local_engine.kernels.triton_decode import decode_splits, paged_decode

    dtype = TYPES[kind]
    count = torch.tensor(lengths, dtype=torch.int32)
    sequences, heads = count.shape
    cache = make_cache(count, page_size, head_dim, dtype)
    # Queries are a slice of a fused projection.
    q = torch.randn(sequences, heads * groups + 2, head_dim).to(dtype)[:, 1:-1]
    scale = head_dim**-0.5
    keys, values, biases = cache.wide()
    wanted, wanted_lse = reference.paged_decode(
        q.double(), keys, values, cache.table, cache.slots, count, scale, window, biases if bias else None
    )
    out, lse = poisoned(sequences, heads * groups, head_dim, dtype=dtype), poisoned(sequences, heads * groups)
    bound = max_length or cache.table.shape[2] * page_size
    pieces = splits or decode_splits(sequences, heads, groups, head_dim, min(bound, window or bound), q)
    workspace = poisoned(workspace_elements(sequences * heads * groups, head_dim, pieces))
    result, result_lse = paged_decode(
        q, cache.keys, cache.values, cache.table, cache.slots, count, scale, window, cache.bias if bias else None,
        splits=splits, max_length=max_length, out=out, lse=lse, workspace=workspace,
    )  # fmt: skip
    assert result is out and result_lse is lse
    assert_close(result, wanted, dtype, "output")
    assert_close(result_lse, wanted_lse, torch.float32, "log-sum-exp")
    fresh, fresh_lse = paged_decode(
        q, cache.keys, cache.values, cache.table, cache.slots.int(), count, scale, window, cache.bias if bias else None,
        splits=splits, max_length=max_length,
    ) if sequences == 1 else (result, result_lse)  # fmt: skip
    assert torch.equal(fresh, result) and torch.equal(fresh_lse, result_lse), "the workspace is no input"


def check_refused(problem: str) -> None:
    from lcdoc.local_engine.errors import EngineError
    from lcdoc.local_engine.kernels.triton_decode import paged_decode

    head_dim = 12 if problem == "multiples of 8" else 264 if problem == "up to 256" else 16
    heads = 3 if problem == "divide" else 2
    count = torch.ones(1, 2, dtype=torch.int32)
    cache = make_cache(count, 16, head_dim, torch.float32)
    q = torch.randn(1, heads, head_dim)
    values = cache.values.half() if problem == "one type" else cache.values
    with pytest.raises(EngineError, match=problem):
        paged_decode(
            q, cache.keys, values, cache.table, cache.slots, count, 1.0, splits=2,
            workspace=torch.empty(3) if problem == "workspace" else None,
        )  # fmt: skip


# lengths [B][H], groups, head_dim, page_size, type, options
_SHAPES: list[tuple[list[list[int]], int, int, int, str, dict[str, Any]]] = [
    ([[1]], 1, 64, 16, "float32", {}),
    ([[0, 5]], 3, 40, 16, "float32", {}),
    ([[0, 0], [0, 0]], 2, 64, 16, "bfloat16", {"splits": 2}),
    ([[15, 16, 17], [31, 32, 33]], 7, 64, 16, "float32", {}),
    ([[63, 64, 65]], 8, 128, 32, "bfloat16", {}),
    ([[127, 128, 129]], 16, 80, 64, "float16", {}),
    ([[1, 300], [0, 77], [150, 33]], 7, 96, 16, "float32", {"splits": 3}),
    ([[257, 3]], 1, 128, 64, "bfloat16", {"splits": 5}),
    ([[700]], 3, 64, 32, "float32", {"splits": 4}),
    ([[640, 129, 0]], 2, 40, 16, "float16", {"splits": 5}),
    ([[100, 66]], 4, 256, 16, "float32", {"splits": 2}),
    ([[90, 31]], 1, 256, 32, "bfloat16", {}),
    ([[200, 10, 65]], 3, 64, 16, "float32", {"window": 64}),
    ([[200, 10, 0]], 7, 80, 32, "bfloat16", {"window": 33, "splits": 2}),
    ([[260]], 8, 64, 16, "float32", {"window": 1}),
    ([[130, 70]], 8, 64, 16, "float32", {"bias": True}),
    ([[300, 1, 0]], 3, 96, 64, "bfloat16", {"bias": True, "splits": 3, "window": 200}),
    ([[65, 20]], 71, 64, 16, "float32", {}),
    ([[40] * 2] * 5, 2, 8, 16, "float32", {}),
    ([[500], [20]], 2, 64, 16, "float32", {"max_length": 500}),
    ([[30, 30]], 2, 64, 48, "float32", {}),
]
CASES = {
    f"decode {lengths} G{groups} D{head_dim} page {page_size} {kind} {options}": (
        check_decode,
        {"lengths": lengths, "groups": groups, "head_dim": head_dim, "page_size": page_size, "kind": kind} | options,
    )
    for lengths, groups, head_dim, page_size, kind, options in _SHAPES
} | {
    f"refuses: {problem}": (check_refused, {"problem": problem})
    for problem in ("multiples of 8", "up to 256", "divide", "one type", "workspace")
}


@pytest.fixture(scope="module", params=WAYS)
def results(request: pytest.FixtureRequest) -> dict[str, str | None]:
    return outcomes(__file__, CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_equals_reference(results: dict[str, str | None], name: str) -> None:
    assert results[name] is None, results[name]


if __name__ == "__main__":
    torch.manual_seed(21)
    report(CASES)
