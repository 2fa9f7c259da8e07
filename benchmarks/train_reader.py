"""Train the span reader on public questions, starting from the packaged MiniLM.

    python benchmarks/train_reader.py FOLDER --steps 1500 --bfloat16      # an hour or two of one core with AVX512-BF16
    python benchmarks/train_reader.py FOLDER --steps 6000 --bfloat16      # goes on from before the first cooled down

The lower layers stay as packaged, and read question and passage apart: their states are kept, so that a passage goes
through them once. The upper layers, a start and end head, and a vector for each kind of token are trained. The learning
rate is level, then falls to nothing over the last part of the steps ("MiniCPM", 2024, section 4): FOLDER keeps the
state before the fall, from which more steps can be made, beside the last one, from which an interrupted run goes on.
FOLDER/curve.jsonl has the scores on the "tune" part as they grow; FOLDER/reader.safetensors is what the package ships.
Data and parts: `span_examples.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcdoc.agents.span_reader.weights import Recipe, checksum, write
from lcdoc.agents.span_reader.windows import Vocabulary, Window
from lcdoc.benchmarks.span_examples import TRAINED, Reading, readings
from lcdoc.benchmarks.span_network import SpanNetwork, best_spans, loss
from lcdoc.evaluation.metrics import token_f1
from lcdoc.evaluation.parts import Part
from lcdoc.retrieval import bert
from lcdoc.retrieval.bert import Encoder, equal_runs
from lcdoc.retrieval.minilm import packaged_model

BATCH_TOKENS = 4_096
RATE = 2e-4
RATE_DECAY = 0.9
"""Each layer learns at this share of the rate of the one above it."""
HEAD_RATE = 1e-3
WARMUP_STEPS = 100
COOLDOWN = 0.35
NEGATIVES = 0.3
"""Share of the answerable questions that are also asked, each epoch, of a passage that does not answer them."""
NEGATIVE_CHOICE = 4
"""How many of the passages most like the question the unanswering one is drawn from."""
SAVED_EVERY = 50
LOOKED_EVERY = 200


# --- examples --------------------------------------------------------------------------------------------------------


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


# --- training --------------------------------------------------------------------------------------------------------


def optimizer_of(network: SpanNetwork) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = []
    for depth, layer in enumerate(reversed(network.layers)):
        for decay in (0.0, 0.01):
            own = [weight for weight in layer.parameters() if (weight.ndim > 1) == (decay > 0)]
            groups.append({"params": own, "lr": RATE * RATE_DECAY**depth, "weight_decay": decay})
    groups.append({"params": [network.kinds, *network.head.parameters()], "lr": HEAD_RATE, "weight_decay": 0.0})
    for group in groups:
        group["full_rate"] = group["lr"]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)


def rate(step: int, steps: int) -> float:
    """Share of the learning rate: up, level, and down to nothing from `cooldown_start` on."""
    start = cooldown_start(steps)
    return min((step + 1) / WARMUP_STEPS, 1.0 if step < start else (steps - step) / (steps - start))


def cooldown_start(steps: int) -> int:
    return round(steps * (1 - COOLDOWN))


@dataclass
class Run:
    """A training under way: what is saved, and how it goes on."""

    folder: Path
    network: SpanNetwork
    optimizer: torch.optim.Optimizer
    steps: int
    step: int = 0

    def load(self) -> None:
        """Go on from the last state, or, where that was cooling down for fewer steps, from before it did."""
        for name in ("last.pt", "level.pt"):
            path = self.folder / name
            if not path.exists():
                continue
            saved = torch.load(path, weights_only=True)
            if saved["steps"] == self.steps or saved["step"] <= min(map(cooldown_start, (saved["steps"], self.steps))):
                self.network.load_state_dict(saved["network"])
                self.optimizer.load_state_dict(saved["optimizer"])
                self.step = saved["step"]
                print(f"going on from step {self.step} of {path}", flush=True)
                return

    def save(self, name: str) -> None:
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "steps": self.steps,
        }
        path = self.folder / name
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)


def train(run: Run, texts: Texts, readings: Sequence[Reading], arguments: argparse.Namespace) -> None:
    """Make the run's steps that are left, saving and looking now and then."""
    examples, negatives = examples_of(texts, readings, "train")
    tune, tune_negatives = examples_of(texts, readings, "tune")
    looked_at = sample(tune, tune_negatives, arguments.seed)
    kinds = Counter((example.dataset, bool(example.places)) for example in examples)
    print(
        f"{len(examples)} examples {dict(kinds)}, {len(negatives)} with negatives; {len(looked_at)} to look at",
        flush=True,
    )
    dtype = torch.bfloat16 if arguments.bfloat16 else torch.float32
    epoch, skipped = 0, run.step
    batches = epoch_of(examples, negatives, texts, arguments.seed, epoch)
    while skipped >= len(batches):
        skipped, epoch = skipped - len(batches), epoch + 1
        batches = epoch_of(examples, negatives, texts, arguments.seed, epoch)
    mean, tokens, began = math.nan, 0, time.perf_counter()
    while run.step < run.steps:
        if skipped >= len(batches):
            skipped, epoch = 0, epoch + 1
            batches = epoch_of(examples, negatives, texts, arguments.seed, epoch)
        torch.manual_seed(arguments.seed * 1_000_003 + run.step)
        states, token_kinds, mask, targets = stacked(texts, batches[skipped])
        for group in run.optimizer.param_groups:
            group["lr"] = group["full_rate"] * rate(run.step, run.steps)
        run.network.train()
        run.optimizer.zero_grad(set_to_none=True)
        value = loss(run.network(states, token_kinds, mask, dtype=dtype, drop=arguments.dropout), targets)
        value.backward()
        torch.nn.utils.clip_grad_norm_(run.network.parameters(), 1.0)
        run.optimizer.step()
        run.step, skipped, tokens = run.step + 1, skipped + 1, tokens + int(mask.sum())
        mean = value.item() if math.isnan(mean) else 0.97 * mean + 0.03 * value.item()
        if run.step % 25 == 0:
            took = time.perf_counter() - began
            print(
                f"step {run.step} epoch {epoch + skipped / len(batches):.2f} loss {mean:.3f} "
                f"{tokens / took:.0f} tokens/s {took / 60:.1f} min",
                flush=True,
            )
        if run.step % SAVED_EVERY == 0 or run.step == run.steps:
            run.save("last.pt")
        if run.step == cooldown_start(run.steps):
            run.save("level.pt")
        if run.step % LOOKED_EVERY == 0 or run.step == run.steps:
            scores = look(run.network, texts, looked_at, dtype)
            row = {"step": run.step, "steps": run.steps, "loss": round(mean, 4), **scores}
            print(json.dumps(row), flush=True)
            with (run.folder / "curve.jsonl").open("a", encoding="utf-8") as curve:
                curve.write(json.dumps(row) + "\n")
            export(run)


def export(run: Run) -> None:
    """Write FOLDER/reader.safetensors, as the package ships it."""
    packaged = packaged_model().tensors
    recipe = Recipe(run.network.first, checksum(packaged), run.step, f"train parts of {', '.join(TRAINED)}")
    trained = {name: weight.numpy() for name, weight in run.network.tensors().items()}
    write(run.folder / "reader.safetensors", trained, packaged, recipe)


# --- looking ---------------------------------------------------------------------------------------------------------


def sample(examples: Sequence[Example], negatives: Sequence[Sequence[Example]], seed: int) -> list[Example]:
    """Some of the tune part: of each set, answerable or not, and passages that a search would have found by mistake."""
    rng = random.Random(f"look {seed}")
    groups: dict[tuple[str, bool], list[Example]] = defaultdict(list)
    for example in examples:
        groups[example.dataset, bool(example.places)].append(example)
    chosen = [example for group in groups.values() for example in rng.sample(group, min(80, len(group)))]
    return [*chosen, *(some[0] for some in rng.sample(list(negatives), min(40, len(negatives))))]


@torch.inference_mode()
def look(network: SpanNetwork, texts: Texts, examples: Sequence[Example], dtype: torch.dtype) -> dict[str, float]:
    """Token F1 with an answer forced, by set; how well no-answer is told; in percent."""
    network.eval()
    order = sorted(examples, key=lambda example: len(texts.ids[example.window]))
    scored: list[tuple[Example, float, float]] = []
    for first in range(0, len(order), 16):
        batch = order[first : first + 16]
        states, kinds, mask, _ = stacked(texts, batch)
        for example, best in zip(batch, best_spans(network(states, kinds, mask, dtype=dtype)), strict=True):
            scored.append((example, best[1] - best[0], token_f1(answer_text(texts, example, best), example.golds)))
    answered: dict[str, list[float]] = defaultdict(list)
    margins: dict[bool, list[float]] = {True: [], False: []}
    for example, margin, f1 in scored:
        if example.places:
            answered[f"f1 {example.dataset}"].append(f1)
        if example.dataset == "squad":
            margins[bool(example.places)].append(margin)
    result = {name: float(np.mean(values)) for name, values in answered.items()}
    yes, no = (np.array(margins[kind]) for kind in (True, False))
    result["answerable, kept"] = float((yes > 0).mean())
    result["unanswerable, refused"] = float((no <= 0).mean())
    result["auc"] = float((yes[:, None] > no[None]).mean())
    return {name: round(100 * value, 1) for name, value in result.items()}


def answer_text(texts: Texts, example: Example, best: tuple[float, float, int, int]) -> str:
    window, passage = texts.windows[example.window]
    before = len(texts.ids[example.question]) + 1
    return passage[window.starts[best[2] - before] : window.ends[best[3] - before]]


def main() -> int:
    """Train, and write FOLDER/reader.safetensors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--first", type=int, default=2, help="the lowest layer that is trained; those below stay")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bfloat16", action="store_true", help="products in bfloat16, on processors that have it")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(arguments.seed)
    model = packaged_model()
    encoder = bert.encoder_from(model.tensors, heads=model.heads, epsilon=model.epsilon)
    lower = Encoder(
        encoder.words, encoder.positions, encoder.embedding_norm, encoder.layers[: arguments.first], encoder.heads
    )
    texts = Texts(Vocabulary.of(model.tokenizer()), lower)
    network = SpanNetwork(model.tensors, first=arguments.first, heads=model.heads, epsilon=model.epsilon)
    run = Run(arguments.folder, network, optimizer_of(network), arguments.steps)
    run.load()
    train(run, texts, list(readings(TRAINED)), arguments)
    export(run)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
