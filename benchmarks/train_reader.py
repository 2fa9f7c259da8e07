"""Train the span reader on public questions, starting from the packaged MiniLM.

    python benchmarks/train_reader.py FOLDER --bfloat16                # an hour or two of one core with AVX512-BF16
    python benchmarks/train_reader.py FOLDER --bfloat16 --steps 6000   # goes on from before the first cooled down

The first `--clozes` of the steps are of questions made from text by rule (`span_clozes.py`), the others of questions
that people asked. The lower layers stay as packaged, and read question and passage apart: their states are kept, so
that a passage goes through them once. The upper layers, a start and end head, and a vector for each kind of token are
trained. The learning rate is level, then falls to nothing over the last part of the steps ("MiniCPM", 2024, section
4): FOLDER keeps the state before the fall, from which more steps can be made, beside the last one, from which an
interrupted run goes on, and clozes.pt, with which in its folder another run (`--seed`) begins at people's questions.
`--average` writes the mean of the weights of several such runs ("Model soups: averaging weights of multiple
fine-tuned models", section 3).
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lcdoc.agents.span_reader.weights import Recipe, checksum, write
from lcdoc.agents.span_reader.windows import Vocabulary
from lcdoc.benchmarks.span_batches import Example, Texts, epoch_of, examples_of, stacked
from lcdoc.benchmarks.span_clozes import examples_of_clozes
from lcdoc.benchmarks.span_examples import TRAINED, Reading, readings
from lcdoc.benchmarks.span_network import SpanNetwork, best_spans, loss
from lcdoc.evaluation.metrics import token_f1
from lcdoc.retrieval import bert
from lcdoc.retrieval.bert import Encoder
from lcdoc.retrieval.minilm import packaged_model

RATE = 2e-4
RATE_DECAY = 0.9
"""Each layer learns at this share of the rate of the one above it."""
HEAD_RATE = 1e-3
WARMUP_STEPS = 100
COOLDOWN = 0.35
SAVED_EVERY = 50
LOOKED_EVERY = 200


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


@dataclass
class Run:
    """A training under way: what is saved, and how it goes on."""

    folder: Path
    network: SpanNetwork
    optimizer: torch.optim.Optimizer
    steps: int
    clozes: int
    """How many of the steps, the first ones, are of clozes."""
    step: int = 0

    def rate(self) -> float:
        """Share of the learning rate: up, level, and down to nothing from `cooldown_start` on."""
        start = self.cooldown_start(self.steps)
        falling = 1.0 if self.step < start else (self.steps - self.step) / (self.steps - start)
        return min((self.step + 1) / WARMUP_STEPS, falling)

    def cooldown_start(self, steps: int) -> int:
        return steps - round((steps - self.clozes) * COOLDOWN)

    def load(self) -> None:
        """Go on from the last state, or, where that was cooling down for fewer steps, from before it did."""
        for name in ("last.pt", "level.pt", "clozes.pt"):
            path = self.folder / name
            if not path.exists():
                continue
            saved = torch.load(path, weights_only=True)
            if saved["steps"] == self.steps or saved["step"] <= min(
                map(self.cooldown_start, (saved["steps"], self.steps))
            ):
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
    mean, tokens, began = math.nan, 0, time.perf_counter()
    for batch in batches_from(run, examples, negatives, texts, arguments.seed):
        torch.manual_seed(arguments.seed * 1_000_003 + run.step)
        states, token_kinds, mask, targets = stacked(texts, batch)
        for group in run.optimizer.param_groups:
            group["lr"] = group["full_rate"] * run.rate()
        run.network.train()
        run.optimizer.zero_grad(set_to_none=True)
        value = loss(run.network(states, token_kinds, mask, dtype=dtype, drop=arguments.dropout), targets)
        value.backward()
        torch.nn.utils.clip_grad_norm_(run.network.parameters(), 1.0)
        run.optimizer.step()
        run.step, tokens = run.step + 1, tokens + int(mask.sum())
        mean = value.item() if math.isnan(mean) else 0.97 * mean + 0.03 * value.item()
        if run.step % 25 == 0:
            took = time.perf_counter() - began
            print(
                f"step {run.step} {'clozes ' if run.step <= run.clozes else ''}loss {mean:.3f} "
                f"{tokens / took:.0f} tokens/s {took / 60:.1f} min",
                flush=True,
            )
        if run.step % SAVED_EVERY == 0 or run.step == run.steps:
            run.save("last.pt")
        if run.step == run.clozes:
            run.save("clozes.pt")
        if run.step == run.cooldown_start(run.steps):
            run.save("level.pt")
        if run.step % LOOKED_EVERY == 0 or run.step == run.steps:
            scores = look(run.network, texts, looked_at, dtype)
            row = {"step": run.step, "steps": run.steps, "loss": round(mean, 4), **scores}
            print(json.dumps(row), flush=True)
            with (run.folder / "curve.jsonl").open("a", encoding="utf-8") as curve:
                curve.write(json.dumps(row) + "\n")
            export(run)


def batches_from(
    run: Run, examples: Sequence[Example], negatives: Sequence[Sequence[Example]], texts: Texts, seed: int
) -> Iterator[list[Example]]:
    """The batches that are left of the run: of clozes, then of questions that people asked."""
    epoch, skipped = 0, run.step
    while run.step < run.clozes:
        batches = epoch_of(list(examples_of_clozes(texts, seed + epoch)), [], texts, seed, epoch)
        for batch in batches[skipped : skipped + run.clozes - run.step]:
            yield batch
            texts.forget()
        epoch, skipped = epoch + 1, max(0, skipped - len(batches))
    epoch, skipped = 0, run.step - run.clozes
    while run.step < run.steps:
        batches = epoch_of(examples, negatives, texts, seed, epoch)
        yield from batches[skipped : skipped + run.steps - run.step]
        epoch, skipped = epoch + 1, max(0, skipped - len(batches))


def export(run: Run) -> None:
    """Write FOLDER/reader.safetensors, as the package ships it."""
    packaged = packaged_model().tensors
    recipe = Recipe(run.network.first, checksum(packaged), run.step, f"train parts of {', '.join(TRAINED)}")
    trained = {name: weight.numpy() for name, weight in run.network.tensors().items()}
    write(run.folder / "reader.safetensors", trained, packaged, recipe)


def average(run: Run, folders: Sequence[Path]) -> None:
    """Write the mean of the weights that the runs in `folders` ended with."""
    ended = [torch.load(folder / "last.pt", weights_only=True) for folder in folders]
    states = [state["network"] for state in ended]
    run.network.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    run.step = max(state["step"] for state in ended)
    export(run)


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
    parser.add_argument("--steps", type=int, default=3_200, help="of clozes and of questions together")
    parser.add_argument("--clozes", type=int, default=2_000, help="how many of the steps are of clozes")
    parser.add_argument("--average", type=Path, nargs="*", help="folders: write the mean of their weights to FOLDER")
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
    run = Run(arguments.folder, network, optimizer_of(network), arguments.steps, arguments.clozes)
    if arguments.average:
        average(run, arguments.average)
        return 0
    run.load()
    train(run, texts, list(readings(TRAINED)), arguments)
    export(run)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
