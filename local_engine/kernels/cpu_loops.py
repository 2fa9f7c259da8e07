"""The compiled loops of `kernels/cpu/`: whether they are there, and their operations on tensors.

All tensors are on a CPU, contiguous, and of one type, bfloat16 or float32; sums are taken in float32. `loops` names the
instruction set, for tests; None takes the fastest.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcdoc.local_engine.batch import Batch

try:
    from lcdoc.local_engine.kernels import cpu_compiled as _compiled

    _THERE = True
except ImportError:  # no compiler when the package was installed
    _THERE = False

DTYPES = (torch.float32, torch.bfloat16)
MOST_DIM = 256
"""Numbers a head at most."""


@cache
def missing() -> str | None:
    """Why the loops are not used here; None where they are."""
    if not _THERE:
        return "they were not compiled: install a C compiler, then lcdoc again"
    if not _compiled.shares_threads():
        return "PyTorch's threads cannot be had: it is not built with GNU's OpenMP"
    return None


@cache
def instruction_sets() -> tuple[str, ...]:
    """Those for which there are loops and which this processor has, the fastest first."""
    return () if not _THERE else tuple(name for _, name in _compiled.sets())


@cache
def _number(loops: str | None) -> int:
    for number, name in _compiled.sets():
        if loops in (None, name):
            return int(number)
    raise ValueError(f"no loops for {loops} run on this processor")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, loops: str | None = None) -> Tensor:
    """x [T, K] @ weight [N, K].T + bias [N]: [T, N]. For a few tokens: the weight is read as one stream."""
    y = torch.empty((len(x), len(weight)), dtype=x.dtype)
    _compiled.linear(
        x.data_ptr(),
        weight.data_ptr(),
        _pointer(bias),
        y.data_ptr(),
        len(x),
        x.shape[1],
        len(weight),
        x.dtype == torch.bfloat16,
        _number(loops),
        torch.get_num_threads(),
    )
    return y


def norm(x: Tensor, weight: Tensor, eps: float, *, residual: Tensor | None = None, loops: str | None = None) -> Tensor:
    """RMS norm of x [T, N]: [T, N]. With a residual [T, N], of the sum of both, which x is afterwards."""
    y = torch.empty_like(x)
    _compiled.norm(
        x.data_ptr(),
        _pointer(residual),
        weight.data_ptr(),
        y.data_ptr(),
        len(x),
        x.shape[1],
        eps,
        x.dtype == torch.bfloat16,
        _number(loops),
    )
    return y


def gate(x: Tensor, *, loops: str | None = None) -> Tensor:
    """silu(gate) * up for x [T, 2 * N], the gate first: [T, N]."""
    tokens, size = len(x), x.shape[1] // 2
    y = torch.empty((tokens, size), dtype=x.dtype)
    _compiled.gate(x.data_ptr(), y.data_ptr(), tokens, size, x.dtype == torch.bfloat16, _number(loops))
    return y


def attend(
    layer: int,
    qkv: Tensor,
    head_norm: Tensor | None,
    rotation: tuple[Tensor, Tensor] | None,
    batch: Batch,
    *,
    scale: float,
    eps: float,
    window: int | None,
    loops: str | None = None,
) -> Tensor:
    """Rotate, write the cache, attend, for a batch of single tokens of different sequences.

    qkv is [T, (heads + 2 * kv_heads) * D]; see `decoder.Operations.attend`. Returns [T, heads * D].
    """
    pool, table = batch.tables.pool, batch.tables.table
    tokens, dim, kv_heads = len(qkv), pool.head_dim, batch.tables.kv_heads
    queries = qkv.shape[1] // dim - 2 * kv_heads
    cosines, sines = (torch.empty(0), torch.empty(0)) if rotation is None else rotation
    past = batch.past[:, layer]
    y = torch.empty((tokens, queries * dim), dtype=qkv.dtype)
    _compiled.attend(
        qkv.data_ptr(),
        _pointer(head_norm),
        cosines.data_ptr(),
        sines.data_ptr(),
        batch.write[layer].data_ptr(),
        pool.keys.data_ptr(),
        pool.values.data_ptr(),
        _address(table[:, layer]),
        _address(batch.slots),
        _address(past),
        y.data_ptr(),
        tokens,
        batch.longest_row,
        kv_heads,
        queries // kv_heads,
        dim,
        0 if rotation is None else 2 * cosines.shape[1],
        pool.page_size,
        table.strides[0] // table.itemsize,
        table.strides[2] // table.itemsize,
        past.strides[0] // past.itemsize,
        window or 0,
        scale,
        eps,
        qkv.dtype == torch.bfloat16,
        _number(loops),
        torch.get_num_threads(),
    )
    return y


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _address(array: NDArray[np.generic]) -> int:
    return int(array.__array_interface__["data"][0])
