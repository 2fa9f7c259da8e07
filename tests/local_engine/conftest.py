"""Checkpoints that the engine's tests share, each made once in a session."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lcdoc.local_engine.config import ModelConfig, read_config
from lcdoc.tests.local_engine.checkpoints import save_checkpoint


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from more, and on a busy machine lose much by waiting for each other's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`checkpoint(family, **overrides)`: the folder of a small random model; see `checkpoints.save_checkpoint`.

    Equal calls give the same folder, so it is not to be changed: copy it first.
    """
    made: dict[str, Path] = {}

    def make(family: str, **overrides: Any) -> Path:
        key = json.dumps([family, overrides], sort_keys=True, default=str)
        if key not in made:
            made[key] = save_checkpoint(tmp_path_factory.mktemp(family), family, **overrides)
        return made[key]

    return make


@pytest.fixture(scope="session")
def shape(checkpoint: Callable[..., Path]) -> ModelConfig:
    """The configuration of a model with 520 tokens, of which a tokenizer of 512 leaves some without a use."""
    return read_config(checkpoint("llama", vocab_size=520))
