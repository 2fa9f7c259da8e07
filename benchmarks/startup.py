"""How long the command line takes to start: `lcdoc --help`, beside a bare Python, in one run.

    python benchmarks/startup.py [--runs 15]

Whole processes, taking turns; median, and the budget of 0.25 s.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time

_COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import typer": [sys.executable, "-c", "import typer"],
    "lcdoc --help": [sys.executable, "-m", "lcdoc", "--help"],
    "lcdoc ask --help": [sys.executable, "-m", "lcdoc", "ask", "--help"],
}
_BUDGET_S = 0.25


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    times: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for number in range(runs + 1):
        for name, command in _COMMANDS.items():
            taken = seconds(command)
            if number:  # the first round warms the disk cache
                times[name].append(taken)
    print(f"{platform.platform()}, Python {platform.python_version()}, median of {runs} (minimum)")
    for name, values in times.items():
        print(f"{name:<18} {statistics.median(values):.3f} s ({min(values):.3f})")
    print(f"budget for lcdoc --help: {_BUDGET_S} s")


if __name__ == "__main__":
    main()
