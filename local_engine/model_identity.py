"""Which model made a cache: caches of two models, of two precisions or two rotations of one, are not to be mixed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from lcdoc.local_engine.config import ModelConfig
from lcdoc.local_engine.errors import ModelFilesError
from lcdoc.local_engine.quantization import Quantization

_SAMPLES: Final = 64
_SAMPLE_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """A model as it is run."""

    name: str
    fingerprint: str
    """Hexadecimal; see `fingerprint`."""

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint[:8]})"


def identity_of(
    name: str, folder: Path, config: ModelConfig, dtype: torch.dtype, quantize: Quantization | None
) -> ModelIdentity:
    """Of a checkpoint run with `config`, which may rotate otherwise than its file says. Raises ModelFilesError."""
    rotation = f"{config.rope_theta!r} {config.rope!r}"
    return ModelIdentity(name, fingerprint(folder, str(dtype), quantize or "", rotation))


def fingerprint(folder: Path, *words: str) -> str:
    """A hash of a checkpoint's config.json, of its weights' headers and sizes, of samples of the weights themselves,
    and of the `words` that say how they are run. Raises ModelFilesError.

    Fine-tunings of one model have the same headers, and hashing all weights takes longer than loading them.
    """
    found = hashlib.blake2b("\0".join(words).encode(), digest_size=16)
    try:
        found.update((folder / "config.json").read_bytes())
        for path in sorted(folder.glob("*.safetensors")):
            size = path.stat().st_size
            with path.open("rb") as file:
                header = int.from_bytes(file.read(8), "little")
                found.update(f"{path.name} {size} {header}".encode())
                found.update(file.read(min(header, size)))
                for place in np.linspace(8 + header, max(8 + header, size - _SAMPLE_BYTES), _SAMPLES, dtype=np.int64):
                    file.seek(int(place))
                    found.update(file.read(_SAMPLE_BYTES))
    except OSError as error:
        raise ModelFilesError(f"{folder}: cannot be read ({error.strerror}): check the path") from None
    return found.hexdigest()
