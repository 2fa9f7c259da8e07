"""The span reader's training: its examples, its network beside the package's, going on where it stopped."""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lcdoc.agents.span_reader.model import SpanModel
from lcdoc.agents.span_reader.windows import Vocabulary
from lcdoc.benchmarks import span_batches, span_clozes, train_reader
from lcdoc.benchmarks.span_batches import BATCH_TOKENS, Example, Texts, epoch_of, examples_of, stacked, token_span
from lcdoc.benchmarks.span_examples import Reading
from lcdoc.benchmarks.span_network import SpanNetwork, best_spans, loss
from lcdoc.benchmarks.train_reader import Run, average, look, optimizer_of, train
from lcdoc.evaluation.parts import part_of
from lcdoc.retrieval.bert import Encoder, Matrix, encoder_from
from lcdoc.retrieval.minilm import packaged_model

WIDTH, HEADS, FIRST = 48, 4, 1
TOWNS = ("Bergen", "Stavanger", "Oslo", "Hull", "Kiel", "Riga")


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.of(packaged_model().tokenizer())


@pytest.fixture(scope="module")
def tensors(vocabulary: Vocabulary) -> dict[str, Matrix]:
    """Random weights of a BERT of two layers."""
    numbers = np.random.default_rng(2)

    def normal(*shape: int) -> Matrix:
        return (numbers.standard_normal(shape) * 0.2).astype(np.float32)

    made = {
        "embeddings.word_embeddings.weight": normal(vocabulary.tokenizer.get_vocab_size(), WIDTH),
        "embeddings.position_embeddings.weight": normal(300, WIDTH),
        "embeddings.token_type_embeddings.weight": normal(2, WIDTH),
    }
    norms = [f"encoder.layer.{n}.{part}" for n in (0, 1) for part in ("attention.output", "output")]
    for name in ("embeddings", *norms):
        made[f"{name}.LayerNorm.weight"], made[f"{name}.LayerNorm.bias"] = 1 + normal(WIDTH), normal(WIDTH)
    for n in (0, 1):
        for name, rows, columns in (
            ("attention.self.query", WIDTH, WIDTH),
            ("attention.self.key", WIDTH, WIDTH),
            ("attention.self.value", WIDTH, WIDTH),
            ("attention.output.dense", WIDTH, WIDTH),
            ("intermediate.dense", 2 * WIDTH, WIDTH),
            ("output.dense", WIDTH, 2 * WIDTH),
        ):
            made[f"encoder.layer.{n}.{name}.weight"], made[f"encoder.layer.{n}.{name}.bias"] = (
                normal(rows, columns),
                normal(rows),
            )
    return made


@pytest.fixture
def texts(vocabulary: Vocabulary, tensors: dict[str, Matrix]) -> Texts:
    whole = encoder_from(tensors, heads=HEADS, epsilon=1e-12)
    return Texts(vocabulary, Encoder(whole.words, whole.positions, whole.embedding_norm, whole.layers[:FIRST], HEADS))


def network_of(tensors: dict[str, Matrix]) -> SpanNetwork:
    torch.manual_seed(1)
    network = SpanNetwork(tensors, first=FIRST, heads=HEADS, epsilon=1e-12)
    torch.nn.init.normal_(network.kinds, std=0.1)
    return network


def readings_of(part: str, count: int) -> list[Reading]:
    """Answerable questions and others, about documents of this part."""
    names = [name for number in range(400) if part_of("squad", name := f"Town {number}") == part][:count]
    rng = random.Random(3)
    made = []
    for name in names:
        town, year = rng.choice(TOWNS), str(rng.randint(1900, 1999))
        text = f"The yard was sold in {year} to a firm of {town}."
        others = (f"Rain fell on {name} when the yard was closed.", f"A yard of {name} is a garden.")
        made += [
            Reading(
                "squad",
                name,
                "When was the yard sold?",
                (text, *others),
                0,
                ((0, text.index(year), text.index(year) + 4),),
                (year,),
            ),
            Reading("squad", name, "Why did the captain weep?", (text, *others), 0, (), ()),
        ]
    return made


def test_tokens_of_a_span_are_those_it_touches(vocabulary: Vocabulary) -> None:
    text = "Anna-Karin Østergaard paid 1,200 crowns."
    (window,) = vocabulary.windows(text)
    for answer in ("Anna-Karin Østergaard", "1,200", "crowns", "paid"):
        start = text.index(answer)
        span = token_span(window, start, start + len(answer))
        assert span is not None
        assert text[window.starts[span[0] - 1] : window.ends[span[1] - 1]] == answer
    assert token_span(window, 0, len(text) + 5) is None


def test_examples_have_the_answer_and_negatives_do_not(texts: Texts) -> None:
    asked = readings_of("train", 6)
    examples, negatives = examples_of(texts, asked, "train")
    assert len(examples) == 12
    assert sum(bool(example.places) for example in examples) == len(negatives) == 6
    for example in examples:
        window, passage = texts.windows[example.window]
        for first, last, share in example.places:
            assert passage[window.starts[first - 1] : window.ends[last - 1]] in example.golds
            assert share == 1
    for some in negatives:
        assert all(not one.places and "sold" not in texts.windows[one.window][1] for one in some)
    assert examples_of(texts, asked, "test") == ([], [])


def test_an_epoch_has_every_example_once_and_is_the_same_again(texts: Texts) -> None:
    examples, negatives = examples_of(texts, readings_of("train", 120), "train")
    batches = epoch_of(examples, negatives, texts, 0, 3)
    assert batches == epoch_of(examples, negatives, texts, 0, 3)
    assert batches != epoch_of(examples, negatives, texts, 0, 4)
    assert len(batches) > 1
    seen = [example for batch in batches for example in batch]
    assert all(seen.count(example) >= 1 for example in examples)
    for batch in batches:
        assert stacked(texts, batch)[2].numel() <= BATCH_TOKENS


def test_the_package_reads_as_the_network_does(texts: Texts, tensors: dict[str, Matrix]) -> None:
    network = network_of(tensors).eval()
    examples, negatives = examples_of(texts, readings_of("train", 3), "train")
    batch = [*examples, *(one for some in negatives for one in some)]
    states, kinds, mask, _ = stacked(texts, batch)
    with torch.inference_mode():
        logits = network(states, kinds, mask)
    trained = {name: weight.numpy() for name, weight in network.tensors().items()}
    packaged = SpanModel(
        encoder_from({**tensors, **trained}, heads=HEADS, epsilon=1e-12), FIRST, trained, texts.vocabulary
    )
    for row, (example, best) in enumerate(zip(batch, best_spans(logits), strict=True)):
        question = texts.ids[example.question]
        window, passage = texts.windows[example.window]
        (own,) = packaged.logits(question, [window])
        wanted = logits[row, [0, *range(len(question) + 1, len(question) + len(window.ids) - 1)]]
        np.testing.assert_allclose(own, wanted.numpy(), atol=2e-2)  # states are kept as float16, GELU is by tanh
        text = train_reader.answer_text(texts, example, best)
        (found,) = packaged.answers(texts.vocabulary.tokenizer.decode(list(question)[1:-1]), [passage])[0]
        assert found.margin == pytest.approx(best[1] - best[0], abs=5e-2)
        assert text in passage[found.start : found.end]


def test_loss_is_least_where_the_annotators_are() -> None:
    targets = torch.zeros(1, 4, 2)
    targets[0, 1, 0], targets[0, 2, 0], targets[0, 3, 1] = 0.75, 0.25, 1.0
    right = torch.where(targets > 0, targets.log(), torch.tensor(-1e4))
    assert loss(right, targets) < loss(torch.zeros(1, 4, 2), targets)
    assert loss(right, targets) < loss(right.roll(1, 1), targets)


def test_the_rate_rises_stays_and_falls(tmp_path: Path, tensors: dict[str, Matrix]) -> None:
    network = network_of(tensors)
    run = Run(tmp_path, network, optimizer_of(network), 1_000, clozes=400)
    shares = []
    for run.step in range(1_000):
        shares.append(run.rate())
    start = run.cooldown_start(1_000)
    assert start == 790
    assert shares[0] < shares[50] < shares[150] == 1 == shares[start - 1]
    assert shares[-1] < 0.01
    assert shares[start:] == sorted(shares[start:], reverse=True)


@pytest.mark.parametrize(("later", "clozes"), [(12, 0), (20, 0), (12, 5), (20, 5)])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(  # noqa: PLR0917
    tmp_path: Path, texts: Texts, tensors: dict[str, Matrix], monkeypatch: pytest.MonkeyPatch, later: int, clozes: int
) -> None:
    """Interrupted, or finished and then wanted longer: then from the state before the rate fell."""

    def made(_: Texts, seed: int) -> list[Example]:
        return [replace(one, dataset="cloze") for one in examples_of(texts, readings_of("train", 4 + seed), "train")[0]]

    monkeypatch.setattr(train_reader, "examples_of_clozes", made)
    monkeypatch.setattr(train_reader, "SAVED_EVERY", 4)
    monkeypatch.setattr(span_batches, "BATCH_TOKENS", 256)
    monkeypatch.setattr(train_reader, "export", lambda run: None)
    asked = [*readings_of("train", 6), *readings_of("tune", 2)]
    arguments = argparse.Namespace(seed=0, dropout=0.1, bfloat16=False)

    def run(folder: Path, steps: int) -> SpanNetwork:
        folder.mkdir(exist_ok=True)
        network = network_of(tensors)
        one = Run(folder, network, optimizer_of(network), steps, clozes)
        one.load()
        train(one, texts, asked, arguments)
        return network

    whole = run(tmp_path / "whole", later)
    first = tmp_path / "parts"
    run(first, 12)
    if later == 12:
        (first / "last.pt").unlink()
    parts = run(first, later)
    for name, weight in whole.tensors().items():
        torch.testing.assert_close(parts.tensors()[name], weight, msg=name)
    assert (tmp_path / "whole/clozes.pt").exists() == bool(clozes)


def test_the_mean_of_runs_is_the_mean_of_their_weights(
    tmp_path: Path, tensors: dict[str, Matrix], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_reader, "export", lambda run: None)
    wanted = 0.0
    for number in (1, 3):
        (tmp_path / str(number)).mkdir()
        network = network_of(tensors)
        with torch.no_grad():
            network.kinds.fill_(number)
        run = Run(tmp_path / str(number), network, optimizer_of(network), 9, 0, number)
        run.save("last.pt")
        wanted += number / 2
    average(run, [tmp_path / "1", tmp_path / "3"])
    torch.testing.assert_close(run.network.kinds.detach(), torch.full((3, WIDTH), wanted))
    assert run.step == 3


PASSAGE = (
    "In May 1903 the harbour of Ullavik was closed by Captain Thora Lind, since ice had reached the mole. "
    "The mole of Ullavik was built by the town in eleven years, and it cost 40,000 crowns in silver. "
    "Later in May 1903 the fishermen sawed a channel through the ice, three miles long, to the open sea."
)


def test_clozes_ask_for_what_their_passage_says_or_leaves_out() -> None:
    rng = random.Random(0)
    made = [one for _ in range(200) for one in span_clozes.clozes_of(PASSAGE, ["Hedda Berg", "1777", "Kvernes"], rng)]
    answered = [one for one in made if one.places]
    assert 0.6 < len(answered) / len(made) < 0.95
    for one in answered:
        answers = {one.passage[start:end] for start, end in one.places}
        assert len(answers) == 1
        assert "\n" not in one.question
        assert one.question.endswith("?")
    # Of what recurs, a passage without the sentence is asked; where nothing recurs, the passage as it is.
    assert any(one.passage != PASSAGE and "1903" in one.passage[slice(*one.places[0])] for one in answered)
    assert any(one.passage == PASSAGE for one in answered)
    unanswered = [one for one in made if not one.places]
    assert any(name in one.question for one in unanswered for name in ("Hedda Berg", "1777", "Kvernes"))
    assert any(one.passage != PASSAGE for one in unanswered)


def test_what_can_be_asked_for_is_told_by_kind() -> None:
    sentence = "The mole of Ullavik was built by Thora Lind in May 1903 for 40,000 crowns."
    found = {kind: [sentence[a:b] for a, b in spans] for kind, spans in span_clozes.answers_in(sentence).items()}
    assert found["date"] == ["May 1903"]
    assert found["number"] == ["40,000"]
    assert found["name"] == ["Ullavik", "Thora Lind"]
    assert "mole" in found["words"]
    assert found["clause"] == ["by Thora Lind in May 1903 for 40"]


def test_a_book_is_cut_into_passages_without_what_the_publisher_adds(tmp_path: Path) -> None:
    paragraphs = "\n\n".join(f"Line {number} of the story. " + "It snowed on the fell. " * 12 for number in range(9))
    path = tmp_path / "11.txt"
    path.write_text(f"Title\n*** START OF THE BOOK ***\n{paragraphs}\n*** END OF THE BOOK ***\nLicence", "utf-8")
    passages = span_clozes.book_passages(path)
    assert passages
    assert "Line 0" in passages[0]
    assert not any(word in passage for passage in passages for word in ("Title", "START", "Licence"))
    assert all(140 <= len(passage.split()) <= 280 for passage in passages)


def test_training_learns(
    tmp_path: Path, texts: Texts, tensors: dict[str, Matrix], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_batches, "BATCH_TOKENS", 512)
    monkeypatch.setattr(train_reader, "RATE", 3e-3)
    monkeypatch.setattr(train_reader, "WARMUP_STEPS", 5)
    network = network_of(tensors)
    held_out, _ = examples_of(texts, readings_of("tune", 8), "tune")
    before = look(network, texts, held_out, torch.float32)
    asked = [*readings_of("train", 60), *readings_of("tune", 4)]
    monkeypatch.setattr(train_reader, "export", lambda run: None)
    train(
        Run(tmp_path, network, optimizer_of(network), 60, clozes=0),
        texts,
        asked,
        argparse.Namespace(seed=0, dropout=0.0, bfloat16=False),
    )
    after = look(network, texts, held_out, torch.float32)
    assert after["f1 squad"] > 90 > before["f1 squad"]
    assert after["auc"] > 90
    assert (tmp_path / "curve.jsonl").read_text().count("\n") == 1
