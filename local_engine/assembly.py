"""What an engine is put together from: where the model runs, with which operations, and how large its cache is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from lcdoc.local_engine.compression.recipe import Recipe, as_recipe, is_auto
from lcdoc.local_engine.compression.stretched_rope import Stretching
from lcdoc.local_engine.compression_kernels import CompressionKernels
from lcdoc.local_engine.compression_kernels_torch import TORCH
from lcdoc.local_engine.config import ModelConfig, read_config
from lcdoc.local_engine.decoder import Decoder, Operations
from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.generation_config import GenerationDefaults, read_generation_defaults
from lcdoc.local_engine.graphed_decoding import GraphedDecoder
from lcdoc.local_engine.hub import Progress as OnFetch
from lcdoc.local_engine.hub import locate
from lcdoc.local_engine.loading import OnProgress, load_weights
from lcdoc.local_engine.memory import cache_bytes
from lcdoc.local_engine.model_identity import ModelIdentity, identity_of
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import PagePool
from lcdoc.local_engine.passing_threads import in_a_passing_thread
from lcdoc.local_engine.precision import choose_dtype
from lcdoc.local_engine.prefix_cache import PrefixCache
from lcdoc.local_engine.quantization import Quantization
from lcdoc.local_engine.rope import Rope
from lcdoc.local_engine.scheduler import Scheduler
from lcdoc.local_engine.tokenizer import Tokenizer
from lcdoc.local_engine.weights import Checkpoint

SEQUENCES: Final = {"cpu": 16, "cuda": 64}
"""Requests that run at once, where nothing else is asked for."""
STEP_TOKENS: Final = {"cpu": 512, "cuda": 2048}
"""Tokens of one forward pass."""
_TABLE_COLUMNS: Final = 64


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
    """How the cache of each request is compressed, unless the request says otherwise; None keeps everything, "auto"
    does so where it fits (compression/auto.py). What a recipe has cut is not shared: such requests neither find nor
    leave beginnings in the prefix cache."""


@dataclass(frozen=True)
class Assembly:
    """A loaded model but for the decoder, which holds the weights: whoever runs it alone has that."""

    identity: ModelIdentity
    config: ModelConfig
    tokenizer: Tokenizer
    defaults: GenerationDefaults
    scheduler: Scheduler
    recipe: Recipe | None
    """How the cache of a request is compressed that does not say."""
    auto: bool
    """Whether it is chosen for each such request."""
    folder: Path
    dtype: torch.dtype
    device: torch.device
    weight_bytes: int
    """Bytes of the matrices, as they are held."""


def assemble(
    path_or_hub_id: str | Path,
    *,
    dtype: str,
    quantize: Quantization | None,
    device: str,
    kv: KVConfig,
    sequences: int | None,
    step_tokens: int | None,
    rope: Stretching | str | None,
    on_progress: OnProgress | None,
    on_fetch: OnFetch | None,
) -> tuple[Assembly, Decoder | GraphedDecoder]:
    """Load a checkpoint; see `Engine.load`. Raises EngineError: ModelFilesError, UnsupportedModelError."""
    auto = is_auto(kv.recipe)
    recipe = None if auto else as_recipe(kv.recipe)
    stretching = Stretching.parse(rope) if isinstance(rope, str) else rope
    folder = locate(path_or_hub_id, on_fetch)
    config = read_config(folder)
    if stretching is not None:
        config = stretching.applied(config)
    where = choose_device(device)
    number_type = in_a_passing_thread(lambda: choose_dtype(dtype, where))
    tokenizer = Tokenizer.load(folder, config)
    weights = in_a_passing_thread(
        lambda: load_weights(Checkpoint(folder), config, number_type, where, quantize=quantize, on_progress=on_progress)
    )
    most = sequences or SEQUENCES[where.type]
    pages = cache_pages(config, kv, number_type, where, most)
    pool = PagePool(pages, kv.page_size, config.head_dim, number_type, where)
    columns = min(_TABLE_COLUMNS, -(-config.context_window // kv.page_size))
    # One more than run: probes of a recipe are read on a fork, and snapshots put into pages.
    tables = PageTables(pool, most + 1, config.layers, config.kv_heads, columns, kernels_on(where))
    rotations = Rope(config, where)
    # Keys that depend on a prompt's length are of no use to a prompt of another length.
    keeps = kv.prefix_cache and not rotations.depends_on_length
    decoder = Decoder(config, weights, rotations, operations_on(config, where))
    name = folder.name if Path(path_or_hub_id).exists() else str(path_or_hub_id)
    assembly = Assembly(
        identity_of(name, folder, config, number_type, quantize),
        config,
        tokenizer,
        read_generation_defaults(folder),
        Scheduler(
            tables,
            PrefixCache(tables) if keeps else None,
            sequences=most,
            step_tokens=step_tokens or STEP_TOKENS[where.type],
        ),
        recipe,
        auto,
        folder,
        number_type,
        where,
        weights.nbytes,
    )
    return assembly, GraphedDecoder(decoder) if where.type == "cuda" else decoder


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


def kernels_on(device: torch.device) -> CompressionKernels:
    """What cuts caches on a device; likewise."""
    if device.type == "cpu":
        return TORCH
    from lcdoc.local_engine.compression_kernels_triton import TritonKernels

    return TritonKernels()


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
