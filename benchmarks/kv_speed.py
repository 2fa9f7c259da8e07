"""Prefill and decode under compression beside transformers' full cache: the 0.5B shape, random weights, one run.

    python benchmarks/kv_speed.py [--folder FOLDER] [--prompts 4096,16384,65536] [--recipes "RECIPE RECIPE ..."]
                                  [--peer-python PYTHON --presses "PRESS@SHARE ..."] [--rounds 1]

Every cell (kv_speed_cell.py) is a process of its own, which sees one prompt length; the columns take turns, --rounds
times, and medians are printed. The weights (engine_weights.py) are made once, in FOLDER. PYTHON has kvpress; without it
those columns are missing. A column that fails at a length is named with its failure, and left out at longer ones.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from lcdoc.benchmarks.engine import PINNED, WEIGHTS, machine
from lcdoc.benchmarks.kv_cell import FULL

CELL = Path(__file__).with_name("kv_speed_cell.py")
CELL_SECONDS = 7_200
RECIPES = "keydiff@0.1 snapkv+ada@0.1 keydiff@4096tok"
PRESSES = "snapkv:window=32@0.1"
FIGURES = {
    "prefill_tps": ("prefill, tokens/s", max),
    "decode_tps": ("decode, tokens/s", max),
    "peak_mb": ("peak memory, MB", min),
    "cache_mb": ("cache, MB", min),
}
"""What is shown of a cell, and which of two values is the better."""


@dataclass(frozen=True, slots=True)
class Column:
    """An engine and how it holds its cache."""

    engine: str
    python: str
    kv: str = FULL

    @property
    def name(self) -> str:
        return f"{self.engine} {self.kv}"


@dataclass
class Measured:
    """For each column, length and figure the values of all rounds; and what failed."""

    values: dict[tuple[Column, int, str], list[float]] = field(default_factory=dict)
    failures: dict[tuple[Column, int], str] = field(default_factory=dict)

    def add(self, column: Column, prompt: int, cell: dict[str, Any]) -> None:
        for figure in FIGURES:
            value = cell.get(figure)
            if value is not None:
                self.values.setdefault((column, prompt, figure), []).append(float(value))

    def of(self, column: Column, prompt: int, figure: str) -> float:
        """The median over the rounds; not a number where nothing was measured."""
        values = self.values.get((column, prompt, figure))
        return median(values) if values else math.nan


def cell(column: Column, folder: Path, prompt: int, tokens: int) -> dict[str, Any]:
    """What a process for one cell prints. Raises RuntimeError, with the last it said, where it fails."""
    command = [column.python, str(CELL), column.engine, str(folder), "--kv", column.kv]
    command += ["--prompt", str(prompt), "--tokens", str(tokens)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CELL_SECONDS, env={**os.environ, **PINNED}, check=False
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not done in {CELL_SECONDS} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise RuntimeError(f"exit {done.returncode}: {said[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(
    columns: Sequence[Column], folder: Path, prompts: Sequence[int], *, rounds: int, tokens: int, into: Measured
) -> None:
    """All cells, the columns in turn, shorter prompts first; a column is left out once it failed."""
    for _ in range(rounds):
        for prompt in sorted(prompts):
            for column in columns:
                if any(failed == column for failed, _ in into.failures):
                    continue
                try:
                    found = cell(column, folder, prompt, tokens)
                except RuntimeError as error:
                    into.failures[column, prompt] = str(error)
                    continue
                into.add(column, prompt, found)
                speeds = f"prefill {found['prefill_tps']:.0f}/s, decode {found['decode_tps']:.2f}/s"
                print(
                    f"{column.name}, {prompt} tokens: {speeds}, peak {found['peak_mb']:.0f} MB",
                    file=sys.stderr,
                    flush=True,
                )


def table(measured: Measured, columns: Sequence[Column], prompts: Iterable[int]) -> str:
    """Markdown: a row for each column, length and figure side by side; how many times better than the first column."""
    lines = []
    first = columns[0]
    for prompt in sorted(prompts):
        names = [name for name, _ in FIGURES.values()]
        lines += [f"\n{prompt:,} tokens\n", f"| | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
        for column in columns:
            cells = []
            for figure, (_, better) in FIGURES.items():
                ours, theirs = measured.of(column, prompt, figure), measured.of(first, prompt, figure)
                times = ours / theirs if better is max else theirs / ours
                beside = f" (x{times:.2f})" if column != first and math.isfinite(times) else ""
                cells.append("-" if math.isnan(ours) else f"{ours:,.{0 if ours >= 100 else 2}f}{beside}")
            lines.append(f"| {column.name} | {' | '.join(cells)} |")
    for (column, prompt), failure in measured.failures.items():
        lines.append(f"\n{column.name} failed at {prompt:,} tokens: {failure}")
    return "\n".join(lines)


def main() -> int:
    """Make the weights, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "lcdoc-engine-weights")
    parser.add_argument("--prompts", default="4096,16384,65536", help="lengths, separated by commas")
    parser.add_argument("--recipes", default=RECIPES, help="of lcdoc, separated by spaces")
    parser.add_argument("--peer-python", help="an interpreter with kvpress")
    parser.add_argument("--presses", default=PRESSES, help="of kvpress, separated by spaces")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=33, help="generated for each prompt")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    subprocess.run([sys.executable, str(WEIGHTS), str(folder)], check=True)
    columns = [Column("transformers", sys.executable), Column("lcdoc", sys.executable)]
    if arguments.peer_python:
        columns += [Column("kvpress", arguments.peer_python, press) for press in arguments.presses.split()]
    recipes = [Column("lcdoc", sys.executable, recipe) for recipe in arguments.recipes.split()]
    columns += recipes
    prompts = [int(length) for length in arguments.prompts.split(",")]
    rounds, tokens = arguments.rounds, arguments.tokens
    print(machine())
    measured = Measured()
    measure(columns, folder, prompts, rounds=rounds, tokens=tokens, into=measured)
    print(table(measured, columns, prompts), flush=True)
    return 0 if not measured.failures else 1


if __name__ == "__main__":
    raise SystemExit(main())
