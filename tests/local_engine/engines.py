"""Engines over small checkpoints, and callers for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import torch

from lcdoc.local_engine.engine import Engine, KVConfig, Output, Piece, Sampling
from lcdoc.local_engine.snapshot import Snapshot
from lcdoc.tests.local_engine.decoding import random_tokens

PAGE_SIZE = 16
BLOCK_BYTES = 2 * PAGE_SIZE * 16 * 4 * 3 * 2
"""What a page of tokens takes in the small models: keys and values of 16 float32 in 3 layers of 2 heads."""


def load(folder: Path, *, blocks: int = 400, prefix_cache: bool = True, **options: Any) -> Engine:
    """An engine whose cache holds `blocks` pages of tokens."""
    kv = KVConfig(page_size=PAGE_SIZE, max_memory=blocks * BLOCK_BYTES, prefix_cache=prefix_cache)
    return Engine.load(folder, dtype="float32", device="cpu", kv=kv, **options)


def ask(engine: Engine, prompt: Any, sampling: Sampling | None = None, **options: Any) -> Output:
    return asyncio.run(engine.complete(prompt, sampling, **options))


def ask_all(engine: Engine, asked: list[tuple[Any, Sampling, dict[str, Any]]]) -> list[Output]:
    async def together() -> list[Output]:
        return await asyncio.gather(
            *(engine.complete(prompt, sampling, **options) for prompt, sampling, options in asked)
        )

    return asyncio.run(together())


def ids(output: Output) -> list[int]:
    return [each.token for each in output.tokens]


def same(ours: Output, theirs: Output) -> bool:
    """Whether two answers are the same; log-probabilities may differ by rounding."""
    chances = [
        (a.logprob is None) == (b.logprob is None) and abs((a.logprob or 0) - (b.logprob or 0)) < 1e-4
        for a, b in zip(ours.tokens, theirs.tokens, strict=False)
    ]
    return (ours.text, ours.finish, ids(ours)) == (theirs.text, theirs.finish, ids(theirs)) and all(chances)


async def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    """Wait until it holds. Raises TimeoutError."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError
        await asyncio.sleep(0.001)


async def first_piece(engine: Engine, prompt: Any, sampling: Sampling) -> Piece:
    """Ask, and hang up after the first piece."""
    async with aclosing(engine.generate(prompt, sampling)) as pieces:
        return await anext(pieces)


def in_use(engine: Engine) -> int:
    """Pages that requests hold."""
    stats = engine.stats()
    return stats.pages_used - stats.pages_cached


def held_bits(engine: Engine, snapshot: Snapshot) -> list[torch.Tensor]:
    """What the snapshot's resident pages hold, entry by entry: keys, values and perhaps biases."""
    tables = engine._scheduler.tables
    contents = engine._scheduler.room.residents.find(snapshot)
    assert contents is not None
    slot = tables.open()
    tables.join(slot, contents)
    where = torch.from_numpy(tables.entries(slot))
    tables.free(slot)
    return [store.reshape(store.shape[0] * store.shape[1], -1)[where].clone() for store in tables.pool.stores]


def prompt_of(tokens: int, seed: int = 0) -> list[int]:
    return random_tokens(tokens, seed)
