"""The kernels of attention, norms, rotation and linear layers compile for the GPUs that they are written for."""

from __future__ import annotations

import pytest
import torch

from lcdoc.tests.local_engine.kernel_compiling import AMPERE, HOPPER, check
from lcdoc.tests.local_engine.kernel_process import TYPES, outcomes, report


def norms(n: int) -> None:
    from lcdoc.local_engine.kernels.triton_norm import rms_norm, silu_mul

    x = torch.empty(4, n, dtype=torch.bfloat16)
    rms_norm(x, x[0], 1e-5, x)
    silu_mul(x)


def rotation(head_dim: int, rotary: int, norm: bool) -> None:
    from lcdoc.local_engine.kernels.triton_rotary import rotate_and_write

    q, k = torch.empty(2, 6, head_dim), torch.empty(2, 2, head_dim)
    angles, write = torch.empty(2, rotary // 2), torch.zeros(2, 2, dtype=torch.int64)
    pages, weight = torch.empty(4, 16, head_dim), torch.empty(head_dim) if norm else None
    rotate_and_write(q, k, k, angles, angles, write, pages, pages, weight, weight)


def attention(  # noqa: PLR0917
    decode: bool, head_dim: int, groups: int, kind: str, window: int | None = None, bias: bool = False, splits: int = 1
) -> None:
    from lcdoc.local_engine.kernels.triton_decode import paged_decode
    from lcdoc.local_engine.kernels.triton_prefill import paged_prefill

    dtype = TYPES[kind]
    q, pages = torch.empty(2, 2 * groups, head_dim, dtype=dtype), torch.empty(8, 32, head_dim, dtype=dtype)
    table, lengths = torch.zeros(2, 2, 4, dtype=torch.int32), torch.ones(2, 2, dtype=torch.int32)
    cache = (q, pages, pages, table, torch.zeros(2, dtype=torch.int64))
    rest = (0.1, window, torch.empty(8, 32) if bias else None)
    if decode:
        paged_decode(*cache, lengths, *rest, splits=splits)
    else:
        paged_prefill(*cache, torch.zeros(3, dtype=torch.int32), lengths, *rest, max_query=512, splits=splits)


def linear(rows: int, bits: int, kind: str, group: int = 64) -> None:
    from lcdoc.local_engine.kernels.triton_weights import int4_linear, int8_linear

    x = torch.empty(rows, 1024, dtype=TYPES[kind])
    if bits == 8:
        int8_linear(x, torch.empty(512, 1024, dtype=torch.int8), torch.empty(512))
    else:
        scale = torch.empty(512, 1024 // group)
        int4_linear(x, torch.empty(512, 512, dtype=torch.uint8), scale, scale)


CASES = {
    f"{launch.__name__} {options} for {capability}": (
        check,
        {"capability": capability, "launch": launch, "options": options, "unit": unit},
    )
    for capability, launch, options, unit in [
        (80, norms, {"n": 8192}, ""),
        (80, rotation, {"head_dim": 80, "rotary": 32, "norm": True}, ""),
        (80, rotation, {"head_dim": 64, "rotary": 0, "norm": False}, ""),
        (80, attention, {"decode": True, "head_dim": 128, "groups": 8, "kind": "bfloat16", "splits": 4}, AMPERE),
        (90, attention, {"decode": True, "head_dim": 40, "groups": 1, "kind": "float16", "window": 9}, AMPERE),
        (90, attention, {"decode": True, "head_dim": 96, "groups": 7, "kind": "float32", "bias": True}, AMPERE),
        (80, attention, {"decode": False, "head_dim": 128, "groups": 7, "kind": "bfloat16"}, AMPERE),
        (90, attention, {"decode": False, "head_dim": 64, "groups": 8, "kind": "bfloat16", "splits": 2}, HOPPER),
        (
            90,
            attention,
            {"decode": False, "head_dim": 80, "groups": 3, "kind": "float16", "window": 9, "bias": True},
            HOPPER,
        ),
        (80, linear, {"rows": 1, "bits": 8, "kind": "bfloat16"}, "fma"),
        (80, linear, {"rows": 3, "bits": 4, "kind": "float16", "group": 32}, "fma"),
        (80, linear, {"rows": 300, "bits": 8, "kind": "bfloat16"}, AMPERE),
        (90, linear, {"rows": 20, "bits": 4, "kind": "bfloat16", "group": 128}, AMPERE),
        (80, linear, {"rows": 300, "bits": 4, "kind": "float32"}, AMPERE),
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
