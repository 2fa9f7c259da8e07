"""Decoding through CUDA graphs: a pass of one token for each sequence is captured once and replayed.

A small model's pass is some hundred launches of a few microseconds each, more than the kernels take themselves. A graph
is captured for a number of sequences (rounded up to a power of two) and a bound on the rows' length (likewise, since it
decides how the decode kernel splits them); its inputs lie in buffers that each step fills anew. Sequences that only
fill up the number have empty rows and write nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lcdoc.local_engine.batch import Batch
from lcdoc.local_engine.decoder import Decoder

_SHORTEST_BOUND = 4096
_MOST_GRAPHS = 24


@dataclass(slots=True)
class _Captured:
    batch: Batch
    logits: Tensor | None = None
    """Where each replay leaves its logits."""
    graph: torch.cuda.CUDAGraph | None = None


class GraphedDecoder:
    """A decoder whose decoding passes are replayed. Other passes go to the decoder as they are."""

    def __init__(self, decoder: Decoder, *, capture: bool = True) -> None:
        self._decoder = decoder
        self._capture = capture
        """False runs padded passes without a graph, as a device without graphs must."""
        self._captured: dict[tuple[int, int, int, bool], _Captured] = {}

    @property
    def decoder(self) -> Decoder:
        """The decoder itself."""
        return self._decoder

    def hidden(self, batch: Batch) -> Tensor:
        """As `Decoder.hidden`."""
        return self._decoder.hidden(batch)

    @torch.inference_mode()
    def forward(self, batch: Batch) -> Tensor:
        """As `Decoder.forward`. The logits of a replayed pass are overwritten by the next one."""
        alike = batch.singles == len(batch.slots) == len(batch.logits_rows)
        if not alike or batch.observer is not None:
            return self._decoder.forward(batch)
        table = batch.tables.tables()
        biased = batch.tables.pool.bias is not None
        key = (_up(len(batch.slots), 1), _up(batch.longest_row, _SHORTEST_BOUND), table.data_ptr(), biased)
        captured = self._captured.get(key)
        if captured is None:
            self._forget(table.data_ptr())
            captured = self._captured[key] = _Captured(_padded(batch, key[0], key[1]))
        fill(captured.batch, batch)
        if captured.graph is not None and captured.logits is not None:
            captured.graph.replay()
            return captured.logits[: len(batch.slots)]
        logits = self._decoder.forward(captured.batch)
        if self._capture:
            # The pass above compiled and tuned whatever it needed; a capture may not.
            torch.cuda.synchronize()
            captured.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured.graph):
                captured.logits = self._decoder.forward(captured.batch)
            # What a capture computes is undefined until it is replayed; this step's answer is the eager pass's.
        return logits[: len(batch.slots)]

    def _forget(self, table: int) -> None:
        """Drop graphs over tables that have moved, and the oldest ones when there are many."""
        for key in [key for key in self._captured if key[2] != table]:
            del self._captured[key]
        while len(self._captured) >= _MOST_GRAPHS:
            del self._captured[next(iter(self._captured))]


def _up(n: int, least: int) -> int:
    return max(least, 1 << (n - 1).bit_length())


def _padded(batch: Batch, size: int, bound: int) -> Batch:
    """A batch of `size` sequences in buffers of their own, with rows of up to `bound` entries; `fill` fills it."""
    layers, _, heads = batch.write.shape
    device = batch.tokens.device

    def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=device)

    padded = Batch(
        tables=batch.tables,
        tokens=zeros(size),
        positions=zeros(size),
        lengths=zeros(size),
        write=zeros(layers, size, heads),
        logits_rows=torch.arange(size, device=device),
        slots=np.zeros(size, np.int64),
        starts=np.arange(size + 1),
        past=np.full((size, 1, 1), bound - 1, np.int32),
    )
    # What the kernels read, in place of what would be computed from the fields above.
    vars(padded).update(device_slots=zeros(size), device_rows=zeros(layers, size, heads, dtype=torch.int32))
    return padded


def fill(padded: Batch, batch: Batch) -> None:
    """Copy a step's inputs into the buffers; sequences beyond them get empty rows and write nowhere."""
    count, size = len(batch.slots), len(padded.slots)
    for target, source in (
        (padded.tokens, batch.tokens),
        (padded.positions, batch.positions),
        (padded.lengths, batch.lengths),
        (padded.device_slots, batch.device_slots),
    ):
        target[:count].copy_(source, non_blocking=True)
    padded.write[:, :count].copy_(batch.write, non_blocking=True)
    padded.device_rows[:, :count].copy_(batch.device_rows, non_blocking=True)
    if count < size:
        padded.write[:, count:] = -1
        padded.device_rows[:, count:] = 0
