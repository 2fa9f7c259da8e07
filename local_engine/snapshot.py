"""A text that was read once: its cache of keys and values, whole or compressed, to be asked about any number of times.

    snapshot = await engine.prefill(document, kv="kvzip@0.25")
    snapshot.save("book.kv")
    output = await engine.complete(question, prefix=Snapshot.load("book.kv"))

It belongs to the model that read it, and to no engine: it is put into pages where it is first asked (`residents.py`),
which may be in another process, years later. Rows are as long as compression left them, and stored one behind the
other, so that a file holds nothing but what is kept. A file is mapped, and read when the first question needs it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lcdoc.local_engine.errors import InvalidRequestError, SnapshotError
from lcdoc.local_engine.model_identity import ModelIdentity
from lcdoc.local_engine.page_tables import PageTables
from lcdoc.local_engine.pages import to_device
from lcdoc.local_engine.snapshot_fields import checked_meta, meta_of, rows_of, shaped, spans_of
from lcdoc.local_engine.stored_rows import Rows
from lcdoc.local_engine.tensor_file import damaged, map_tensors, write_tensors

_FORMAT: Final = "lcdoc snapshot"
_VERSION: Final = "2"
_FIGURE: Final = "figure."


class Origin:
    """Which snapshot it is: an engine keeps the pages of one it has seen before."""

    def __init__(self, file: tuple[int, ...] | None = None) -> None:
        self.file = file
        """What tells the file it was mapped from, as it was then; None for one in memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A text's cache. E entries in all, row after row; made by `Engine.prefill` or `Snapshot.load`."""

    model: ModelIdentity
    recipe: str
    """In its canonical spelling; "full" where all was kept."""
    tokens: NDArray[np.int32]
    """[read]: the text's, which are what a question's answer is penalised for, and copies from."""
    lengths: NDArray[np.int64]
    """[layers, kv_heads]: entries of each row."""
    place: int
    """The position to which the first key behind the text is rotated."""
    keys: Rows
    values: Rows
    positions: Tensor
    """int32 [E]: where in the text each entry stands"""
    rotated_at: Tensor
    """int32 [E]: what each key is rotated to"""
    bias: Tensor | None = None
    """float32 [E]: what is added to each entry's attention logits; None where a recipe merged nothing"""
    cache_bytes: int = 0
    """What its pages took in the engine that read it, pages counted whole."""
    first: int = 0
    """Tokens that were read when the recipe last cut: what came later it has not looked at."""
    figures: Mapping[str, Tensor] = field(default_factory=dict)
    """float32 [E]: what the recipe noted of each entry, by names of its own."""
    spans: NDArray[np.int32] | None = None
    """[read, 2]: from which to which character of the text each token is; None where that is not known."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What the caller said of the text: JSON, at most 64 KiB."""
    origin: Origin = field(default_factory=Origin, repr=False)

    @property
    def read(self) -> int:
        """Tokens of the text."""
        return len(self.tokens)

    @property
    def shift(self) -> int:
        """How far a key behind the text is rotated less than where it stands."""
        return self.read - self.place

    @property
    def head_dim(self) -> int:
        return self.keys.numbers.shape[1]

    @property
    def kept(self) -> int:
        """Entries of a row, on average."""
        return round(float(self.lengths.mean()))

    @property
    def quantized(self) -> bool:
        return self.keys.scale is not None

    @property
    def nbytes(self) -> int:
        """Bytes of all that is held, which is about the size of its file."""
        others = (self.positions, self.rotated_at, self.bias, self.tokens, self.spans, *self.figures.values())
        return self.keys.nbytes + self.values.nbytes + sum(each.nbytes for each in others if each is not None)

    def kept_spans(self, *, share: float = 0.0) -> list[tuple[int, int]]:
        """The parts of the text, in characters, whose tokens more than a `share` (0 to 1) of all rows keep.

        By default those that any row keeps. Raises InvalidRequestError where spans are not known.
        """
        spans = self._known_spans()
        times = np.bincount(self.positions.numpy(), minlength=self.read)
        kept = spans[times > share * self.lengths.size]
        kept = kept[kept[:, 1] > kept[:, 0]]
        # A character may be of several tokens, and then their spans overlap.
        begins = np.flatnonzero(np.append(True, kept[1:, 0] > kept[:-1, 1])[: len(kept)])
        ends = np.append(begins[1:], len(kept))[: len(begins)] - 1
        return list(zip(kept[begins, 0].tolist(), kept[ends, 1].tolist(), strict=True))

    def truncate(self, tokens: int | None = None, *, characters: int | None = None) -> Snapshot:
        """Of the first `tokens` tokens alone, or those that end within the first `characters` characters of the text.

        What is kept of those behind is left out, the rest is as it was read. Raises InvalidRequestError where there are
        fewer, where nothing of them is kept, or where a recipe moved entries together.
        """
        if characters is not None and tokens is None:
            tokens = int(np.searchsorted(self._known_spans()[:, 1], characters, side="right"))
        elif tokens is None or characters is not None:
            raise InvalidRequestError("a snapshot is cut to a number of tokens or of characters: give one of them")
        if not 0 < tokens <= self.read:
            raise InvalidRequestError(f"a snapshot of {self.read:,} tokens cannot be cut to {tokens:,}")
        if self.shift:
            raise InvalidRequestError(f"{self.recipe} moved the entries together: read the shorter text instead")
        keep = self.positions < tokens
        if not keep.any():
            raise InvalidRequestError(f"nothing is kept of the first {tokens:,} tokens: cut it to more of them")
        row = np.repeat(np.arange(self.lengths.size), self.lengths.ravel())
        lengths = np.bincount(row[keep.numpy()], minlength=self.lengths.size).reshape(self.lengths.shape)
        return replace(
            self,
            tokens=self.tokens[:tokens],
            lengths=lengths,
            place=tokens,
            keys=self.keys.chosen(keep),
            values=self.values.chosen(keep),
            positions=self.positions[keep],
            rotated_at=self.rotated_at[keep],
            bias=None if self.bias is None else self.bias[keep],
            first=min(self.first, tokens),
            figures={name: figure[keep] for name, figure in self.figures.items()},
            spans=None if self.spans is None else self.spans[:tokens],
            origin=Origin(),
        )

    def described(self, meta: Mapping[str, Any]) -> Snapshot:
        """The same with other `meta`. Raises InvalidRequestError for what is no JSON, or too long."""
        return replace(self, meta=checked_meta(meta))

    def save(self, path: str | Path, *, quantize: Literal["int8"] | None = None) -> None:
        """Write it to a file, which is there whole or as it was before.

        `quantize` halves it, or quarters it where the cache is float32: int8 by entry, with a float16 scale. Raises
        SnapshotError.
        """
        if quantize not in (None, "int8"):
            raise InvalidRequestError(f"quantize={quantize!r} is not known for a snapshot: int8 or None")
        keys, values = (
            (self.keys, self.values) if quantize is None else (self.keys.quantized(), self.values.quantized())
        )
        tensors = {
            "tokens": torch.from_numpy(self.tokens),
            "lengths": torch.from_numpy(self.lengths.astype(np.int32)),
            "keys": keys.numbers,
            "values": values.numbers,
            "positions": self.positions,
            "rotated_at": self.rotated_at,
            "keys.scale": keys.scale,
            "values.scale": values.scale,
            "bias": self.bias,
            "spans": None if self.spans is None else torch.from_numpy(self.spans),
            **{f"{_FIGURE}{name}": figure for name, figure in self.figures.items()},
        }
        manifest = {
            "format": _FORMAT,
            "version": _VERSION,
            "model": self.model.name,
            "fingerprint": self.model.fingerprint,
            "recipe": self.recipe,
            "place": str(self.place),
            "cache_bytes": str(self.cache_bytes),
            "first": str(self.first),
            "meta": json.dumps(self.meta, ensure_ascii=False),
        }
        write_tensors(Path(path), {name: each for name, each in tensors.items() if each is not None}, manifest)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Of a file, mapped into memory. Raises SnapshotError for one that is damaged, or of another version."""
        path = Path(path)
        tensors, manifest, file = map_tensors(path)
        if manifest.get("format") != _FORMAT:
            raise damaged(path, "its manifest does not say that it is one")
        if manifest.get("version") != _VERSION:
            raise SnapshotError(
                f"{path}: is a snapshot of version {manifest.get('version')}, and version {_VERSION} is read: make it "
                "again"
            )
        try:
            return cls._checked(tensors, manifest, Origin(file))
        except (ValueError, KeyError, RecursionError) as error:
            raise damaged(path, str(error)) from None

    @classmethod
    def _checked(cls, tensors: Mapping[str, Tensor], manifest: Mapping[str, str], origin: Origin) -> Self:
        tokens = shaped(tensors, "tokens", None, dtype=torch.int32)
        lengths = shaped(tensors, "lengths", None, None, dtype=torch.int32).numpy().astype(np.int64)
        if not lengths.size or lengths.min() < 0 or lengths.max() > len(tokens) or not lengths.max():
            raise ValueError(f"rows that do not fit a text of {len(tokens)} tokens")
        entries = int(lengths.sum())
        keys, values = (rows_of(tensors, name, entries) for name in ("keys", "values"))
        if keys.numbers.shape != values.numbers.shape or keys.numbers.dtype != values.numbers.dtype:
            raise ValueError("keys and values of two kinds")
        place = int(manifest["place"])
        if not 0 < place <= 2 * len(tokens):
            raise ValueError(f"a text of {len(tokens)} tokens that ends at {place}")
        first = int(manifest["first"])
        if not 0 <= first <= len(tokens) or len(tokens) - first > lengths.min():
            raise ValueError(f"a text of {len(tokens)} tokens that was last cut after {first}")
        positions = shaped(tensors, "positions", entries, dtype=torch.int32)
        if int(positions.min()) < 0 or int(positions.max()) >= len(tokens):
            raise ValueError(f"entries that stand outside a text of {len(tokens)} tokens")
        names = [name for name in tensors if name.startswith(_FIGURE)]
        return cls(
            ModelIdentity(manifest["model"], manifest["fingerprint"]),
            manifest["recipe"],
            tokens.numpy(),
            lengths,
            place,
            keys,
            values,
            positions,
            shaped(tensors, "rotated_at", entries, dtype=torch.int32),
            shaped(tensors, "bias", entries, dtype=torch.float32) if "bias" in tensors else None,
            int(manifest["cache_bytes"]),
            first,
            {name[len(_FIGURE) :]: shaped(tensors, name, entries, dtype=torch.float32) for name in names},
            spans_of(tensors, len(tokens)),
            meta_of(manifest),
            origin,
        )

    def check(self, identity: ModelIdentity, tables: PageTables) -> None:
        """Raises SnapshotError unless it is of this model, with the rows of this cache."""
        if self.model.fingerprint != identity.fingerprint:
            raise SnapshotError(
                f"the snapshot was read by {self.model} and this engine runs {identity}: read the text again, or load "
                "that model in that precision"
            )
        rows = (tables.layers, tables.kv_heads, tables.pool.head_dim)
        if (*self.lengths.shape, self.head_dim) != rows:
            raise SnapshotError(
                f"the snapshot has rows of {(*self.lengths.shape, self.head_dim)} layers, heads and numbers, and the "
                f"model of {rows}: read the text again"
            )

    def fill(self, tables: PageTables, slot: int) -> None:
        """Put its entries into an empty sequence. Raises OutOfPagesError, with nothing changed."""
        pool = tables.pool
        where = tables.fill(slot, self.lengths)
        tables.kernels.load(pool, where, self.keys, self.values)
        # Whoever had the pages before may have left biases there.
        bias = pool.bias if self.bias is None else pool.with_bias()
        if bias is not None:
            added = torch.zeros(len(where)) if self.bias is None else self.bias
            bias.view(-1)[to_device(where, pool.device)] = added.to(pool.device)
        tables.biased[slot] = self.bias is not None

    def _known_spans(self) -> NDArray[np.int32]:
        if self.spans is None:
            raise InvalidRequestError(
                "the snapshot does not know which characters its tokens are: give the text itself, or its spans, when "
                "it is read"
            )
        return self.spans
