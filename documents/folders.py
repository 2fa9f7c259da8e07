"""Which files a user means: the ones named, and those in the folders named."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lcdoc.documents.errors import LimitError, NotFoundError
from lcdoc.documents.loading import STDIN, suggestion

# In a folder, only files that look like documents are opened; a file that is named is opened whatever it is called.
SUFFIXES = frozenset(
    {".pdf", ".epub", ".docx", ".html", ".htm", ".xhtml", ".md", ".markdown", ".txt", ".text", ".rst", ".log"}
)
MAX_FILES = 100_000


@dataclass(frozen=True, slots=True)
class FileChoice:
    """A file to read; `named` if the user named it rather than a folder it lies in."""

    path: str
    named: bool


def find_files(paths: Sequence[str | os.PathLike[str]]) -> list[FileChoice]:
    """The files meant by `paths`, each once, folders walked in the order of their names.

    Hidden files and folders are passed over, links to folders not followed. Raises NotFoundError for a path that does
    not exist or a folder without documents, LimitError for a folder with too many.
    """
    chosen: dict[str, FileChoice] = {}
    for given in paths:
        name = os.fspath(given)
        path = Path(name)
        if name == STDIN or not path.is_dir():
            if name != STDIN and not path.exists():
                raise NotFoundError(name, "no such file or folder", suggestion(path))
            chosen[name] = FileChoice(name, named=True)
            continue
        found = _in_folder(path)
        if not found:
            raise NotFoundError(name, "no documents in this folder", "it may hold PDF, EPUB, DOCX, HTML, MD or TXT")
        for file in found:
            chosen.setdefault(file, FileChoice(file, named=False))
    return list(chosen.values())


def _in_folder(folder: Path) -> list[str]:
    files: list[str] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                files.append(str(Path(parent) / name))
        if len(files) > MAX_FILES:
            raise LimitError(str(folder), f"more than {MAX_FILES:,} documents in this folder", "name its sub-folders")
    return files
