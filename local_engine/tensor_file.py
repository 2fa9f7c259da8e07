"""One file of tensors with a manifest: written whole or not at all, and mapped into memory when it is read.

The format is safetensors (https://huggingface.co/docs/safetensors, section Format), the manifest its metadata, so that
other programs can look into a file. A file may come from anywhere: nothing in it is run, and what its header says is
checked against its size before a tensor is made of it.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import torch
from torch import Tensor

from lcdoc.local_engine.errors import SnapshotError

_DTYPES: Final[Mapping[str, torch.dtype]] = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "I8": torch.int8,
    "I32": torch.int32,
}
_NAMES: Final = {dtype: name for name, dtype in _DTYPES.items()}
_LONGEST_HEADER: Final = 1 << 20
_ALIGNMENT: Final = 64
_WRITTEN_AT_ONCE: Final = 1 << 26
"""Bytes."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], manifest: Mapping[str, str]) -> None:
    """Write the file under another name, then give it its own. Raises SnapshotError; what was there before then stays.

    The widest numbers come first, so that each tensor begins where its numbers may be read in place.
    """
    ordered = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    described: dict[str, Any] = {"__metadata__": dict(manifest)}
    end = 0
    for name, tensor in ordered:
        first, end = end, end + tensor.nbytes
        described[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [first, end],
        }
    header = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-(8 + len(header)) % _ALIGNMENT)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for _, tensor in ordered:
                _write(file, tensor)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise SnapshotError(
            f"{path}: cannot be written ({error.strerror}): check the folder and the room on its disk"
        ) from None
    finally:
        part.unlink(missing_ok=True)


def map_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str], tuple[int, ...]]:
    """The tensors of a file, its manifest, and what tells this state of it from any other file and any later one.

    A tensor's numbers are read when they are used.

    Raises SnapshotError for a file that is missing, truncated, or not what this module writes.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            start = file.read(8)
            length = int.from_bytes(start, "little")
            header = file.read(min(length, _LONGEST_HEADER))
            if len(start) < 8 or len(header) < length:
                raise damaged(path, f"no header of {length} bytes in a file of {size}")
            # Private pages that may be written, since torch warns of buffers that may not; the file stays as it is.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            state = os.fstat(file.fileno())
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be read ({error.strerror}): check the path") from None
    try:
        described = json.loads(header)
        manifest = {str(key): str(value) for key, value in described.pop("__metadata__", {}).items()}
        tensors, reached = {}, 8 + length
        for name, fields in sorted(described.items(), key=lambda item: item[1]["data_offsets"]):
            tensors[name], reached = _mapped(mapped, size, 8 + length, reached, fields)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}") from None
    if reached != size:
        raise damaged(path, f"{size} bytes of the {reached} in its header")
    return tensors, manifest, (state.st_dev, state.st_ino, state.st_mtime_ns, state.st_size)


def damaged(path: Path, why: str) -> SnapshotError:
    """What is raised of a file that is not whole."""
    return SnapshotError(f"{path}: is damaged, or no snapshot ({why}): make it again")


def _mapped(mapped: mmap.mmap, size: int, base: int, reached: int, fields: Mapping[str, Any]) -> tuple[Tensor, int]:
    dtype, shape, (first, end) = _DTYPES[fields["dtype"]], fields["shape"], fields["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, first, end)):
        raise ValueError("a size that is no whole number")
    if end - first != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{end - first} bytes for {list(shape)} of {fields['dtype']}")
    if base + first != reached or base + end > size:
        raise ValueError(f"bytes {base + first} to {base + end} of {size}")
    if first == end:
        return torch.empty(shape, dtype=dtype), base + end
    flat = torch.frombuffer(mapped, dtype=dtype, count=(end - first) // dtype.itemsize, offset=base + first)
    return flat.view(shape), base + end


def _write(file: BinaryIO, tensor: Tensor) -> None:
    raw = tensor.contiguous().view(-1).view(torch.uint8)
    for first in range(0, len(raw), _WRITTEN_AT_ONCE):
        file.write(raw[first : first + _WRITTEN_AT_ONCE].numpy().data)
