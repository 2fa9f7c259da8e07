"""Checkpoints on this machine: where they are looked for, and what their files tell without being loaded.

Looked in are the folders that LCDOC_MODELS names, `models` in the working directory, and the cache of Hugging Face's
hub. Nothing here needs the engine or its libraries.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

FOLDERS_VARIABLE: Final = "LCDOC_MODELS"
"""Names folders of models, with the separator of PATH between them."""
PREFIX: Final = "local/"
_HUB_ID: Final = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[\w./-]+))?")
_READ_WHOLE: Final = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""Small files that an answer depends on."""
_LONGEST_HEADER: Final = 100_000_000


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A checkpoint that was found, and the name that `--model` takes for it."""

    name: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a checkpoint's headers say of its weights, in parameters."""

    layers: int
    """Of the matrices inside the layers, which quantization makes smaller."""
    small: int
    """Of norms and biases."""
    embedding: int
    head: int
    """Of the output matrix; 0 where it is the embedding's."""
    bytes_on_disk: int

    @property
    def parameters(self) -> int:
        return self.layers + self.small + self.embedding + self.head


def is_hub_id(target: str) -> bool:
    """Whether this may be a model's name on the hub: `org/name`, with or without `@revision`."""
    return _HUB_ID.fullmatch(target) is not None


def located(target: str, *, beside: Path | None = None) -> Path | None:
    """The folder that a name behind `local/` means; None: it is not on this machine.

    A path, relative ones to `beside` (by default the working directory); else a folder of that name where models are
    looked for; else what the hub's cache has of that name, if it is whole.
    """
    path = Path(target).expanduser()
    candidates = [path if beside is None else beside / path]
    if not path.is_absolute():
        candidates += [folder / path for folder in model_folders()]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate.absolute()
    match = _HUB_ID.fullmatch(target)
    if match is None:
        return None
    snapshot = _snapshot(hub_cache() / f"models--{match['repository'].replace('/', '--')}", match["revision"])
    return snapshot if snapshot is not None and is_whole(snapshot) else None


def model_folders() -> list[Path]:
    """The folders in which models are looked for, the hub's cache aside."""
    named = [Path(each).expanduser() for each in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if each.strip()]
    return [*named, Path("models")]


def hub_cache() -> Path:
    """The folder in which Hugging Face's libraries keep what they have fetched."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface" / "hub"


def found_models() -> list[FoundModel]:
    """Every checkpoint where models are looked for, by name. What is no language model is among them."""
    found: dict[Path, FoundModel] = {}
    for root in model_folders():
        for folder in _checkpoints_in(root):
            if folder.resolve() not in found:
                name = folder.relative_to(root).as_posix()
                # A name that means another folder first has to be given in full.
                known = located(name)
                clear = known is not None and known.resolve() == folder.resolve()
                found[folder.resolve()] = FoundModel(PREFIX + (name if clear else str(folder.absolute())), folder)
    for repository in _subfolders(hub_cache()):
        if not repository.name.startswith("models--"):
            continue
        snapshot = _snapshot(repository, None)
        if snapshot is not None and snapshot.joinpath("config.json").is_file() and snapshot.resolve() not in found:
            name = repository.name.removeprefix("models--").replace("--", "/", 1)
            found[snapshot.resolve()] = FoundModel(PREFIX + name, snapshot)
    return sorted(found.values(), key=lambda model: model.name.lower())


def is_whole(folder: Path) -> bool:
    """Whether a folder has a configuration, a tokenizer and all files of its weights."""
    if not (folder / "config.json").is_file() or not (folder / "tokenizer.json").is_file():
        return False
    files = weight_files(folder)
    return bool(files) and all(file.is_file() for file in files)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that hold a checkpoint's weights, whether they are there or not; empty: it names none."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        single = folder / "model.safetensors"
        return [single] if single.is_file() else []
    try:
        shards = json.loads(index.read_bytes())["weight_map"].values()
        return [folder / name for name in sorted(set(shards))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def sizes_of(folder: Path) -> Sizes | None:
    """How large the weights are; None where their headers cannot be read."""
    counts = dict.fromkeys(("layers", "small", "embedding", "head"), 0)
    on_disk = 0
    files = weight_files(folder)
    for file in files:
        try:
            on_disk += file.stat().st_size
            tensors = _header(file)
        except (OSError, ValueError):
            return None
        for name, tensor in tensors.items():
            try:
                counts[_part(name, tensor["shape"])] += math.prod(tensor["shape"])
            except (TypeError, KeyError):
                return None
    return Sizes(**counts, bytes_on_disk=on_disk) if files else None


def identity_of(folder: Path) -> str:
    """Names the model in a folder by what is in it: 16 hexadecimal digits.

    The small files count as they are; of the weights, which may be many gigabytes, names, sizes, times and headers.
    """
    known = blake2b(digest_size=8)
    for name in _READ_WHOLE:
        path = folder / name
        if path.is_file():
            content = path.read_bytes()
            known.update(f"{name} {len(content)}\n".encode() + content)
    for file in weight_files(folder):
        if file.is_file():
            stat = file.stat()
            known.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode() + _header_bytes(file))
    return known.hexdigest()


def _part(name: str, shape: list[int]) -> str:
    if name.startswith("lm_head."):
        return "head"
    if "embed_tokens." in name:
        return "embedding"
    return "layers" if len(shape) > 1 else "small"


def _header(path: Path) -> Mapping[str, Any]:
    header = json.loads(_header_bytes(path))
    if not isinstance(header, dict):
        raise ValueError(f"{path} has no header")
    header.pop("__metadata__", None)
    return header


def _header_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return file.read(min(length, _LONGEST_HEADER))


def _checkpoints_in(root: Path) -> Iterator[Path]:
    """Folders with a config.json: `root`'s own, and their folders where they have none (`org/name`)."""
    for folder in _subfolders(root):
        if folder.joinpath("config.json").is_file():
            yield folder
        else:
            yield from (inner for inner in _subfolders(folder) if inner.joinpath("config.json").is_file())


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if each.is_dir())
    except OSError:
        return []


def _snapshot(repository: Path, revision: str | None) -> Path | None:
    """The files of a revision (by default the main one) as the hub's cache has them."""
    snapshots = repository / "snapshots"
    reference = repository / "refs" / (revision or "main")
    try:
        commit = reference.read_text(encoding="utf-8").strip()
    except OSError:
        commit = revision or ""
    if commit and (snapshots / commit).is_dir():
        return snapshots / commit
    # Nobody noted which one is the main one.
    known = [] if revision else _subfolders(snapshots)
    return known[0] if len(known) == 1 else None
