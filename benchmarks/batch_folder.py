"""`lcdoc batch` over a folder of some three hundred real files, good and nasty, with three questions each, offline.

    python benchmarks/batch_folder.py [--workers 2] [--keep FOLDER]

The folder is made of what is in `../shared/data` or $LCDOC_DATA: books, filings, essays and papers, and files that are
broken, encrypted, scanned, or in odd encodings. Printed are the rows by outcome and the failures by reason. Exit code 1
unless every file has a row for each question.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

QUESTIONS = ("Who wrote this?", "What is the main result?", "How much did it cost?")
_FOLDERS = {
    "books/pdf/*.pdf": 2,
    "books/epub/*.epub": 3,
    "books/txt/*.txt": 4,
    "financebench/pdfs/*.pdf": 6,
    "needle_haystacks/PaulGrahamEssays/*.txt": 1000,
    "babi/**/*.txt": 1000,
    "nasty_pdfs/*.pdf": 1000,
    "nasty_other/*.*": 1000,
}
"""Where files are, and how many are taken of each kind, the smallest first."""


def make_folder(data: Path, folder: Path) -> int:
    """Links to the files, and the papers of COVID-QA as text files; returns how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    for pattern, most in _FOLDERS.items():
        files = [path for path in data.glob(pattern) if path.name != "INDEX.tsv"]
        for path in sorted(files, key=lambda path: (path.stat().st_size, path.name))[:most]:
            (folder / f"{path.parent.name}--{path.name}").symlink_to(path)
    papers = data / "covid_qa" / "200421_covidQA.json"
    if papers.exists():
        for number, paper in enumerate(json.loads(papers.read_text(encoding="utf-8"))["data"]):
            text = paper["paragraphs"][0]["context"]
            (folder / f"covid_qa--{number:03}.txt").write_text(text, encoding="utf-8")
    return sum(1 for _ in folder.iterdir())


def without_names(reason: str) -> str:
    """An error without what it is about, so that errors of one kind are counted together."""
    _, _, problem = reason.partition(": ")
    problem = (problem or reason).partition(";")[0]
    return re.sub(r"\d[\d,.]*", "N", re.sub(r"'[^']*'|\"[^\"]*\"", "...", problem))[:90]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--keep", type=Path, help="leave folder, library and results there")
    given = parser.parse_args()
    data = Path(os.environ.get("LCDOC_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not data.is_dir():
        raise SystemExit(f"no data in {data}; set LCDOC_DATA")
    place = given.keep or Path(tempfile.mkdtemp())
    place.mkdir(parents=True, exist_ok=True)
    try:
        return report(data.resolve(), place, given.workers)
    finally:
        if given.keep is None:
            shutil.rmtree(place, ignore_errors=True)


def report(data: Path, place: Path, workers: int) -> int:
    files = make_folder(data, place / "folder")
    (place / "questions.txt").write_text("\n".join(QUESTIONS) + "\n", encoding="utf-8")
    # A list, so that files are taken whatever they are called.
    listed = place / "list.txt"
    listed.write_text("\n".join(map(str, sorted((place / "folder").iterdir()))) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "lcdoc", "batch", f"@{listed}", "--ask", str(place / "questions.txt")]
    command += ["--library", str(place / "library.sqlite"), "--out", str(place / "results")]
    command += ["--model", "offline", "--workers", str(workers)]
    started = time.monotonic()
    status = subprocess.run(command, check=False).returncode
    seconds = time.monotonic() - started
    lines = (place / "results" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    outcomes = Counter("failed" if row["error"] else "answered" if row["found"] else "not found" for row in rows)
    failed = {row["document"]["path"]: row["error"] for row in rows if row["error"]}
    reasons = Counter(map(without_names, failed.values()))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{files} files x {len(QUESTIONS)} questions, {workers} workers: {len(rows)} rows in {seconds:.0f} s")
    print(f"exit code {status}; {', '.join(f'{count} {outcome}' for outcome, count in outcomes.most_common())}")
    print(f"{len(failed)} files failed:")
    for reason, count in reasons.most_common():
        print(f"  {count:4}x {reason}")
    keys = {(row["document"]["path"], row["task"]["number"]) for row in rows}
    whole = len(keys) == len(rows) == files * len(QUESTIONS)
    print("every file has a row for each question" if whole else "rows are missing, or there twice")
    return 0 if whole else 1


if __name__ == "__main__":
    raise SystemExit(main())
