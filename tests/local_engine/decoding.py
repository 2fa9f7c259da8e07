"""Runs the decoder by itself, without the engine around it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lcdoc.local_engine.batch import Batch, Piece, gather
from lcdoc.local_engine.config import read_config
from lcdoc.local_engine.decoder import Decoder, Operations
from lcdoc.local_engine.loading import load_weights
from lcdoc.local_engine.operations_cpu import CpuOperations
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import PagePool
from lcdoc.local_engine.rope import Rope
from lcdoc.local_engine.weights import Checkpoint

CPU = torch.device("cpu")


class Bench:
    """A decoder and an empty cache for it."""

    def __init__(
        self,
        folder: Path,
        dtype: torch.dtype = torch.float32,
        *,
        pages: int = 4096,
        page_size: int = 16,
        sequences: int = 8,
        quantize: str | None = None,
        operations: Operations | None = None,
    ) -> None:
        self.config = read_config(folder)
        weights = load_weights(Checkpoint(folder), self.config, dtype, CPU, quantize=quantize)
        self.decoder = Decoder(self.config, weights, Rope(self.config), operations or CpuOperations(self.config))
        pool = PagePool(pages, page_size, self.config.head_dim, dtype)
        self.tables = PageTables(pool, sequences, self.config.layers, self.config.kv_heads, 8)

    def batch(self, *pieces: Piece) -> Batch:
        return gather(pieces, self.tables, CPU)

    def run(self, *pieces: Piece) -> Tensor:
        """The logits that the pieces ask for."""
        return self.decoder.forward(self.batch(*pieces))

    def read(self, tokens: Sequence[int], chunks: Sequence[int] | None = None, *, slot: int | None = None) -> Tensor:
        """Logits of all tokens of one sequence, read in pieces of these sizes."""
        slot = self.tables.open() if slot is None else slot
        logits, position = [], 0
        for size in chunks or [len(tokens)]:
            part = tokens[position : position + size]
            logits.append(self.run(Piece(slot, part, position, len(tokens), len(part))))
            position += size
        return torch.cat(logits)

    def continue_greedily(self, tokens: Sequence[int], count: int) -> list[int]:
        """The most likely `count` tokens after `tokens`."""
        slot = self.tables.open()
        logits = self.run(Piece(slot, tokens, 0, len(tokens), 1))
        answer = [int(logits[-1].argmax())]
        while len(answer) < count:
            position = len(tokens) + len(answer) - 1
            logits = self.run(Piece(slot, answer[-1:], position, len(tokens), 1))
            answer.append(int(logits[-1].argmax()))
        self.tables.free(slot)
        return answer


def random_tokens(count: int, seed: int = 0, vocab: int = 512) -> list[int]:
    """Ids without the first few, which are special."""
    return np.random.default_rng(seed).integers(8, vocab, count).tolist()
