"""The compiled loops of every instruction set this processor has, against float64 arithmetic."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lcdoc.local_engine.batch import Batch, Piece, gather
from lcdoc.local_engine.config import read_config
from lcdoc.local_engine.kernels import cpu_loops, reference
from lcdoc.local_engine.linear import linear
from lcdoc.local_engine.operations_cpu import CpuOperations
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import PagePool

pytestmark = pytest.mark.skipif(cpu_loops.missing() is not None, reason=f"{cpu_loops.missing()}")

SETS = cpu_loops.instruction_sets() or ("none",)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
each_set = pytest.mark.parametrize("loops", SETS)


def near(found: Tensor, wanted: Tensor, dtype: torch.dtype, *, roundings: int = 1) -> None:
    """Within float32's accumulation, or some roundings to bfloat16."""
    relative, absolute = (1e-5, 1e-5) if dtype == torch.float32 else (9e-3 * roundings, 4e-3 * roundings)
    torch.testing.assert_close(found.double(), wanted.double(), rtol=relative, atol=absolute)


def test_the_loops_were_compiled_here() -> None:
    assert cpu_loops.missing() is None
    assert SETS[-1] == "plain"


@each_set
@DTYPES
@pytest.mark.parametrize("shape", [(7, 33), (64, 896), (1, 1), (130, 70), (5, 1), (3, 0), (701, 160)], ids=str)
def test_products_equal_float64s(loops: str, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    outputs, inputs = shape
    torch.manual_seed(outputs)
    weight, bias = torch.randn(outputs, inputs).to(dtype), torch.randn(outputs).to(dtype)
    for tokens in (1, 2, 3, 7, 8, 9, 17):
        x = (torch.randn(tokens, inputs) / max(1, inputs) ** 0.5).to(dtype)
        wanted = x.double() @ weight.double().T
        near(cpu_loops.linear(x, weight, loops=loops), wanted, dtype)
        near(cpu_loops.linear(x, weight, bias, loops=loops), wanted + bias.double(), dtype)


@each_set
def test_what_is_no_number_stays_so(loops: str) -> None:
    weight = torch.eye(64, dtype=torch.bfloat16)
    x = torch.ones(1, 64, dtype=torch.bfloat16)
    x[0, 5] = torch.nan
    assert cpu_loops.linear(x, weight, loops=loops).isnan().all()
    x[0, 5] = torch.inf
    assert cpu_loops.norm(x, x, 1e-6, loops=loops)[0, 5].isnan()


@each_set
@DTYPES
@pytest.mark.parametrize("size", [1, 15, 64, 896, 1001])
def test_norms_and_gates_equal_float64s(loops: str, dtype: torch.dtype, size: int) -> None:
    torch.manual_seed(size)
    x, more = torch.randn(3, size).to(dtype), torch.randn(3, size).to(dtype)
    weight = torch.randn(size).to(dtype)
    near(cpu_loops.norm(x, weight, 1e-5, loops=loops), reference.rms_norm(x, weight, 1e-5), dtype)
    wanted, total = reference.rms_norm(x, weight, 1e-5, more)
    summed = x.clone()
    near(cpu_loops.norm(summed, weight, 1e-5, residual=more, loops=loops), wanted, dtype)
    assert torch.equal(summed, total)
    both = torch.cat((x * 30, more), dim=1)  # gates from far below to far above zero
    near(cpu_loops.gate(both, loops=loops), reference.silu_mul(both), dtype)


def sequences(dtype: torch.dtype, past: np.ndarray, dim: int, page: int) -> Batch:
    """Sequences with `past` [B, L, H] entries of random keys and values, each about to decode one token."""
    count, layers, heads = past.shape
    most = int(past.max()) + 2
    pool = PagePool(count * layers * heads * (most // page + 2), page, dim, dtype)
    pool.keys.fill_(torch.nan)
    pool.values.fill_(torch.nan)
    tables = PageTables(pool, count + 1, layers, heads, 2)
    tables.open()  # so that slots and rows of the batch are not the same
    pieces = []
    for rows in past:
        slot = tables.open()
        places = torch.from_numpy(tables.append([slot], [int(rows.max())]))
        for store in (pool.keys, pool.values):
            store.view(-1, dim)[places.reshape(-1)] = torch.randn(places.numel(), dim).to(dtype)
        tables.truncate_rows(slot, rows)
        pieces.append(Piece(slot, [1], int(rows.max()), int(rows.max()), 1))
    return gather(pieces, tables, torch.device("cpu"))


@each_set
@DTYPES
@pytest.mark.parametrize(
    ("heads", "groups", "dim", "rotary", "window", "normed"),
    [(2, 7, 64, 64, None, False), (1, 1, 20, 8, 5, True), (3, 9, 80, 80, None, True), (2, 4, 128, 0, 40, False)],
)
def test_attention_equals_float64s(  # noqa: PLR0917
    loops: str, dtype: torch.dtype, heads: int, groups: int, dim: int, rotary: int, window: int | None, normed: bool
) -> None:
    torch.manual_seed(dim)
    layers, page, eps = 2, 8, 1e-5
    past = np.random.default_rng(dim).integers(0, 90, (3, layers, heads))
    past[0], past[1, :, 0] = 0, 1600  # a first token; a row that is split, longer than its neighbours
    batch = sequences(dtype, past, dim, page)
    pool, queries = batch.tables.pool, heads * groups
    rotation = (torch.randn(3, rotary // 2), torch.randn(3, rotary // 2)) if rotary else None
    cos, sin = rotation or (torch.empty(3, 0), torch.empty(3, 0))
    for layer in range(layers):
        qkv = torch.randn(3, (queries + 2 * heads) * dim).to(dtype)
        head_norm = torch.randn(queries + heads, dim).to(dtype) if normed else None
        found = cpu_loops.attend(
            layer, qkv, head_norm, rotation, batch, scale=dim**-0.5, eps=eps, window=window, loops=loops
        )
        q, k, v = qkv.view(3, -1, dim).double().split((queries, heads, heads), dim=1)
        if head_norm is not None:
            both = reference.rms_norm(torch.cat((q, k), dim=1), head_norm.double(), eps)
            q, k = both.split((queries, heads), dim=1)
        q = reference._rotate(q, cos.double(), sin.double())
        k = reference._rotate(k, cos.double(), sin.double())
        for token, head in itertools.product(range(3), range(heads)):
            place = int(batch.write[layer, token, head])
            near(pool.keys.view(-1, dim)[place], k[token, head], dtype, roundings=4)
            near(pool.values.view(-1, dim)[place], v[token, head], dtype)
            row = batch.tables.table[int(batch.slots[token]), layer, head]
            length = int(past[token, layer, head]) + 1
            entries = [int(row[entry // page]) * page + entry % page for entry in range(length)]
            entries = entries[-window:] if window else entries
            keys, values = (store.view(-1, dim)[entries].double() for store in (pool.keys, pool.values))
            mine = q[token, head * groups : (head + 1) * groups]
            wanted = torch.softmax(mine @ keys.T * dim**-0.5, dim=-1) @ values
            near(found.view(3, queries, dim)[token, head * groups : (head + 1) * groups], wanted, dtype, roundings=4)


def test_one_thread_and_two_give_the_same() -> None:
    torch.manual_seed(1)
    weight, x = torch.randn(3000, 200).bfloat16(), torch.randn(2, 200).bfloat16()
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(cpu_loops.linear(x, weight))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


def test_going_without_them_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, checkpoint: Callable[..., Path]
) -> None:
    config = read_config(checkpoint("llama"))
    CpuOperations(config)
    assert caplog.messages == []
    monkeypatch.setattr(cpu_loops, "missing", lambda: "no compiler")
    CpuOperations(config)
    assert caplog.messages == ["decoding on this CPU goes without compiled loops, more slowly: no compiler"]


def test_loops_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="no loops for abacus"):
        cpu_loops.linear(torch.ones(1, 1), torch.ones(1, 1), loops="abacus")


@DTYPES
def test_a_layers_products_go_through_them_and_through_pytorch_alike(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    weight, bias = torch.randn(40, 48).to(dtype), torch.randn(40).to(dtype)
    made = linear(weight, bias)
    x = torch.randn(40, 48).to(dtype)
    for count in (1, 8, 12, 13, 40):
        near(
            made(x[:count]) / 7,
            torch.nn.functional.linear(x[:count].double(), weight.double(), bias.double()) / 7,
            dtype,
        )
