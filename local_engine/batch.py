"""One forward pass: pieces of sequences side by side, and where their keys and values go.

A piece is some consecutive tokens of one sequence: one while decoding, a few while drafts are verified, hundreds while
a prompt is read. All pieces of a pass share the matrix products; attention looks at each sequence by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcdoc.local_engine.far_keys import FarKeys
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import to_device


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of the sequence in `slot`, the first of them at logical position `position`."""

    slot: int
    tokens: Sequence[int]
    position: int
    prompt_length: int
    """Of the whole prompt: rotary scalings that depend on the length go by it, so that pieces equal the whole."""
    logits: int
    """For how many of the last tokens the logits are wanted."""
    far: FarKeys | None = None
    """Which keys look nearer to these tokens than they are, where any do."""


class Observer(Protocol):
    """Is told of a pass what compression wants to know of it. Tensors are the pass's own, and change after the call."""

    def takes_in(self, layer: int, hidden: Tensor, batch: Batch) -> None:
        """The input of a layer's attention, [T, hidden]."""
        ...

    def attends(self, layer: int, before: Tensor, rotated: Tensor, lse: Tensor | None, batch: Batch) -> None:
        """A layer's queries [T, H * G, D] before and after rotation, once its keys and values are in the cache.

        `lse` float32 [T, H * G] is the log of what each query's softmax was divided by, where the operations leave it.
        """
        ...

    def ends(self, last: Tensor, logits: Callable[[Tensor], Tensor], batch: Batch) -> None:
        """The last layer's output [T, hidden]; `logits` makes logits [R, vocabulary] of rows of it."""
        ...


@dataclass(frozen=True)
class Batch:
    """What one forward pass runs over: T tokens of B sequences. Tensors are on the model's device."""

    tables: PageTables
    tokens: Tensor
    """int64 [T]"""
    positions: Tensor
    """int64 [T], logical"""
    lengths: Tensor
    """int64 [T]: the length of its sequence that governs a token's rotation."""
    write: Tensor
    """int64 [L, T, H]: flat index (page * page size + offset) of each token's key and value."""
    logits_rows: Tensor
    """int64 [R]: tokens whose logits are wanted, in order."""
    slots: NDArray[np.int64]
    """[B]"""
    starts: NDArray[np.int64]
    """[B + 1]: the pieces' borders among the tokens."""
    past: NDArray[np.int32]
    """[B, L, H]: entries in each row of the cache before this pass."""
    observer: Observer | None = None
    far: tuple[FarKeys | None, ...] = ()
    """[B]: of each piece, as a CPU attends to it"""

    @property
    def counts(self) -> NDArray[np.int64]:
        """[B]: tokens of each piece."""
        return np.diff(self.starts)

    @cached_property
    def singles(self) -> int:
        """How many pieces at the front have one token: sequences that decode come first."""
        longer = np.flatnonzero(self.counts != 1)
        return int(longer[0]) if len(longer) else len(self.slots)

    @cached_property
    def longest_row(self) -> int:
        """Bounds the keys that any query sees."""
        return int((self.past.max(axis=(1, 2)) + self.counts).max())

    @cached_property
    def device_slots(self) -> Tensor:
        """int64 [B]"""
        return to_device(self.slots, self.tokens.device)

    @cached_property
    def device_starts(self) -> Tensor:
        """int32 [B + 1 - singles]: borders of the pieces behind the singles, counted from the first of those."""
        return to_device((self.starts[self.singles :] - self.singles).astype(np.int32), self.tokens.device)

    @cached_property
    def device_rows(self) -> Tensor:
        """int32 [L, B, H]: entries of each row, a single's own among them, as the kernels for the two kinds want it."""
        rows = self.past.transpose(1, 0, 2).copy()
        rows[:, : self.singles] += 1
        return to_device(rows, self.tokens.device)


def gather(
    pieces: Sequence[Piece], tables: PageTables, device: torch.device, observer: Observer | None = None
) -> Batch:
    """The batch of `pieces`, with room made for their keys and values in `tables`.

    Raises OutOfPagesError, and then nothing was changed.
    """
    counts = np.array([len(piece.tokens) for piece in pieces], dtype=np.int64)
    slots = np.array([piece.slot for piece in pieces], dtype=np.int64)
    past = tables.lengths[slots]
    write = tables.append(slots, counts)
    starts = np.concatenate(([0], np.cumsum(counts)))
    steps = np.arange(starts[-1]) - np.repeat(starts[:-1], counts)
    positions = np.repeat([piece.position for piece in pieces], counts) + steps
    prompt_lengths = np.repeat([piece.prompt_length for piece in pieces], counts)
    rows = [np.arange(end - piece.logits, end) for piece, end in zip(pieces, starts[1:], strict=True)]

    def put(values: NDArray[np.integer]) -> Tensor:
        return to_device(np.ascontiguousarray(values, dtype=np.int64), device)

    places = put(write)
    if tables.pool.bias is not None:
        # Whoever had the pages before may have left some there.
        tables.pool.bias.view(-1)[places.view(-1)] = 0.0
    return Batch(
        tables=tables,
        tokens=put(np.concatenate([np.asarray(piece.tokens, dtype=np.int64) for piece in pieces])),
        positions=put(positions),
        lengths=put(np.maximum(prompt_lengths, positions + 1)),
        write=places,
        logits_rows=put(np.concatenate(rows)),
        slots=slots,
        starts=starts,
        past=past,
        observer=observer,
        far=tuple(piece.far for piece in pieces),
    )
