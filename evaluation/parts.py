"""Which documents of the sets that the packaged span reader learns from are kept for testing.

A document is in one part with all of its questions, by a hash of its name, so that training and measuring agree on the
parts without a list of them.
"""

from __future__ import annotations

import hashlib
from typing import Literal

Part = Literal["train", "tune", "test"]


def part_of(dataset: str, document: str) -> Part:
    """The part a document belongs to: about a sixth is tested on, and a twentieth settles thresholds."""
    byte = hashlib.md5(f"span reader {dataset} {document}".encode(), usedforsecurity=False).digest()[0]
    return "test" if byte < 44 else "tune" if byte < 58 else "train"
