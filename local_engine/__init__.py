"""A language model engine for long documents: Hugging Face checkpoints of the Llama family, on a CPU or an NVIDIA GPU.

    from lcdoc.local_engine import Engine, Sampling

Nothing is imported before it is used: torch takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lcdoc.local_engine.assembly import KVConfig
    from lcdoc.local_engine.engine import Engine
    from lcdoc.local_engine.errors import EngineError
    from lcdoc.local_engine.records import Output, Stats
    from lcdoc.local_engine.requests import Piece, Usage
    from lcdoc.local_engine.sampling import Sampled, Sampling
    from lcdoc.local_engine.snapshot import Snapshot

_HOMES = {
    "Engine": "engine",
    "EngineError": "errors",
    "KVConfig": "assembly",
    "Output": "records",
    "Piece": "requests",
    "Sampled": "sampling",
    "Sampling": "sampling",
    "Snapshot": "snapshot",
    "Stats": "records",
    "Usage": "requests",
}

__all__ = ["Engine", "EngineError", "KVConfig", "Output", "Piece", "Sampled", "Sampling", "Snapshot", "Stats", "Usage"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lcdoc.local_engine' has no attribute {name!r}")
    value = getattr(import_module(f"lcdoc.local_engine.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
