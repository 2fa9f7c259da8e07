"""A checkpoint's weights: safetensors files, mapped into memory and copied out one tensor at a time.

The files are mapped, not read: a tensor's bytes come from disk when it is asked for, and its mapped pages are given
back as soon as they are copied, so that loading takes little more memory than the weights themselves. The format is
read here (https://huggingface.co/docs/safetensors, section Format) rather than through its library, which neither
gives pages back nor reads single rows of a matrix.

Pickled checkpoints are refused, since reading one runs whatever code is in it.
"""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from lcdoc.local_engine.errors import ModelFilesError, UnsupportedModelError
from lcdoc.local_engine.json_files import read_json

_FLOATS: Final[Mapping[str, torch.dtype]] = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
}
_SIZES: Final[Mapping[str, int]] = {
    **{name: dtype.itemsize for name, dtype in _FLOATS.items()},
    **{"I64": 8, "U64": 8, "I32": 4, "U32": 4, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1},
    **{"F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1},
}
"""Bytes of one element, for all that a file may hold."""
_COPIED_AT_ONCE: Final = 1 << 24
"""Elements copied before their mapped pages are given back."""
_LONGEST_HEADER: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where one tensor lies."""

    path: Path
    stored: str
    shape: tuple[int, ...]
    start: int
    """Bytes from the file's beginning."""
    end: int


class Checkpoint:
    """The tensors of a checkpoint's folder, by name.

    Raises ModelFilesError for files that are missing, truncated or damaged; what a file holds is known from its
    header, so all files are checked before the first tensor is read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._entries = _find_entries(folder)
        self._mapped: dict[Path, mmap.mmap] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: entry.shape for name, entry in self._entries.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors as they are stored."""
        return sum(entry.end - entry.start for entry in self._entries.values())

    @property
    def dtype(self) -> torch.dtype:
        """What most of the weights are stored in. Raises UnsupportedModelError where none is a float."""
        sizes = dict.fromkeys(_FLOATS, 0)
        for entry in self._entries.values():
            if entry.stored in sizes:
                sizes[entry.stored] += entry.end - entry.start
        most = max(sizes, key=lambda stored: sizes[stored])
        if not sizes[most]:
            raise UnsupportedModelError(
                f"{self.folder}: no tensor holds floating-point numbers: take an unquantized model"
            )
        return _FLOATS[most]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def get(
        self,
        name: str,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        *,
        shape: tuple[int, ...] | None = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """A copy of one tensor in the dtype and on the device it is wanted, or in `out`, which has its shape.

        `shape` is what the model's configuration makes of it: any other raises ModelFilesError.
        """
        entry = self._entry(name, shape)
        copy = torch.empty(entry.shape, dtype=dtype, device=device) if out is None else out
        source, target = self._map(entry, entry.start, entry.end), copy.view(-1)
        size = _SIZES[entry.stored]
        for first in range(0, target.numel(), _COPIED_AT_ONCE):
            last = min(first + _COPIED_AT_ONCE, target.numel())
            target[first:last].copy_(source[first:last])
            self._give_back(entry.path, entry.start + first * size, entry.start + last * size)
        return copy

    def view(self, name: str, *, shape: tuple[int, ...] | None = None) -> Tensor:
        """The tensor itself, as the file holds it: nothing is read before it is used. Not to be written to."""
        entry = self._entry(name, shape)
        return self._map(entry, entry.start, entry.end).view(entry.shape)

    def give_back(self, name: str) -> None:
        """Free the memory that reading a mapped tensor took; the next reader gets it from the file again."""
        entry = self._entry(name, None)
        if entry.path in self._mapped:
            self._give_back(entry.path, entry.start, entry.end)

    def rows(
        self, name: str, ids: Tensor, dtype: torch.dtype | None = None, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Rows `ids` (int64 [n], on the CPU) of a matrix, [n, columns]; only they are read from the file."""
        return self.view(name).index_select(0, ids).to(device=device, dtype=dtype)

    def _entry(self, name: str, shape: tuple[int, ...] | None) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise ModelFilesError(
                f"{self.folder}: the weights hold no {name}: download the model again, or check that "
                "config.json is its own"
            )
        if entry.stored not in _FLOATS:
            raise UnsupportedModelError(
                f"{entry.path}: {name} is stored as {entry.stored}: take the model's unquantized safetensors "
                "(BF16, F16 or F32) and let the engine quantize them when it loads"
            )
        if shape is not None and entry.shape != tuple(shape):
            raise ModelFilesError(
                f"{entry.path}: {name} is {list(entry.shape)} where config.json makes it {list(shape)}: download the "
                "model again, or check that config.json is its own"
            )
        return entry

    def _map(self, entry: _Entry, start: int, end: int) -> Tensor:
        """Bytes of a file as a flat tensor of what is stored there."""
        dtype = _FLOATS[entry.stored]
        if start == end:
            return torch.empty(0, dtype=dtype)
        mapped = self._mapped.get(entry.path)
        if mapped is None:
            with entry.path.open("rb") as file:
                # Private pages that may be written, since torch warns of buffers that may not; the file stays as it is.
                mapped = self._mapped[entry.path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return torch.frombuffer(mapped, dtype=dtype, count=(end - start) // dtype.itemsize, offset=start)

    def _give_back(self, path: Path, start: int, end: int) -> None:
        """Drop pages that were read: the next reader gets them from the file again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            first = start - start % mmap.PAGESIZE
            self._mapped[path].madvise(mmap.MADV_DONTNEED, first, end - first)


def _find_entries(folder: Path) -> dict[str, _Entry]:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        single = folder / "model.safetensors"
        if not single.exists():
            raise _no_weights(folder)
        return _read_header(single)
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ModelFilesError(f"{index}: has no weight_map: download the file again")
    entries: dict[str, _Entry] = {}
    headers: dict[str, dict[str, _Entry]] = {}
    for name, shard in shards.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelFilesError(f"{index}: {name} lies in {shard!r}, which is no safetensors file beside it")
        if shard not in headers:
            headers[shard] = _read_header(folder / shard)
        if name not in headers[shard]:
            raise ModelFilesError(f"{folder / shard}: {name} should be in it by {index.name}: download both again")
        entries[name] = headers[shard][name]
    return entries


def _no_weights(folder: Path) -> ModelFilesError:
    """Why a folder has no weights that can be read, and what to do."""
    if not folder.is_dir():
        return ModelFilesError(f"{folder}: no such folder")
    names = sorted(path.name for path in folder.iterdir())
    if pickled := [name for name in names if name.endswith((".bin", ".pt", ".pth", ".ckpt"))]:
        return ModelFilesError(
            f"{folder}: its weights are pickled ({pickled[0]}), and reading a pickle runs the code in it: take a copy "
            "with model.safetensors, or convert this one where you trust it, with transformers: "
            "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
        )
    if any(name.endswith(".gguf") for name in names):
        return ModelFilesError(
            f"{folder}: GGUF files are not read: take the model's safetensors, or serve it with llama.cpp"
        )
    if "adapter_config.json" in names:
        return ModelFilesError(
            f"{folder}: an adapter, not a model: merge it into its base model first, with peft: "
            "PeftModel.merge_and_unload().save_pretrained(NEW_FOLDER)"
        )
    return ModelFilesError(
        f"{folder}: has no model.safetensors and no model.safetensors.index.json: name a folder that holds a model as "
        "Hugging Face's hub keeps it"
    )


def _read_header(path: Path) -> dict[str, _Entry]:
    """The tensors that a safetensors file says it holds. Raises ModelFilesError unless it can hold them."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            header = file.read(min(length, _LONGEST_HEADER))
    except FileNotFoundError:
        raise ModelFilesError(
            f"{path}: no such file, though the index names it: download the rest of the model"
        ) from None
    except OSError as error:
        raise ModelFilesError(
            f"{path}: cannot be read ({error.strerror}): check the path and its permissions"
        ) from None
    if start == b"version ":
        raise ModelFilesError(
            f"{path}: a pointer of Git LFS, not the file it stands for: run `git lfs pull` in its folder"
        )
    if len(start) < 8 or len(header) < length:
        raise ModelFilesError(f"{path}: ends within its header ({size} bytes): download it again")
    try:
        described = json.loads(header)
        described.pop("__metadata__", None)
        entries = {name: _entry(path, 8 + length, fields) for name, fields in described.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelFilesError(f"{path}: its header is damaged ({error}): download it again") from None
    reached = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != reached:
            raise ModelFilesError(
                f"{path}: its header is damaged ({name} does not follow its neighbour): download it again"
            )
        reached = entry.end
    if reached != size:
        raise ModelFilesError(f"{path}: holds {size} bytes of the {reached} in its header: download it again")
    return entries


def _entry(path: Path, base: int, fields: Mapping[str, Any]) -> _Entry:
    stored, shape, (start, end) = fields["dtype"], tuple(fields["shape"]), fields["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, start, end)):
        raise ValueError("a size that is no whole number")
    if end - start != math.prod(shape) * _SIZES[stored]:
        raise ValueError(f"{end - start} bytes for {list(shape)} of {stored}")
    return _Entry(path, stored, shape, base + start, base + end)
