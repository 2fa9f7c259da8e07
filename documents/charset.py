"""Bytes to text in any encoding: byte order marks, declarations, UTF-8, and a guess by charset-normalizer.

The guess looks at a sample around the bytes that are not ASCII, so a file of any size costs the same; the decoding that
follows is strict over the whole file. Where nothing decodes without errors the result says how many characters were
lost.
"""

from __future__ import annotations

import codecs
import logging
import re
from dataclasses import dataclass, replace
from typing import Final

SAMPLE_BYTES: Final = 1 << 16

_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What may be guessed, the common ones first: among guesses that fit equally well the first wins.
_COMMON_FIRST: Final = """
    utf_8 cp1252 cp1251 cp932 gb18030 big5 cp949 euc_jp iso2022_jp cp1250 koi8_r cp1253 cp1254 cp1255 cp1256 cp1257
    cp866 iso8859_2 iso8859_5 iso8859_7 iso8859_8 iso8859_9 cp874 cp1258 koi8_u big5hkscs cp850 cp852 cp437 cp862
    mac_roman mac_cyrillic mac_greek mac_latin2 iso2022_kr hz johab cp500 cp037
    utf_16_le utf_16_be utf_32_le utf_32_be
"""
_GUESSES: Final = _COMMON_FIRST.split()
# https://encoding.spec.whatwg.org: what pages that name these really use.
_DECLARED: Final = {
    "iso8859-1": "cp1252",
    "ascii": "cp1252",
    "iso8859-9": "cp1254",
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "tis-620": "cp874",
}
_CONTROLS: Final = bytes(sorted({*range(0x20), 0x7F} - {*b"\t\n\r\f\x1a\x1b"}))
_META_CHARSET: Final = re.compile(
    rb"""<meta[^>]{0,400}?charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})|"""
    rb"""<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9_.:-]{2,40})""",
    re.IGNORECASE,
)
_STRANGE: Final = re.compile("[\x00-\x08\x0b\x0e-\x1f\ufffd\ue000-\uf8ff]")
_ISO_2022: Final = re.compile(rb"\x1b\$[@AB)(]")
"""How ISO-2022 switches to two-byte characters; all of it is ASCII, so it would pass for UTF-8."""
_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]")


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text, the encoding it was in, and how many characters could not be decoded (they are U+FFFD in the text).

    `sure` is False when another encoding fits as well and gives other letters.
    """

    text: str
    encoding: str
    lost: int = 0
    sure: bool = True

    @property
    def warning(self) -> str:
        """What the user should know, or nothing."""
        if not self.lost:
            name = _spoken(self.encoding)
            guess = f"its encoding is a guess ({name}); if letters look wrong, save the file as UTF-8"
            return "" if self.sure else guess
        noun = "character" if self.lost == 1 else "characters"
        return f"decoded as {_spoken(self.encoding)}; {self.lost:,} {noun} could not be decoded"


def decode(data: bytes) -> Decoded | None:
    """The text in `data`, or None when the bytes are no text in any encoding."""
    if (marked := _by_mark(data)) is not None:
        return marked
    if encoding := wide_encoding(data):
        return _decode(data, encoding)
    if (decoded := _utf8(data)) is not None:
        return decoded
    return _guess(data)


def decode_markup(data: bytes) -> Decoded | None:
    """The same for HTML and XHTML, which may declare their encoding in a `<meta>` or XML declaration."""
    if (marked := _by_mark(data)) is not None:
        return marked
    if encoding := wide_encoding(data):
        return _decode(data, encoding)
    strict = _strict(data, "utf-8")
    if strict is not None:
        return strict
    declared = _declared(data[:4096])
    if declared is not None:
        decoded = _strict(data, declared) or _decode(data, declared)
        if not decoded.lost or decoded.lost * 1000 < len(data) or declared == "cp1252":
            return decoded
    return _utf8(data) or _guess(data)


def wide_encoding(data: bytes) -> str | None:
    """UTF-16 or UTF-32 without a mark, told by where the zero bytes are. None when there is no such pattern."""
    sample = data[: SAMPLE_BYTES // 4 * 4]
    if len(sample) < 4 or b"\0" not in sample:
        return None
    zeros = [sample[offset::4].count(0) * 4 / len(sample) for offset in range(4)]
    many, few = 0.9, 0.1
    if len(data) % 4 == 0:
        if zeros[2] > many and zeros[3] > many and zeros[0] < few:
            return "utf-32-le"
        if zeros[0] > many and zeros[1] > many and zeros[3] < few:
            return "utf-32-be"
    even, odd = (zeros[0] + zeros[2]) / 2, (zeros[1] + zeros[3]) / 2
    # Latin text has a zero in nearly every pair; other scripts only for spaces, digits and line ends.
    for encoding, high, low in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if high > 0.03 and low < high / 20 and _reads_as_text(sample, encoding):
            return encoding
    return None


def looks_binary(data: bytes) -> bool:
    """Whether samples of `data` hold more control characters than any text in a byte encoding does."""
    middle = len(data) // 2
    sample = data[:8192] + data[middle : middle + 8192] + data[-8192:]
    return len(sample) - len(sample.translate(None, _CONTROLS)) > len(sample) // 100


def _by_mark(data: bytes) -> Decoded | None:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _decode(data[len(mark) :], encoding)
    return None


def _strict(data: bytes, encoding: str) -> Decoded | None:
    try:
        return Decoded(data.decode(encoding), encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _decode(data: bytes, encoding: str) -> Decoded:
    strict = _strict(data, encoding)
    if strict is not None:
        return strict
    text = data.decode(encoding, errors="replace")
    return Decoded(text, encoding, text.count("\ufffd"))


def _utf8(data: bytes) -> Decoded | None:
    """UTF-8, with a few broken characters forgiven when far more are whole."""
    if looks_binary(data):
        return None
    if _ISO_2022.search(data, 0, SAMPLE_BYTES) and (switched := _guess(data)) is not None:
        return switched
    decoded = _decode(data, "utf-8")
    if decoded.lost:
        letters = len(decoded.text) - len(decoded.text.encode("ascii", "ignore")) - decoded.lost
        if letters < 10 * decoded.lost:
            return None
    return decoded


def _declared(head: bytes) -> str | None:
    match = _META_CHARSET.search(head)
    if match is None:
        return None
    try:
        name = codecs.lookup((match[1] or match[2]).decode("ascii")).name
    except (LookupError, UnicodeDecodeError):
        return None
    # A declaration that can be read as ASCII is not in UTF-16, whatever it says.
    if name.startswith(("utf-16", "utf-32")) or name not in _text_encodings():
        return None
    return _DECLARED.get(name, name)


def _text_encodings() -> frozenset[str]:
    """Canonical names of Python's text encodings; `codecs.lookup` also knows zlib, rot13 and the like."""
    from encodings.aliases import aliases

    others = {"base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec"}
    return frozenset(codecs.lookup(module).name for module in {*aliases.values()} - others - _absent(aliases))


def _absent(aliases: dict[str, str]) -> set[str]:
    """Encodings that Python lists on every platform and has only on some (`mbcs`, `oem`)."""
    missing = set()
    for module in {*aliases.values()}:
        try:
            codecs.lookup(module)
        except LookupError:
            missing.add(module)
    return missing


def _guess(data: bytes) -> Decoded | None:
    """The likeliest encoding that decodes all of `data`; failing that, Windows-1252 with characters lost."""
    candidates, sure = _candidates(_sample(data))
    for encoding in candidates:
        strict = _strict(data, encoding)
        if strict is not None and _is_text(strict.text[:SAMPLE_BYTES]):
            return replace(strict, sure=sure)
    if looks_binary(data):
        return None
    attempts = [_decode(data, encoding) for encoding in [*candidates[:2], "cp1252"]]
    return replace(min(attempts, key=lambda decoded: decoded.lost), sure=False)


def _sample(data: bytes) -> bytes:
    """The parts of `data` that tell encodings apart: what stands around bytes outside ASCII."""
    if len(data) <= SAMPLE_BYTES:
        return data
    if b"\x1b" in data[:SAMPLE_BYTES]:
        return data[:SAMPLE_BYTES]
    pieces: list[bytes] = []
    size, position = 0, 0
    while size < SAMPLE_BYTES and (match := _NOT_ASCII.search(data, position)):
        # Back to a line end, so that a double-byte character is not cut; in EBCDIC there is none, and no need.
        start = data.rfind(b"\n", max(position, match.start() - 200), match.start()) + 1 or match.start()
        end = data.find(b"\n", match.start() + 500, match.start() + 2000)
        position = end if end >= 0 else min(len(data), match.start() + 2000)
        pieces.append(data[start:position])
        size += position - start
    return b"".join(pieces) or data[:SAMPLE_BYTES]


def _candidates(sample: bytes) -> tuple[list[str], bool]:
    """Encodings that fit, best first, and whether the first is the only good one."""
    from charset_normalizer import from_bytes

    logging.getLogger("charset_normalizer").setLevel(logging.WARNING)
    matches = list(from_bytes(sample, cp_isolation=_GUESSES))
    if not matches:
        return [], False
    least_mess = min(match.chaos for match in matches)
    most_sense = max(match.coherence for match in matches if match.chaos <= least_mess + 0.02)
    good: list[tuple[int, str]] = []
    rest: list[tuple[float, str]] = []
    families = 0
    for match in matches:
        close = match.chaos <= least_mess + 0.02 and match.coherence >= most_sense - 0.08
        families += close
        for encoding in {match.encoding, *match.could_be_from_charset} & {*_GUESSES}:
            if close:
                good.append((_GUESSES.index(encoding), encoding))
            else:
                rest.append((match.chaos, encoding))
    return [encoding for _, encoding in sorted(good) + sorted(rest)], families == 1


def _reads_as_text(sample: bytes, encoding: str) -> bool:
    return _is_text(sample.decode(encoding, errors="replace"))


def _is_text(text: str) -> bool:
    return len(_STRANGE.findall(text)) * 50 < len(text)


def _spoken(encoding: str) -> str:
    name = encoding.replace("_", "-")
    return name.replace("cp", "windows-") if name.startswith("cp125") else name
