"""Any other embedding model, through sentence-transformers.

Slower to start (its import takes seconds), so the default embedder does not come this way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lcdoc.retrieval.bert import Matrix
from lcdoc.retrieval.embedders import EmbedderError, Progress, ignore_progress

RECIPE = "sentence-transformers 1: encode, normalised"
BATCH_TEXTS = 32
_HUB_TIMEOUT_S = 10.0
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
    path = Path(name).expanduser()
    if path.is_dir():
        return SentenceTransformerEmbedder(name, _load(name, str(path), local=True))
    if path.exists() or name.startswith((".", "/", "~")):
        raise EmbedderError(name, "there is no model folder of that name", "give the folder that has its config.json")
    try:
        model = _load(name, name, local=True)
    except EmbedderError:
        _ask_hub(name)
        model = _load(name, name, local=False)
    return SentenceTransformerEmbedder(name, model)


def _ask_hub(name: str) -> None:
    """Raises EmbedderError unless the hub has the model. One request: the loader itself would retry for minutes."""
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(name, timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # which ones differs between versions of the hub's client
        raise EmbedderError(
            name,
            f"it is not on this machine and the hub does not give it ({_one_line(error)})",
            "check the name and the network, or download the model where there is one and give its folder; "
            "the default embedder needs neither",
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _load(name: str, source: str, *, local: bool) -> Any:
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        return SentenceTransformer(source, local_files_only=local, trust_remote_code=False)
    except Exception as error:  # a folder may hold anything, and what its reader raises is not said anywhere
        raise EmbedderError(
            name,
            f"sentence-transformers cannot load it ({_one_line(error)})",
            "check that it is a sentence-transformers model that needs no code of its own, or use the default embedder",
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
