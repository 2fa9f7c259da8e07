"""What the launchers decide on the host: sizes of tiles, number of programs, and whether the arguments can be run at
all.

Nothing here reads a tensor's values, so that a launch never waits for the GPU and can be captured in a CUDA graph.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor

from lcdoc.local_engine.errors import EngineError

MAX_HEAD_DIM = 256
# Matrix units take tiles of at least 16 rows.
MIN_DOT = 16
# Where there is no GPU (Triton's interpreter) some number has to be assumed.
_ASSUMED_PROCESSORS = 8
# Fused multiply-add is wanted whatever the Triton release at hand makes of its absence.
FUSION = {"enable_fp_fusion": True}


def next_power_of_two(n: int) -> int:
    return 1 << max(0, n - 1).bit_length()


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def padded_head_dim(head_dim: int) -> int:
    """The width of the tile that holds a head: a power of two, of which the columns beyond head_dim are masked."""
    return max(MIN_DOT, next_power_of_two(head_dim))


@lru_cache(maxsize=64)
def processors(device: torch.device) -> int:
    """The number of streaming multiprocessors."""
    if device.type != "cuda":
        return _ASSUMED_PROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


@lru_cache(maxsize=64)
def capability(device: torch.device) -> tuple[int, int]:
    """The compute capability; (8, 0), the least that is served, where there is no GPU."""
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else (8, 0)


def dot_precision(tensor: Tensor) -> str:
    """How matrix units multiply: float32 as three TF32 products, near its own precision; 16 bits take no notice."""
    return "tf32x3" if tensor.dtype == torch.float32 else "ieee"


def on_device(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()


@lru_cache(maxsize=4096)
def choose_splits(
    rows: int, most_keys: int, tile_keys: int, slots: int, *, most: int = 128, least_tiles: int = 2
) -> int:
    """Into how many pieces each of `rows` rows of keys is cut, so that the programs fill the GPU's `slots` evenly.

    FlashDecoding's trade: more pieces fill the processors, but each costs a partial result. The fewest pieces are taken
    whose last wave of programs leaves within a tenth of the least possible idle. A piece has at least `least_tiles`
    tiles of keys.
    """
    pieces = min(most, ceil_div(most_keys, tile_keys * least_tiles))
    if rows == 0 or pieces <= 1:
        return 1

    def filled(splits: int) -> float:
        waves = rows * splits / slots
        return waves / ceil_div(rows * splits, slots)

    best = max(filled(splits) for splits in range(1, pieces + 1))
    return next(splits for splits in range(1, pieces + 1) if filled(splits) >= 0.9 * best)


def check_pages(q: Tensor, k_pages: Tensor, v_pages: Tensor, heads: int) -> None:
    """Whether queries [..., Hq, D] can meet pages [pages, page_size, D] of `heads` KV heads; EngineError where not."""
    head_dim, query_heads = q.shape[-1], q.shape[-2]
    if head_dim % 8 or not 8 <= head_dim <= MAX_HEAD_DIM:
        raise EngineError(
            f"head_dim is {head_dim}: the GPU kernels take multiples of 8 up to {MAX_HEAD_DIM}; run on the CPU"
        )
    if query_heads % heads:
        raise EngineError(
            f"{query_heads} query heads do not divide among {heads} KV heads: check the model's configuration"
        )
    if not k_pages.dtype == v_pages.dtype == q.dtype:
        raise EngineError(
            f"queries are {q.dtype}, keys {k_pages.dtype}, values {v_pages.dtype}: the kernels need one type for all"
        )
    check_pool(k_pages, v_pages, head_dim)
    check_rows(q)


def check_pool(k_pages: Tensor, v_pages: Tensor, head_dim: int) -> None:
    """Whether pages [pages, page_size, D] hold heads of head_dim and can be addressed flat; EngineError where not."""
    if k_pages.shape != v_pages.shape or k_pages.shape[-1] != head_dim or k_pages.dtype != v_pages.dtype:
        raise EngineError(
            f"pages of keys {k_pages.dtype} {tuple(k_pages.shape)} and values {v_pages.dtype} {tuple(v_pages.shape)} "
            f"do not fit head_dim {head_dim}"
        )
    if not (k_pages.is_contiguous() and v_pages.is_contiguous()):
        raise EngineError("the page pool is not contiguous: the kernels address it flat, pass the pool's own tensors")


def check_rows(*tensors: Tensor | None) -> None:
    """Whether neighbours in the last dimension are neighbours in memory; EngineError where not."""
    for tensor in tensors:
        if tensor is not None and tensor.shape[-1] > 1 and tensor.stride(-1) != 1:
            raise EngineError(
                f"a tensor of shape {tuple(tensor.shape)} has stride {tensor.stride(-1)} in its last dimension: "
                "the kernels need 1, call contiguous()"
            )
