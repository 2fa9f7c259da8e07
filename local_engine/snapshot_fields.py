"""What a snapshot is made of, checked: as a caller gives it, and as a file has it, which may come from anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcdoc.local_engine.errors import InvalidRequestError
from lcdoc.local_engine.stored_rows import Rows

_MOST_META: Final = 1 << 16
"""Bytes of what a caller says of a snapshot."""


def checked_meta(meta: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a caller says of a text, as a file would give it back. Raises InvalidRequestError."""
    try:
        written = json.dumps(dict(meta or {}), ensure_ascii=False, allow_nan=False)
        size = len(written.encode())
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(
            f"meta is no JSON object ({error}): give strings, numbers, lists and objects"
        ) from None
    if size > _MOST_META:
        raise InvalidRequestError(f"meta has {size:,} bytes: keep it below {_MOST_META:,}")
    made: dict[str, Any] = json.loads(written)
    return made


def checked_spans(spans: NDArray[np.integer], tokens: int) -> NDArray[np.int32]:
    """Spans [tokens, 2] in ascending order. Raises ValueError."""
    if spans.shape != (tokens, 2) or (spans < 0).any() or (spans[:, 1] < spans[:, 0]).any():
        raise ValueError(f"spans of {list(spans.shape)} for {tokens} tokens, or some that end before they begin")
    if (spans[1:] < spans[:-1]).any():
        raise ValueError("spans that are not in the order of the tokens")
    return spans.astype(np.int32, copy=False)


def rows_of(tensors: Mapping[str, Tensor], name: str, entries: int) -> Rows:
    """Keys or values. Raises ValueError, KeyError, as the functions that follow do."""
    numbers = shaped(tensors, name, entries, None)
    if numbers.dtype != torch.int8:
        if not numbers.is_floating_point():
            raise ValueError(f"{name} are {numbers.dtype}")
        return Rows(numbers)
    return Rows(numbers, shaped(tensors, f"{name}.scale", entries, dtype=torch.float16))


def shaped(tensors: Mapping[str, Tensor], name: str, *shape: int | None, dtype: torch.dtype | None = None) -> Tensor:
    """The tensor, which has this shape; None is any size."""
    tensor = tensors[name]
    fits: Any = len(tensor.shape) == len(shape) and all(
        wanted in (None, size) for size, wanted in zip(tensor.shape, shape, strict=True)
    )
    if not fits or (dtype is not None and tensor.dtype != dtype):
        raise ValueError(f"{name} are {list(tensor.shape)} of {tensor.dtype}")
    return tensor


def spans_of(tensors: Mapping[str, Tensor], tokens: int) -> NDArray[np.int32] | None:
    """The characters that each token is, where that is known."""
    if "spans" not in tensors:
        return None
    return checked_spans(shaped(tensors, "spans", tokens, 2, dtype=torch.int32).numpy(), tokens)


def meta_of(manifest: Mapping[str, str]) -> dict[str, Any]:
    """What a caller said of the text."""
    meta = json.loads(manifest.get("meta", "{}"))
    if not isinstance(meta, dict):
        raise ValueError(f"meta that is {type(meta).__name__}")
    return meta
