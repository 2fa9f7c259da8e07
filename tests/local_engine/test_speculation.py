from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcdoc.local_engine import speculation
from lcdoc.local_engine.sampling import Row, Sampling, sample
from lcdoc.local_engine.speculation import PromptLookup, accept

few_tokens = st.lists(st.integers(0, 3), max_size=60)


def earlier_copies(tokens: list[int], size: int) -> list[int]:
    """Places behind earlier copies of the last `size` tokens."""
    tail = tokens[len(tokens) - size :]
    return [end for end in range(size, len(tokens)) if tokens[end - size : end] == tail]


@given(few_tokens, st.integers(1, 12))
def test_drafts_continue_an_earlier_copy_of_the_tail(tokens: list[int], room: int) -> None:
    draft = PromptLookup(64).propose(tokens, room)
    copies = earlier_copies(tokens, 2) if len(tokens) > 2 else []
    assert bool(draft) == bool(copies)
    if draft:
        longer = earlier_copies(tokens, 4)
        assert any(tokens[end : end + len(draft)] == draft for end in longer or copies)
        assert len(draft) <= room


@given(few_tokens, st.lists(st.tuples(st.integers(0, 6), st.lists(st.integers(0, 3), max_size=8)), max_size=8))
def test_growing_and_cutting_back_are_like_starting_anew(tokens: list[int], edits: list[tuple[int, list[int]]]) -> None:
    lookup = PromptLookup(64)
    lookup.propose(tokens)
    for cut, new in edits:
        tokens = tokens[: max(0, len(tokens) - cut)]
        assert lookup.propose(tokens) == PromptLookup(64).propose(tokens)
        tokens = tokens + new
        assert lookup.propose(np.asarray(tokens, np.int32)) == PromptLookup(64).propose(tokens)


def test_of_a_long_text_only_the_end_is_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speculation, "_REACH", 8)
    far, near = [1, 2, 3, 4, 5], [6, 7, 8, 9]
    assert PromptLookup(16).propose([*far, *near, 0, 0, 1, 2]) == []
    lookup = PromptLookup(16)
    tokens = [*far, *near, 0, 0, 6, 7]
    assert lookup.propose(tokens)[:2] == [8, 9]
    assert lookup.propose([*tokens, 8]) == PromptLookup(16).propose([*near, 0, 0, 6, 7, 8])
    assert lookup.propose([*tokens[:-1], 0, 6, 7])[:2] == [8, 9]


def test_the_longest_agreement_wins_and_then_the_latest() -> None:
    assert PromptLookup(4).propose([9, 1, 2, 3, 7, 8, 1, 2, 3, 5, 9, 1, 2, 3]) == [7]
    assert PromptLookup(16).propose([1, 2, 3, 7, 8, 6, 4, 1, 2, 3, 5, 6, 7, 1, 2, 3])[:2] == [5, 6]
    assert PromptLookup(16).propose([5, 6, 7, 1, 2]) == []
    assert PromptLookup(16).propose([]) == []


def test_length_grows_with_success_and_falls_with_failure() -> None:
    document = list(range(1000, 1400))
    lookup = PromptLookup(16)
    lengths = []
    answer = document[:4]
    for _ in range(5):
        draft = lookup.propose([*document, 7, *answer])
        lengths.append(len(draft))
        assert draft == document[len(answer) : len(answer) + len(draft)]
        lookup.settle(len(draft), len(draft))
        answer += draft
    assert lengths == [4, 8, 16, 16, 16]
    lookup.settle(16, 2)
    assert len(lookup.propose([*document, 7, *answer])) == 3
    assert lookup.propose([*document, 7, *answer], 1) == [document[len(answer)]]
    assert lookup.propose([*document, 7, *answer], 0) == []


def test_useless_drafts_are_a_small_share_of_the_steps() -> None:
    chance = random.Random(1)
    tokens = [chance.randrange(6) for _ in range(300)]
    lookup = PromptLookup(16)
    drafted = 0
    for _ in range(1000):
        draft = lookup.propose(tokens)
        drafted += len(draft)
        lookup.settle(len(draft), 0)
        tokens.append(chance.randrange(6))
    assert 0 < drafted < 60


def test_drafting_comes_back_when_the_answer_begins_to_copy() -> None:
    document = list(range(1000, 1300))
    lookup = PromptLookup(16)
    for _ in range(3):
        lookup.settle(len(lookup.propose([*document, 1, *document[:9]])), 0)
    steps, place = 0, 4
    while place < 200:
        draft = lookup.propose([*document, 1, *document[:place]])
        lookup.settle(len(draft), accept(draft, document[place:]))
        place += len(draft) + 1
        steps += 1
    assert steps < 40


def test_accept_keeps_the_common_beginning() -> None:
    assert accept([1, 2, 3], [1, 2, 3, 4]) == 3
    assert accept([1, 2, 3], [1, 9, 3, 4]) == 1
    assert accept([1], [2, 5]) == 0
    assert accept([], [2]) == 0


def model(tokens: list[int]) -> torch.Tensor:
    """Logits [20] that depend on the last three tokens and like to repeat themselves."""
    noise = torch.Generator().manual_seed(hash(tuple(tokens[-3:])) % 2**32)
    return torch.randn(20, generator=noise) * 3


def generate(prompt: list[int], sampling: Sampling, count: int, lookup: PromptLookup | None) -> tuple[list[int], int]:
    """The answer and how many model passes it took."""
    answer: list[int] = []
    passes = 0
    while len(answer) < count:
        so_far = prompt + answer
        draft = lookup.propose(so_far, count - len(answer) - 1) if lookup else []
        logits = torch.stack([model(so_far + draft[:place]) for place in range(len(draft) + 1)])
        rows = [Row(sampling, so_far + draft[:place], len(answer) + place) for place in range(len(draft) + 1)]
        drawn = [each.token for each in sample(logits, rows)]
        kept = accept(draft, drawn)
        if lookup:
            lookup.settle(len(draft), kept)
        answer += drawn[: kept + 1]
        passes += 1
    return answer, passes


@given(st.lists(st.integers(0, 19), min_size=1, max_size=30), st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_speculation_changes_no_token(prompt: list[int], seed: int) -> None:
    for sampling in (
        Sampling(),
        Sampling(temperature=0.5, seed=seed),
        Sampling(temperature=0.8, top_p=0.9, repetition_penalty=1.1, frequency_penalty=0.2, seed=seed),
    ):
        alone, passes = generate(prompt, sampling, 40, None)
        drafted, fewer = generate(prompt, sampling, 40, PromptLookup(8))
        assert drafted == alone
        assert fewer <= passes


def test_speculation_saves_passes_where_the_answer_repeats_the_prompt() -> None:
    prompt = generate([1, 2, 3], Sampling(), 200, None)[0]
    answer, passes = generate(prompt, Sampling(), 100, PromptLookup(16))
    assert len(answer) == 100
    assert passes < 25
