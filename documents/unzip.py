"""A zip container (EPUB, DOCX) held in memory and unpacked member by member, under `Limits`; never to the disk."""

from __future__ import annotations

import lzma
import posixpath
import struct
import zipfile
import zlib
from io import BytesIO
from urllib.parse import unquote, urlsplit

from lcdoc.documents.builder import Job
from lcdoc.documents.errors import CorruptFileError, LimitError, PasswordError
from lcdoc.documents.limits import MIB

MAX_MEMBERS = 65_535
_END_RECORD = b"PK\x05\x06"
_UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, struct.error)
_STEP = 1 << 16


class Archive:
    """The members of a zip file by path. Raises CorruptFileError, LimitError or PasswordError, each naming the file."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._unpacked = 0
        if _directory_bytes(job.data) > MAX_MEMBERS * 256:
            raise LimitError(job.name, f"more than {MAX_MEMBERS:,} files in its zip container", "split the file")
        try:
            self._zip = zipfile.ZipFile(BytesIO(job.data))
        except _UNREADABLE as error:
            raise CorruptFileError(
                job.name, f"its zip container is damaged or cut off ({_one_line(error)})", "download or export it again"
            ) from error
        infos = [info for info in self._zip.infolist() if not info.is_dir()]
        if len(infos) > MAX_MEMBERS:
            raise LimitError(job.name, f"more than {MAX_MEMBERS:,} files in its zip container", "split the file")
        self._infos = {_clean(info.filename): info for info in infos}
        self._folded = {name.casefold(): name for name in reversed(self._infos)}

    def names(self) -> list[str]:
        """Paths of all members, in the order of the container's directory."""
        return list(self._infos)

    def find(self, path: str) -> str | None:
        """The member at `path`, letter case forgiven, or None."""
        path = _clean(path)
        return path if path in self._infos else self._folded.get(path.casefold())

    def read(self, path: str, *, at_most: int | None = None) -> bytes:
        """A member's bytes. `at_most` bounds this one; `Limits` bound the ratio and the sum of all reads.

        Raises KeyError when there is no such member.
        """
        name = self.find(path)
        if name is None:
            raise KeyError(path)
        info = self._infos[name]
        job = self._job
        if info.flag_bits & 1:
            raise PasswordError(job.name, f"its part {name} is encrypted with a zip password", "unlock it first")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CorruptFileError(
                job.name, f"its part {name} is packed by zip method {info.compress_type}", "export it again"
            )
        chunks: list[bytes] = []
        size = 0
        try:
            with self._zip.open(info) as member:
                while chunk := member.read(_STEP):
                    size += len(chunk)
                    self._unpacked += len(chunk)
                    self._check(name, size, info.compress_size, at_most)
                    chunks.append(chunk)
        except _UNREADABLE as error:
            raise CorruptFileError(
                job.name, f"its part {name} cannot be unpacked ({_one_line(error)})", "download or export it again"
            ) from error
        if size < info.file_size:
            raise CorruptFileError(job.name, f"its part {name} is cut off", "download or export it again")
        return b"".join(chunks)

    def _check(self, name: str, size: int, packed: int, at_most: int | None) -> None:
        job, limits = self._job, self._job.limits
        if self._unpacked > limits.max_unzipped_bytes:
            raise LimitError(
                job.name,
                f"unpacks to more than {limits.max_unzipped_bytes // MIB:,} MiB",
                "raise Limits.max_unzipped_bytes if you trust the file",
            )
        if size > MIB and size > limits.max_unzip_ratio * max(packed, 1):
            raise LimitError(
                job.name,
                f"its part {name} unpacks to more than {limits.max_unzip_ratio:g} times its size (a zip bomb?)",
                "raise Limits.max_unzip_ratio if you trust the file",
            )
        if at_most is not None and size > at_most:
            raise LimitError(job.name, f"its part {name} is larger than {at_most // MIB:,} MiB", "split the file")


def resolve(base: str, href: str) -> tuple[str, str] | None:
    """What `href`, written in the member `base`, points at: (member path, fragment). None when it leaves the file."""
    try:
        parts = urlsplit(href.strip())
    except ValueError:
        return None
    if parts.scheme or parts.netloc:
        return None
    path = posixpath.join(posixpath.dirname(base), unquote(parts.path)) if parts.path else base
    return _clean(path), unquote(parts.fragment)


def _clean(path: str) -> str:
    path = posixpath.normpath(path.replace("\\", "/")).lstrip("/")
    while path.startswith("../"):
        path = path[3:]
    return path


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _directory_bytes(data: bytes) -> int:
    """Size of the central directory as the end record states it, known before any entry is parsed."""
    at = data.rfind(_END_RECORD, max(0, len(data) - 65_557))
    if at < 0 or at + 22 > len(data):
        return 0
    (size,) = struct.unpack_from("<I", data, at + 12)
    if size == 0xFFFFFFFF and data[at - 20 : at - 16] == b"PK\x06\x07":
        (record,) = struct.unpack_from("<Q", data, at - 12)
        if record + 56 <= len(data):
            (size,) = struct.unpack_from("<Q", data, record + 40)
    return min(int(size), len(data))
