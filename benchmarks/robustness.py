"""What becomes of broken, encrypted, cyclic, scanned and odd files: one line each, and a count of outcomes.

    python benchmarks/robustness.py [FOLDER ...] [--seconds 20]

A folder holds files and an INDEX.tsv with the columns `file`, `category` and perhaps `password_json`. Default: the
folders nasty_pdfs and nasty_other of $LCDOC_DATA (or ../shared/data). Exit code 1 if any file ends in anything but a
document or a DocumentError, or takes longer than the limit.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lcdoc.documents import DocumentError, Limits, load

_DATA = Path(os.environ.get("LCDOC_DATA", Path(__file__).resolve().parents[1].parent / "shared" / "data"))


def outcome(path: Path, password: str | None, seconds: float) -> tuple[str, str, float]:
    """How reading a file ends: kind, message, seconds."""
    start = time.monotonic()
    try:
        document = load(path, password=password, limits=Limits(max_seconds=seconds))
    except DocumentError as error:
        kind, message = type(error).__name__, str(error).removeprefix(f"{path}: ")
    except Exception as error:  # noqa: BLE001 - this is what the script looks for
        kind, message = "BUG", repr(error)
    else:
        pages, characters, sections = len(document.pages), len(document.text), len(document.sections)
        facts = [f"{pages} pages, {characters:,} characters, {sections} sections", *document.source.warnings]
        kind, message = "read", "; ".join(facts)
    return kind, message, time.monotonic() - start


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, default=[_DATA / "nasty_pdfs", _DATA / "nasty_other"])
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    kinds: Counter[str] = Counter()
    slowest = 0.0
    for folder in arguments.folders:
        with (folder / "INDEX.tsv").open(encoding="utf-8", newline="") as table:
            rows = list(csv.DictReader(table, delimiter="\t"))
        with ThreadPoolExecutor(max_workers=2) as pool:
            results = pool.map(
                lambda row, folder=folder: outcome(
                    folder / row["file"], row.get("password_json") or None, arguments.seconds
                ),
                rows,
            )
            for row, (kind, message, seconds) in zip(rows, results, strict=True):
                print(f"{row['file']} | {row['category']} | {seconds:.1f} s | {kind} | {message[:160]}")
                kinds[kind] += 1
                slowest = max(slowest, seconds)
    print(
        f"\n{sum(kinds.values())} files, slowest {slowest:.1f} s: "
        + ", ".join(f"{n} {k}" for k, n in kinds.most_common())
    )
    return 1 if kinds["BUG"] or slowest > arguments.seconds + 5 else 0


if __name__ == "__main__":
    raise SystemExit(main())
