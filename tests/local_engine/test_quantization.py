"""Quantized matrices against what they stand for, in float64, and whole models against themselves in float."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.local_engine.quantization import Int4Linear, Int8Linear, quantized_linear
from lcdoc.tests.local_engine.decoding import Bench, random_tokens

SHAPES = [(64, 128), (48, 96), (200, 32), (1, 64), (17, 160), (33, 64), (128, 448), (512, 64)]
"""[N, K]: groups of 64 and of 32, outputs that fill PyTorch's blocks and that do not."""
ROUNDING = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8}
DTYPES = list(ROUNDING)


def weight_of(outputs: int, inputs: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Of rows and groups that differ in size and in where their middle is, with a few large weights."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(outputs, inputs, generator=generator) * inputs**-0.5
    drawn *= torch.rand(outputs, 1, generator=generator) * 4 + 0.1
    drawn += torch.randn(outputs, 1, generator=generator) * 0.05
    drawn[torch.rand(outputs, inputs, generator=generator) < 0.01] *= 6
    return drawn.to(dtype)


def made(how: Any, outputs: int, inputs: int, dtype: torch.dtype, bias: bool = False) -> Any:
    return quantized_linear(weight_of(outputs, inputs, dtype), weight_of(1, outputs, dtype)[0] if bias else None, how)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_int8_is_off_by_half_a_step(outputs: int, inputs: int, dtype: torch.dtype) -> None:
    weight = weight_of(outputs, inputs, dtype)
    largest = weight.double().abs().amax(1, keepdim=True)
    off = (Int8Linear(weight).dequantized().double() - weight.double()).abs()
    assert (off <= largest * (0.5 / 127 + ROUNDING[dtype])).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("outputs", "inputs"), SHAPES)
def test_int4_is_off_by_half_a_step_of_its_group(outputs: int, inputs: int, dtype: torch.dtype) -> None:
    weight = weight_of(outputs, inputs, dtype)
    matrix = Int4Linear(weight)
    grouped = weight.double().view(outputs, -1, matrix.group)
    low, high = grouped.amin(2, keepdim=True), grouped.amax(2, keepdim=True)
    # Scale, zero point and result are rounded to the weights' type, each no more than the group's largest weight.
    rounding = 3 * torch.maximum(low.abs(), high.abs()) * ROUNDING[dtype]
    off = (matrix.dequantized().double() - weight.double()).abs().view_as(grouped)
    assert (off <= (high - low) / 30 * 1.001 + rounding).all()


@pytest.mark.parametrize("how", ["int8", "int4"])
def test_weights_on_the_grid_stay_as_they_are(how: Any) -> None:
    """Small whole numbers with both ends of the range in every group: nothing is lost."""
    steps, ends = (255, 127) if how == "int8" else (16, 0)
    whole = torch.arange(64 * 64).view(64, 64).remainder(steps) - ends
    whole[:, ::32], whole[:, 1::32] = -ends, steps - 1 - ends
    weight = whole.float() * 0.5
    assert torch.equal(quantized_linear(weight, None, how).dequantized(), weight)


@pytest.mark.parametrize("how", ["int8", "int4"])
def test_a_row_of_zeros_stays_zero(how: Any) -> None:
    weight = weight_of(32, 64, torch.float32)
    weight[3] = 0
    matrix = quantized_linear(weight, None, how)
    assert not matrix.dequantized()[3].any()
    assert not matrix(torch.randn(2, 64))[:, 3].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", ["int8", "int4"])
@pytest.mark.parametrize(("outputs", "inputs"), [*SHAPES, (40, 40), (16, 72)])
@pytest.mark.parametrize("rows", [1, 3, 8, 9, 48, 49, 64])
def test_products_are_those_of_the_matrix(how: Any, outputs: int, inputs: int, rows: int, dtype: torch.dtype) -> None:
    for bias in (False, True):
        matrix = made(how, outputs, inputs, dtype, bias)
        x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(rows)).to(dtype)
        whole = matrix.dequantized().double()
        expected = x.double() @ whole.T + (matrix.bias.double() if bias else 0)
        y = matrix(x)
        assert y.dtype == dtype
        assert y.shape == (rows, outputs)
        # Of the sum of the terms' sizes: the order of a sum is free, its last rounding is not.
        size = x.double().abs() @ whole.abs().T + 1e-30
        assert ((y.double() - expected).abs() <= size * ROUNDING[dtype] * 4 + expected.abs() * ROUNDING[dtype]).all()


@pytest.mark.parametrize("rows", [8, 64])
def test_rows_do_not_mind_each_other(rows: int) -> None:
    """Few rows and many go different ways, whose results are the same but for rounding."""
    for how in ("int8", "int4"):
        matrix = made(how, 64, 128, torch.float32)
        x = torch.randn(rows, 128)
        assert torch.allclose(matrix(x), torch.cat([matrix(row[None]) for row in x]), atol=1e-5)


def test_bytes() -> None:
    for dtype in DTYPES:
        size = dtype.itemsize
        assert made("int8", 64, 128, dtype).nbytes == 64 * 128 + 64 * size
        # Half a byte for each weight, scale and zero point for each group.
        assert made("int4", 33, 128, dtype).nbytes == 33 * 64 + 33 * 2 * 2 * size
        assert 64 * 64 < made("int4", 64, 128, dtype).nbytes <= 64 * 64 + 64 * 2 * 12
        large = made("int4", 512, 1024, dtype)
        assert large.nbytes < 512 * 1024 * 0.69
        held = sum(each.nbytes for each in vars(large).values() if isinstance(each, torch.Tensor))
        assert held == large.nbytes


def test_int4_needs_groups() -> None:
    assert isinstance(made("int4", 64, 96, torch.float32), Int4Linear)
    assert isinstance(made("int4", 64, 72, torch.float32), Int8Linear)
    with pytest.raises(InvalidRequestError, match="quantize='int2' is not known: int8 or int4"):
        made("int2", 64, 64, torch.float32)


@pytest.mark.parametrize(("family", "overrides"), [("qwen2", {}), ("phi3", {}), ("llama", {"intermediate_size": 88})])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_quantized_model_stays_near(
    checkpoint: Callable[..., Path], family: str, overrides: dict[str, Any], dtype: torch.dtype
) -> None:
    folder = checkpoint(family, **overrides)
    tokens = random_tokens(60, seed=3)
    exact = Bench(folder, dtype).read(tokens).float()
    off = {
        how: float((Bench(folder, dtype, quantize=how).read(tokens).float() - exact).norm() / exact.norm())
        for how in ("int8", "int4")
    }
    assert off["int8"] < 0.03
    assert off["int8"] < off["int4"] < 0.35


@pytest.mark.parametrize("how", ["int8", "int4"])
def test_pieces_of_any_size_read_the_same(checkpoint: Callable[..., Path], how: str) -> None:
    bench = Bench(checkpoint("qwen2"), quantize=how)
    tokens = random_tokens(70, seed=4)
    whole = bench.read(tokens)
    for chunks in ([1] * 70, [8, 9, 50, 3]):
        assert float((bench.read(tokens, chunks) - whole).abs().max() / whole.abs().max()) < 1e-4
