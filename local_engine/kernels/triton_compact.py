"""Kept entries move to the front of their rows, and on the way keys are turned to new positions and others merged in.

In place a row is a chain: entry r may come from where entry r + 1 will go, never the other way round, since kept
entries ascend. So one program walks a row from the front, a tile at a time, and each tile is read before it is written;
what later tiles read lies behind all that earlier ones write. The parallelism is across the row instead: columns of
heads do not meet (but for the pairs that rotation turns), so that programs take slices of columns, down to the 32 bytes
that memory moves at once, of keys or of values, of every row of every layer.

Which entries to keep is `torch.topk` on the scores of each head, whose cost is a small part of what moving takes; we
know of no faster way that a kernel of ours would be.
"""

# Kernels are typed by Triton when they are compiled; their arguments are many, and its constants are upper case.
# ruff: noqa: N803, PLR0917
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-untyped, no-untyped-call"

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.kernels.launch import (
    FUSION,
    MIN_DOT,
    ceil_div,
    check_pool,
    check_rows,
    next_power_of_two,
    on_device,
    padded_head_dim,
    processors,
)

# What a program moves in a step, in elements, half as many where it turns them; and what memory moves at least, in
# bytes.
_STEP_ELEMENTS = 4096
_SECTOR_BYTES = 32
# Entries that a step of merging takes.
_BLOCK_GIVEN = 64
# Radians of one in the upper half of a phase, whose turn is 2^64.
_RADIANS = tl.constexpr(2 * math.pi / 2**32)


@triton.jit
def _places(row, entry, there, PAGE_SIZE: tl.constexpr):
    """Places in the pool of entries of the row whose pages `row` points at, in 64 bits: pools soon pass 2^31."""
    page = tl.load(row + entry // PAGE_SIZE, mask=there, other=0)
    return page.to(tl.int64) * PAGE_SIZE + entry % PAGE_SIZE


@triton.jit
def _merge(
    pages, row, kept, order, destination, weights, begin, given, d, known,
    PAGE_SIZE: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Columns d of all entries order[begin:given], summed by destination into the kept entries where these still are.

    The pointers are the row's own. `destination` ascends, so that a sum is a run of entries: within a tile it is a
    product with a matrix of ones, and what a run has gathered is carried to the next tile.
    """
    lane = tl.arange(0, BLOCK)
    carried = tl.zeros(d.shape, tl.float32)
    carried_to = -1
    for first in range(begin, given, BLOCK):
        place = first + lane
        there = place < given
        entry = tl.load(order + place, mask=there, other=0).to(tl.int32)
        to = tl.load(destination + place, mask=there, other=-2).to(tl.int32)
        following = tl.load(destination + place + 1, mask=place + 1 < given, other=-3).to(tl.int32)
        weight = tl.load(weights + entry, mask=there, other=0.0)
        from_place = _places(row, entry, there, PAGE_SIZE)
        inside = there[:, None] & known[None, :]
        x = tl.load(pages + from_place[:, None] * D + d[None, :], mask=inside, other=0.0).to(tl.float32)
        before = (to[:, None] == to[None, :]) & (lane[None, :] <= lane[:, None])
        sums = tl.dot(before.to(tl.float32), x * weight[:, None], input_precision="tf32x3")
        sums += tl.where((to == carried_to)[:, None], carried[None, :], 0.0)
        ends = there & (to != following)
        target = _places(row, tl.load(kept + to, mask=ends, other=0).to(tl.int32), ends, PAGE_SIZE)
        # A kept entry is among those summed: all threads are to have read it before one writes.
        tl.debug_barrier()
        merged = pages + target[:, None] * D + d[None, :]
        tl.store(merged, sums.to(pages.dtype.element_ty), mask=ends[:, None] & known[None, :])
        last = lane == BLOCK - 1
        carried = tl.sum(tl.where(last[:, None], sums, 0.0), axis=0)
        carried_to = tl.sum(tl.where(last, to, 0), axis=0)
    # What was merged is read again, by other threads.
    tl.debug_barrier()


@triton.jit
def _move(
    pages, row, target_row, kept, count, d, known,
    PAGE_SIZE: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    for first in range(0, count, BLOCK):
        rank = first + tl.arange(0, BLOCK)
        there = rank < count
        entry = tl.load(kept + rank, mask=there, other=0).to(tl.int32)
        old = _places(row, entry, there, PAGE_SIZE)
        new = _places(target_row, rank, there, PAGE_SIZE)
        inside = (there & (old != new))[:, None] & known[None, :]
        x = tl.load(pages + old[:, None] * D + d[None, :], mask=inside, other=0.0)
        # All threads are to have read the tile before one writes.
        tl.debug_barrier()
        tl.store(pages + new[:, None] * D + d[None, :], x, mask=inside)


@triton.jit
def _cosine_and_sine(phase):
    """Of phases in turns of 2^64, by their series within an eighth of a turn: 3e-8 at most are left out. The general
    functions serve angles of any size, for which they take memory of each thread."""
    upper = (phase >> 32).to(tl.int32)
    quarters = ((upper >> 29) + 1) >> 1
    x = ((upper << 2) >> 2).to(tl.float32) * _RADIANS
    y = x * x
    cosine = 1.0 + y * (-1 / 2 + y * (1 / 24 + y * (-1 / 720 + y * (1 / 40320))))
    sine = x * (1.0 + y * (-1 / 6 + y * (1 / 120 + y * (-1 / 5040 + y * (1 / 362880)))))
    odd = (quarters & 1) == 1
    turned_cosine = tl.where(odd, -sine, cosine)
    turned_sine = tl.where(odd, cosine, sine)
    back = (quarters & 2) == 2
    return tl.where(back, -turned_cosine, turned_cosine), tl.where(back, -turned_sine, turned_sine)


@triton.jit
def _move_turned(
    pages, row, target_row, kept, shift, turns, count, d, known,
    PAGE_SIZE: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """As `_move`, columns d and d + HALF together, turned on by `shift` positions."""
    turn = tl.load(turns + d, mask=known, other=0)
    for first in range(0, count, BLOCK):
        rank = first + tl.arange(0, BLOCK)
        there = rank < count
        entry = tl.load(kept + rank, mask=there, other=0).to(tl.int32)
        by = tl.load(shift + rank, mask=there, other=0)
        old = _places(row, entry, there, PAGE_SIZE)
        new = _places(target_row, rank, there, PAGE_SIZE)
        inside = (there & ((old != new) | (by != 0)))[:, None] & known[None, :]
        here = pages + old[:, None] * D + d[None, :]
        x = tl.load(here, mask=inside, other=0.0).to(tl.float32)
        y = tl.load(here + HALF, mask=inside, other=0.0).to(tl.float32)
        # Whole turns overflow and are gone, so that a shift of a million is as exact as one of 1.
        cosine, sine = _cosine_and_sine(by.to(tl.int64)[:, None] * turn[None, :])
        tl.debug_barrier()
        there_to = pages + new[:, None] * D + d[None, :]
        tl.store(there_to, (x * cosine - y * sine).to(pages.dtype.element_ty), mask=inside)
        tl.store(there_to + HALF, (y * cosine + x * sine).to(pages.dtype.element_ty), mask=inside)


@triton.jit(
    do_not_specialize=[
        "given", "kept_stride", "shift_stride", "order_stride", "destination_stride", "weights_stride",
    ]
)  # fmt: skip
def _compact_kernel(
    k_pages, v_pages, bias_pages, table, target, kept, counts, shift, turns, order, destination, weights, dropped,
    given, table_stride, target_stride, kept_stride, shift_stride, order_stride, destination_stride, weights_stride,
    PAGE_SIZE: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
    BLOCK_GIVEN: tl.constexpr, MERGES: tl.constexpr, MERGES_KEYS: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(1).to(tl.int64)
    count = tl.load(counts + head).to(tl.int32)
    row = table + head * table_stride
    target_row = target + head * target_stride
    kept += head * kept_stride
    shift += head * shift_stride
    order += head * order_stride
    destination += head * destination_stride
    weights += head * weights_stride
    first_given = 0
    if MERGES:
        first_given = tl.load(dropped + head).to(tl.int32)

    turned: tl.constexpr = (HALF + COLUMNS - 1) // COLUMNS
    of_keys: tl.constexpr = turned + (D - 2 * HALF + COLUMNS - 1) // COLUMNS
    column = tl.arange(0, COLUMNS)
    part = tl.program_id(0)
    if part < turned:
        d = part * COLUMNS + column
        known = d < HALF
        if MERGES_KEYS:
            _merge(
                k_pages, row, kept, order, destination, weights, first_given, given, d, known,
                PAGE_SIZE, D, BLOCK_GIVEN,
            )  # fmt: skip
            _merge(
                k_pages, row, kept, order, destination, weights, first_given, given, d + HALF, known,
                PAGE_SIZE, D, BLOCK_GIVEN,
            )  # fmt: skip
        _move_turned(k_pages, row, target_row, kept, shift, turns, count, d, known, PAGE_SIZE, D, HALF, BLOCK)
    elif part < of_keys:
        d = 2 * HALF + (part - turned) * COLUMNS + column
        if MERGES_KEYS:
            _merge(
                k_pages, row, kept, order, destination, weights, first_given, given, d, d < D,
                PAGE_SIZE, D, BLOCK_GIVEN,
            )  # fmt: skip
        _move(k_pages, row, target_row, kept, count, d, d < D, PAGE_SIZE, D, BLOCK)
    else:
        d = (part - of_keys) * COLUMNS + column
        if MERGES:
            _merge(
                v_pages, row, kept, order, destination, weights, first_given, given, d, d < D,
                PAGE_SIZE, D, BLOCK_GIVEN,
            )  # fmt: skip
        _move(v_pages, row, target_row, kept, count, d, d < D, PAGE_SIZE, D, BLOCK)
        if HAS_BIAS and part == of_keys:
            _move(bias_pages, row, target_row, kept, count, column, column < 1, PAGE_SIZE, 1, BLOCK)


def _columns(head_dim: int, half: int, rows: int, least: int, slots: int) -> int:
    """Columns of a slice: as few as fill the GPU's `slots`, and no fewer than `least`."""
    columns = padded_head_dim(half or head_dim)
    while columns > least and rows * ceil_div(2 * head_dim, columns) < slots:
        columns //= 2
    return columns


def list_kept(keep: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """`kept` int64 [H, most] and `counts` int64 [H] for `compact`, of keep bool [H, n]; no row keeps more than `most`.

    Without a sort, and without waiting for the GPU as `nonzero` does: an entry's rank is a running count.
    """
    ranks = keep.cumsum(1)
    # What is not kept goes to a column of its own.
    column = torch.where(keep, ranks - 1, most)
    entries = torch.arange(keep.shape[1], device=keep.device).expand_as(column)
    kept = entries.new_zeros(keep.shape[0], most + 1).scatter_(1, column, entries)
    return kept[:, :most], keep.sum(1)


def compact(
    k_pages: Tensor,
    v_pages: Tensor,
    table: Tensor,
    kept: Tensor,
    counts: Tensor,
    target: Tensor | None = None,
    shift: Tensor | None = None,
    frequencies: Tensor | None = None,
    destination: Tensor | None = None,
    weights: Tensor | None = None,
    merge_keys: bool = True,
    bias_pages: Tensor | None = None,
) -> None:
    """`compression_reference.compact`: pages [pages, page_size, D], table and target int32 [H, max_pages], kept int [H,
    m], counts int [H], shift int [H, m], frequencies float [R/2], destination int [H, n], weights float32 [H, n],
    bias_pages float32 [pages, page_size]. Rows may be strided. Nothing is read on the host.

    Merging happens where the kept entries are before they move, rounded to the cache's type there: pages that are
    merged into must not be shared with other rows. H may be the rows of all layers, and the more the faster.
    """
    heads, most = kept.shape
    page_size, head_dim = k_pages.shape[1:]
    check_pool(k_pages, v_pages, head_dim)
    check_rows(table, kept, counts, target, shift, destination, weights, bias_pages)
    if (shift is None) != (frequencies is None) or (destination is None) != (weights is None):
        raise EngineError("a shift comes with frequencies and a destination with weights: pass both or neither")
    half = 0 if frequencies is None else frequencies.shape[0]
    if 2 * half > head_dim:
        raise EngineError(f"{2 * half} dimensions are to be turned of {head_dim}: check the frequencies")
    if heads == 0 or most == 0:
        return
    target = table if target is None else target
    turns, order, ordered, dropped = kept, kept, kept, counts
    if frequencies is not None:
        # In turns of 2^64 for each position. A frequency is at most 1 in every published rotation, which leaves room.
        turns = (frequencies.to(torch.float64) * (2.0**63 / math.pi)).round().to(torch.int64)
    if destination is not None:
        ordered, order = destination.sort(dim=1, stable=True)
        dropped = (destination < 0).sum(1)
    least = max(MIN_DOT, _SECTOR_BYTES // k_pages.element_size())
    slots = 4 * processors(k_pages.device)
    columns = _columns(head_dim, half, heads, least, slots)
    block = max(MIN_DOT, _STEP_ELEMENTS // columns // (2 if half else 1))
    block = min(block, max(MIN_DOT, next_power_of_two(most)))
    parts = ceil_div(half, columns) + ceil_div(head_dim - 2 * half, columns) + ceil_div(head_dim, columns)
    with on_device(k_pages):
        _compact_kernel[(parts, heads)](
            k_pages, v_pages, k_pages if bias_pages is None else bias_pages, table, target, kept, counts,
            kept if shift is None else shift, turns, order, ordered, kept if weights is None else weights, dropped,
            0 if destination is None else destination.shape[1],
            table.stride(0), target.stride(0), kept.stride(0), 0 if shift is None else shift.stride(0),
            order.stride(0), ordered.stride(0), 0 if weights is None else weights.stride(0),
            PAGE_SIZE=page_size, D=head_dim, HALF=half, COLUMNS=columns, BLOCK=block, BLOCK_GIVEN=_BLOCK_GIVEN,
            MERGES=destination is not None, MERGES_KEYS=destination is not None and merge_keys,
            HAS_BIAS=bias_pages is not None, num_warps=4, num_stages=1, **FUSION,
        )  # fmt: skip
