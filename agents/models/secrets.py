"""API keys, and keeping them out of everything that is shown or kept.

A `Key` never shows itself. Making one registers it, and `scrub` replaces every registered key, in each spelling that
messages and URLs have it, and whatever else looks like one. `install_log_scrubbing` passes all log records through it.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import threading
import traceback
from typing import Any, Final, NoReturn
from urllib.parse import quote, quote_plus

MARKER: Final = "[key]"
MIN_SECRET_CHARACTERS: Final = 8
"""Shorter keys are taken for placeholders and not searched for in texts: they would blank ordinary words."""

_PLACEHOLDERS: Final = frozenset(
    [
        "anything",
        "api-key",
        "changeme",
        "dummy-key",
        "lm-studio",
        "llama-cpp",
        "localhost",
        "local-key",
        "no-api-key",
        "no-key-needed",
        "not-a-key",
        "no-key-required",
        "not-needed",
        "not-required",
        "not-used",
        "optional",
        "placeholder",
        "sk-no-key-required",
        "your-api-key",
    ]
)

_lock = threading.Lock()
_secrets: frozenset[str] = frozenset()
_registered: re.Pattern[str] | None = None


class Key:
    """An API key. Only `reveal()` gives it away: not repr, str, format, pickle or a traceback's locals.

    `source` says where it comes from, for messages: the name of an environment variable, a place in a file.
    Raises ValueError for a blank key.
    """

    __slots__ = ("__value", "source")

    def __init__(self, value: str, *, source: str = "") -> None:
        value = value.strip()
        if not value:
            raise ValueError("a key must not be blank")
        self.__value = value
        self.source = source
        _register(value)

    def reveal(self) -> str:
        """The key itself, for the header of a request and nothing else."""
        return self.__value

    def __repr__(self) -> str:
        return f"Key({MARKER})"

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Key):
            return NotImplemented
        return hmac.compare_digest(self.__value.encode("utf-8", "replace"), other.__value.encode("utf-8", "replace"))

    def __hash__(self) -> int:
        return hash(("lcdoc.Key", self.__value))

    def __copy__(self) -> Key:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> Key:
        return self

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a key cannot be pickled: it would be written down in the clear")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a key cannot be pickled: it would be written down in the clear")


SecretHeaders = tuple[tuple[str, Key], ...]
"""Headers of requests whose values are keys, such as Azure's `api-key`."""


def _spellings(secret: str) -> set[str]:
    return {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        repr(secret)[1:-1],
    }


def _register(secret: str) -> None:
    global _secrets, _registered  # noqa: PLW0603
    if len(secret) < MIN_SECRET_CHARACTERS or secret.casefold() in _PLACEHOLDERS:
        return
    with _lock:
        if secret in _secrets:
            return
        _secrets = _secrets | {secret}
        # The longest first: a key that is the beginning of another must not leave the other's end behind.
        spellings = sorted(set().union(*map(_spellings, _secrets)), key=lambda spelling: (-len(spelling), spelling))
        _registered = re.compile("|".join(map(_pattern, spellings)))


def _pattern(spelling: str) -> str:
    # A short key may be part of a longer ordinary word.
    return re.escape(spelling) if len(spelling) >= 16 else rf"(?<!\w){re.escape(spelling)}(?!\w)"


_LOOK_ALIKES: Final = (
    # Authorization headers, whatever they hold.
    (
        re.compile(
            r"(?i)(authorization[\"']?\s?[:=,]\s?(?:b?[\"'])?"
            r"(?:(?:bearer|basic|token|key)\s+|(?!(?:b?[\"']|bearer\b|basic\b|token\b|key\b))))[\w.~+/=*-]{3,}"
        ),
        rf"\1{MARKER}",
    ),
    (re.compile(r"\b([Bb]earer\s+)(?=[\w.~+/=*-]{20}|[A-Za-z]*[\d._~+/=*-])[\w.~+/=*-]{8,}"), rf"\1{MARKER}"),
    (re.compile(r"(?<![\w-])sk-(?=[A-Za-z_-]*[\d*A-Z])[\w*-]{8,}"), MARKER),
    (re.compile(r"(?<![\w-])(?:gsk_|csk-|hf_|xai-|pplx-|nvapi-|AIza|r8_|tgp_v1_|fw_)[\w-]{16,}"), MARKER),
    (re.compile(r"(?i)([?&;](?:api[-_]?key|key|access[-_]token|token)=)(?!\[key\])[^&\s#\"'<>)\]}]+"), rf"\1{MARKER}"),
    (
        re.compile(r"(?i)((?:api|subscription)[-_]?key[\"']?\s?[:=,]\s?(?:b?[\"'])?)(?!b?[\"'])[\w.~+/=*-]{8,}"),
        rf"\1{MARKER}",
    ),
)


def scrub(text: str) -> str:
    """`text` with every registered key, and what looks like one, replaced by a marker."""
    if _registered is not None:
        text = _registered.sub(MARKER, text)
    for pattern, replacement in _LOOK_ALIKES:
        text = pattern.sub(replacement, text)
    return text


_installed = "_lcdoc_scrubs"


def install_log_scrubbing() -> None:
    """Let no log record of this process hold a key, whoever logs it and whatever handler prints it.

    Messages, tracebacks and stack traces are scrubbed where records are made, because a filter of a logger does not see
    the records of its children. Fields given as `extra` are not looked at. Installing twice is the same as once.
    """
    factory = logging.getLogRecordFactory()
    if getattr(factory, _installed, False):
        return

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        return _scrubbed(factory(*args, **kwargs))

    setattr(make, _installed, True)
    logging.setLogRecordFactory(make)


def _scrubbed(record: logging.LogRecord) -> logging.LogRecord:
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001 - any object's __str__ may run here
        # Left to its handler, a message that cannot be formatted is reported with its arguments in the clear.
        record.msg, record.args = scrub(f"{record.msg!r} % {_safe_repr(record.args)}"), ()
        return record
    if (clean := scrub(message)) != message:
        record.msg, record.args = clean, ()
    if record.exc_info and record.exc_info[0] is not None:
        shown = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if (clean := scrub(shown)) != shown:
            # Formatters print the text where there is one; without the exception no handler renders it anew.
            record.exc_text, record.exc_info = clean, None
    if record.stack_info:
        record.stack_info = scrub(record.stack_info)
    return record


def _safe_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001
        return f"<{type(value).__name__}, whose repr raises {type(error).__name__}>"
