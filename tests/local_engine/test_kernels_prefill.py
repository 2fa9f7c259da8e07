"""The prefill kernel against its float64 reference, interpreted, over poisoned caches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lcdoc.local_engine.kernels import reference
from lcdoc.tests.local_engine.kernel_caches import make_cache
from lcdoc.tests.local_engine.kernel_process import TYPES, WAYS, assert_close, outcomes, poisoned, report


def check_prefill(  # noqa: PLR0917
    queries: list[int],
    past: list[list[int]],
    groups: int,
    head_dim: int,
    page_size: int,
    kind: str,
    window: int | None = None,
    bias: bool = False,
    splits: int | None = None,
    slack: int = 0,
    hidden: bool = False,
) -> None:
    """`queries` tokens of each sequence behind `past` keys of each of its heads.

    slack is by how much the host's bound of the queries exceeds them. With hidden, keys that no window reaches, to a
    whole tile, are NaN: a kernel that read their tiles would show it.
    """
    from lcdoc.local_engine.kernels.triton_combine import workspace_elements
    from lcdoc.local_engine.kernels.triton_prefill import paged_prefill, prefill_splits

    dtype = TYPES[kind]
    before, chunk = torch.tensor(past, dtype=torch.int32), torch.tensor(queries, dtype=torch.int32)
    heads, tokens = before.shape[1], sum(queries)
    unseen = (before + 1 - (window or 0)).clamp(min=0) // 64 * 64 if hidden else None
    cache = make_cache(before + chunk[:, None], page_size, head_dim, dtype, hidden_before=unseen)
    starts = torch.cat([torch.zeros(1), chunk.cumsum(0)]).int()
    q = torch.randn(tokens, heads * groups + 2, head_dim).to(dtype)[:, 1:-1]
    scale = head_dim**-0.5
    keys, values, biases = cache.wide()
    wanted, wanted_lse = reference.paged_prefill(
        q.double(), keys.nan_to_num() if hidden else keys, values.nan_to_num() if hidden else values,
        cache.table, cache.slots, starts, before, scale, window, biases if bias else None,
    )  # fmt: skip
    out, lse = poisoned(tokens, heads * groups, head_dim, dtype=dtype), poisoned(tokens, heads * groups)
    bound, most = max(queries) + slack, cache.table.shape[2] * page_size
    pieces = splits or prefill_splits(
        len(queries), heads, groups, head_dim, bound, min(most, window + bound) if window else most, q
    )
    workspace = poisoned(workspace_elements(tokens * heads * groups, head_dim, pieces))
    result, result_lse = paged_prefill(
        q, cache.keys, cache.values, cache.table, cache.slots, starts, before, scale, window,
        cache.bias if bias else None, max_query=bound, splits=splits, out=out, lse=lse, workspace=workspace,
    )  # fmt: skip
    assert result is out and result_lse is lse
    assert_close(result, wanted, dtype, "output")
    assert_close(result_lse, wanted_lse, torch.float32, "log-sum-exp")


def check_one_token_is_decoding(groups: int, head_dim: int) -> None:
    """A chunk of one token and a decoded token are the same question."""
    from lcdoc.local_engine.kernels.triton_decode import paged_decode
    from lcdoc.local_engine.kernels.triton_prefill import paged_prefill

    lengths = torch.tensor([[70, 1], [16, 130]], dtype=torch.int32)
    cache = make_cache(lengths, 16, head_dim, torch.float32)
    q, starts = torch.randn(2, 2 * groups, head_dim), torch.arange(3, dtype=torch.int32)
    decoded = paged_decode(q, cache.keys, cache.values, cache.table, cache.slots, lengths, 0.2, splits=1)
    prefilled = paged_prefill(
        q, cache.keys, cache.values, cache.table, cache.slots, starts, lengths - 1, 0.2, max_query=1
    )
    for mine, theirs in zip(decoded, prefilled, strict=True):
        assert_close(mine, theirs, torch.float32, "result")


# queries [B], past [B][H], groups, head_dim, page_size, type, options
_SHAPES: list[tuple[list[int], list[list[int]], int, int, int, str, dict[str, Any]]] = [
    ([1], [[0]], 1, 64, 16, "float32", {}),
    ([5], [[0, 0]], 3, 40, 16, "float32", {}),
    ([17, 1, 33], [[0, 3], [15, 16], [17, 0]], 7, 64, 16, "float32", {"slack": 20}),
    ([64, 65], [[63, 1], [0, 64]], 1, 64, 32, "bfloat16", {}),
    ([40], [[129, 127, 0]], 8, 128, 64, "bfloat16", {}),
    ([20, 0, 3], [[70, 5], [9, 0], [0, 200]], 16, 80, 16, "float16", {}),
    ([30], [[100, 31]], 7, 96, 16, "float32", {"window": 40}),
    ([90], [[200, 0]], 2, 64, 32, "bfloat16", {"window": 33, "hidden": True}),
    ([12], [[500]], 3, 64, 16, "float32", {"window": 100, "hidden": True, "splits": 2}),
    ([70], [[150]], 2, 64, 16, "bfloat16", {"window": 1}),
    ([25], [[65, 0]], 3, 96, 64, "float32", {"bias": True}),
    ([33, 2], [[10, 80], [64, 0]], 4, 128, 16, "bfloat16", {"bias": True, "window": 50}),
    ([6], [[300, 5]], 7, 64, 16, "float32", {"splits": 4}),
    ([8, 2], [[257, 0], [1, 130]], 3, 128, 32, "bfloat16", {"splits": 3, "bias": True}),
    ([10], [[37, 20]], 2, 256, 16, "float32", {}),
    ([40], [[100]], 3, 256, 32, "bfloat16", {"splits": 1}),
    ([200], [[0]], 1, 128, 64, "bfloat16", {"splits": 1}),
]
CASES = {
    f"prefill {queries} after {past} G{groups} D{head_dim} page {page_size} {kind} {options}": (
        check_prefill,
        {"queries": queries, "past": past, "groups": groups, "head_dim": head_dim, "page_size": page_size, "kind": kind}
        | options,
    )
    for queries, past, groups, head_dim, page_size, kind, options in _SHAPES
} | {"one token is decoding": (check_one_token_is_decoding, {"groups": 3, "head_dim": 40})}


@pytest.fixture(scope="module", params=WAYS)
def results(request: pytest.FixtureRequest) -> dict[str, str | None]:
    return outcomes(__file__, CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_equals_reference(results: dict[str, str | None], name: str) -> None:
    assert results[name] is None, results[name]


if __name__ == "__main__":
    torch.manual_seed(22)
    report(CASES)
