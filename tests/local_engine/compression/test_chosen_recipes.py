"""Recipes that the engine settles for a request: `auto` by length and room, `static` by what is known of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lcdoc.local_engine.compression.budgets.static_heads import save_head_scores
from lcdoc.local_engine.compression.known_heads import find_heads, head_scores_path, text_tokens
from lcdoc.local_engine.compression.marks import Marks
from lcdoc.local_engine.engine import Engine, KVConfig, Sampling
from lcdoc.local_engine.errors import InvalidRequestError, RequestTooLargeError
from lcdoc.tests.local_engine.engines import BLOCK_BYTES, PAGE_SIZE, ask, ids, load, prompt_of

Make = Callable[..., Path]
SHORT = Sampling(max_tokens=12, ignore_eos=True)
CHAT = [{"role": "user", "content": "Why? " * 90}]


@pytest.fixture(scope="module")
def folder(checkpoint: Make) -> Path:
    return checkpoint("qwen2", max_position_embeddings=2048)


def test_auto_keeps_what_fits_and_cuts_what_does_not(folder: Path) -> None:
    with load(folder, blocks=60, step_tokens=256) as engine:  # 960 entries a row
        assert ask(engine, prompt_of(600), SHORT, kv="auto").usage.cuts == 0
        # Nothing was cut, so that its beginning is shared.
        assert ask(engine, prompt_of(600), SHORT, kv="auto").usage.cached > 500
        with pytest.raises(RequestTooLargeError):
            ask(engine, prompt_of(1000), SHORT)
        cut = ask(engine, prompt_of(1000), SHORT, kv="auto").usage
        assert cut.cuts > 0
        assert cut.kept <= 500 + 12


def test_auto_drops_nothing_of_a_chat(folder: Path) -> None:
    with load(folder, blocks=20, step_tokens=64) as engine:
        assert len(engine.encode(CHAT)) > 20 * PAGE_SIZE
        assert ask(engine, CHAT, SHORT, kv="auto").usage.cuts > 0
        with pytest.raises(RequestTooLargeError, match="auto drops nothing of a chat"):
            ask(engine, [*CHAT, {"role": "assistant", "content": "So."}, *CHAT], SHORT, kv="auto")


def test_auto_reads_a_document_for_questions_to_come(folder: Path) -> None:
    with load(folder, blocks=60, step_tokens=256) as engine:
        assert asyncio.run(engine.prefill(prompt_of(400), kv="auto")).recipe == "full"
        kept = asyncio.run(engine.prefill(prompt_of(600), kv="auto"))
        assert kept.recipe == "kvzip:leverage=2.0+global@0.25"
        assert kept.kept <= 151
        assert len(ask(engine, prompt_of(20), SHORT, prefix=kept, kv="auto").tokens) == 12


def test_an_engine_may_be_loaded_with_auto(folder: Path) -> None:
    kv = KVConfig(page_size=PAGE_SIZE, max_memory=20 * BLOCK_BYTES, recipe="auto")
    with Engine.load(folder, dtype="float32", device="cpu", kv=kv, step_tokens=64) as engine:
        assert 320 < engine.context_window < 2048
        assert ask(engine, prompt_of(engine.context_window - 1), Sampling(max_tokens=1)).usage.output == 1
        engine.read_ahead(prompt_of(200)).result(timeout=60)
        assert ask(engine, prompt_of(200), SHORT).usage.cached > 150
        with pytest.raises(InvalidRequestError, match="nothing is read ahead with"):
            engine.read_ahead(prompt_of(350))
        assert ask(engine, prompt_of(200), SHORT, kv="knorm@64tok").usage.cuts > 0


def test_static_takes_the_heads_that_are_known_of_the_model(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    path = head_scores_path(folder)
    prompt = prompt_of(300)
    with load(folder, step_tokens=64) as engine:
        with pytest.raises(InvalidRequestError, match=r"no head scores are known of .*lcdoc kv heads local/"):
            ask(engine, prompt, SHORT, kv="knorm+static:recent=8@48tok")
        scores = asyncio.run(find_heads(engine, prompt_of(200)))
        assert scores.shape == (engine.config.layers, engine.config.kv_heads)
        assert bool(((scores > 0) & (scores <= 1)).all())
        assert len(set(scores.flatten().tolist())) > 1
        path.parent.mkdir(parents=True)
        save_head_scores(path, scores, "qwen2")
        known = ask(engine, prompt, SHORT, kv="knorm+static:recent=8@48tok")
        named = ask(engine, prompt, SHORT, kv=f"knorm+static:recent=8,file={path}@48tok")
        assert ids(known) == ids(named)
        assert known.usage.cuts > 0
        assert asyncio.run(engine.prefill(prompt, kv="knorm+static@48tok")).recipe == "knorm+static@48tok"
        with pytest.raises(InvalidRequestError, match="has 63 tokens: head scores need 64"):
            asyncio.run(find_heads(engine, prompt_of(63)))


def test_the_text_for_head_scores_fits_with_its_repetition() -> None:
    assert text_tokens(131_072) == 2048
    assert 2 * text_tokens(1024) + 256 == 1024


def test_what_ends_a_prompt_is_its_task(folder: Path) -> None:
    prompt = prompt_of(300)
    kv = "task:window=16@48tok"
    with load(folder, step_tokens=64) as engine:
        ends = ask(engine, prompt, SHORT, kv=kv)
        told = ask(engine, prompt, SHORT, kv=kv, marks=Marks(task=prompt[-16:]))
        other = ask(engine, prompt, SHORT, kv=kv, marks=Marks(task=prompt[:16]))
    chances = [torch.tensor([each.logprob or 0.0 for each in output.tokens]) for output in (ends, told, other)]
    assert ids(ends) == ids(told)
    assert ids(ends) != ids(other) or not torch.equal(chances[0], chances[2])


def test_what_is_named_takes_half_of_a_budget_at_most(folder: Path) -> None:
    marks = Marks(protected=[(100, 250), (10, 20)])
    with load(folder, step_tokens=64) as engine:
        assert ask(engine, prompt_of(300), SHORT, kv="knorm@48tok", marks=marks).usage.kept <= 48 + 12
        assert ask(engine, prompt_of(300), SHORT, kv="knorm@400tok", marks=marks).usage.kept == 300 + 11
        # Two thirds of the prompt, which is half of what may be kept and a little: too much to be protected.
        assert 150 <= ask(engine, prompt_of(300), SHORT, kv="knorm@200tok", marks=marks).usage.kept <= 200 + 12
