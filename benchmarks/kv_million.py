"""A million tokens of books through a small cache, with facts at ten depths, each asked for at the end.

    python benchmarks/kv_million.py MODEL OUT --text BOOKS [--tokens 1000000] [--recipes "RECIPE RECIPE ..."]

MODEL is the folder of train_probe.py; its facts are `Remember walnut amber falcon river.` (probe_tasks.py). Books are
repeated until there is enough of them. Each recipe reads the text once, in a process of its own, without knowing what
will be asked; then all ten facts are asked for behind the same snapshot. A recipe has to have positions (compact,
self-extend, capped) that let a text be longer than the model's window.

OUT gets a JSON file for each recipe and length, which is not measured again; a Markdown table of all files of that
length is printed. Memory is the peak of the whole process, and what it held when the model was loaded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from lcdoc.benchmarks.engine_cell import _memory as memory_mb
from lcdoc.benchmarks.probe_tasks import ASK, BEGIN, END, KEYS, VALUE_WORDS, VALUES, Question, Sentences, natural_text
from lcdoc.benchmarks.train_probe import encoded

DEPTHS = 10
TOKENS = 1_000_000
CACHE_BYTES = 2**28
MOST_ANSWER = 16
RECIPES = (
    "window+positions=compact@2048tok keydiff+positions=compact@2048tok knorm+positions=compact@2048tok "
    "lagkv+positions=compact@2048tok expected+positions=compact@2048tok compactor+positions=compact@2048tok "
    "snapkv+positions=compact@2048tok task+positions=compact@2048tok task+ada+positions=compact@2048tok "
    "task+global+positions=compact@2048tok kvzip:leverage=2+global+positions=compact@2048tok"
)


@dataclass(frozen=True, slots=True)
class Text:
    """What is read, as tokens, and what it is asked."""

    tokens: list[int]
    starts: list[int]
    """Where sentences begin"""
    questions: list[Question]
    """One for each depth, the beginning's first"""
    asked: list[list[int]]
    """The questions as tokens"""
    task: list[int]
    """What all questions begin with, for recipes that want a description of the task"""


def made_text(tokenizer: Tokenizer, sentences: Sentences, tokens: int, *, seed: int = 0) -> Text:
    """About so many tokens, with a fact in the middle of each tenth."""
    rng = random.Random(f"million {seed}")
    questions = []
    for key in rng.sample(KEYS, DEPTHS):
        value = " ".join(rng.sample(VALUES, VALUE_WORDS))
        questions.append(Question("needle", key, f" Remember {key}", f" {key} {value}", (f"Remember {key} {value}.",)))
    pieces = [encoded(tokenizer, f" {sentence}") for sentence in sentences.all]
    read, starts, place, told = encoded(tokenizer, BEGIN), [], 0, 0
    while len(read) < tokens:
        starts.append(len(read))
        if told < DEPTHS and len(read) >= (told + 0.5) * tokens / DEPTHS:
            read += encoded(tokenizer, f" {questions[told].evidence[0]}")
            told += 1
        else:
            read += pieces[place % len(pieces)]
            place += 1
    asked = [encoded(tokenizer, one.text) for one in questions]
    return Text(read, starts, questions, asked, encoded(tokenizer, f"{ASK} Remember"))


@dataclass(frozen=True, slots=True)
class Found:
    """What one recipe did."""

    recipe: str
    tokens: int
    seconds: float
    """Of reading"""
    found: list[bool]
    """By depth, the beginning first"""
    given: list[str]
    kept: float
    """Entries of a row of the cache, on average"""
    cache_mb: float
    loaded_mb: float
    peak_mb: float


async def measured(model: Path, text: Text, recipe: str) -> Found:
    """Read, ask, look."""
    from lcdoc.local_engine import Engine, KVConfig, Sampling
    from lcdoc.local_engine.compression.marks import Marks

    kv = KVConfig(max_memory=CACHE_BYTES, prefix_cache=False)
    with Engine.load(model, dtype="bfloat16", kv=kv, speculate=False) as engine:
        marks = Marks(sentence_starts=text.starts, task=text.task)
        loaded = memory_mb("VmRSS")
        began = time.perf_counter()
        snapshot = await engine.prefill(text.tokens, kv=recipe, marks=marks)
        seconds = time.perf_counter() - began
        sampling = Sampling(max_tokens=MOST_ANSWER, temperature=0)
        given = []
        for question in text.asked:
            answer = await engine.complete(question, sampling, prefix=snapshot)
            given.append(answer.text.removesuffix(END))
    found = [question.right(said) for question, said in zip(text.questions, given, strict=True)]
    kept = float(snapshot.lengths.mean())
    peak = memory_mb("VmHWM")
    return Found(recipe, len(text.tokens), seconds, found, given, kept, snapshot.cache_bytes / 1e6, loaded, peak)


def table(found: list[Found]) -> str:
    """Markdown, those that found most first."""
    marks = "".join(f" {100 * (depth + 0.5) / DEPTHS:.0f} % |" for depth in range(DEPTHS))
    lines = [
        f"| recipe | found |{marks} tokens/s | cache, MB | peak, MB | loaded, MB |",
        f"|---|---:|{':-:|' * DEPTHS}---:|---:|---:|---:|",
    ]
    for one in sorted(found, key=lambda one: (-sum(one.found), one.recipe)):
        seen = "".join(f" {'x' if right else ''} |" for right in one.found)
        lines.append(
            f"| `{one.recipe}` | {sum(one.found)} |{seen} {one.tokens / one.seconds:,.0f} | {one.cache_mb:.1f} | "
            f"{one.peak_mb:.0f} | {one.loaded_mb:.0f} |"
        )
    return "\n".join(lines)


def _file(out: Path, recipe: str, tokens: int) -> Path:
    return out / f"{recipe.replace(':', '-').replace(',', '-').replace('@', '_')}-{tokens}.json"


def _read(path: Path) -> Found:
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Found(**known)


def main() -> int:
    """Measure what is not yet, and print what is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", type=Path, required=True, help="a folder of .txt books")
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--recipes", default=RECIPES, help="separated by spaces")
    parser.add_argument("--only", action="store_true", help="measure the one recipe in this process")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    recipes = arguments.recipes.split()
    if arguments.only:
        (recipe,) = recipes
        tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
        text = made_text(tokenizer, Sentences(natural_text(arguments.text)), arguments.tokens)
        found = asyncio.run(measured(arguments.model, text, recipe))
        _file(out, recipe, arguments.tokens).write_text(json.dumps(asdict(found)), encoding="utf-8")
        return 0
    failed = 0
    for recipe in recipes:
        if _file(out, recipe, arguments.tokens).exists():
            continue
        command = [sys.executable, __file__, str(arguments.model), str(out), "--text", str(arguments.text)]
        command += ["--tokens", str(arguments.tokens), "--recipes", recipe, "--only"]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            failed += 1
            said = done.stderr.strip().splitlines() or ["nothing"]
            print(f"{recipe} failed: {said[-1]}", file=sys.stderr, flush=True)
    paths = [_file(out, recipe, arguments.tokens) for recipe in recipes]
    print(table([_read(path) for path in paths if path.exists()]))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
