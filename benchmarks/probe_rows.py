"""The rows the probe is trained on: contexts with their questions and answers, as tokens that count for something.

Short rows that are full of answers come first, so that copying is learnt soon; lengths grow from there. Gaps in the
positions make rows look longer than they are.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from lcdoc.benchmarks.probe_tasks import (
    ANSWER,
    ASK,
    BEGIN,
    END,
    KEYS,
    TASKS,
    VALUES,
    Case,
    Question,
    Sentences,
    Task,
    Tasks,
)

VOCABULARY = 2_048
"""Of the byte-level BPE; keys and values come beside it."""
WINDOW = 4_096
BATCH_TOKENS = 4_096
SHORT_ANSWERS = 0.75
"""By which power of its length a token of a short answer counts more than one of a long one: the word seen most often
is one token, and would hardly be learnt beside passages of twenty."""
DRILL, GROWN = 100, 1_000
"""Until the first of these steps rows are facts with hardly any text; from there they grow until the second."""
DRILL_WORDS, FIRST_WORDS = 30, 60
WEIGHTS: dict[Task, float] = {"needle": 0.1, "values": 0.25, "trace": 0.15, "count": 0.2, "copy": 0.3}
"""How often each is asked in training: the harder ones more."""
BEFORE = 0.3
"""Share of the rows whose first question stands before the context."""
GAPS = 0.5
"""Share of the batches with gaps in their positions."""
WORDS_PER_TOKEN = 0.58


def trained_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """A byte-level BPE of the text; digits, keys and values are tokens of their own."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True) for token in (END, BEGIN, ASK, ANSWER)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    forms = " Remember Remember both Follow Count Seen Passage Copy"
    tokenizer.train_from_iterator([*texts, *[forms] * 2_000], trainer)
    tokenizer.add_tokens([AddedToken(f" {word}", normalized=False) for word in (*KEYS, *VALUES)])
    return tokenizer


def encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


Piece = tuple[list[int], float]
"""Tokens, and what each of them counts for: see `Rows.batch`."""


class Rows:
    """Batches of rows, the same for the same step."""

    def __init__(self, tokenizer: Tokenizer, sentences: Sentences, *, seed: int, longest: int) -> None:
        self._tokenizer = tokenizer
        self._sentences = sentences
        self._seed, self._longest = seed, longest

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [B, T], what each counts for [B, T], and positions [T].

        What counts below zero is text; what counts nothing is not to be learnt.
        """
        rng = random.Random(f"{self._seed} {step}")
        tasks = Tasks(f"{self._seed} {step}", self._sentences)
        if step < DRILL:
            words = rng.randint(0, DRILL_WORDS)
        else:
            # Lengths grow by the same factor in every step; most rows are shorter than the longest.
            grown = min(1.0, (step - DRILL) / (GROWN - DRILL))
            most = FIRST_WORDS * (self._longest * WORDS_PER_TOKEN / FIRST_WORDS) ** grown
            words = round(math.exp(rng.uniform(math.log(20), math.log(most)) * 0.5 + math.log(most) * 0.5))
        facts = rng.randint(4, 8) if words < 100 else rng.randint(6, 12)
        rows: list[list[Piece]] = []
        width = 0
        while not rows or width * (len(rows) + 1) <= BATCH_TOKENS:
            asked: list[Task] = rng.choices(TASKS, list(WEIGHTS.values()), k=facts)
            row = self._row(tasks.case(words, asked), before=rng.random() < BEFORE)
            width = max(width, sum(len(part) for part, _ in row))
            rows.append(row)
        tokens, counts = _stacked(rows)
        return tokens, counts, self._positions(rng, tokens.shape[1], gaps=step > DRILL and rng.random() < GAPS)

    def _row(self, case: Case, *, before: bool) -> list[Piece]:
        text = encoded(self._tokenizer, case.text)
        first, *others = case.questions
        if before:
            head = encoded(self._tokenizer, f"{BEGIN}{ASK}{first.ask}")
            row = [(head, 0.0), (text, -1.0), (encoded(self._tokenizer, ANSWER), 0.0), self._answer(first)]
        else:
            row = [(encoded(self._tokenizer, BEGIN), 0.0), (text, -1.0)]
            others = list(case.questions)
        for question in others:
            row += [(encoded(self._tokenizer, question.text), 0.0), self._answer(question)]
        return row

    def _answer(self, question: Question) -> Piece:
        tokens = encoded(self._tokenizer, f"{question.answer}{END}")
        return tokens, float(len(tokens) ** -SHORT_ANSWERS)

    @staticmethod
    def _positions(rng: random.Random, width: int, *, gaps: bool) -> Tensor:
        positions = torch.arange(width)
        if gaps:
            free = WINDOW - width
            for _ in range(rng.randint(1, 3)):
                jump = round(math.exp(rng.uniform(math.log(8), math.log(max(9, free // 3)))))
                positions[rng.randrange(1, width) :] += jump
        return positions


def _stacked(rows: list[list[Piece]]) -> tuple[Tensor, Tensor]:
    width = max(sum(len(part) for part, _ in row) for row in rows)
    tokens, counts = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width)
    for index, row in enumerate(rows):
        start = 0
        for part, count in row:
            tokens[index, start : start + len(part)] = torch.tensor(part, dtype=torch.long)
            counts[index, start : start + len(part)] = count
            start += len(part)
    return tokens, counts
