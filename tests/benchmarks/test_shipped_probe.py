"""The trained probe in `benchmarks/data` finds, follows and counts facts through lcdoc's own engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tokenizers import Tokenizer

from lcdoc.benchmarks.probe_network import ProbeNetwork
from lcdoc.benchmarks.probe_tasks import END, Case, Question, Sentences, Task
from lcdoc.benchmarks.train_probe import encoded, held_out, shape_of, solved
from lcdoc.local_engine import Engine, Sampling

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "benchmarks" / "data" / "probe"
SOLVED: tuple[Task, ...] = ("needle", "values", "trace", "count")
"""Passages it copies word for word less often: see the model's README.md."""


def asked(task: Task, count: int) -> list[tuple[Case, Question]]:
    """About contexts of some 256 tokens, of text it was not trained on."""
    sentences = Sentences([(ROOT / "examples" / "handbook.txt").read_text(encoding="utf-8")])
    return held_out(sentences, task, 256, count, seed=1)


@pytest.fixture(scope="module")
def given() -> dict[Task, list[tuple[Question, str]]]:
    """What the engine answered to two questions of each task, all read together."""
    engine = Engine.load(MODEL, dtype="float32", speculate=False)
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    questions = [(task, case, question) for task in SOLVED for case, question in asked(task, 2)]

    async def answers() -> list[str]:
        greedy = Sampling(max_tokens=64, temperature=0)
        prompts = [encoded(tokenizer, case.prompt(question)) for _, case, question in questions]
        return [one.text for one in await asyncio.gather(*(engine.complete(prompt, greedy) for prompt in prompts))]

    found: dict[Task, list[tuple[Question, str]]] = {task: [] for task in SOLVED}
    for (task, _, question), text in zip(questions, asyncio.run(answers()), strict=True):
        found[task].append((question, text.removesuffix(END)))
    return found


@pytest.mark.parametrize("task", SOLVED)
def test_it_answers(task: Task, given: dict[Task, list[tuple[Question, str]]]) -> None:
    for question, text in given[task]:
        assert question.right(text)


def test_the_quick_check_says_what_the_engine_says() -> None:
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    network = ProbeNetwork(shape_of(tokenizer.get_vocab_size()))
    network.load_state_dict({name: weight.float() for name, weight in load_file(MODEL / "model.safetensors").items()})
    (case, question), (other, _) = asked("values", 2)
    assert solved(network, tokenizer, case.prompt(question), question)
    said = question.answers()[1]
    assert solved(network, tokenizer, case.prompt(question), replace(question, answer=said))
    assert not solved(network, tokenizer, other.prompt(question), question)


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 6_000_000
