"""Which keys of a sequence look nearer than they are, from one cut of its cache to the next."""

from __future__ import annotations

from torch import Tensor

from lcdoc.local_engine.compression.entries import Entries
from lcdoc.local_engine.compression.layers import layer_model
from lcdoc.local_engine.compression.positions import Capped, Positions, SelfExtend
from lcdoc.local_engine.decoder import Decoder
from lcdoc.local_engine.far_keys import FarKeys


def far_keys(decoder: Decoder, entries: Entries, scheme: Positions) -> FarKeys | None:
    """Of a sequence that was just cut, or of which nothing was read; None where a scheme has but one distance."""
    if not isinstance(scheme, SelfExtend | Capped):
        return None
    layout = entries.layout()
    stored = layout.valid & (entries.first - layout.positions >= scheme.near)

    def turn(layer: int, x: Tensor, by: Tensor) -> Tensor:
        # Rotations that go by the length of a text are refused with schemes like these.
        return layer_model(decoder, layer, 1, slice(None)).rotate(x, by)

    def counted(of: Tensor) -> tuple[tuple[int, ...], ...]:
        return tuple(map(tuple, of.sum(-1).tolist()))

    return FarKeys(
        scheme,
        turn,
        decoder.config.rotates,
        entries.first,
        entries.base,
        layout.positions,
        counted(layout.valid),
        counted(stored),
    )
