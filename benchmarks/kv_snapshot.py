"""Time to the first token of a question: behind a saved snapshot of a document, against reading the document again.

    python benchmarks/kv_snapshot.py FOLDER [--prompt 16384] [--recipes "keydiff@0.25 snapkv+ada@0.1"] [--rounds 3]

One engine, one process, random tokens; the weights (engine_weights.py) are made in FOLDER unless they are there. For
the full cache and each recipe the document is read once for a snapshot, which is saved, as it is and as int8, and
loaded again. The first question after a load finds nothing of the file in memory, as far as the system can be told to
forget it; the later ones do, and their median is shown. Reading again is the same question behind the same document in
one prompt, under the same recipe and with no prefix cache. Its first token is the same for the full cache; a recipe
that sees the question may keep other entries than one that saw the document alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lcdoc.benchmarks.engine import machine
from lcdoc.benchmarks.engine_weights import make
from lcdoc.benchmarks.kv_cell import FULL
from lcdoc.local_engine import Engine, KVConfig, Sampling, Snapshot

RECIPES = "keydiff@0.25 snapkv+ada@0.1"
QUESTION_TOKENS = 24
PRECISIONS = (None, "int8")


@dataclass(frozen=True, slots=True)
class Line:
    """What was measured of one recipe and one way to save."""

    recipe: str
    stored: str
    megabytes: float
    save_s: float
    load_s: float
    first_s: float
    """Of the first question, from the file to its first token, loading included."""
    next_s: float
    again_s: float
    same: bool
    """Whether the first token is the one that reading again gives."""


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the weights are, or are to be made")
    parser.add_argument("--prompt", type=int, default=16_384, help="tokens of the document")
    parser.add_argument("--recipes", default=RECIPES, help="beside the full cache")
    parser.add_argument("--rounds", type=int, default=3, help="questions, and times that the document is read again")
    parser.add_argument("--step-tokens", type=int, default=None, help="tokens of one pass")
    arguments = parser.parse_args()
    make(arguments.folder)
    draw = random.Random(0)
    document, *questions = (
        [draw.randrange(100, 20_000) for _ in range(count)]
        for count in (arguments.prompt, *[QUESTION_TOKENS] * arguments.rounds)
    )
    engine = Engine.load(
        arguments.folder, dtype="bfloat16", kv=KVConfig(prefix_cache=False), step_tokens=arguments.step_tokens
    )
    with engine, tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        asyncio.run(first_token(engine, document[:64]))
        lines = [
            line
            for recipe in (FULL, *arguments.recipes.split())
            for line in asyncio.run(measured(engine, recipe, document, questions, Path(folder)))
        ]
    print(
        f"{arguments.prompt:,} tokens read, {QUESTION_TOKENS} asked; {arguments.folder.name} in bfloat16; {machine()}\n"
    )
    print(table(lines))
    return 0


async def measured(
    engine: Engine, recipe: str, document: list[int], questions: Sequence[list[int]], folder: Path
) -> list[Line]:
    """A line for each precision."""
    again = [await first_token(engine, document + question, kv=recipe) for question in questions]
    snapshot = await engine.prefill(document, kv=recipe)
    lines = []
    for precision in PRECISIONS:
        path = folder / "document.kv"
        began = time.perf_counter()
        snapshot.save(path, quantize=precision)
        saved = time.perf_counter()
        forget(path)
        begun = time.perf_counter()
        loaded = Snapshot.load(path)
        ready = time.perf_counter()
        asked = [await first_token(engine, question, prefix=loaded) for question in questions]
        first_s = ready - begun + asked[0][0]
        lines.append(
            Line(
                recipe,
                precision or "as it is",
                path.stat().st_size / 1e6,
                saved - began,
                ready - begun,
                first_s,
                median(seconds for seconds, _ in asked[1:]) if asked[1:] else first_s,
                median(seconds for seconds, _ in again),
                all(ours == theirs for (_, ours), (_, theirs) in zip(asked, again, strict=True)),
            )
        )
    return lines


async def first_token(engine: Engine, prompt: list[int], **options: Any) -> tuple[float, int]:
    """Seconds until it is there, and which it is."""
    began = time.perf_counter()
    sampling = Sampling(max_tokens=1, temperature=0, ignore_eos=True)
    async with aclosing(engine.generate(prompt, sampling, **options)) as pieces:
        async for piece in pieces:
            if piece.tokens:
                return time.perf_counter() - began, piece.tokens[0].token
    raise RuntimeError("no token came")


def forget(path: Path) -> None:
    """Have the system drop what it keeps of a file in memory."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def table(lines: Sequence[Line]) -> str:
    """Markdown."""
    rows = [
        "| recipe | stored | file, MB | saved, s | loaded, ms | first question, s | next, s | read again, s | faster | "
        "same token |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {line.recipe} | {line.stored} | {line.megabytes:,.1f} | {line.save_s:.2f} | {line.load_s * 1e3:.1f} | "
        f"{line.first_s:.3f} | {line.next_s:.3f} | {line.again_s:.2f} | {line.again_s / line.next_s:.0f}x | "
        f"{'yes' if line.same else 'no'} |"
        for line in lines
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    raise SystemExit(main())
