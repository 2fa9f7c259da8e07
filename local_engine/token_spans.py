"""Which characters of a text each of its tokens is, so that what a cache keeps can be shown."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def spans_in(tokens: Iterable[bytes], text: str) -> NDArray[np.int32] | None:
    """int32 [n, 2]: from which to which character of `text` each token is, given the bytes that it stands for.

    The tokens may say more than the text, as those of a chat do: what is before it has an empty span at its beginning,
    what is behind it one at its end. A token that holds a part of a character has all of it. None where the tokens do
    not say the text as it is written, because the tokenizer rewrote it.
    """
    pieces = list(tokens)
    wanted = text.encode(errors="surrogatepass")
    at = b"".join(pieces).find(wanted)
    if at < 0:
        return None
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    ends = (np.cumsum(lengths) - at).clip(0, len(wanted))
    starts = (np.cumsum(lengths) - lengths - at).clip(0, len(wanted))
    begins = (np.frombuffer(wanted, np.uint8) & 0xC0) != 0x80
    before = np.append(0, np.cumsum(begins))  # characters that begin before each byte
    inside = np.append(~begins, False)[starts]  # whether a token begins within a character
    return np.stack((before[starts] - inside, before[ends]), 1).astype(np.int32)
