"""Peak memory of prompts of different lengths under the same recipe: what is kept bounds it, not what is read.

    python benchmarks/kv_memory.py FOLDER OUT [--prompts 8192,131008] [--kv keydiff@1638tok] [--tokens 9]

FOLDER has the weights of engine_weights.py, which are made there if they are not. Each length is a process of its own
(kv_speed_cell.py) whose peak counts everything it holds: weights, cache, tokens, and whatever grows with the text
unseen. OUT gets a JSON file for each length, which is not measured again: a run that was broken off
goes on. The exit status is 1 where the longest takes over a tenth more than the shortest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lcdoc.benchmarks.engine import WEIGHTS, machine
from lcdoc.benchmarks.kv_speed import Column, cell

MOST_GROWTH = 1.1


def measured(folder: Path, out: Path, *, kv: str, prompt: int, tokens: int) -> dict[str, Any]:
    """The cell of one length, from its file if it was measured. Raises RuntimeError with what it failed of."""
    path = out / f"{kv.replace(':', '-').replace(',', '-').replace('@', '_')}-{prompt}.json"
    if not path.exists():
        path.write_text(json.dumps(cell(Column("lcdoc", sys.executable, kv), folder, prompt, tokens)), encoding="utf-8")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def table(cells: dict[int, dict[str, Any]]) -> str:
    """Markdown: a row for each length."""
    lines = [
        "| tokens | peak, MB | against the shortest | before the prompt, MB | cache, MB | prefill, tokens/s |",
        f"|{'---:|' * 6}",
    ]
    shortest = cells[min(cells)]["peak_mb"]
    for prompt, one in sorted(cells.items()):
        lines.append(
            f"| {prompt:,} | {one['peak_mb']:,.0f} | {one['peak_mb'] / shortest:.3f} | {one['base_mb']:,.0f} | "
            f"{one['cache_mb']:.1f} | {one['prefill_tps']:,.0f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure what is not yet, print, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--prompts", default="8192,131008", help="lengths in tokens, separated by commas")
    parser.add_argument("--kv", default="keydiff@1638tok", help="a recipe that keeps a number of entries")
    parser.add_argument("--tokens", type=int, default=9, help="generated behind each prompt")
    arguments = parser.parse_args()
    folder, out = arguments.folder, arguments.out
    out.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.json").exists():
        subprocess.run([sys.executable, str(WEIGHTS), str(folder)], check=True)
    lengths = sorted(int(length) for length in arguments.prompts.split(","))
    cells: dict[int, dict[str, Any]] = {}
    for prompt in lengths:
        try:
            cells[prompt] = measured(folder, out, kv=arguments.kv, prompt=prompt, tokens=arguments.tokens)
        except RuntimeError as error:
            raise SystemExit(f"{prompt:,} tokens: {error}") from None
    print(f"{machine()}\n\n{arguments.kv}\n\n{table(cells)}")
    return int(cells[lengths[-1]]["peak_mb"] > MOST_GROWTH * cells[lengths[0]]["peak_mb"])


if __name__ == "__main__":
    raise SystemExit(main())
