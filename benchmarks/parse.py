"""Parsing PDFs: pages per second and peak memory, beside bare pypdfium2 and pypdf, in one run.

    python benchmarks/parse.py FILE.pdf [FILE.pdf ...] [--runs 5] [--skip-pypdf]

Each measurement is a process of its own that imports its library, reads every page's text, and prints its time; the
libraries take turns, so that a change of the machine's speed meets all of them. lcdoc's time includes starting its
parser's process and handing the document back; its memory is the larger of the two processes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys

_TIMED = """
import json, resource, sys, time
path = sys.argv[1]
start = time.perf_counter()
{body}
seconds = time.perf_counter() - start
peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps([seconds, peak * (1 if sys.platform == "darwin" else 1024), pages, characters]))
"""

_BODIES = {
    "lcdoc": """
from lcdoc.documents import load
document = load(path)
pages, characters = len(document.pages), len(document.text)
""",
    "pypdfium2": """
import pypdfium2
pdf = pypdfium2.PdfDocument(path)
pages, characters = len(pdf), 0
for index in range(pages):
    page = pdf[index]
    text_page = page.get_textpage()
    characters += len(text_page.get_text_range())
    text_page.close()
    page.close()
""",
    "pypdf": """
import logging, pypdf
logging.disable(logging.CRITICAL)
reader = pypdf.PdfReader(path)
pages, characters = len(reader.pages), 0
for page in reader.pages:
    characters += len(page.extract_text())
""",
}


def measure(library: str, path: str) -> tuple[float, int, int, int]:
    """Seconds, peak bytes, pages and characters of one library on one file."""
    code = _TIMED.format(body=_BODIES[library])
    run = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    seconds, peak, pages, characters = json.loads(run.stdout.splitlines()[-1])
    return seconds, peak, pages, characters


def main() -> None:
    """Print one table per file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE.pdf")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--skip-pypdf", action="store_true", help="leave out the slow peer")
    arguments = parser.parse_args()
    libraries = [name for name in _BODIES if not (name == "pypdf" and arguments.skip_pypdf)]
    print(f"{platform.platform()}, Python {platform.python_version()}, median of {arguments.runs}")
    for path in arguments.files:
        results: dict[str, list[tuple[float, int, int, int]]] = {name: [] for name in libraries}
        for run in range(arguments.runs):
            for name in libraries:
                if name != "pypdf" or run < 2:
                    results[name].append(measure(name, path))
        bare = statistics.median(row[0] for row in results["pypdfium2"])
        print(f"\n{path}: {results['pypdfium2'][0][2]} pages")
        print(f"{'library':<12}{'seconds':>9}{'pages/s':>9}{'ratio':>7}{'peak MiB':>10}{'characters':>12}")
        for name, rows in results.items():
            seconds = statistics.median(row[0] for row in rows)
            peak = statistics.median(row[1] for row in rows)
            print(
                f"{name:<12}{seconds:>9.2f}{rows[0][2] / seconds:>9.0f}{seconds / bare:>7.2f}"
                f"{peak / 2**20:>10.0f}{rows[0][3]:>12,}"
            )


if __name__ == "__main__":
    main()
