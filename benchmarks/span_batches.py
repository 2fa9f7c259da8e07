"""What the span reader is trained on: a question and a window of a passage, with its answer's tokens, in batches."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lcdoc.agents.span_reader.windows import Vocabulary, Window
from lcdoc.benchmarks.span_examples import Reading
from lcdoc.evaluation.parts import Part
from lcdoc.retrieval import bert
from lcdoc.retrieval.bert import Encoder, equal_runs

BATCH_TOKENS = 4_096
NEGATIVES = 0.3
"""Share of the answerable questions that are also asked, each epoch, of a passage that does not answer them."""
NEGATIVE_CHOICE = 4
"""How many of the passages most like the question the unanswering one is drawn from."""


KEPT_STATES = 30_000
"""Texts whose states are held while clozes are read: some 3 GB."""


@dataclass(frozen=True, slots=True)
class Example:
    """A question and a window of a passage, by number, with the share of annotators for each first and last token.

    Token 0 is the window's [CLS]. Without places, the window does not answer.
    """

    question: int
    window: int
    places: tuple[tuple[int, int, float], ...]
    golds: tuple[str, ...]
    dataset: str


class Texts:
    """Questions and windows as token ids, each text once, and their states after the lower layers, made when needed."""

    def __init__(self, vocabulary: Vocabulary, lower: Encoder) -> None:
        self.vocabulary = vocabulary
        self._lower = lower
        self.ids: list[tuple[int, ...]] = []
        self.windows: dict[int, tuple[Window, str]] = {}
        """Of those texts that are windows: the window and the passage it is of."""
        self._questions: dict[str, int] = {}
        self._passages: dict[str, list[int]] = {}
        self._states: dict[int, np.ndarray] = {}

    def question(self, text: str) -> int:
        if text not in self._questions:
            self._questions[text] = self._add(self.vocabulary.question(text))
        return self._questions[text]

    def windows_of(self, passage: str) -> list[int]:
        if passage not in self._passages:
            windows = self.vocabulary.windows(passage)
            self._passages[passage] = [self._add(window.ids) for window in windows]
            self.windows.update(zip(self._passages[passage], ((window, passage) for window in windows), strict=True))
        return self._passages[passage]

    def states(self, numbers: Sequence[int]) -> list[np.ndarray]:
        """(tokens, width) float16 for each text."""
        missing = sorted({number for number in numbers if number not in self._states}, key=lambda n: len(self.ids[n]))
        if missing:
            texts = [self.ids[number] for number in missing]
            lengths = [len(text) for text in texts]
            runs = equal_runs(lengths)
            x = self._lower.embedded(texts)
            for layer in self._lower.layers:
                x = bert.feed_forward(
                    layer, bert.attention_output(layer, bert.attention(layer, x, runs, self._lower.heads), x)
                )
            parts = np.split(x.astype(np.float16), np.cumsum(lengths)[:-1])
            self._states.update(zip(missing, parts, strict=True))
        return [self._states[number] for number in numbers]

    def forget(self) -> None:
        """Let the states go where there are many: most texts of clozes are read once."""
        if len(self._states) > KEPT_STATES:
            self._states.clear()

    def _add(self, ids: tuple[int, ...]) -> int:
        self.ids.append(ids)
        return len(self.ids) - 1


def example_of(texts: Texts, reading: Reading, passage: int, places: Sequence[tuple[int, int]]) -> Example | None:
    """The question asked of a passage: of its window with most answers. None where no window holds a whole answer."""
    question = texts.question(reading.question)
    best: tuple[int, Counter[tuple[int, int]]] | None = None
    for number in texts.windows_of(reading.passages[passage]):
        window, _ = texts.windows[number]
        found = Counter(place for span in places if (place := token_span(window, *span)) is not None)
        if best is None or found.total() > best[1].total():
            best = number, found
    if best is None or (places and not best[1]):
        return None
    shares = tuple((first, last, count / best[1].total()) for (first, last), count in best[1].items())
    return Example(question, best[0], shares, reading.golds if places else (), reading.dataset)


def token_span(window: Window, start: int, end: int) -> tuple[int, int] | None:
    """First and last token, counted from [CLS] as 0, of the characters from `start` to `end`."""
    if start < window.starts[0] or end > window.ends[-1]:
        return None
    first = next((index for index, stop in enumerate(window.ends) if stop > start), None)
    last = next((index for index in range(len(window.starts) - 1, -1, -1) if window.starts[index] < end), None)
    return None if first is None or last is None or last < first else (first + 1, last + 1)


def examples_of(texts: Texts, readings: Iterable[Reading], part: Part) -> tuple[list[Example], list[list[Example]]]:
    """The examples of a part, and for each answerable question its hard negatives."""
    asked: dict[tuple[str, str], list[Reading]] = defaultdict(list)
    for reading in readings:
        if reading.part == part:
            # Pages of Natural Questions have one passage each: their negatives come from one another.
            asked[reading.dataset, "" if reading.dataset == "nq" else reading.document].append(reading)
    examples: list[Example] = []
    negatives: list[list[Example]] = []
    for own in asked.values():
        pool = list(dict.fromkeys(passage for reading in own for passage in reading.passages))
        likely = most_alike(pool, [reading.question for reading in own])
        for reading, order in zip(own, likely, strict=True):
            places = [(start, end) for _, start, end in reading.answers]
            if reading.golds and not places:
                continue  # the answer is not in the source's words
            example = example_of(texts, reading, reading.home, places)
            if example is not None:
                examples.append(example)
            if places:
                folded = [gold.casefold() for gold in reading.golds]
                others = [
                    pool[index]
                    for index in order
                    if pool[index] != reading.passages[reading.home]
                    and not any(gold in pool[index].casefold() for gold in folded)
                ]
                negatives.append(
                    [
                        Example(texts.question(reading.question), texts.windows_of(text)[0], (), (), reading.dataset)
                        for text in others[:NEGATIVE_CHOICE]
                        if texts.windows_of(text)
                    ]
                )
    return examples, [some for some in negatives if some]


def most_alike(passages: Sequence[str], questions: Sequence[str]) -> list[list[int]]:
    """For each question the passages that share its rarest words, best first: the mistakes a search makes."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True)
    rows = vectorizer.fit_transform(passages)
    scores = (vectorizer.transform(questions) @ rows.T).toarray()
    return np.argsort(-scores, axis=1, kind="stable")[:, :12].tolist()


def epoch_of(
    examples: Sequence[Example], negatives: Sequence[Sequence[Example]], texts: Texts, seed: int, number: int
) -> list[list[Example]]:
    """The batches of one epoch, the same for the same seed and number: examples of like length together."""
    rng = random.Random(f"{seed} {number}")
    chosen = [*examples, *(rng.choice(some) for some in negatives if rng.random() < NEGATIVES)]
    sizes = {id(example): len(texts.ids[example.question]) + len(texts.ids[example.window]) for example in chosen}
    chosen.sort(key=lambda example: sizes[id(example)] + rng.uniform(-8, 8))
    batches: list[list[Example]] = [[]]
    width = 0
    for example in chosen:
        width = max(width, sizes[id(example)])
        if width * (len(batches[-1]) + 1) > BATCH_TOKENS and batches[-1]:
            batches.append([])
            width = sizes[id(example)]
        batches[-1].append(example)
    rng.shuffle(batches)
    return batches


def stacked(texts: Texts, batch: Sequence[Example]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, kinds, mask and targets of a batch, padded to its longest sequence."""
    questions = texts.states([example.question for example in batch])
    windows = texts.states([example.window for example in batch])
    lengths = [len(question) + len(window) for question, window in zip(questions, windows, strict=True)]
    shape = len(batch), max(lengths)
    states = torch.zeros(*shape, questions[0].shape[1], dtype=torch.float16)
    kinds, mask = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.bool)
    targets = torch.zeros(*shape, 2)
    for row, (example, question, window) in enumerate(zip(batch, questions, windows, strict=True)):
        states[row, : lengths[row]] = torch.from_numpy(np.concatenate([question, window]))
        ids = texts.ids[example.question], texts.ids[example.window]
        kinds[row, : lengths[row]] = torch.from_numpy(texts.vocabulary.kinds(*ids))
        mask[row, : lengths[row]] = True
        for first, last, share in example.places or ((-len(question), -len(question), 1.0),):
            targets[row, len(question) + first, 0] += share
            targets[row, len(question) + last, 1] += share
    return states, kinds, mask, targets
