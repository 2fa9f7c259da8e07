"""Compile kernels, without a GPU, for those that they are written for: what the interpreter accepts, the compiler may
not.

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

# The instructions that multiply matrices.
AMPERE, HOPPER = "mma.sync", "wgmma.mma_async"
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
