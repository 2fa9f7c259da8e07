"""Which number type a processor is fast with, found out by trying."""

from __future__ import annotations

import time

import torch

from lcdoc.local_engine.errors import EngineError
from lcdoc.local_engine.linear import linear

_NAMES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_SIZE = 1024
_ROWS = 128
_TRIES = 3


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """The type that `wanted` names; for "auto" the faster of bfloat16 and float32 on this processor.

    Raises EngineError for another name.
    """
    if wanted == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        return min((torch.bfloat16, torch.float32), key=_seconds)
    if wanted not in _NAMES:
        raise EngineError(f"dtype={wanted!r} is not known: auto, {', '.join(_NAMES)}")
    return _NAMES[wanted]


@torch.inference_mode()
def _seconds(dtype: torch.dtype) -> float:
    """The best time of a product as prefill has it; where that is not slow, decoding gains from the smaller type."""
    weight = linear(torch.zeros(_SIZE, _SIZE, dtype=dtype))
    x = torch.zeros(_ROWS, _SIZE, dtype=dtype)
    weight(x)
    times = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        weight(x)
        times.append(time.perf_counter() - start)
    return min(times)
