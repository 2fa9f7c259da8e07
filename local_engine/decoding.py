"""How tokens turn into text: the decoder of a `tokenizer.json`, step by step, for one token at a time.

The library decodes whole lists; a stream needs each token's part once, when no later token can change it. The steps do
what those of the `tokenizers` library of the same names do (tokenizers/src/decoders), and hold back what is undecided:
half of a character, and a run of bytes that may yet turn out not to be UTF-8.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from tokenizers import Tokenizer

from lcdoc.local_engine.errors import UnsupportedModelError


class Step(Protocol):
    """One step of a decoder, at work on a stream of tokens."""

    def push(self, token: str) -> Sequence[str]:
        """What the step makes of a token, and of those it held back."""
        ...

    def flush(self) -> Sequence[str]:
        """What the step held back, at the end."""
        ...


def _byte_characters() -> dict[str, int]:
    """The printable characters by which byte-level vocabularies write bytes (GPT-2's encoder.py)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{chr(byte): byte for byte in printable}, **{chr(256 + i): byte for i, byte in enumerate(others)}}


_BYTES: Final = _byte_characters()
_FALLBACK: Final = re.compile("<0x([0-9a-fA-F]{2})>")


def _bytes_of_characters(token: str) -> bytes:
    try:
        return bytes(_BYTES[character] for character in token)
    except KeyError:
        # Tokens that were added to the vocabulary are written as they are.
        return token.encode()


def _fallback_byte(token: str) -> bytes | None:
    """The byte that `<0x0A>` stands for; None for other tokens."""
    match = _FALLBACK.fullmatch(token)
    return bytes.fromhex(match[1]) if match else None


class _ByteLevel:
    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: str) -> Sequence[str]:
        return (self._decoder.decode(_bytes_of_characters(token)),)

    def flush(self) -> Sequence[str]:
        return (self._decoder.decode(b"", final=True),)


class _ByteFallback:
    """Runs of byte tokens are characters if all of the run is UTF-8, else one U+FFFD for each byte."""

    def __init__(self) -> None:
        self._run = bytearray()

    def push(self, token: str) -> Sequence[str]:
        byte = _fallback_byte(token)
        if byte is not None:
            self._run += byte
            return ()
        return (*self.flush(), token)

    def flush(self) -> Sequence[str]:
        run, self._run = self._run, bytearray()
        if not run:
            return ()
        try:
            return (run.decode(),)
        except UnicodeDecodeError:
            return ("\N{REPLACEMENT CHARACTER}",) * len(run)


class _Each:
    """The steps that look at one token alone."""

    def flush(self) -> Sequence[str]:
        return ()


class _Replace(_Each):
    def __init__(self, pattern: str, content: str) -> None:
        self._pattern, self._content = pattern, content

    def push(self, token: str) -> Sequence[str]:
        return (token.replace(self._pattern, self._content),)


class _Metaspace(_Each):
    """A mark for each space; the marks of the first token are its beginning, not spaces, where one was put there."""

    def __init__(self, mark: str, prepends: bool) -> None:
        self._mark, self._at_start = mark, prepends

    def push(self, token: str) -> Sequence[str]:
        space = "" if self._at_start else " "
        self._at_start = False
        return (token.replace(self._mark, space),)


class _StripAll(_Each):
    """Takes characters off the beginning of the text, of which tokens are pieces."""

    def __init__(self, content: str, start: int) -> None:
        self._content, self._left = content, start

    def push(self, token: str) -> Sequence[str]:
        while self._left and token:
            if not token.startswith(self._content):
                self._left = 0
                break
            token, self._left = token[1:], self._left - 1
        return (token,)


class _StripEach(_Each):
    """Takes characters off the beginning of every token."""

    def __init__(self, content: str, start: int) -> None:
        self._content, self._start = content, start

    def push(self, token: str) -> Sequence[str]:
        return _StripAll(self._content, self._start).push(token)


class Decoder:
    """The decoder of one tokenizer. Raises UnsupportedModelError for one with steps of other kinds."""

    def __init__(self, path: Path, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        if tokenizer.decoder is None:
            raise UnsupportedModelError(f"{path}: has no decoder: take a model whose tokenizer has one")
        self._steps = list(_flat(json.loads(tokenizer.decoder.__getstate__())))
        self._kinds = {step["type"] for step in self._steps}
        for step in self._steps:
            if not _is_known(step):
                raise UnsupportedModelError(
                    f"{path}: its decoder has a step {json.dumps(step, ensure_ascii=False)[:200]}: take a model with a "
                    "byte-level or SentencePiece tokenizer"
                )

    def steps(self) -> list[Step]:
        """Fresh steps, for one stream."""
        kinds = [step["type"] for step in self._steps]
        fused = kinds.index("Fuse") if "Fuse" in kinds else len(kinds)
        return [_make(step, i > fused) for i, step in enumerate(self._steps) if step["type"] != "Fuse"]

    def bytes_of(self, token: int) -> bytes:
        """The bytes that a token adds within a text; none for ids that stand for no token."""
        text: str | None = self._tokenizer.id_to_token(token)
        if text is None:
            return b""
        if "ByteLevel" in self._kinds:
            return _bytes_of_characters(text)
        if "ByteFallback" in self._kinds and (byte := _fallback_byte(text)) is not None:
            return byte
        for specification in self._steps:
            if specification["type"] == "Replace":
                text = text.replace(specification["pattern"]["String"], specification["content"])
            elif specification["type"] == "Metaspace":
                text = text.replace(specification["replacement"], " ")
        return text.encode()


def _is_known(step: Mapping[str, Any]) -> bool:
    if step["type"] == "Replace":
        return "String" in step["pattern"]
    # No model's decoder strips the end of a text, which a stream would have to hold back.
    return step["type"] in {"ByteLevel", "ByteFallback", "Metaspace", "Fuse"} or (
        step["type"] == "Strip" and step["stop"] == 0
    )


def _flat(specification: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The steps of a sequence, and of the sequences in it."""
    if specification["type"] != "Sequence":
        yield specification
        return
    for inner in specification["decoders"]:
        yield from _flat(inner)


def _make(specification: Mapping[str, Any], fused: bool) -> Step:
    """A step; `fused` tells whether it comes behind the one that joins tokens into one text."""
    match specification["type"]:
        case "ByteLevel":
            return _ByteLevel()
        case "ByteFallback":
            return _ByteFallback()
        case "Replace":
            return _Replace(specification["pattern"]["String"], specification["content"])
        case "Metaspace":
            return _Metaspace(specification["replacement"], specification.get("prepend_scheme", "always") != "never")
    strip = _StripAll if fused else _StripEach
    return strip(specification["content"], specification["start"])
