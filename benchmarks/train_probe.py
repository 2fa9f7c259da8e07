"""Train a small Llama that finds, follows, counts and copies facts in long text: what KV-cache compression is tried on.

    python benchmarks/train_probe.py FOLDER [--text BOOKS] [--steps 1300] [--seed 0] [--bfloat16] [--questions 60]

FOLDER then holds what any engine for Hugging Face checkpoints takes: config.json, model.safetensors (bfloat16) and
tokenizer.json. What it is taught is in probe_tasks.py, and in which order in probe_rows.py; BOOKS is a folder of .txt
files for the text between the facts (without one, this project's own pages are read). How far it gets is what is
printed at the end: how many answers are right, by task and length, about text never trained on. A model that was made
so is kept in benchmarks/data/probe, and its README.md says how well it does.

Interrupted, it goes on where it last saved; --questions 0 only trains, and --steps of a model that is done only asks.
It takes a GPU where there is one, and OMP_NUM_THREADS on a CPU.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy

from lcdoc.benchmarks.probe_network import ProbeNetwork
from lcdoc.benchmarks.probe_rows import (
    WEIGHTS,
    WINDOW,
    WORDS_PER_TOKEN,
    Rows,
    encoded,
    trained_tokenizer,
)
from lcdoc.benchmarks.probe_tasks import (
    BEGIN,
    END,
    TASKS,
    Case,
    Question,
    Sentences,
    Task,
    Tasks,
    natural_text,
)
from lcdoc.benchmarks.small_model_network import Shape

LEARNING_RATE = 5e-3
WARMUP_STEPS = 20
SAVED_EVERY = 100
TEXT_WEIGHT = 0.2
"""Of the loss over natural text; answers count 1."""
SETTLED, COOLING = 200, 300
"""The learning rate falls with the square root of the steps after so many, and to nothing within the last so many. What
comes before the last ones is the same however many steps there are."""
LENGTHS = (256, 512, 1_024, 2_048, 3_500)
"""Tokens of the contexts that are asked about at the end."""


def shape_of(vocabulary: int) -> Shape:
    """2.3 million parameters; three key-value heads of two query heads in each of four layers.

    The base of rotations is large: half of a head's channels then turn so little that content is compared alike at all
    distances of the window.
    """
    return Shape(
        vocabulary,
        hidden=192,
        feed_forward=640,
        layers=4,
        heads=6,
        kv_heads=3,
        head_dim=32,
        window=WINDOW,
        rope_theta=10_000_000.0,
    )


# --- training --------------------------------------------------------------------------------------------------------


def optimizers(network: ProbeNetwork) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, which needs far fewer steps for a model of this size; AdamW for the rest."""
    matrices = [p for name, p in network.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in network.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=LEARNING_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate(step: int, steps: int) -> float:
    """Share of the learning rate: up at first, then slowly down, and at last to nothing."""
    return min((step + 1) / WARMUP_STEPS, (SETTLED / max(step, SETTLED)) ** 0.5) * min(1.0, (steps - step) / COOLING)


def losses(network: ProbeNetwork, tokens: Tensor, counts: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of answers, of text, and the share of answer tokens that are right."""
    hidden = network(tokens, positions)[:, :-1]
    of, wanted = counts[:, 1:], tokens[:, 1:]
    in_answers, in_text = of > 0, of < 0
    logits = network.logits(hidden[in_answers]).float()
    right = (logits.argmax(-1) == wanted[in_answers]).float().mean()
    of_answers = (cross_entropy(logits, wanted[in_answers], reduction="none") * of[in_answers]).sum()
    of_text = cross_entropy(network.logits(hidden[in_text]).float(), wanted[in_text])
    return of_answers / of[in_answers].sum(), of_text, right


def train(folder: Path, rows: Rows, network: ProbeNetwork, *, steps: int, bfloat16: bool) -> None:
    """Train to `steps`, from where the folder's checkpoint is."""
    device = next(network.parameters()).device
    optims = optimizers(network)
    checkpoint, first = folder / "checkpoint.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True, map_location=device)
        network.load_state_dict(saved["network"])
        for optim, state in zip(optims, saved["optimizers"], strict=True):
            optim.load_state_dict(state)
        first = saved["step"]
        print(f"going on from step {first}")
    began, seen = time.perf_counter(), 0
    means = [math.nan] * 3
    for step in range(first, steps):
        tokens, counts, positions = (one.to(device) for one in rows.batch(step))
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = LEARNING_RATE * rate(step, steps)
            optim.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            of_answers, of_text, right = losses(network, tokens, counts, positions)
        (of_answers + TEXT_WEIGHT * of_text).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optim in optims:
            optim.step()
        seen += tokens.numel()
        now = (of_answers.item(), of_text.item(), right.item())
        means = [new if math.isnan(old) else 0.9 * old + 0.1 * new for old, new in zip(means, now, strict=True)]
        if (step + 1) % 25 == 0:
            minutes = (time.perf_counter() - began) / 60
            print(
                f"step {step + 1}: answers {means[0]:.3f} ({means[2]:.1%} right), text {means[1]:.3f}, "
                f"{tokens.shape[1]} wide, {seen / 1e6:.2f} M tokens, {minutes:.1f} min",
                flush=True,
            )
        if (step + 1) % SAVED_EVERY == 0 or step + 1 == steps:
            state = {"network": network.state_dict(), "optimizers": [o.state_dict() for o in optims], "step": step + 1}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)


# --- the folder ------------------------------------------------------------------------------------------------------


def write(folder: Path, network: ProbeNetwork, tokenizer: Tokenizer) -> None:
    """The model's files, as transformers reads them."""
    ids = {"eos_token_id": tokenizer.token_to_id(END), "bos_token_id": tokenizer.token_to_id(BEGIN)}
    weights = {name: weight.detach().cpu().bfloat16().contiguous() for name, weight in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _json(folder / "config.json", network.shape.config(**ids, pad_token_id=ids["eos_token_id"]))
    _json(folder / "generation_config.json", {**ids, "do_sample": False})
    named = {"eos_token": END, "bos_token": BEGIN, "pad_token": END, "clean_up_tokenization_spaces": False}
    window = {"model_max_length": network.shape.window, "tokenizer_class": "PreTrainedTokenizerFast"}
    _json(folder / "tokenizer_config.json", {**named, **window})


def _json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


# --- looking ---------------------------------------------------------------------------------------------------------


def held_out(sentences: Sentences, task: Task, tokens: int, count: int, seed: int) -> list[tuple[Case, Question]]:
    """Cases of about `tokens` tokens, each with a question of `task`, which stands among facts of all kinds."""
    tasks = Tasks(f"test {seed} {task} {tokens}", sentences)
    found: list[tuple[Case, Question]] = []
    while len(found) < count:
        others = tasks.rng.choices(TASKS, list(WEIGHTS.values()), k=5)
        case = tasks.case(round(tokens * WORDS_PER_TOKEN) - 50, [task, *others])
        found.append((case, next(one for one in case.questions if one.task == task)))
    return found


@torch.inference_mode()
def solved(network: ProbeNetwork, tokenizer: Tokenizer, prompt: str, question: Question) -> bool:
    """Whether the greedy answer is right: each token of a right answer is the likeliest after all those before it."""
    device = next(network.parameters()).device
    asked = encoded(tokenizer, prompt)
    for answer in question.answers():
        wanted = encoded(tokenizer, f"{answer}{END}")
        tokens = torch.tensor([asked + wanted], device=device)
        hidden = network(tokens, torch.arange(tokens.shape[1], device=device))[0, len(asked) - 1 : -1]
        if network.logits(hidden).argmax(-1).tolist() == wanted:
            return True
    return False


def look(network: ProbeNetwork, tokenizer: Tokenizer, sentences: Sentences, *, questions: int, seed: int) -> None:
    """Print how many held-out questions of each task are answered rightly, by length and where the question stands.

    A table in Markdown.
    """
    print(
        f"Right of {questions} questions, about text never trained on, with the question after / before the context:\n"
    )
    print("| task |" + "".join(f" {length:,} tokens |" for length in LENGTHS))
    print("|---|" + "---|" * len(LENGTHS))
    for task in TASKS:
        cells = []
        for length in LENGTHS:
            asked = held_out(sentences, task, length, questions, seed)
            after, before = (
                sum(solved(network, tokenizer, case.prompt(one, before=before), one) for case, one in asked)
                for before in (False, True)
            )
            cells.append(f" {after} / {before} |")
        print(f"| {task} |" + "".join(cells), flush=True)


def main() -> int:
    """Train, write, ask."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", type=Path, help="a folder of .txt books")
    parser.add_argument("--steps", type=int, default=1_300)
    parser.add_argument("--longest", type=int, default=2_048, help="tokens of text in a row, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bfloat16", action="store_true", help="train in it: faster on CPUs that have it, and on GPUs")
    parser.add_argument("--questions", type=int, default=60, help="of each task and length; 0: none")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    texts = natural_text(arguments.text)
    path = folder / "tokenizer.json"
    sentences = Sentences(texts)
    if not path.exists():
        trained_tokenizer([" " + one for one in sentences.all]).save(str(path))
    tokenizer = Tokenizer.from_file(str(path))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(arguments.seed)
    network = ProbeNetwork(shape_of(tokenizer.get_vocab_size())).to(device)
    rows = Rows(tokenizer, sentences, seed=arguments.seed, longest=arguments.longest)
    train(folder, rows, network, steps=arguments.steps, bfloat16=arguments.bfloat16)
    # What is asked is what is written.
    for parameter in network.parameters():
        parameter.data = parameter.data.bfloat16().float()
    write(folder, network, tokenizer)
    size = (folder / "model.safetensors").stat().st_size / 1e6
    print(f"{folder}: {sum(p.numel() for p in network.parameters()) / 1e6:.2f} million parameters, {size:.2f} MB")
    if arguments.questions:
        held = Sentences(texts, testing=True)
        look(network, tokenizer, held, questions=arguments.questions, seed=arguments.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
