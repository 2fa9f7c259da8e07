"""Parsing many documents: pages per second and scaling of the parser pool, beside its peers in one run.

    python benchmarks/parse_pool.py [FILE or FOLDER ...] [--processes 1 2] [--runs 3] [--small 1000]

The peers are `lcdoc.documents.load` in a loop, which starts a process for each document, and bare pypdfium2 in a
`multiprocessing.Pool`, which reads each page's text in the order of the file and does nothing else: no lines, no
paragraphs, no sections, no limits, and a crash takes the pool with it. Starting the processes counts for everybody.
They take turns, so that a change of the machine's speed meets all of them; `cpu s` is the processor time of all
processes, which others on the machine disturb less. Without files, the PDFs of `../shared/data` (or `$LCDOC_DATA`) are
read. The second table is about what one document costs when it is short.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lcdoc.documents import DocumentError, ParserPool, find_files, load

DATA = Path(os.environ.get("LCDOC_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
FOLDERS = ("financebench/pdfs", "books/pdf")

Size = tuple[int, int]
"""Pages and characters."""
Run = tuple[float, float, int, int]
"""Seconds, processor seconds, pages, characters."""


def bare(path: str) -> Size:
    """A PDF through pypdfium2 alone."""
    import pypdfium2

    texts: list[str] = []
    pdf = pypdfium2.PdfDocument(path)
    for page in pdf:
        text_page = page.get_textpage()
        texts.append(text_page.get_text_range())
        text_page.close()
        page.close()
    pdf.close()
    return len(texts), len("".join(texts))


def bare_pool(paths: list[str], processes: int) -> list[Size]:
    """The peer."""
    with multiprocessing.Pool(processes) as workers:
        return list(workers.imap_unordered(bare, paths))


def load_loop(paths: list[str]) -> list[Size]:
    """One document after the other."""
    documents = [load(path) for path in paths]
    return [(len(document.pages), len(document.text)) for document in documents]


def parser_pool(paths: list[str], processes: int) -> list[Size]:
    """What is measured."""
    sizes: list[Size] = []
    with ParserPool(processes) as pool:
        for path, result in pool.parse_many(paths, in_order=False):
            if isinstance(result, DocumentError):
                raise SystemExit(f"{path}: {result}")
            sizes.append((len(result.pages), len(result.text)))
    return sizes


def measured(work: Callable[[], list[Size]]) -> Run:
    """Run it once."""
    before, start = processor_s(), time.perf_counter()
    sizes = work()
    seconds, spent = time.perf_counter() - start, processor_s() - before
    return seconds, spent, sum(pages for pages, _ in sizes), sum(characters for _, characters in sizes)


def processor_s() -> float:
    """Processor time of this process and of its children that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def take_turns(ways: dict[str, Callable[[], list[Size]]], runs: int) -> dict[str, list[Run]]:
    """Every way `runs` times."""
    found: dict[str, list[Run]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, work in ways.items():
            found[name].append(measured(work))
    return found


def of_pdfs(paths: list[str], processes: list[int], runs: int) -> None:
    """Pages per second."""
    ways: dict[str, Callable[[], list[Size]]] = {"load in a loop": lambda: load_loop(paths)}
    for number in processes:
        ways[f"parser pool, {number}"] = lambda number=number: parser_pool(paths, number)  # type: ignore[misc]
        ways[f"pypdfium2, {number}"] = lambda number=number: bare_pool(paths, number)  # type: ignore[misc]
    found = take_turns(ways, runs)
    print(f"\n{len(paths)} PDFs, {found['load in a loop'][0][2]:,} pages")
    print(f"{'':<18}{'pages/s':>9}{'seconds':>9}{'cpu s':>8}{'of 1 process':>14}{'characters':>13}")
    for name, measurements in found.items():
        seconds = statistics.median(run[0] for run in measurements)
        spent = statistics.median(run[1] for run in measurements)
        peer = name.partition(",")[0]
        alone = found.get(f"{peer}, {processes[0]}", measurements)
        ratio = statistics.median(run[0] for run in alone) / seconds
        _, _, pages, characters = measurements[0]
        print(f"{name:<18}{pages / seconds:>9,.0f}{seconds:>9.2f}{spent:>8.2f}{ratio:>14.2f}{characters:>13,}")


def of_short_texts(count: int, processes: list[int], runs: int) -> None:
    """What a document costs that is hardly there."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{number}.txt") for number in range(count)]
        for number, path in enumerate(paths):
            Path(path).write_text(f"Lamp {number} was lit at dusk.\n", encoding="utf-8")
        few = paths[: max(1, count // 10)]
        ways: dict[str, Callable[[], list[Size]]] = {"load in a loop": lambda: load_loop(few)}
        for number in processes:
            ways[f"parser pool, {number}"] = lambda number=number: parser_pool(paths, number)  # type: ignore[misc]
        found = take_turns(ways, runs)
    print(f"\n{count:,} short texts ({len(few):,} of them for `load`)")
    print(f"{'':<18}{'ms a document':>15}{'cpu ms':>8}")
    for name, measurements in found.items():
        seconds, spent = (statistics.median(run[at] / run[2] for run in measurements) for at in (0, 1))
        print(f"{name:<18}{1000 * seconds:>15.1f}{1000 * spent:>8.1f}")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE or FOLDER")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--small", type=int, default=1000, help="short texts in the second table")
    arguments = parser.parse_args()
    given = arguments.files or [folder for name in FOLDERS if (folder := DATA / name).is_dir()]
    if not given:
        raise SystemExit(f"there is no data at {DATA}; name PDF files or set LCDOC_DATA")
    paths = [file.path for file in find_files(given) if file.path.lower().endswith(".pdf")]
    load_1min, *_ = os.getloadavg()
    print(
        f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} processors, median of"
        f" {arguments.runs}; load average {load_1min:.1f} before"
    )
    of_pdfs(paths, arguments.processes, arguments.runs)
    of_short_texts(arguments.small, arguments.processes, arguments.runs)


if __name__ == "__main__":
    main()
