"""The stream of an answer: server-sent events read, and put together to one answer.

The reader takes what servers send for what they mean: events with or without blank lines between them, keep-alive
comments, a whole answer as JSON where a stream was asked for. What is not the protocol is an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from lcdoc.agents.models.model import Finish, TokenLogprob

MAX_LINE_BYTES: Final = 16_000_000
_MAX_EVENT_LINES: Final = 256
"""Every further line has the event parsed once more."""
_MAX_OTHER_BYTES: Final = 8_000_000
_FIELDS: Final = (b"event", b"id", b"retry")
_FINISHES: Final[Mapping[str, Finish]] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
}
_BROKEN_FINISHES: Final = frozenset({"error", "abort"})


class NotTheProtocolError(ValueError):
    """What came is not a stream of an answer."""


class EventReader:
    """Bytes in, events out. An event is a JSON object; the one that ends a stream is None."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data = b""
        self._other = bytearray()
        self.events = 0

    @property
    def other(self) -> bytes:
        """What came before any event and is none: JSON, a web page."""
        return bytes(self._other)

    def feed(self, data: bytes) -> list[dict[str, Any] | None]:
        """The events that `data` completes. Raises NotTheProtocolError."""
        *lines, rest = data.split(b"\n")
        if not lines:
            self._line += rest
            self._check_length(len(self._line))
            return []
        self._line += lines[0]
        lines[0] = bytes(self._line)
        self._line = bytearray(rest)
        return self._read(lines)

    def finish(self) -> list[dict[str, Any] | None]:
        """The events that the end of the stream completes. Raises NotTheProtocolError."""
        last, self._line = bytes(self._line), bytearray()
        events = self._read([last, b""])
        self._other = bytearray(self._other.rstrip(b"\n"))
        return events

    def _read(self, lines: list[bytes]) -> list[dict[str, Any] | None]:
        events: list[dict[str, Any] | None] = []
        for line in lines:
            self._check_length(len(line))
            line = line.rstrip(b"\r")  # noqa: PLW2901
            if line.startswith(b"data:"):
                self._data = self._data + b"\n" + line[5:].strip() if self._data else line[5:].strip()
                # Most servers end an event with a blank line, some forget: an event that is whole is an event.
                self._take(events, at_end=False)
            elif not line.strip():
                if self._data:
                    self._take(events, at_end=True)
                elif self._other:
                    self._keep(line)
            elif not line.startswith(b":") and line.partition(b":")[0] not in _FIELDS:
                self._keep(line)
        return events

    def _take(self, events: list[dict[str, Any] | None], *, at_end: bool) -> None:
        if self._data.startswith(b"[DONE]"):
            event = None
        else:
            try:
                event = json.loads(self._data.decode())
            except UnicodeDecodeError:
                raise NotTheProtocolError("text that is not UTF-8") from None
            except (ValueError, RecursionError):
                if at_end:
                    raise NotTheProtocolError("an event that is not JSON") from None
                if self._data.count(b"\n") >= _MAX_EVENT_LINES:
                    raise NotTheProtocolError(f"an event of more than {_MAX_EVENT_LINES} lines") from None
                self._check_length(len(self._data))
                return
            if not isinstance(event, dict):
                raise NotTheProtocolError("an event that is no JSON object")
        self._data = b""
        self.events += 1
        events.append(event)

    def _keep(self, line: bytes) -> None:
        if self.events:
            raise NotTheProtocolError("a line that is no part of an event")
        self._other += line + b"\n"
        if len(self._other) > _MAX_OTHER_BYTES:
            raise NotTheProtocolError(f"{_MAX_OTHER_BYTES:,} bytes without an event")

    def _check_length(self, length: int) -> None:
        if length > MAX_LINE_BYTES:
            raise NotTheProtocolError(f"a line of more than {MAX_LINE_BYTES:,} bytes")


class Answer:
    """What has come of an answer. It is cut off at `max_bytes` of text or `max_reasoning_bytes` of thinking."""

    def __init__(self, *, max_bytes: int, max_reasoning_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._max_reasoning_bytes = max_reasoning_bytes
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[TokenLogprob] | None = []
        self._half = ""
        self.text_bytes = 0
        self.reasoning_bytes = 0
        self.finish: Finish | None = None
        self.broken = ""
        """The finish reason by which the server says that it gave up; empty otherwise."""
        self.done = False
        """The server said that this was all."""
        self.overlong = False
        """It was cut off here."""
        self.choices = 0
        self.usage: object = None
        self.model = ""

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def reasoning(self) -> str:
        return _mended("".join(self._reasoning))

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...] | None:
        return tuple(self._logprobs) if self._logprobs else None

    @property
    def size(self) -> int:
        return self.text_bytes + self.reasoning_bytes

    @property
    def complete(self) -> bool:
        """What follows can only be the usage."""
        return not self.broken and (self.finish is not None or self.done)

    def add(self, event: Mapping[str, Any]) -> str:
        """Take in an event; the piece of text it brought. Raises NotTheProtocolError."""
        if isinstance(event.get("usage"), dict):
            self.usage = event["usage"]
        if not self.model and isinstance(event.get("model"), str):
            self.model = event["model"]
        choices = event.get("choices")
        if choices is None:
            return ""
        if not isinstance(choices, list):
            raise NotTheProtocolError("choices that are no list")
        piece = ""
        for choice in choices:
            if not isinstance(choice, dict):
                raise NotTheProtocolError("a choice that is no object")
            if choice.get("index") in {0, None}:
                piece += self._add_choice(choice)
        return piece

    def _add_choice(self, choice: Mapping[str, Any]) -> str:
        self.choices += 1
        delta = choice.get("delta")
        message = delta if isinstance(delta, dict) else choice.get("message")
        piece = ""
        if isinstance(message, dict):
            text, reasoning = _texts(message.get("content"))
            # A refusal is an answer too, though none to what was asked.
            refusal = message.get("refusal")
            if isinstance(refusal, str) and refusal:
                text += refusal
                self.finish = "content_filter"
            for name in ("reasoning_content", "reasoning"):
                if isinstance(message.get(name), str):
                    reasoning += message[name]
                    break
            piece = self._add_text(text)
            self._add_reasoning(reasoning)
        self._add_logprobs(choice.get("logprobs"))
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            piece += self._add_text("", last=True)
            if reason.lower() in _BROKEN_FINISHES:
                self.broken = reason.lower()
            elif self.finish is None:
                self.finish = _FINISHES.get(reason.lower(), "other")
        return piece

    def _add_text(self, text: str, *, last: bool = False) -> str:
        if self._half:
            text, self._half = self._half + text, ""
        if text and not last and "\ud800" <= text[-1] <= "\udbff":
            # Half of a character, the other half of which comes with the next piece.
            text, self._half = text[:-1], text[-1]
        if not text:
            return ""
        text = _mended(text)
        data = text.encode()
        room = self._max_bytes - self.text_bytes
        if len(data) > room:
            text = data[: max(0, room)].decode(errors="ignore")
            data = text.encode()
            self._cut_off()
        self._text.append(text)
        self.text_bytes += len(data)
        return text

    def _cut_off(self) -> None:
        self.finish, self.overlong = "length", True

    def _add_reasoning(self, reasoning: str) -> None:
        if not reasoning:
            return
        self.reasoning_bytes += len(reasoning.encode("utf-8", "surrogatepass"))
        if self.reasoning_bytes > self._max_reasoning_bytes:
            self._cut_off()
        else:
            self._reasoning.append(reasoning)

    def _add_logprobs(self, given: object) -> None:
        if not isinstance(given, dict) or self._logprobs is None:
            return
        content = given.get("content")
        for entry in content if isinstance(content, list) else ():
            token = entry.get("token") if isinstance(entry, dict) else None
            logprob = entry.get("logprob") if isinstance(entry, dict) else None
            if not isinstance(token, str) or not isinstance(logprob, int | float) or not math.isfinite(logprob):
                # Some wrong among them: none can be relied on.
                self._logprobs = None
                return
            self._logprobs.append(TokenLogprob(_mended(token), float(logprob)))


def _texts(content: object) -> tuple[str, str]:
    """Text and thinking of a message's content, which is a string or, with some servers, a list of parts."""
    if isinstance(content, str):
        return content, ""
    text = thinking = ""
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            text += part["text"]
        elif isinstance(part, dict) and "thinking" in part:
            inner = part["thinking"]
            thinking += inner if isinstance(inner, str) else _texts(inner)[0]
    return text, thinking


def _mended(text: str) -> str:
    """`text` with surrogates joined to the characters they are halves of; single ones become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
