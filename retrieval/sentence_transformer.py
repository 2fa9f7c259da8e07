"""Any other embedding model, through sentence-transformers.

Slower to start (its import takes seconds), so the default embedder does not come this way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lcdoc.retrieval.embedders import EmbedderError, Matrix, Progress, ignore_progress

RECIPE = "sentence-transformers 1: encode, normalised"
BATCH_TEXTS = 32
WINDOW_TEXTS = 512
"""Texts given to sentence-transformers at a time: it sorts them by length, and progress is told after each window."""


class SentenceTransformerEmbedder:
    """A sentence-transformers model. The device is the one sentence-transformers chooses."""

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self._model = model
        self.dimensions: int = model.get_embedding_dimension()
        self.max_tokens: int = model.max_seq_length
        self.fingerprint = _fingerprint(model)

    def embed(self, texts: Sequence[str], *, progress: Progress = ignore_progress) -> Matrix:
        """Vectors of `texts`: (len(texts), dimensions) float32, rows of length 1."""
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for start in range(0, len(texts), WINDOW_TEXTS):
            window = [text.encode("utf-8", "replace").decode("utf-8") for text in texts[start : start + WINDOW_TEXTS]]
            vectors[start : start + len(window)] = self._model.encode(
                window,
                batch_size=BATCH_TEXTS,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
            progress(start + len(window), len(texts))
        return vectors


def load_sentence_transformer(name: str) -> SentenceTransformerEmbedder:
    """The model `name`: a folder, or a hub name, looked for in the local cache first.

    No code that comes with a model is run. Raises EmbedderError when it is not there and cannot be downloaded.
    """
    from sentence_transformers import SentenceTransformer

    path = Path(name).expanduser()
    if path.is_dir():
        return SentenceTransformerEmbedder(name, _load(SentenceTransformer, name, str(path), local=True))
    if path.exists() or name.startswith((".", "/", "~")):
        raise EmbedderError(name, "there is no model folder of that name", "give the folder that has its config.json")
    try:
        model = _load(SentenceTransformer, name, name, local=True)
    except EmbedderError:
        model = _load(SentenceTransformer, name, name, local=False)
    return SentenceTransformerEmbedder(name, model)


def _load(constructor: Any, name: str, source: str, *, local: bool) -> Any:
    try:
        return constructor(source, local_files_only=local, trust_remote_code=False)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        # The hub's errors are OSErrors; a model that needs its own code is a ValueError; a damaged one may be any.
        reason = " ".join(str(error).split())[:200]
        raise EmbedderError(
            name,
            f"sentence-transformers cannot load it ({reason})",
            "check the name and the network, download the model where there is one and give its folder, "
            "or use the default, which needs neither",
        ) from error


def _fingerprint(model: Any) -> str:
    """16 hexadecimal digits over the recipe, the model's limits and every weight."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(f"{RECIPE} {model.max_seq_length} {model}".encode())
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(dtype=_byte()).numpy())
    return digest.hexdigest()


def _byte() -> Any:
    import torch

    return torch.uint8
