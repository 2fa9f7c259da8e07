"""Train a small Llama of a short window on books: what ways to read beyond a window are tried on (kv_positions.py).

    python benchmarks/train_book_model.py FOLDER --text BOOKS [--steps 300] [--window 256] [--bfloat16]

FOLDER then holds what any engine for Hugging Face checkpoints takes. BOOKS is a folder of .txt files, a tenth of which
is kept for testing (probe_tasks.py). The base of rotations is the usual 10,000: beyond the window distances are met
that were never learnt, and a text goes to pieces there, as it does for a large model beyond its own.

Tokenizer, optimizers and files are those of train_probe.py.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy

from lcdoc.benchmarks.probe_network import ProbeNetwork
from lcdoc.benchmarks.probe_tasks import BEGIN, Sentences, natural_text
from lcdoc.benchmarks.small_model_network import Shape
from lcdoc.benchmarks.train_probe import LEARNING_RATE, encoded, optimizers, rate, trained_tokenizer, write

BATCH_TOKENS = 4_096


def book_tokens(tokenizer: Tokenizer, sentences: Sentences) -> Tensor:
    """int64 [T]: all sentences, one behind the other."""
    return torch.tensor(encoded(tokenizer, "".join(f" {one}" for one in sentences.all)), dtype=torch.int64)


def train(network: ProbeNetwork, text: Tensor, *, begin: int, steps: int, seed: int, bfloat16: bool) -> None:
    """Rows of a window each, which begin anywhere in `text` behind the token `begin`."""
    window, rng = network.shape.window, random.Random(seed)
    optims = optimizers(network)
    positions, loss_mean, began = torch.arange(window), math.nan, time.perf_counter()
    for step in range(steps):
        starts = [rng.randrange(len(text) - window) for _ in range(max(1, BATCH_TOKENS // window))]
        rows = torch.stack([text[start : start + window + 1] for start in starts])
        rows[:, 0] = begin
        for optim in optims:
            for group in optim.param_groups:
                group["lr"] = LEARNING_RATE * rate(step, steps)
            optim.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = network.logits(network(rows[:, :-1], positions)).float()
            loss = cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optim in optims:
            optim.step()
        loss_mean = loss.item() if math.isnan(loss_mean) else 0.95 * loss_mean + 0.05 * loss.item()
        if (step + 1) % 25 == 0:
            minutes = (time.perf_counter() - began) / 60
            print(f"step {step + 1}: loss {loss_mean:.3f}, {minutes:.1f} min", flush=True)


def main() -> int:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", type=Path, required=True, help="a folder of .txt books")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--window", type=int, default=256, help="tokens of a row, and the model's window")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bfloat16", action="store_true", help="train in it: faster on CPUs that have it")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    sentences = Sentences(natural_text(arguments.text))
    tokenizer = trained_tokenizer([" " + one for one in sentences.all])
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(arguments.seed)
    network = ProbeNetwork(Shape(tokenizer.get_vocab_size(), window=arguments.window))
    text = book_tokens(tokenizer, sentences)
    print(f"{len(text):,} tokens, {sum(p.numel() for p in network.parameters()) / 1e6:.2f} million parameters")
    begin = tokenizer.token_to_id(BEGIN)
    train(network, text, begin=begin, steps=arguments.steps, seed=arguments.seed, bfloat16=arguments.bfloat16)
    write(folder, network, tokenizer)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
