"""Linear layers over 8-bit and 4-bit weights against their float64 references, interpreted."""

from __future__ import annotations

import pytest
import torch

from lcdoc.local_engine.kernels import reference
from lcdoc.tests.local_engine.kernel_process import TYPES, WAYS, assert_close, outcomes, poisoned, report


def check_int8(rows: int, n: int, k: int, kind: str) -> None:
    from lcdoc.local_engine.kernels.triton_weights import int8_linear

    dtype = TYPES[kind]
    x = torch.randn(rows, k + 8).to(dtype)[:, 8:]
    weight = torch.randint(-127, 128, (n, k), dtype=torch.int8)
    scale = torch.rand(n) / 127 / k**0.5 + 1e-4
    out = poisoned(rows, n, dtype=dtype)
    result = int8_linear(x, weight, scale, out=out)
    assert result is out
    assert_close(result, reference.int8_linear(x.double(), weight, scale), dtype, "product")


def check_int4(rows: int, n: int, k: int, group: int, kind: str) -> None:
    from lcdoc.local_engine.kernels.triton_weights import int4_linear

    dtype = TYPES[kind]
    x = torch.randn(rows, k + 8).to(dtype)[:, 8:]
    packed = torch.randint(0, 256, (n, k // 2), dtype=torch.uint8)
    scale = (torch.rand(n, k // group) + 0.1) / 8 / k**0.5
    zero = -8 * scale * (torch.rand(n, k // group) + 0.5)
    out = poisoned(rows, n, dtype=dtype)
    result = int4_linear(x, packed, scale, zero, out=out)
    assert result is out
    assert_close(result, reference.int4_linear(x.double(), packed, scale, zero), dtype, "product")


def check_order_of_nibbles() -> None:
    """The low half of a byte is the even column, in the reference and in both kernels."""
    from lcdoc.local_engine.kernels.triton_weights import int4_linear

    packed = torch.zeros(1, 8, dtype=torch.uint8)
    packed[0, 2] = 0x5A
    one, none = torch.ones(1, 1), torch.zeros(1, 1)
    for function in (reference.int4_linear, int4_linear):
        for rows in (1, 16):
            columns = function(torch.eye(16)[torch.arange(16).repeat(2)[4 : 4 + rows]], packed, one, none)[:, 0]
            assert columns[0] == 10
            assert rows == 1 or columns[1] == 5


def check_refused(problem: str) -> None:
    from lcdoc.local_engine.errors import EngineError
    from lcdoc.local_engine.kernels.triton_weights import int4_linear, int8_linear

    x = torch.randn(1, 64)
    with pytest.raises(EngineError, match=problem):
        if problem == "int8":
            int8_linear(x, torch.zeros(4, 64, dtype=torch.uint8), torch.ones(4))
        elif problem == "groups":
            int4_linear(x, torch.zeros(4, 32, dtype=torch.uint8), torch.ones(4, 8), torch.ones(4, 8))
        else:
            int4_linear(x, torch.zeros(4, 64, dtype=torch.uint8), torch.ones(4, 2), torch.ones(4, 2))


CASES = {
    f"int8 {rows}x{k} by {n} {kind}": (check_int8, {"rows": rows, "n": n, "k": k, "kind": kind})
    for rows, n, k, kind in [
        (1, 6, 1100, "float32"),
        (1, 9, 896, "bfloat16"),
        (3, 5, 72, "float16"),
        (4, 8, 600, "bfloat16"),
        (5, 40, 96, "float32"),
        (33, 70, 136, "bfloat16"),
        (150, 130, 200, "float16"),
        (1100, 33, 72, "float32"),
    ]
} | {
    f"int4 {rows}x{k} by {n} groups of {group} {kind}": (
        check_int4,
        {"rows": rows, "n": n, "k": k, "group": group, "kind": kind},
    )
    for rows, n, k, group, kind in [
        (1, 6, 1152, 128, "float32"),
        (1, 9, 896, 32, "bfloat16"),
        (2, 5, 96, 16, "float16"),
        (3, 7, 256, 64, "float32"),
        (5, 40, 96, 32, "float32"),
        (33, 70, 128, 16, "bfloat16"),
        (150, 130, 256, 128, "float16"),
        (20, 33, 512, 256, "bfloat16"),
    ]
}
CASES |= {"order of nibbles": (check_order_of_nibbles, {})}
CASES |= {
    f"refuses: {problem}": (check_refused, {"problem": problem}) for problem in ("int8", "groups", "fit together")
}


@pytest.fixture(scope="module", params=WAYS)
def results(request: pytest.FixtureRequest) -> dict[str, str | None]:
    return outcomes(__file__, CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_equals_reference(results: dict[str, str | None], name: str) -> None:
    assert results[name] is None, results[name]


if __name__ == "__main__":
    torch.manual_seed(23)
    report(CASES)
