"""Norm, gated activation, rotation and cache write against their float64 references, interpreted."""

from __future__ import annotations

import pytest
import torch

from lcdoc.local_engine.kernels import reference
from lcdoc.tests.local_engine.kernel_process import TYPES, WAYS, assert_close, outcomes, poisoned, report


def check_rms_norm(rows: int, n: int, kind: str, residual: bool, strided: bool) -> None:
    from lcdoc.local_engine.kernels.triton_norm import rms_norm

    dtype = TYPES[kind]
    x = (torch.randn(rows, 2 * n) * 3).to(dtype)[:, n // 2 : n // 2 + n]
    x = x if strided else x.contiguous()
    weight, old = torch.randn(n).to(dtype), torch.randn(rows, n).to(dtype)
    out, summed = poisoned(rows, n, dtype=dtype), poisoned(rows, n, dtype=dtype)
    if not residual:
        y = rms_norm(x, weight, 1e-5, out=out)
        assert y is out
        assert_close(y, reference.rms_norm(x.double(), weight.double(), 1e-5), dtype, "y")
        return
    y, total = rms_norm(x, weight, 1e-5, old, out=out, summed=summed)
    assert y is out and total is summed
    # The norm is of the rounded sum, the one that the stream goes on with.
    assert_close(y, reference.rms_norm(total.double(), weight.double(), 1e-5), dtype, "y")
    assert_close(total, x.double() + old.double(), dtype, "sum")


def check_rms_norm_in_place(kind: str) -> None:
    from lcdoc.local_engine.kernels.triton_norm import rms_norm

    dtype = TYPES[kind]
    x, weight, stream = torch.randn(3, 72).to(dtype), torch.randn(72).to(dtype), torch.randn(3, 72).to(dtype)
    wanted, wanted_sum = reference.rms_norm(x, weight, 1e-6, stream)
    y, total = rms_norm(x, weight, 1e-6, stream, out=x, summed=stream)
    assert y is x and total is stream
    assert_close(total, wanted_sum, dtype, "sum")
    assert_close(y, wanted, dtype, "y")


def check_silu_mul(rows: int, n: int, kind: str) -> None:
    from lcdoc.local_engine.kernels.triton_norm import silu_mul

    dtype = TYPES[kind]
    x = (torch.randn(rows, 2 * n) * 4).to(dtype)
    x[0, 0], x[0, 1] = -200.0, 200.0
    out = poisoned(rows, n, dtype=dtype)
    assert_close(silu_mul(x, out=out), reference.silu_mul(x.double()), dtype, "y")


def check_rotate(  # noqa: PLR0917
    tokens: int,
    heads: int,
    groups: int,
    head_dim: int,
    rotary: int,
    kind: str,
    norm: bool = False,
    skipped: bool = False,
) -> None:
    from lcdoc.local_engine.kernels.triton_rotary import rotate_and_write

    dtype, page_size = TYPES[kind], 16
    query_heads = heads * groups
    fused = torch.randn(tokens, (query_heads + 2 * heads) * head_dim).to(dtype)
    q, k, v = (
        part.view(tokens, -1, head_dim)
        for part in fused.split([query_heads * head_dim, heads * head_dim, heads * head_dim], dim=1)
    )
    angles = torch.randn(tokens, rotary // 2) * 5
    pages = tokens * heads // page_size + 3
    write = torch.randperm(pages * page_size)[: tokens * heads].view(tokens, heads)
    if skipped:
        write[tokens // 2] = -1
    weights = [torch.randn(head_dim).to(dtype) if norm else None for _ in range(2)]
    cache = [poisoned(pages, page_size, head_dim, dtype=dtype) for _ in range(2)]
    wanted_cache = [poisoned(pages, page_size, head_dim, dtype=torch.float64) for _ in range(2)]
    wide = [None if weight is None else weight.double() for weight in weights]
    wanted = reference.rotate_and_write(
        q.double(),
        k.double(),
        v.double(),
        angles.cos().double(),
        angles.sin().double(),
        write,
        *wanted_cache,
        *wide,
        1e-5,
    )
    out = poisoned(tokens, query_heads, head_dim, dtype=dtype)
    result = rotate_and_write(q, k, v, angles.cos(), angles.sin(), write, *cache, *weights, 1e-5, out=out)
    assert result is out
    assert_close(result, wanted, dtype, "queries")
    for mine, theirs, what in zip(cache, wanted_cache, ("keys", "values"), strict=True):
        written = ~theirs.isnan()
        assert torch.equal(~mine.isnan(), written), f"{what}: other places were written than asked"
        assert_close(mine[written], theirs[written], dtype, what)


CASES = {
    f"rms_norm {rows}x{n} {kind} residual={residual} strided={strided}": (
        check_rms_norm,
        {"rows": rows, "n": n, "kind": kind, "residual": residual, "strided": strided},
    )
    for rows, n, kind, residual, strided in [
        (1, 8, "float32", False, False),
        (3, 100, "float32", True, True),
        (2, 896, "bfloat16", True, False),
        (2, 1100, "bfloat16", False, True),
        (4, 4096, "float16", True, False),
    ]
}
CASES |= {f"rms_norm in place {kind}": (check_rms_norm_in_place, {"kind": kind}) for kind in TYPES}
CASES |= {
    f"silu_mul {rows}x{n} {kind}": (check_silu_mul, {"rows": rows, "n": n, "kind": kind})
    for rows, n, kind in [(1, 8, "float32"), (3, 1500, "bfloat16"), (2, 1024, "float16")]
}
CASES |= {
    f"rotate {' '.join(map(str, shape))} {options}": (
        check_rotate,
        dict(zip(("tokens", "heads", "groups", "head_dim", "rotary", "kind"), shape, strict=True)) | options,
    )
    for shape, options in [
        ((1, 1, 1, 64, 64, "float32"), {}),
        ((3, 2, 7, 64, 64, "bfloat16"), {}),
        ((2, 2, 3, 80, 32, "float32"), {}),
        ((4, 3, 1, 40, 40, "float16"), {"norm": True}),
        ((2, 2, 8, 128, 128, "bfloat16"), {"norm": True}),
        ((2, 1, 16, 96, 96, "float32"), {"norm": True, "skipped": True}),
        ((2, 2, 2, 96, 72, "float32"), {"norm": True}),
        ((2, 1, 4, 256, 64, "bfloat16"), {"skipped": True}),
        ((3, 2, 3, 64, 0, "float32"), {}),
        ((3, 2, 3, 128, 0, "bfloat16"), {"norm": True}),
    ]
}


@pytest.fixture(scope="module", params=WAYS)
def results(request: pytest.FixtureRequest) -> dict[str, str | None]:
    return outcomes(__file__, CASES, request.param)


@pytest.mark.parametrize("name", CASES)
def test_kernel_equals_reference(results: dict[str, str | None], name: str) -> None:
    assert results[name] is None, results[name]


if __name__ == "__main__":
    torch.manual_seed(20)
    report(CASES)
