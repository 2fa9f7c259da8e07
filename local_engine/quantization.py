"""Weight-only quantization, done while loading: int8 for each output, int4 in groups along the inputs.

Activations stay as they are, so a quantized matrix is exactly the matrix that `dequantized()` gives. Few rows, when
decoding, are bound by reading the weight, and go through kernels that read it packed; many rows, of a prompt, are bound
by arithmetic, so the weight is expanded once for all of them.

int8: w = scale[n] q, q in -127..127. int4: w = scale[n, g] q + zero[n, g], q in 0..15, g = k // group (asymmetric
round-to-nearest between each group's least and greatest weight).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.local_engine.large_pages import LargePages
from lcdoc.local_engine.linear import Linear

Quantization = Literal["int8", "int4"]

_GROUPS = (64, 32)
"""Inputs that share a scale, by preference; the first that divides the matrix's inputs."""
_SLICE = 1 << 20
"""Weights that are quantized at once."""
_FEW_ROWS = {"int8": 8, "int4": 48}
"""Rows up to which the packed kernels win on a CPU; measured on a 9728 x 896 matrix."""
_FEW_ROWS_CUDA = 32
_CPU_STEP = 16
"""Inputs that PyTorch's CPU kernel for int8 reads at once; of others it reads beyond the end, without a check."""
_CPU_BLOCKS = (16, 32, 64)
"""Outputs that one block of PyTorch's CPU kernel holds, by its vector width."""


def in_slices(weight: Tensor, quantize: Callable[[Tensor], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What `quantize` makes of weight [N, K], some rows at a time: what it needs besides takes many bytes a weight."""
    parts = [quantize(rows) for rows in torch.split(weight, _slice_rows(weight.shape[1]))]
    return tuple(torch.cat(each) for each in zip(*parts, strict=True))


def _slice_rows(inputs: int) -> int:
    """Whole blocks of PyTorch's CPU kernel."""
    return max(1, _SLICE // inputs // _CPU_BLOCKS[-1]) * _CPU_BLOCKS[-1]


def quantize_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(q int8 [N, K], scale float32 [N]) for weight [N, K]."""
    wide = weight.float()
    scale = wide.abs().amax(dim=1).clamp_min(1e-12) / 127
    return torch.round(wide / scale[:, None]).clamp_(-127, 127).to(torch.int8), scale


def quantize_int4(weight: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """(q uint8 in 0..15 [N, K], scale float32 [N, K / group], zero float32 [N, K / group]) for weight [N, K]."""
    outputs, inputs = weight.shape
    wide = weight.float().view(outputs, inputs // group, group)
    low, high = wide.aminmax(dim=2)
    scale = (high - low).clamp_min(1e-12) / 15
    q = torch.round((wide - low[..., None]) / scale[..., None]).clamp_(0, 15).to(torch.uint8)
    return q.view(outputs, inputs), scale, low


class Int8Linear:
    """int8 weight [N, K] with a scale for each output."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        q, scale = in_slices(weight, quantize_int8)
        self.q = q
        self.scale = scale.to(weight.dtype)
        self.bias = bias
        self._few = _FEW_ROWS_CUDA if weight.is_cuda else _FEW_ROWS["int8"]
        self._packed = weight.is_cuda or (weight.dtype == torch.bfloat16 and weight.shape[1] % _CPU_STEP == 0)

    @property
    def nbytes(self) -> int:
        return self.q.nbytes + self.scale.nbytes

    def dequantized(self) -> Tensor:
        """The matrix this stands for, [N, K]."""
        return self.q.to(self.scale.dtype).mul_(self.scale[:, None])

    def __call__(self, x: Tensor) -> Tensor:
        if not self._packed or len(x) > self._few:
            return F.linear(x, self.dequantized(), self.bias)
        if x.is_cuda:
            from lcdoc.local_engine.kernels.triton_weights import int8_linear

            y = int8_linear(x, self.q, self.scale)
        else:
            y = torch._weight_int8pack_mm(x, self.q, self.scale)
        return y if self.bias is None else y + self.bias


class Int4Linear:
    """int4 weight [N, K] with a scale and a zero point for each group of inputs. K is a multiple of 32."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        outputs, inputs = weight.shape
        self.group = next(group for group in _GROUPS if inputs % group == 0)
        q, scale, zero = in_slices(weight, lambda rows: quantize_int4(rows, self.group))
        self.bias = bias
        self.scale, self.zero = scale.to(weight.dtype), zero.to(weight.dtype)
        self._shape = outputs, inputs
        self._block = 0
        self._scale_and_middle: Tensor | None = None
        self.packed = q[:, ::2] | (q[:, 1::2] << 4)
        """uint8 [N, K / 2], the even input in the low four bits; on a CPU in blocks of PyTorch's kernel instead."""
        if weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and outputs % _CPU_BLOCKS[0] == 0:
            self._pack_for_cpu(q)

    def _pack_for_cpu(self, q: Tensor) -> None:
        """Take the layout of PyTorch's CPU kernel, where it can be read back; it differs between processors."""
        parts = torch.split(q, _slice_rows(q.shape[1]))
        packed = [torch.ops.aten._convert_weight_to_int4pack_for_cpu(part.int(), 1) for part in parts]

        def holds(block: int) -> bool:
            pairs = zip(packed, parts, strict=True)
            return all(torch.equal(_unpacked_blocks(blocks, block, part.shape), part) for blocks, part in pairs)

        block = next(filter(holds, _CPU_BLOCKS), 0)
        if not block:
            return
        self.packed, self._block = torch.cat(packed), block
        # That kernel computes (q - 8) scale + middle, with both in the activations' type.
        middle = (self.zero.float() + 8 * self.scale.float()).to(self.scale.dtype)
        self.zero = middle.float() - 8 * self.scale.float()
        self._scale_and_middle = torch.stack((self.scale.T, middle.T), dim=-1).contiguous()

    @property
    def nbytes(self) -> int:
        middle = 0 if self._scale_and_middle is None else self._scale_and_middle.nbytes
        return self.packed.nbytes + self.scale.nbytes + self.zero.nbytes + middle

    def dequantized(self) -> Tensor:
        """The matrix this stands for, [N, K]."""
        outputs, inputs = self._shape
        if self._block:
            q = _unpacked_blocks(self.packed, self._block, self._shape)
        else:
            q = torch.stack((self.packed & 15, self.packed >> 4), dim=-1)
        grouped = q.view(outputs, inputs // self.group, self.group)
        wide = torch.addcmul(self.zero[..., None].float(), grouped.float(), self.scale[..., None].float())
        return wide.to(self.scale.dtype).view(outputs, inputs)

    def __call__(self, x: Tensor) -> Tensor:
        if x.is_cuda and len(x) <= _FEW_ROWS_CUDA:
            from lcdoc.local_engine.kernels.triton_weights import int4_linear

            y = int4_linear(x, self.packed, self.scale, self.zero)
        elif self._scale_and_middle is not None and len(x) <= _FEW_ROWS["int4"]:
            y = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self.packed, self.group, self._scale_and_middle)
        else:
            return F.linear(x, self.dequantized(), self.bias)
        return y if self.bias is None else y + self.bias


def _unpacked_blocks(packed: Tensor, block: int, shape: Sequence[int]) -> Tensor:
    """uint8 [N, K] of blocks in which one byte holds outputs n and n + block / 2 of the same input."""
    outputs, inputs = shape
    if outputs % block:
        return packed.new_empty(0)
    blocks = packed.reshape(outputs // block, inputs, block // 2)
    return torch.cat((blocks & 15, blocks >> 4), dim=-1).permute(0, 2, 1).reshape(outputs, inputs)


def quantized_linear(weight: Tensor, bias: Tensor | None, how: Quantization, pages: LargePages | None = None) -> Linear:
    """`weight` [N, K], quantized; on a CPU it is kept in the memory of `pages`, if given.

    A matrix whose inputs are no multiple of 32 takes int8 where int4 was asked for.
    """
    if how not in ("int8", "int4"):
        raise InvalidRequestError(f"quantize={how!r} is not known: int8 or int4")
    held = pages if weight.device.type == "cpu" else None
    if how == "int4" and weight.shape[1] % _GROUPS[1] == 0:
        four = Int4Linear(weight, bias)
        if held is not None:
            four.packed = held.hold(four.packed)
        return four
    eight = Int8Linear(weight, bias)
    if held is not None:
        eight.q = held.hold(eight.q)
    return eight
