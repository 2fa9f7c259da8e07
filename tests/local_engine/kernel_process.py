"""Run a file of kernel cases in a process of its own, where Triton interprets its kernels on the CPU.

Triton reads TRITON_INTERPRET when it is imported, which may long have happened in the process that tests run in. So a
test file describes its cases as data, `{name: (check, parameters)}`, and is run as a script: it prints one line of
JSON a case, at once, so that a case that ends the process is the first without a line.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

Cases = Mapping[str, tuple[Callable[..., None], dict[str, Any]]]

# Where there is a GPU, the same cases run on it too.
WAYS = ("interpreted", *(("gpu",) if torch.cuda.is_available() else ()))
_DEVICE = "LCDOC_TEST_KERNELS_ON"

TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# Half a unit in the last place of the result, and the rounding of softmax weights and intermediate products.
TOLERANCES = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def _multiply_bfloat16() -> None:
    """Triton's interpreter keeps bfloat16 as 16-bit integers, and its tl.dot multiplies those integers: widen them
    first.
    """
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder

    dot = InterpreterBuilder.create_dot

    def widened(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        a, b = (self.cast_impl(side, tl.float32) if side.dtype.scalar == tl.bfloat16 else side for side in (a, b))
        return dot(self, a, b, *rest)

    InterpreterBuilder.create_dot = widened


def report(cases: Cases) -> None:
    """Run every case and print its outcome: the body of the script."""
    torch.set_num_threads(1)
    torch.set_default_device(os.environ.get(_DEVICE, "cpu"))
    if os.environ.get("TRITON_INTERPRET") == "1":
        _multiply_bfloat16()
    for name, (check, parameters) in cases.items():
        error = None
        try:
            check(**parameters)
        except Exception:  # noqa: BLE001 - whatever it is, it is this case's outcome
            error = traceback.format_exc()
        print(json.dumps({"name": name, "error": error}), flush=True)  # noqa: T201


def outcomes(script: str, cases: Cases, way: str) -> dict[str, str | None]:
    """The error of every case, None where it passed.

    way is how kernels run: "interpreted", "gpu", or "compiled", which is for a GPU that is not there.
    """
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is made for Linux alone")
    environment = os.environ | {
        "TRITON_INTERPRET": "1" if way == "interpreted" else "0",
        "OMP_NUM_THREADS": "1",
        _DEVICE: "cuda" if way == "gpu" else "cpu",
    }
    run = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    found: dict[str, str | None] = {line["name"]: line["error"] for line in lines}
    ended = f"the process ended with {run.returncode} before this case: {run.stderr[-2000:]}"
    return {name: found.get(name, ended) for name in cases}


def assert_close(result: Tensor, wanted: Tensor, dtype: torch.dtype, what: str) -> None:
    """Against a float64 reference, by the tolerance of the type that the kernel works in."""
    tolerance = TOLERANCES[dtype]
    torch.testing.assert_close(
        result.double(), wanted.double(), rtol=tolerance, atol=tolerance, msg=lambda text: f"{what}: {text}"
    )


def poisoned(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full(shape, torch.nan, dtype=dtype)
