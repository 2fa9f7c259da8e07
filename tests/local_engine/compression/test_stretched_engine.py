"""Engines whose window is stretched: the window they have, and what they refuse."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lcdoc.local_engine.engine import Engine, Sampling
from lcdoc.local_engine.errors import InvalidRequestError, RequestTooLargeError
from lcdoc.tests.local_engine.checkpoints import edit_json, rope
from lcdoc.tests.local_engine.engines import ask, load, prompt_of, same

Make = Callable[..., Path]
SHORT = Sampling(max_tokens=12, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(checkpoint: Make) -> Path:
    return checkpoint("llama", max_position_embeddings=64)


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_it_answers_as_a_checkpoint_whose_file_asks_for_it(folder: Path, tmp_path: Path, kind: str) -> None:
    asking = shutil.copytree(folder, tmp_path / "asking")
    parameters = {**rope(kind), "factor": 4.0, "original_max_position_embeddings": 64}
    edit_json(asking / "config.json", rope_parameters=parameters)
    with load(asking) as engine:
        window, expected = engine.context_window, ask(engine, prompt_of(200), SHORT)
    with load(folder) as engine:
        assert engine.context_window == 64
        with pytest.raises(RequestTooLargeError, match="200 tokens and the window is 64"):
            ask(engine, prompt_of(200), SHORT)
        trained = engine.identity
    with load(folder, rope=f"{kind}:factor=4") as engine:
        assert engine.context_window == window == 256
        assert same(ask(engine, prompt_of(200), SHORT), expected)
        assert engine.identity != trained


def test_dynamic_reads_short_texts_as_trained_and_is_not_moved(folder: Path) -> None:
    with load(folder) as engine:
        expected = ask(engine, prompt_of(40), SHORT)
    with load(folder, rope="dynamic:length=256") as engine:
        assert same(ask(engine, prompt_of(40), SHORT), expected)
        assert len(ask(engine, prompt_of(200), SHORT).tokens) == 12
        with pytest.raises(InvalidRequestError, match="take positions=original"):
            ask(engine, prompt_of(40), SHORT, kv="window+positions=compact@16tok")


def test_what_cannot_be_stretched_is_refused_before_weights_are_read(checkpoint: Make, tmp_path: Path) -> None:
    stretched = shutil.copytree(checkpoint("llama", rope_parameters=rope("yarn")), tmp_path / "stretched")
    (stretched / "model.safetensors").write_bytes(b"")
    with pytest.raises(InvalidRequestError, match="cannot be stretched to 5000"):
        Engine.load(stretched, device="cpu", rope="ntk:length=5000")
    with pytest.raises(InvalidRequestError, match="is none of linear, ntk, dynamic or yarn"):
        Engine.load(stretched, device="cpu", rope="ntc:length=5000")
