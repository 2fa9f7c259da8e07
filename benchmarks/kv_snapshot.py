"""Time to the first token of a question: behind a snapshot of a document, against reading the document again.

    python benchmarks/kv_snapshot.py FOLDER [--tokens 16384] [--recipes "keydiff@0.25 snapkv+ada@0.1"] [--rounds 5]

One engine, one process, random tokens; the weights (engine_weights.py) are made in FOLDER unless they are there. For
the full cache and each recipe the document is read once, which is what a question costs without a snapshot, but for its
own tokens. The snapshot is then saved, as it is and as int8, and asked from its file:

- first, cold: loaded, put into pages and asked, with nothing of the file in memory, as far as the system can be told to
  forget it; first, warm: the same with the file in memory;
- next: asked again, as the engine still has the pages (the median of all rounds);
- eight at once: the pages that eight questions hold together while they are answered.
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

from lcdoc.benchmarks.engine import machine
from lcdoc.benchmarks.engine_weights import make
from lcdoc.benchmarks.kv_cell import FULL
from lcdoc.local_engine import Engine, KVConfig, Sampling, Snapshot

RECIPES = "keydiff@0.25 snapkv+ada@0.1"
QUESTION_TOKENS = 24
TOGETHER = 8
PRECISIONS = (None, "int8")


@dataclass(frozen=True, slots=True)
class Line:
    """What was measured of one recipe and one way to save."""

    recipe: str
    stored: str
    read_s: float
    """Of the document, without a question."""
    megabytes: float
    """Of the file."""
    save_s: float
    load_s: float
    """Until the file is mapped and checked."""
    cold_s: float
    warm_s: float
    """From the file to the first token of a question, loading included."""
    next_s: float
    together_megabytes: float
    """Of the cache, while eight questions are answered."""

    @property
    def cells(self) -> tuple[str, ...]:
        """As the table shows them."""
        return (
            self.recipe,
            self.stored,
            f"{self.megabytes:,.1f}",
            f"{self.save_s:.2f}",
            f"{self.load_s * 1e3:.1f}",
            f"{self.read_s:.1f}",
            f"{self.cold_s:.3f}",
            f"{self.warm_s:.3f}",
            f"{self.next_s:.3f}",
            f"{self.read_s / self.warm_s:,.0f}x, {self.read_s / self.next_s:,.0f}x",
            f"{self.together_megabytes:,.0f}",
        )


HEADER = (
    "recipe",
    "stored",
    "file, MB",
    "saved, s",
    "loaded, ms",
    "read, s",
    "first, cold, s",
    "first, warm, s",
    "next, s",
    "faster (warm, next)",
    f"cache of {TOGETHER} at once, MB",
)


def main() -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the weights are, or are to be made")
    parser.add_argument("--tokens", type=int, default=16_384, help="of the document")
    parser.add_argument("--recipes", default=RECIPES, help="beside the full cache")
    parser.add_argument("--rounds", type=int, default=5, help="questions behind a resident snapshot")
    parser.add_argument("--step-tokens", type=int, default=None, help="tokens of one pass")
    arguments = parser.parse_args()
    make(arguments.folder)
    engine = Engine.load(
        arguments.folder, dtype="bfloat16", kv=KVConfig(prefix_cache=False), step_tokens=arguments.step_tokens
    )
    document = tokens(arguments.tokens, 0)
    with engine, tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        asyncio.run(first_token(engine, document[:64]))
        lines = [
            line
            for recipe in (FULL, *arguments.recipes.split())
            for line in asyncio.run(measured(engine, recipe, document, arguments.rounds, Path(folder)))
        ]
    print(
        f"{arguments.tokens:,} tokens read, {QUESTION_TOKENS} asked; {arguments.folder.name} in bfloat16; {machine()}\n"
    )
    print(table(lines))
    return 0


async def measured(engine: Engine, recipe: str, document: list[int], rounds: int, folder: Path) -> list[Line]:
    """A line for each precision."""
    began = time.perf_counter()
    snapshot = await engine.prefill(document, kv=recipe)
    read_s = time.perf_counter() - began
    lines = []
    for precision in PRECISIONS:
        path = folder / f"{precision}.kv"
        began = time.perf_counter()
        snapshot.save(path, quantize=precision)
        save_s = time.perf_counter() - began
        forget(path)
        began = time.perf_counter()
        loaded = Snapshot.load(path)
        load_s = time.perf_counter() - began
        cold_s = load_s + await first_token(engine, question(0), loaded)
        os.utime(path)  # to the engine it is then another file, and is put into pages again
        began = time.perf_counter()
        loaded = Snapshot.load(path)
        warm_s = time.perf_counter() - began + await first_token(engine, question(1), loaded)
        next_s = median([await first_token(engine, question(number), loaded) for number in range(2, 2 + rounds)])
        held = await held_together(engine, loaded)
        lines.append(
            Line(
                recipe,
                precision or "as it is",
                read_s,
                path.stat().st_size / 1e6,
                save_s,
                load_s,
                cold_s,
                warm_s,
                next_s,
                held / 1e6,
            )
        )
    return lines


async def first_token(engine: Engine, prompt: list[int], prefix: Snapshot | None = None) -> float:
    """Seconds until it is there."""
    began = time.perf_counter()
    sampling = Sampling(max_tokens=1, temperature=0, ignore_eos=True)
    async with aclosing(engine.generate(prompt, sampling, prefix=prefix)) as pieces:
        async for piece in pieces:
            if piece.tokens:
                return time.perf_counter() - began
    raise RuntimeError("no token came")


async def held_together(engine: Engine, prefix: Snapshot) -> float:
    """Bytes of the cache that questions at once take, the snapshot's pages among them."""
    before, most = engine.stats(), 0
    sampling = Sampling(max_tokens=4, temperature=0, ignore_eos=True)
    asked = [
        asyncio.create_task(engine.complete(question(100 + number), sampling, prefix=prefix))
        for number in range(TOGETHER)
    ]
    while not all(each.done() for each in asked):
        most = max(most, engine.stats().cache_bytes)
        await asyncio.sleep(0.005)
    for each in asked:
        each.result()
    # Other snapshots that are still kept do not count.
    return most - before.cache_bytes + prefix.cache_bytes


def question(number: int) -> list[int]:
    """One of many."""
    return tokens(QUESTION_TOKENS, 1 + number)


def tokens(count: int, seed: int) -> list[int]:
    """Random ones."""
    draw = random.Random(seed)
    return [draw.randrange(100, 20_000) for _ in range(count)]


def forget(path: Path) -> None:
    """Have the system drop what it keeps of a file in memory."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def table(lines: Sequence[Line]) -> str:
    """Markdown."""
    rows = [HEADER, ("---",) * len(HEADER), *(line.cells for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows).replace("| --- ", "|---").replace("|--- |", "|---|")


if __name__ == "__main__":
    raise SystemExit(main())
