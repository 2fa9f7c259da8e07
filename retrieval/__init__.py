"""Finding passages: chunks, words, vectors, and the ranking of both. Imports documents only.

`Index` and `BackgroundFill` load numpy, and are loaded when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lcdoc.retrieval.chunker import Chunker
from lcdoc.retrieval.embedders import DEFAULT_EMBEDDER, Embedder, EmbedderError, load_embedder
from lcdoc.retrieval.passages import Chunk, Hit

if TYPE_CHECKING:
    from lcdoc.retrieval.background import BackgroundFill
    from lcdoc.retrieval.index import Hits, Index

__all__ = [
    "DEFAULT_EMBEDDER",
    "BackgroundFill",
    "Chunk",
    "Chunker",
    "Embedder",
    "EmbedderError",
    "Hit",
    "Hits",
    "Index",
    "load_embedder",
]

_LATER = {"BackgroundFill": "background", "Hits": "index", "Index": "index"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
