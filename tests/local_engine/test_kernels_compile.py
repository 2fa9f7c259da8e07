"""The kernels compile, without a GPU, for those that they are written for: what the interpreter accepts, the compiler
may not.

The launchers run on CPU tensors with a driver that names a GPU but has none, so that what is compiled is what a
launch would compile, specialisations included. The machine code is then asked what it needs.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from lcdoc.tests.local_engine.kernel_process import TYPES, outcomes, report

# Bytes of shared memory that a program may take: GPUs of compute capability 8.6 and 12.0 have the least, 99 KiB.
SHARED_MEMORY = {80: 99 * 1024, 90: 227 * 1024}


class _NamedGPU:
    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def compiling(capability: int) -> Iterator[list[Any]]:
    """Launches inside compile for the capability and do not run; what they compiled is collected."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from lcdoc.local_engine.kernels import triton_prefill

    compiled: list[Any] = []
    launch = JITFunction.run

    def compile_only(self: Any, *arguments: Any, **options: Any) -> Any:
        compiled.append(launch(self, *arguments, **(options | {"warmup": True})))
        return compiled[-1]

    driver.set_active(_NamedGPU(capability))
    JITFunction.run = compile_only
    triton_prefill.capability = lambda device: divmod(capability, 10)
    try:
        yield compiled
    finally:
        JITFunction.run = launch


def spilled_bytes(cubin: bytes) -> int:
    """The stack that each thread needs for registers that it has not."""
    import triton

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
        usage = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    found = re.search(r"STACK:(\d+)", usage)
    assert found, usage
    return int(found[1])


def check(capability: int, launch: Callable[..., object], options: dict[str, Any], unit: str = "") -> None:
    """Compile what `launch` launches; the first multiplies on `unit`, none spills or needs too much memory."""
    with compiling(capability) as compiled:
        launch(**options)
    assert compiled
    assert unit in compiled[0].asm["ptx"]
    if unit and unit != "fma":
        assert "cp.async" in compiled[0].asm["ptx"], "loads are not pipelined"
    for kernel in compiled:
        assert kernel.metadata.shared <= SHARED_MEMORY[capability]
        assert spilled_bytes(kernel.asm["cubin"]) == 0


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


_AMPERE, _HOPPER = "mma.sync", "wgmma.mma_async"
CASES = {
    f"{launch.__name__} {options} for {capability}": (
        check,
        {"capability": capability, "launch": launch, "options": options, "unit": unit},
    )
    for capability, launch, options, unit in [
        (80, norms, {"n": 8192}, ""),
        (80, rotation, {"head_dim": 80, "rotary": 32, "norm": True}, ""),
        (80, rotation, {"head_dim": 64, "rotary": 0, "norm": False}, ""),
        (80, attention, {"decode": True, "head_dim": 128, "groups": 8, "kind": "bfloat16", "splits": 4}, _AMPERE),
        (90, attention, {"decode": True, "head_dim": 40, "groups": 1, "kind": "float16", "window": 9}, _AMPERE),
        (90, attention, {"decode": True, "head_dim": 96, "groups": 7, "kind": "float32", "bias": True}, _AMPERE),
        (80, attention, {"decode": False, "head_dim": 128, "groups": 7, "kind": "bfloat16"}, _AMPERE),
        (90, attention, {"decode": False, "head_dim": 64, "groups": 8, "kind": "bfloat16", "splits": 2}, _HOPPER),
        (
            90,
            attention,
            {"decode": False, "head_dim": 80, "groups": 3, "kind": "float16", "window": 9, "bias": True},
            _HOPPER,
        ),
        (80, linear, {"rows": 1, "bits": 8, "kind": "bfloat16"}, "fma"),
        (80, linear, {"rows": 3, "bits": 4, "kind": "float16", "group": 32}, "fma"),
        (80, linear, {"rows": 300, "bits": 8, "kind": "bfloat16"}, _AMPERE),
        (90, linear, {"rows": 20, "bits": 4, "kind": "bfloat16", "group": 128}, _AMPERE),
        (80, linear, {"rows": 300, "bits": 4, "kind": "float32"}, _AMPERE),
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
