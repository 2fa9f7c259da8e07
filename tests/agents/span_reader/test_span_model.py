"""The span reader's forward pass against transformers in float64, its windows, its spans, its file."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEncoder

from lcdoc.agents.span_reader import model as span_model
from lcdoc.agents.span_reader import weights
from lcdoc.agents.span_reader.model import SpanModel
from lcdoc.agents.span_reader.spans import LONGEST_TOKENS, answers_of, whole_words
from lcdoc.agents.span_reader.weights import Recipe, SpanReaderError, checksum, read, write
from lcdoc.agents.span_reader.windows import ASKED, MAX_QUESTION_TOKENS, PASSAGE, SHARED, Vocabulary, Window
from lcdoc.retrieval.bert import Matrix, encoder_from
from lcdoc.retrieval.minilm import packaged_model

WIDTH, INNER, HEADS, LAYERS, FIRST = 24, 48, 3, 3, 1
EPSILON = 1e-12


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.of(packaged_model().tokenizer())


def random_tensors(words: int) -> dict[str, Matrix]:
    """Weights of a small BERT, named as transformers names them, with the reader's own beside them."""
    random = np.random.default_rng(5)

    def normal(*shape: int) -> Matrix:
        return (random.standard_normal(shape) * 0.3).astype(np.float32)

    tensors = {
        "embeddings.word_embeddings.weight": normal(words, WIDTH),
        "embeddings.position_embeddings.weight": normal(300, WIDTH),
        "embeddings.token_type_embeddings.weight": normal(2, WIDTH),
        "embeddings.LayerNorm.weight": 1 + normal(WIDTH),
        "embeddings.LayerNorm.bias": normal(WIDTH),
        "kinds": normal(3, WIDTH),
        "head.weight": normal(2, WIDTH),
        "head.bias": normal(2),
    }
    for number in range(LAYERS):
        prefix = f"encoder.layer.{number}"
        for name, rows, columns in (
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", INNER, WIDTH),
            ("output.dense", WIDTH, INNER),
        ):
            tensors[f"{prefix}.{name}.weight"], tensors[f"{prefix}.{name}.bias"] = normal(rows, columns), normal(rows)
        for name in ("attention.output", "output"):
            tensors[f"{prefix}.{name}.LayerNorm.weight"] = 1 + normal(WIDTH)
            tensors[f"{prefix}.{name}.LayerNorm.bias"] = normal(WIDTH)
    return tensors


@pytest.fixture(scope="module")
def tensors(vocabulary: Vocabulary) -> dict[str, Matrix]:
    return random_tensors(vocabulary.tokenizer.get_vocab_size())


@pytest.fixture(scope="module")
def model(vocabulary: Vocabulary, tensors: dict[str, Matrix]) -> SpanModel:
    return SpanModel(encoder_from(tensors, heads=HEADS, epsilon=EPSILON), FIRST, tensors, vocabulary)


def expected_logits(tensors: dict[str, Matrix], question: tuple[int, ...], window: Window, kinds: np.ndarray) -> Matrix:
    """By transformers' layers in float64: question and window apart through the lower ones, then joined."""
    config = BertConfig(
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_attention_heads=HEADS,
        num_hidden_layers=LAYERS,
        hidden_act="gelu_pytorch_tanh",
        layer_norm_eps=EPSILON,
        attn_implementation="eager",
    )
    encoder = BertEncoder(config).double().eval()
    given = {name: torch.from_numpy(value).double() for name, value in tensors.items()}
    encoder.load_state_dict(
        {name.removeprefix("encoder."): value for name, value in given.items() if name.startswith("encoder.layer.")}
    )

    def through(layers: object, x: torch.Tensor) -> torch.Tensor:
        for layer in layers:  # type: ignore[attr-defined]
            out = layer(x[None])
            x = (out[0] if isinstance(out, tuple) else out).reshape(x.shape)
        return x

    def embedded(ids: tuple[int, ...]) -> torch.Tensor:
        x = given["embeddings.word_embeddings.weight"][list(ids)]
        x = x + given["embeddings.position_embeddings.weight"][: len(ids)]
        x = x + given["embeddings.token_type_embeddings.weight"][0]
        gain, bias = given["embeddings.LayerNorm.weight"], given["embeddings.LayerNorm.bias"]
        return torch.nn.functional.layer_norm(x, (WIDTH,), gain, bias, EPSILON)

    with torch.no_grad():
        parts = [through(encoder.layer[:FIRST], embedded(ids)) for ids in (question, window.ids)]
        x = torch.cat(parts) + given["kinds"][torch.from_numpy(kinds)]
        x = through(encoder.layer[FIRST:], x)
        logits = (x @ given["head.weight"].T + given["head.bias"]).numpy()
    return np.concatenate([logits[:1], logits[len(question) + 1 : -1]])


def test_logits_are_those_of_transformers_layers(model: SpanModel, tensors: dict[str, Matrix]) -> None:
    question = model.vocabulary.question("Who founded the yard of Bergen?")
    texts = ["Anna Brandt founded it.", "The yard of Bergen burnt down, and nobody paid for it. " * 9, "Bergen."]
    windows = [window for text in texts for window in model.vocabulary.windows(text)]
    for window, logits in zip(windows, model.logits(question, windows), strict=True):
        wanted = expected_logits(tensors, question, window, model.vocabulary.kinds(question, window.ids))
        assert logits.shape == (1 + len(window.starts), 2)
        np.testing.assert_allclose(logits, wanted, atol=2e-4)


def test_a_window_is_read_alike_whatever_is_read_beside_it(model: SpanModel) -> None:
    texts = [f"In {year} the company sold {year % 7} ships to Norway. " * (1 + year % 4) for year in range(1950, 1990)]
    together = model.answers("When were ships sold?", texts, each=2)
    for text, answers in zip(texts, together, strict=True):
        (alone,) = model.answers("When were ships sold?", [text], each=2)
        assert [(one.start, one.end) for one in alone] == [(one.start, one.end) for one in answers]
        assert [one.margin for one in alone] == pytest.approx([one.margin for one in answers], abs=1e-3)


def test_texts_without_words_have_no_answers(model: SpanModel) -> None:
    assert model.answers("Who?", []) == []
    assert model.answers("Who?", ["", "  \n "]) == [[], []]
    assert all(model.answers("", ["Anna founded it."]))


@given(st.text(max_size=80), st.text(max_size=300))
def test_answers_are_spans_of_any_text(model: SpanModel, question: str, text: str) -> None:
    (answers,) = model.answers(question, [text], each=3)
    for answer in answers:
        assert 0 <= answer.start < answer.end <= len(text)
    assert not any(one.overlaps(other) for one in answers for other in answers if one is not other)
    assert answers == sorted(answers, key=lambda answer: -answer.margin)


# --- windows ---------------------------------------------------------------------------------------------------------


def test_windows_cover_a_long_text_and_overlap_by_half(vocabulary: Vocabulary) -> None:
    text = " ".join(f"Word{number} stands here." for number in range(300))
    windows = vocabulary.windows(text, tokens=100)
    assert all(len(window.ids) <= 102 for window in windows)
    assert (windows[0].starts[0], windows[-1].ends[-1]) == (0, len(text))
    for one, other in pairwise(windows):
        assert other.starts[0] == one.starts[50]
    assert len(vocabulary.windows("one word")) == 1


def test_tokens_stand_where_they_say(vocabulary: Vocabulary) -> None:
    text = "Größe: 1,5 m — naïve \ud800 \U0001f600 Ångström"
    (window,) = vocabulary.windows(text)
    words = [text[start:end] for start, end in zip(window.starts, window.ends, strict=True)]
    # The lone surrogate is no token, and moves no other.
    assert "".join(words) == "".join(text.replace("\ud800", "").split())


def test_of_a_long_question_the_end_is_read(vocabulary: Vocabulary) -> None:
    ids = vocabulary.question("Consider this. " * 60 + "Who pays?")
    assert len(ids) == MAX_QUESTION_TOKENS + 2
    assert ids[-4:-1] == vocabulary.question("Who pays?")[1:-1]


def test_words_of_the_question_are_marked_where_they_carry_meaning(vocabulary: Vocabulary) -> None:
    question = vocabulary.question("Who is the harbour master?")
    (window,) = vocabulary.windows("The harbour is deep.")
    kinds = vocabulary.kinds(question, window.ids).tolist()
    assert kinds == [ASKED] * len(question) + [ASKED, PASSAGE, SHARED, PASSAGE, PASSAGE, PASSAGE, ASKED]


# --- spans -----------------------------------------------------------------------------------------------------------


def window_of(text: str) -> Window:
    starts = [0, *(at + 1 for at, letter in enumerate(text) if letter == " ")]
    ends = [*(start - 1 for start in starts[1:]), len(text)]
    return Window(tuple(range(len(starts) + 2)), tuple(starts), tuple(ends))


def test_spans_come_best_first_and_do_not_overlap() -> None:
    text = "a b c d e f"
    logits = np.zeros((7, 2), dtype=np.float32)
    logits[0] = 1.5  # no answer: 3
    logits[2, 0] = logits[3, 1] = 5  # b c: 10
    logits[5, 0] = logits[6, 1] = 3  # e f: 6
    first, second, third = answers_of(logits, window_of(text), text, most=3)
    assert (text[first.start : first.end], first.margin) == ("b c", 7.0)
    assert (text[second.start : second.end], second.margin) == ("e f", 3.0)
    assert text[third.start : third.end] in {"a", "d"}


def test_an_answer_ends_where_it_begins_or_later_and_is_not_too_long() -> None:
    text = " ".join("x" for _ in range(80))
    logits = np.zeros((81, 2), dtype=np.float32)
    logits[60, 0] = logits[10, 1] = 9  # would end before it begins
    logits[70, 1] = 1
    (best,) = answers_of(logits, window_of(text), text, most=1)
    assert text[best.start : best.end].split() == ["x"] * 11
    logits[:] = 0
    logits[1, 0] = logits[LONGEST_TOKENS, 1] = 5
    logits[LONGEST_TOKENS + 1, 1] = 8
    (best,) = answers_of(logits, window_of(text), text, most=1)
    assert len(text[best.start : best.end].split()) <= LONGEST_TOKENS


@pytest.mark.parametrize(
    ("text", "inside", "whole"),
    [
        ("founded in Stavanger.", "avang", "Stavanger"),
        ("paid (in full) once", "(in full", "(in full)"),
        ("a b", "b", "b"),
    ],
)
def test_an_answer_is_whole_words(text: str, inside: str, whole: str) -> None:
    start, end = whole_words(text, text.index(inside), text.index(inside) + len(inside))
    assert text[start:end] == whole


# --- the file --------------------------------------------------------------------------------------------------------


def test_the_file_keeps_differences_closely(tmp_path: Path) -> None:
    packaged = random_tensors(20)
    random = np.random.default_rng(1)
    trained = {
        name: (value + random.standard_normal(value.shape) * 0.01).astype(np.float32)
        for name, value in packaged.items()
        if name.startswith("encoder.layer.2") or name in {"kinds", "head.weight", "head.bias"}
    }
    for name in ("kinds", "head.weight", "head.bias"):
        del packaged[name]
    recipe = Recipe(first=2, base=checksum(packaged), steps=7, trained_on="made-up numbers")
    write(tmp_path / "reader.safetensors", trained, packaged, recipe)
    loaded, kept = read(tmp_path / "reader.safetensors", packaged)
    assert kept == recipe
    assert loaded.keys() == trained.keys()
    for name, value in trained.items():
        np.testing.assert_allclose(loaded[name], value, atol=0.0003 if value.ndim == 2 else 0)
    matrices = sum(value.size for name, value in trained.items() if value.ndim == 2)
    assert (tmp_path / "reader.safetensors").stat().st_size < 2 * matrices + 20_000


@pytest.mark.parametrize("damage", ["missing", "cut", "other base", "no recipe"])
def test_a_file_that_cannot_be_used_says_so(tmp_path: Path, damage: str) -> None:
    packaged = random_tensors(20)
    path = tmp_path / "reader.safetensors"
    write(path, {"kinds": packaged.pop("kinds")}, packaged, Recipe(first=1, base=checksum(packaged)))
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:40])
    elif damage == "no recipe":
        save_file(load_file(path), path, metadata={"recipe": json.dumps({"other": 1})})
    else:
        packaged["encoder.layer.0.output.dense.weight"] += 1
    with pytest.raises(SpanReaderError) as failed:
        read(path, packaged)
    assert "\n" not in str(failed.value)
    assert str(path) in str(failed.value)
    assert "install" in str(failed.value)


def test_a_file_without_a_head_is_refused(tmp_path: Path) -> None:
    packaged = packaged_model()
    path = tmp_path / "reader.safetensors"
    write(
        path, {"kinds": np.zeros((3, 384), dtype=np.float32)}, packaged.tensors, Recipe(2, checksum(packaged.tensors))
    )
    with pytest.raises(SpanReaderError, match=r"head\.weight.*missing"):
        span_model.load_span_model(path)
    assert weights.PATH.parent.name == "span_reader"
