"""What the probe of cache compression is asked, and that the network it is trained as is the one engines will run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from lcdoc.benchmarks.probe_network import ProbeNetwork
from lcdoc.benchmarks.probe_rows import WINDOW, Rows, encoded, trained_tokenizer
from lcdoc.benchmarks.probe_tasks import (
    ANSWER,
    ASK,
    BEGIN,
    KEYS,
    TASKS,
    VALUES,
    Question,
    Sentences,
    Tasks,
    natural_text,
)
from lcdoc.benchmarks.small_model_network import Shape
from lcdoc.benchmarks.train_probe import optimizers, shape_of, write

PROSE = [
    " ".join(
        f"The {noun} of house {number} was {state}, and nobody said why."
        for number in range(150)
        for noun, state in (("door", "open"), ("roof", "gone"), ("clock", "silent"))
    )
]


@pytest.fixture(scope="module")
def sentences() -> Sentences:
    return Sentences(PROSE)


def test_every_answer_stands_in_the_context(sentences: Sentences) -> None:
    tasks = Tasks(1, sentences)
    for _ in range(30):
        case = tasks.case(150, [*TASKS, "needle", "trace"])
        assert [one.task for one in case.questions].count("needle") == 2
        for question in case.questions:
            assert all(sentence in case.context for sentence in question.evidence)
            evidence = " ".join(question.evidence)
            if question.task == "count":
                seen = Counter(one for one in case.context if one.startswith(f"Seen {question.key} "))
                (most, times), (_, next_times) = seen.most_common(2)
                assert most == f"Seen{question.answer}."
                assert times >= 2 * next_times
            elif question.task == "copy":
                assert f"Passage{question.answer}" in case.text
            else:
                assert all(word in evidence for word in question.answer.split())


def test_a_trace_leads_from_key_to_key_to_a_needle(sentences: Sentences) -> None:
    case = Tasks(2, sentences).case(100, ["trace"] * 4)
    for question in case.questions:
        told = {one.split()[1]: one.removesuffix(".").split()[2:] for one in question.evidence}
        walked = [question.key]
        while walked[-1] in told:
            walked += told[walked[-1]]
        assert " ".join(walked) == question.answer.strip()


def test_a_key_is_in_the_facts_of_one_question_only(sentences: Sentences) -> None:
    case = Tasks(3, sentences).case(200, ["needle", "values", "trace", "count", "copy"] * 2)
    for question in case.questions:
        others = [one for other in case.questions if other is not question for one in other.evidence]
        assert not any(question.key in sentence.rstrip(".").split() for sentence in others)
        natural = [one for one in case.context if not any(one in each.evidence for each in case.questions)]
        assert not any(question.key in sentence for sentence in natural)


def test_values_may_come_in_either_order_and_other_answers_may_not() -> None:
    both = Question("values", "leek", "", " leek opal teal wren leek onyx lute cello", ())
    assert both.right(" leek onyx lute cello leek opal teal wren")
    assert not both.right(" leek opal teal wren leek opal teal wren")
    assert not both.right(" leek opal teal wren")
    way = Question("trace", "leek", "", " leek cumin opal teal wren", ())
    assert way.right("leek cumin opal teal wren")
    assert not way.right(" cumin leek opal teal wren")


def test_values_are_said_in_the_order_of_the_text(sentences: Sentences) -> None:
    case = Tasks(8, sentences).case(200, ["values"] * 8)
    for question in case.questions:
        told = [one for one in case.context if one.startswith(f"Remember {question.key} ")]
        assert " ".join(told) == "".join(f" Remember{one}." for one in _halves(question.answer)).strip()


def _halves(answer: str) -> list[str]:
    words = answer.split()
    return ["".join(f" {word}" for word in half) for half in (words[:4], words[4:])]


def test_of_a_book_only_the_book_is_read(tmp_path: Path) -> None:
    covers = (
        "Use it as you like.\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n",
        "\n*** END OF THIS PROJECT GUTENBERG EBOOK X ***\nUse it.",
    )
    (tmp_path / "a.txt").write_text("It was late.".join(covers), encoding="utf-8")
    (tmp_path / "b.txt").write_text("They came back.", encoding="utf-8")
    assert [one.strip() for one in natural_text(tmp_path)] == ["It was late.", "They came back."]


def test_questions_stand_before_the_context_or_after_it(sentences: Sentences) -> None:
    case = Tasks(4, sentences).case(50, ["needle"])
    (question,) = case.questions
    assert case.prompt(question) == f"{BEGIN}{case.text}{ASK}{question.ask}{ANSWER}"
    assert case.prompt(question, before=True) == f"{BEGIN}{ASK}{question.ask}{case.text}{ANSWER}"


def test_the_same_seed_gives_the_same_cases_and_another_one_others(sentences: Sentences) -> None:
    one, same, other = (Tasks(seed, sentences).case(100, TASKS) for seed in (5, 5, 6))
    assert one == same
    assert one != other


def test_text_for_testing_is_not_trained_on() -> None:
    numbered = [f"{index}: {one}" for index, one in enumerate(PROSE[0].split(". ") * 8)]
    trained, tested = Sentences([". ".join(numbered)]), Sentences([". ".join(numbered)], testing=True)
    assert trained.all
    assert tested.all
    assert not set(trained.all) & set(tested.all)


def test_more_facts_than_keys_are_refused(sentences: Sentences) -> None:
    with pytest.raises(ValueError, match="60 facts are more than 48 keys"):
        Tasks(7, sentences).case(10, ["needle"] * 60)
    with pytest.raises(ValueError, match="no sentence of 6 to 14 words"):
        Sentences(["Too short."])


def test_rows_count_answers_and_text_and_repeat(sentences: Sentences) -> None:
    tokenizer = trained_tokenizer(sentences.all[:50])
    for word in (*KEYS, *VALUES):
        assert len(encoded(tokenizer, f" {word}")) == 1
    rows = Rows(tokenizer, sentences, seed=0, longest=300)
    widths = []
    for step in (0, 500, 1_000):
        tokens, counts, positions = rows.batch(step)
        again = rows.batch(step)
        assert all(one.equal(other) for one, other in zip((tokens, counts, positions), again, strict=True))
        assert tokens.shape == counts.shape
        assert (positions.diff() >= 1).all()
        assert positions.max() < WINDOW
        first = tokens[0][counts[0] > 0]
        said = tokenizer.decode(first.tolist(), skip_special_tokens=False).split("<|end|>")
        assert all(answer.split()[0] in KEYS for answer in said[:-1])
        widths.append(tokens.shape[1])
    assert widths[0] < widths[1] < widths[2]


def test_short_answers_are_not_drowned_by_long_ones(sentences: Sentences) -> None:
    tokenizer = trained_tokenizer(sentences.all[:50])
    _, counts, _ = Rows(tokenizer, sentences, seed=0, longest=300).batch(600)
    assert len(Counter(counts[counts > 0].tolist())) > 2
    assert counts[counts > 0].max() > 2 * counts[counts > 0].min()


def test_copying_is_learnt_in_a_few_steps() -> None:
    """Rows said twice: what followed a token the first time follows it the second time."""
    torch.manual_seed(0)
    network = ProbeNetwork(Shape(40, hidden=64, feed_forward=64, layers=3, heads=2, kv_heads=2, rope_theta=1e7))
    optims = optimizers(network)
    for _ in range(16):
        rows = torch.stack([torch.randperm(40)[:12] for _ in range(16)])
        logits = network.logits(network(torch.cat([rows, rows], 1), torch.arange(24)))[:, 12:-1]
        loss = cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        for optim in optims:
            optim.step()
            optim.zero_grad()
    assert (logits.argmax(-1) == rows[:, 1:]).float().mean() > 0.8


def test_transformers_computes_what_was_trained(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(1)
    tokenizer = trained_tokenizer(PROSE)
    size = tokenizer.get_vocab_size()
    shape = Shape(size, hidden=48, feed_forward=64, layers=3, heads=4, kv_heads=2, head_dim=16, rope_theta=1e6)
    network = ProbeNetwork(shape)
    for one in network.parameters():
        one.data = one.data.bfloat16().float()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path, network, tokenizer)
    tokens, positions = torch.randint(0, size, (2, 30)), torch.arange(30)
    positions[17:] += 100
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.no_grad():
        ours = network.logits(network(tokens, positions))
        theirs = model(input_ids=tokens, position_ids=positions.expand(2, -1)).logits
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    text = f"{BEGIN} Remember walnut amber falcon river.{ASK} Count leek{ANSWER}"
    ids = AutoTokenizer.from_pretrained(tmp_path).encode(text, add_special_tokens=False)
    assert ids == encoded(tokenizer, text)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "llama"


def test_attention_written_out_is_the_fused_one() -> None:
    torch.manual_seed(2)
    network = ProbeNetwork(shape_of(64))
    tokens, positions = torch.randint(0, 64, (2, 70)), torch.arange(70)
    with torch.no_grad():
        fused = network(tokens, positions)
        with torch.autocast("cpu", torch.bfloat16):
            written = network(tokens, positions)
    assert torch.nn.functional.cosine_similarity(fused, written.float(), dim=-1).min() > 0.99
