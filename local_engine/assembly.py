"""What is decided when a model is loaded: where it runs, with which operations, and how large its cache is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from lcdoc.local_engine.compression.recipe import Recipe
from lcdoc.local_engine.config import ModelConfig
from lcdoc.local_engine.decoder import Operations
from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.memory import cache_bytes

SEQUENCES: Final = {"cpu": 16, "cuda": 64}
"""Requests that run at once, where nothing else is asked for."""
STEP_TOKENS: Final = {"cpu": 512, "cuda": 2048}
"""Tokens of one forward pass."""


@dataclass(frozen=True, slots=True)
class KVConfig:
    """The cache of keys and values."""

    page_size: int = 64
    """Tokens of one head in a page."""
    max_memory: float | None = None
    """Bytes for the cache, or a share (up to 1) of the memory that is free when the weights are loaded. None: half of
    it on a CPU, 0.9 on a GPU."""
    prefix_cache: bool = True
    """Whether beginnings of prompts are kept for later requests, while nothing else needs their pages."""
    recipe: Recipe | str | None = None
    """How the cache of each request is compressed, unless the request says otherwise; None keeps everything. What a
    recipe has cut is not shared: such requests neither find nor leave beginnings in the prefix cache."""


def choose_device(wanted: str) -> torch.device:
    """The device that `wanted` names; "auto" takes a GPU where there is one. Raises EngineError."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in SEQUENCES:
        raise EngineError(f"device={wanted!r} is not known: auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise EngineError("device=cuda, but PyTorch finds no CUDA GPU: install a CUDA build of torch, or take cpu")
    return device


def operations_on(config: ModelConfig, device: torch.device) -> Operations:
    """The arithmetic for a device; Triton is imported for a GPU only."""
    if device.type == "cpu":
        from lcdoc.local_engine.operations_cpu import CpuOperations

        return CpuOperations(config)
    from lcdoc.local_engine.operations_triton import TritonOperations

    return TritonOperations(config, device)


def cache_pages(config: ModelConfig, kv: KVConfig, dtype: torch.dtype, device: torch.device, sequences: int) -> int:
    """Pages of the cache: what memory allows, and no more than full windows of all sequences. Raises EngineError."""
    page_bytes = 2 * kv.page_size * config.head_dim * dtype.itemsize
    rows = config.layers * config.kv_heads
    most = sequences * rows * (-(-config.context_window // kv.page_size) + 1)
    pages = cache_bytes(device, kv.max_memory, most * page_bytes) // page_bytes
    if pages < rows:
        raise EngineError(
            f"{pages * page_bytes / 2**20:,.1f} MiB of cache do not hold {kv.page_size} tokens, which take "
            f"{rows * page_bytes / 2**20:,.1f} MiB: raise max_memory, load with quantize, or take a smaller model"
        )
    return pages
