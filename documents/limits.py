"""Bounds on what one document may cost. Documents are untrusted; every bound ends in a clear error, never in a hang."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for reading one file. The defaults admit a 10,000-page book and stop a decompression bomb."""

    max_bytes: int = 512 * MIB
    """Size of the file itself."""
    max_pages: int = 20_000
    max_characters: int = 60_000_000
    """Length of the extracted text."""
    max_seconds: float = 300.0
    """Wall time of the parser."""
    max_memory_bytes: int = 4096 * MIB
    """Address space of the parser's process (enforced where the operating system can)."""
    max_unzipped_bytes: int = 512 * MIB
    """Total size of what is unpacked from a zip container (EPUB, DOCX)."""
    max_unzip_ratio: float = 200.0
    """Unpacked size over packed size of a zip member above 1 MiB."""
