"""The engine beside transformers and llama.cpp: the same random weights, the same prompts, one machine, one run.

    python benchmarks/engine.py [--llama-python PYTHON] [--folder FOLDER] [--rounds 3] [--prompts 4096,16384]

PYTHON is an interpreter that has `llama-cpp-python` and `gguf`; without it that column is missing. The weights
(engine_weights.py) are made once, in FOLDER. Every cell (engine_cell.py) is a process of its own; the engines take
turns, --rounds times, and medians are printed. llama.cpp is run with flash attention on and off, and each of its
figures is the better of the two. Before anything is timed, what the engines compute is compared.

Memory is of the whole process, the interpreter and mapped weights with it: "base" after the first answers, "peak"
while the prompt is computed and continued. The first token is that of a prompt of 64 tokens, after loading and again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

CELL = Path(__file__).with_name("engine_cell.py")
WEIGHTS = Path(__file__).with_name("engine_weights.py")
OURS, TRANSFORMERS, LLAMA = "lcdoc", "transformers", "llama.cpp"
TOGETHER = 8
TOGETHER_PROMPT = 512
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16", "i8mm")
PINNED = {"OMP_PROC_BIND": "true", "OMP_PLACES": "threads"}
"""Without it, threads move between cores and figures scatter."""
CELL_SECONDS = 1_800
Task = tuple[int, int]
"""Tokens of a prompt, and how many prompts at once."""


@dataclass(frozen=True)
class Column:
    """An engine with the settings it is run with, one set after the other."""

    engine: str
    python: str
    settings: tuple[tuple[str, ...], ...] = ((),)


@dataclass
class Table:
    """What was measured: of each engine, task and figure the best setting's values, a value for each round."""

    values: dict[tuple[str, Task, str], list[float]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, engine: str, task: Task, cells: Sequence[dict[str, Any]]) -> None:
        """Add what the settings of one engine came to in one round."""
        for figure, value in cells[0].items():
            if isinstance(value, float):
                best = max if figure.endswith("_tps") else min
                values = self.values.setdefault((engine, task, figure), [])
                values.append(best(float(cell[figure]) for cell in cells))
        self.versions[engine] = cells[0]["version"]

    def of(self, engine: str, task: Task, figure: str) -> float:
        """The median over the rounds; not a number where nothing was measured."""
        values = self.values.get((engine, task, figure))
        return median(values) if values else math.nan


def columns(llama_python: str | None) -> list[Column]:
    peers = [Column(TRANSFORMERS, sys.executable)]
    if llama_python is not None:
        flash = (("flash_attention=on",), ("flash_attention=off",))
        peers.append(Column(LLAMA, llama_python, flash))
    return [*peers, Column(OURS, sys.executable)]


def cell(column: Column, folder: Path, arguments: Sequence[str], options: Sequence[str]) -> Any:
    """What a process for one cell prints. Raises RuntimeError, with the last it said, where it fails."""
    command = [column.python, str(CELL), column.engine, str(folder), *arguments]
    command += [part for option in options for part in ("--option", option)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=CELL_SECONDS, env={**os.environ, **PINNED}, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise RuntimeError(f"{column.engine} exited with {done.returncode} and said: {said[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(run: Sequence[Column], folder: Path) -> None:
    """Print how far the engines' best tokens after a short prompt are from those of transformers in float32."""
    oracle = dict(cell(Column(TRANSFORMERS, sys.executable), folder, ["--best"], ["dtype=float32"]))
    print(f"the {len(oracle)} best tokens of transformers in float32: how many are among them, how far they are off")
    for column in run:
        for options in column.settings:
            name = " ".join([column.engine, *options])
            try:
                best = dict(cell(column, folder, ["--best"], options))
            except RuntimeError as error:
                print(f"  {name:32} {error}")
                continue
            common = [token for token in oracle if token in best]
            off = max((abs(oracle[token] - best[token]) for token in common), default=math.nan)
            first = "the first is the same" if next(iter(oracle)) == next(iter(best)) else "the first is another"
            print(f"  {name:32} {len(common)}, by at most {off:.4f} in log-probability; {first}", flush=True)


def measure(run: Sequence[Column], folder: Path, tasks: Sequence[Task], *, rounds: int, tokens: int) -> Table:
    """All cells, the engines in turn; an engine that fails at a task is left out from there on."""
    table = Table()
    for number in range(rounds):
        for task in tasks:
            sizes = ["--prompt", str(task[0]), "--at-once", str(task[1]), "--tokens", str(tokens)]
            for column in run:
                if column.engine in table.failures:
                    continue
                try:
                    cells = [cell(column, folder, sizes, options) for options in column.settings]
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    table.failures[column.engine] = str(error)
                    continue
                table.add(column.engine, task, cells)
                prefill, decode = (max(one[f"{speed}_tps"] for one in cells) for speed in ("prefill", "decode"))
                where = f"round {number + 1}, {task[1]} x {task[0]} tokens, {column.engine}"
                print(f"{where}: prefill {prefill:.0f}/s, decode {decode:.2f}/s", file=sys.stderr, flush=True)
    return table


def rows(table: Table, engine: str, prompts: Sequence[int]) -> Iterator[tuple[str, float, bool]]:
    """What is shown of an engine: name, figure, and whether more is better."""
    for prompt in prompts:
        alone = (prompt, 1)
        yield f"prefill at {prompt}, tokens/s", table.of(engine, alone, "prefill_tps"), True
        yield f"decode at {prompt}, tokens/s", table.of(engine, alone, "decode_tps"), True
        yield f"peak memory at {prompt}, MB", table.of(engine, alone, "peak_mb"), False
    together, one = (TOGETHER_PROMPT, TOGETHER), (TOGETHER_PROMPT, 1)
    eight, single = (table.of(engine, task, "decode_tps") for task in (together, one))
    yield f"decode at {TOGETHER_PROMPT}, tokens/s", single, True
    yield f"decode, {TOGETHER} at once, tokens/s", eight, True
    yield f"{TOGETHER} at once beside one", eight / single, True
    yield "load, s", table.of(engine, one, "load_s"), False
    yield "first token after loading, s", table.of(engine, one, "first_s"), False
    yield "first token again, s", table.of(engine, one, "again_s"), False
    yield "peak memory of loading, MB", table.of(engine, one, "load_peak_mb"), False
    yield "base memory, MB", table.of(engine, one, "base_mb"), False


def show(table: Table, run: Sequence[Column], prompts: Sequence[int]) -> None:
    """Print the table; the last columns say how many times better than each peer ours is."""
    peers = [column.engine for column in run if column.engine != OURS and column.engine in table.versions]
    shown = {engine: list(rows(table, engine, prompts)) for engine in [*peers, OURS]}
    names = [*peers, OURS, *(f"/ {peer}" for peer in peers)]
    print(f"\n{'':32}" + "".join(f"{name:>16}" for name in names))
    for index, (name, ours, more) in enumerate(shown[OURS]):
        theirs = [shown[peer][index][1] for peer in peers]
        digits = 0 if name.endswith("MB") else 2
        figures = [f"{value:.{digits}f}" for value in (*theirs, ours)]
        better = [f"{(ours / other) if more else (other / ours):.2f}" for other in theirs]
        print(f"{name:32}" + "".join(f"{'-' if text == 'nan' else text:>16}" for text in [*figures, *better]))
    for engine, failure in table.failures.items():
        print(f"{engine} is not in the table: {failure}")


def machine() -> str:
    """The processor, with what of it matters here, and the memory."""
    info = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    if info.exists():
        lines = (line.partition(":") for line in info.read_text(encoding="utf-8").splitlines())
        fields = {name.strip(): value.strip() for name, _, value in lines}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    name = fields.get("model name", platform.processor() or platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    has = ", ".join(feature for feature in FEATURES if feature in flags)
    return f"{os.cpu_count()} cores of {name} ({has}), {memory:.0f} GB, Python {platform.python_version()}"


def main() -> int:
    """Make the weights, compare, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama-python", help="an interpreter with llama-cpp-python and gguf")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "lcdoc-engine-weights")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", default="4096,16384", help="lengths, separated by commas")
    parser.add_argument("--tokens", type=int, default=33, help="generated for each prompt")
    parser.add_argument("--engines", help="only these, separated by commas")
    arguments = parser.parse_args()
    run = columns(arguments.llama_python)
    if arguments.engines:
        run = [column for column in run if column.engine in arguments.engines.split(",")]
    folder: Path = arguments.folder
    subprocess.run([sys.executable, str(WEIGHTS), str(folder)], check=True)
    if arguments.llama_python:
        subprocess.run([arguments.llama_python, str(WEIGHTS), str(folder), "--gguf"], check=True)
    prompts = [int(length) for length in arguments.prompts.split(",")]
    tasks = [(TOGETHER_PROMPT, 1), (TOGETHER_PROMPT, TOGETHER), *((length, 1) for length in prompts)]
    print(machine())
    compare(run, folder)
    table = measure(run, folder, tasks, rounds=arguments.rounds, tokens=arguments.tokens)
    print("; ".join(table.versions.values()), f"- medians of {arguments.rounds}")
    show(table, run, prompts)
    return 0 if not table.failures else 1


if __name__ == "__main__":
    raise SystemExit(main())
