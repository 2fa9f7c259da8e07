"""Which documents a job is about: folders, globs, files, and lists of any of them, found one by one in a stable order.

Folders are walked in the order of names, however large they are, without following links to folders (which may lead in
circles, or anywhere). What is hidden, or does not look like a document, is passed over there and counted. A file that
is named, itself or in a list, is a document of the job whatever it is: where it cannot be read, its row says so.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from lcdoc.documents import NotFoundError
from lcdoc.documents.folders import SUFFIXES
from lcdoc.documents.loading import suggestion
from lcdoc.jobs.errors import JobError

STDIN = "-"
_LIST = "@"
_MAGIC = re.compile(r"[*?[]")
_PLAIN_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


class Sources:
    """The files that `given` means, as absolute paths; `stdin` is the list that `-` stands for.

    Iterating raises what `check` raises, where a source has come to nothing by then.
    """

    def __init__(self, given: Sequence[str], *, stdin: bytes | None = None) -> None:
        self._given = located(given, Path.cwd())
        self._stdin = stdin
        self.skipped: Counter[str] = Counter()
        """What was passed over in folders, by what it is: `.xlsx`, `links to folders`."""

    def __iter__(self) -> Iterator[str]:
        self.skipped.clear()
        for source in self._given:
            found = False
            for path in self._of(source):
                found = True
                yield path
            if not found:
                raise self._nothing(source)

    def check(self) -> None:
        """Raises NotFoundError for a source that is not there or has no documents, JobError for a list that cannot be
        read: before a job is begun."""
        for source in self._given:
            paths = self._of(source)
            if self._is_list(source):
                if not any(map(os.path.lexists, paths)):
                    raise self._nothing(source)
            elif next(paths, None) is None:
                raise self._nothing(source)
        self.skipped.clear()

    def _of(self, source: str) -> Iterator[str]:
        if self._is_list(source):
            yield from self._listed(source)
        elif _is_folder(source):
            yield from self._walk(source)
        elif os.path.lexists(source):
            yield _storable(source)
        elif _MAGIC.search(source):
            yield from self._matching(source)
        else:
            raise NotFoundError(source, "no such file or folder", suggestion(Path(source)))

    @staticmethod
    def _is_list(source: str) -> bool:
        return source.startswith(_LIST) or source == STDIN or source.startswith(f"{STDIN} ")

    def _listed(self, source: str) -> Iterator[str]:
        if source.startswith(_LIST):
            file = Path(source[1:])
            try:
                listed, folder = file.read_bytes(), file.parent
            except OSError as error:
                raise JobError(f"the list {file} cannot be read ({error.strerror})", "name a file with paths") from None
        elif self._stdin is not None:
            listed, folder = self._stdin, Path.cwd()
        else:
            raise JobError("the list of documents was on standard input", "pipe it in again, or keep it in a file")
        for name in _names_in(listed):
            path = os.path.normpath(folder / name)
            if _is_folder(path):
                yield from self._walk(path)
            else:
                yield _storable(path)

    def _walk(self, folder: str, depth: int | None = None) -> Iterator[str]:
        """The documents below `folder`; at most `depth` levels down."""
        left = [(folder, 1)]
        while left:
            here, level = left.pop()
            try:
                with os.scandir(here) as entries:
                    found = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda e: e.name)
            except OSError:
                self.skipped["folders that cannot be opened"] += 1
                continue
            folders = [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    continue
                if why := _passed_over(entry):
                    self.skipped[why] += 1
                else:
                    yield entry.path
            if depth is None or level < depth:
                left += [(inner, level + 1) for inner in reversed(folders)]

    def _matching(self, pattern: str) -> Iterator[str]:
        parts = Path(pattern).parts
        first = next(number for number, part in enumerate(parts) if _MAGIC.search(part))
        base, rest = Path(*parts[:first]), parts[first:]
        if not _is_folder(base):
            raise NotFoundError(str(base), "no such folder", suggestion(base))
        for path in self._walk(str(base), None if "**" in rest else len(rest)):
            if _fits(Path(path).parts[first:], rest):
                yield path

    def _nothing(self, source: str) -> Exception:
        if self._is_list(source):
            where = f"the list {source[1:]}" if source.startswith(_LIST) else "the list on standard input"
            return JobError(f"no file of {where} is there", "a path a line, relative to the list's folder")
        if _is_folder(source):
            remedy = "it may hold PDF, EPUB, DOCX, HTML, MD or TXT"
            return NotFoundError(source, "no documents in this folder", remedy)
        return NotFoundError(source, "no document matches", "only names of PDF, EPUB, DOCX, HTML, MD or TXT do")


def located(given: Sequence[str], folder: Path) -> tuple[str, ...]:
    """The same sources as absolute paths, those that are relative being so to `folder`."""
    return tuple(_located(one, folder.absolute()) for one in given)


def _located(given: str, folder: Path) -> str:
    if given == STDIN or given.startswith(f"{STDIN} "):
        return given
    if given.startswith(_LIST):
        return _LIST + os.path.normpath(folder / given[1:])
    return os.path.normpath(folder / given)


def told_apart(given: Sequence[str], stdin: bytes | None) -> tuple[str, ...]:
    """The same sources with what was on standard input marked, so that another list makes another job."""
    if stdin is None:
        return tuple(given)
    mark = hashlib.blake2b(stdin, digest_size=6).hexdigest()
    return tuple(f"{STDIN} {mark}" if one == STDIN else one for one in given)


def skipped_text(skipped: Counter[str]) -> str:
    """`12 .xlsx, 3 links to folders`"""
    return ", ".join(f"{count:,} {what}" for what, count in skipped.most_common())


def _names_in(listed: bytes) -> Iterator[str]:
    separator = b"\0" if b"\0" in listed else b"\n"
    for line in listed.removeprefix(b"\xef\xbb\xbf").split(separator):
        if name := os.fsdecode(line if separator == b"\0" else line.removesuffix(b"\r")):
            yield name


def _passed_over(entry: os.DirEntry[str]) -> str:
    """Why a file of a folder is no document of the job; empty: it is one."""
    suffix = Path(entry.name).suffix.lower()
    if suffix not in SUFFIXES:
        return suffix if _PLAIN_SUFFIX.fullmatch(suffix) else "other files"
    if not _is_text(entry.path):
        return "names that are not UTF-8"
    try:
        if entry.is_file():
            return ""
        return "links to folders" if entry.is_dir() else "broken links and special files"
    except OSError:
        return "broken links and special files"


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path's parts are as a pattern's are; `**` stands for any number of folders."""
    if not pattern or not names:
        return not pattern and not names
    if pattern[0] == "**":
        return len(pattern) == 1 or any(_fits(names[start:], pattern[1:]) for start in range(len(names)))
    return fnmatch.fnmatchcase(names[0], pattern[0]) and _fits(names[1:], pattern[1:])


def _is_folder(path: str | Path) -> bool:
    # Path.is_dir raises for a name that is too long, or in a folder that is closed to us.
    return os.path.isdir(path)  # noqa: PTH112


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _storable(path: str) -> str:
    if not _is_text(path):
        raise JobError(f"the name {os.fsencode(path)!r} is not UTF-8", "rename the file")
    return path
