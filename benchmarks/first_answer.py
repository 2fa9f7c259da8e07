"""From a PDF nobody has read to the answer: cold, second question in a new process, questions in the same process.

    python benchmarks/first_answer.py BOOK.pdf [MORE.pdf ...] [--pages 300] [--runs 3]

The PDFs are joined and cut to `--pages` pages. Cold means no library; the second question is another process on the
library the first one left. Peers in the same run: starting Python with torch and with sentence-transformers imported,
which is what any answer with a model in Python pays before it starts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUESTIONS = [
    "What did Mr. Darcy say about Elizabeth at the ball?",
    "Who married Mr. Collins?",
    "When did Mr. Bingley leave Netherfield?",
    "Why does Lydia go to Brighton?",
    "How much money does Mr. Darcy have a year?",
]
_SAME_PROCESS = """
import json, sys, time
from lcdoc import Workspace
path, library, questions = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
seconds = []
with Workspace.open(library) as workspace:
    documents = workspace.read([path])
    for question in questions:
        start = time.perf_counter()
        workspace.ask(question, documents)
        seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))
"""


def join(files: list[str], pages: int, target: Path) -> int:
    """Write the first `pages` pages of `files`, one after the other, and return how many there are."""
    import pypdfium2

    joined = pypdfium2.PdfDocument.new()
    for name in files:
        source = pypdfium2.PdfDocument(name)
        wanted = min(len(source), pages - len(joined))
        if wanted > 0:
            joined.import_pages(source, list(range(wanted)))
    joined.save(target)
    return len(joined)


def wall(command: list[str]) -> float:
    """Seconds of one process; exit code 1 (not found) is an answer too."""
    start = time.perf_counter()
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode not in (0, 1):
        raise SystemExit(f"{command} failed:\n{run.stderr}")
    return time.perf_counter() - start


def main() -> None:
    """Print medians and minima beside the budgets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="BOOK.pdf")
    parser.add_argument("--pages", type=int, default=300)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    rows: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        rows.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory() as folder:
        book = Path(folder) / "book.pdf"
        pages = join(arguments.files, arguments.pages, book)
        for run in range(arguments.runs):
            library = Path(folder) / f"library{run}" / "library.sqlite"
            ask = [sys.executable, "-m", "lcdoc", "ask", str(book), "--library", str(library), "--quiet"]
            note("cold, first question", wall([*ask, QUESTIONS[0]]))
            for question in QUESTIONS[1:3]:
                note("new process, later question", wall([*ask, question]))
            same = [sys.executable, "-c", _SAME_PROCESS, str(book), str(library), json.dumps(QUESTIONS[2:])]
            output = subprocess.run(same, capture_output=True, text=True, check=True).stdout
            for value in json.loads(output.splitlines()[-1])[1:]:
                note("same process, later question", value)
            note("peer: import torch", wall([sys.executable, "-c", "import torch"]))
            note("peer: import sentence_transformers", wall([sys.executable, "-c", "import sentence_transformers"]))
            shutil.rmtree(library.parent)
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}; {pages} pages")
    for name, values in rows.items():
        print(f"{name:<36} {statistics.median(values):6.2f} s (min {min(values):.2f}, max {max(values):.2f})")
    print("budgets: cold < 8 s, new process < 3 s, same process < 0.5 s")


if __name__ == "__main__":
    main()
