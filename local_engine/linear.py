"""Matrices that activations are multiplied by, in the form that is fastest where they live.

On a CPU a weight lies in large pages, as its file has it, row after row. A few rows of activations, which is what
decoding has, go through our own loops (`kernels/cpu/`), which read it at the memory's bandwidth; a prompt's
many rows through PyTorch's product. Where those loops were not compiled, oneDNN packs the weight. On a GPU a weight
stays as it is. Weight-only int8 and int4 are in `quantization.py`.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from lcdoc.local_engine.kernels import cpu_loops

_TOKENS_PACKED_FOR = 1
"""Rows that oneDNN packs for. Decoding is what packing is for; the layout for one row was measured to be as fast as
any other for 512."""
_FEW_ROWS = {torch.bfloat16: 12, torch.float32: 8}
"""Rows up to which our own loops are the faster."""


class Linear(Protocol):
    """`y = x @ weight.T + bias`, for x of shape [T, inputs]; y is [T, outputs] in x's dtype."""

    @property
    def nbytes(self) -> int:
        """Bytes the weight takes."""
        ...

    def __call__(self, x: Tensor) -> Tensor: ...


class DenseLinear:
    """A weight as it is: [outputs, inputs]."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class StreamedLinear(DenseLinear):
    """A weight as it is, that a few rows at a time are multiplied with by our own loops. CPU, float32 and bfloat16."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(weight.contiguous(), None if bias is None else bias.contiguous())
        self._few = _FEW_ROWS[weight.dtype]

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) > self._few:
            return F.linear(x, self.weight, self.bias)
        return cpu_loops.linear(x.contiguous(), self.weight, self.bias)


class PackedLinear:
    """A weight in oneDNN's blocked layout. CPU, float32 and bfloat16."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.nbytes = weight.nbytes
        self.bias = bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, _TOKENS_PACKED_FOR)

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return y


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch packs weights of `dtype`, tried on a small matrix."""
    if dtype not in (torch.float32, torch.bfloat16) or not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False
    weight = torch.eye(16, dtype=dtype)
    try:
        return torch.equal(PackedLinear(weight)(weight), weight)
    except RuntimeError:
        # oneDNN was left out of this build, or does not know this processor: weights stay as they are.
        return False


def stays_as_it_is(dtype: torch.dtype) -> bool:
    """Whether `linear` of a CPU's weight keeps the very memory it is given."""
    return (dtype in _FEW_ROWS and cpu_loops.missing() is None) or not can_pack(dtype)


def linear(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """The fastest exact form for where `weight` lives. The caller may drop `weight`, but not write to it."""
    if weight.device.type != "cpu":
        return DenseLinear(weight, bias)
    if weight.dtype in _FEW_ROWS and cpu_loops.missing() is None:
        return StreamedLinear(weight, bias)
    if can_pack(weight.dtype):
        return PackedLinear(weight, bias)
    return DenseLinear(weight, bias)
