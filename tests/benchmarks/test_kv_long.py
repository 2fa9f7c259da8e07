"""What long inputs are measured with: the texts that are made, what is foretold, and how figures become tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from lcdoc.benchmarks import kv_long_answers, kv_memory, kv_million, kv_positions
from lcdoc.benchmarks.probe_tasks import Sentences
from lcdoc.benchmarks.train_probe import encoded, trained_tokenizer
from lcdoc.tests.local_engine.checkpoints import save_checkpoint
from lcdoc.tests.local_engine.decoding import Bench, random_tokens

PROSE = " ".join(f"The door of house {number} was open, and nobody said why." for number in range(60))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("llama"), "llama", max_position_embeddings=64)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained_tokenizer([PROSE])


def test_facts_stand_in_the_middle_of_each_tenth(tokenizer: Tokenizer) -> None:
    text = kv_million.made_text(tokenizer, Sentences([PROSE]), 5_000)
    assert 5_000 <= len(text.tokens) < 5_040
    words = tokenizer.decode(text.tokens)
    for depth, question in enumerate(text.questions):
        told = encoded(tokenizer, f" {question.evidence[0]}")
        places = [at for at in text.starts if text.tokens[at : at + len(told)] == told]
        assert len(places) == 1
        assert places[0] == pytest.approx((depth + 0.5) * 500, abs=40)
        assert words.count(question.evidence[0]) == 1
        assert text.asked[depth][: len(text.task)] == text.task


def test_those_that_found_most_come_first() -> None:
    found = [
        kv_million.Found(name, 1000, 2.0, [n < right for n in range(10)], [], 64.0, 1.25, 100.0, 120.0)
        for name, right in (("few", 2), ("most", 7))
    ]
    lines = kv_million.table(found).splitlines()
    assert lines[2] == f"| `most` | 7 |{' x |' * 7}{'  |' * 3} 500 | 1.2 | 120 | 100 |"
    assert lines[3].startswith("| `few` | 2 |")


@pytest.mark.parametrize(
    ("name", "recipe"), [("original", None), ("window, compact", "window+positions=compact@32tok")]
)
def test_the_last_tokens_of_a_text_are_foretold(folder: Path, name: str, recipe: str | None) -> None:
    scheme = kv_positions.scheme_of(name, 64, 60)
    assert scheme.recipe == recipe
    tokens = random_tokens(31)
    ours = kv_positions.Reader(folder, 64).surprise(tokens, scheme, 20)
    chances = Bench(folder, dtype=torch.bfloat16).read(tokens).float().log_softmax(-1)
    expected = -sum(float(chances[at - 1, tokens[at]]) for at in range(11, 31)) / 20
    assert ours == pytest.approx(expected, abs=0.02)


def test_every_scheme_reads_a_text_of_many_windows(folder: Path) -> None:
    reader = kv_positions.Reader(folder, 256)
    tokens = random_tokens(256)
    found = {
        name: reader.surprise(tokens, kv_positions.scheme_of(name, 64, 256), 32) for name in kv_positions.scheme_names()
    }
    assert len(set(found.values())) > 8
    assert all(4 < value < 9 for value in found.values())


def test_the_end_of_a_text_is_the_same_at_every_depth() -> None:
    texts = kv_positions.texts_of(list(range(10, 100)), [1], longest=40, count=2)
    assert [text[:3] for text in texts] == [[1, 10, 11], [1, 55, 56]]
    assert kv_positions.behind(texts[0], 1, 8) == [1, 43, 44, 45, 46, 47, 48, 49]
    with pytest.raises(SystemExit, match="3 texts of 40 tokens"):
        kv_positions.texts_of(list(range(90)), [1], longest=40, count=3)


def test_bold_is_what_stays_fluent() -> None:
    found = {"original": {1: 10.0, 4: 900.0}, "window, compact": {1: 11.0, 4: 11.9}}
    assert kv_positions.table(found, [1, 4]).splitlines()[2:] == [
        "| original | **10.0** | 900.0 |",
        "| window, compact | **11.0** | **11.9** |",
    ]
    image = kv_positions.plot(found, [1, 4])
    assert image.count("<polyline") == 2
    assert ">500<" in image


def test_growth_is_against_the_shortest() -> None:
    cells = {
        length: {"peak_mb": peak, "base_mb": 900.0, "cache_mb": 20.0, "prefill_tps": 300.0}
        for length, peak in ((8192, 1000.0), (131008, 1050.0))
    }
    assert "| 131,008 | 1,050 | 1.050 | 900 | 20.0 | 300 |" in kv_memory.table(cells)


def test_a_long_answer_comes_back_to_every_fact_in_each_round(tokenizer: Tokenizer) -> None:
    ((text, parts),) = kv_long_answers.cases(tokenizer, Sentences([PROSE]), 1, 3)
    rounds = [[tuple(part.wanted) for part in parts if part.wanted and part.round == number] for number in range(3)]
    assert [len(wanted) for wanted in rounds] == [len(kv_long_answers.FACTS)] * 3
    assert rounds[0] != rounds[1]
    assert set(rounds[0]) == set(rounds[1]) == set(rounds[2])
    assert sum(len(part.given) + len(part.wanted) for part in parts) > 3 * len(text)


def test_a_fact_is_right_where_the_model_would_have_written_it(folder: Path) -> None:
    text, given = random_tokens(20), random_tokens(30)
    tokens, parts = list(text), []
    for start in (0, 15):
        tokens += given[start : start + 15]
        wanted: list[int] = []
        for _ in range(3):
            wanted.append(int(Bench(folder).read(tokens)[-1].argmax()))
            tokens.append(wanted[-1])
        parts.append(kv_long_answers.Part(given[start : start + 15], wanted, start and 1))
    writer = kv_long_answers.Writer(folder)
    assert writer.right(text, parts, kv_long_answers.FULL) == [(0, True), (1, True)]
    parts[1].wanted[1] += 1
    assert writer.right(text, parts, kv_long_answers.FULL) == [(0, True), (1, False)]
    # Cut as it grows: nothing is left of the text for what stands behind much else.
    long = [kv_long_answers.Part(random_tokens(200), parts[0].wanted, 0)]
    writer.right(text, long, "window+sinks=0@8tok")
    assert writer.cuts > 0
