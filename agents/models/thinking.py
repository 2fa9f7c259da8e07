"""What a model thinks aloud before it answers, kept apart from the answer.

Servers that do not know a model's template leave the thinking in the text: `<think>...</think>answer`, or without the
opening tag where the template has put it at the prompt's end. Only thinking at the beginning counts: a tag further on
is taken for something the answer is about, unless it closes thinking that was never opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_PAIRS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "<reasoning>": "</reasoning>",
    "<thought>": "</thought>",
    "[think]": "[/think]",
    "◁think▷": "◁/think▷",
    "<|start_thinking|>": "<|end_thinking|>",
}
_TAGS = (*_PAIRS, *_PAIRS.values())
_LONGEST_TAG = max(map(len, _TAGS))


def _either(tags: list[str]) -> str:
    return "|".join(map(re.escape, tags))


_LEADING = re.compile(rf"\s*+({_either(list(_PAIRS))})", re.IGNORECASE)
THINKING_TAG = re.compile(
    rf"(?P<opening>{_either(list(_PAIRS))})|(?P<closing>{_either(list(_PAIRS.values()))})", re.IGNORECASE
)


def closing_tag(opening: str) -> re.Pattern[str]:
    """What ends the thinking that the tag `opening` began."""
    return re.compile(re.escape(_PAIRS[opening.lower()]), re.IGNORECASE)


def split_thinking(text: str) -> tuple[str, str]:
    """The thinking at the beginning of `text` (empty where there is none) and the rest, which is the answer."""
    thoughts: list[str] = []
    while True:
        if opening := _LEADING.match(text):
            closing = closing_tag(opening[1]).search(text, opening.end())
            thoughts.append(text[opening.end() : closing.start() if closing else None])
        elif not _is_data(text) and (tag := THINKING_TAG.search(text)) and tag["closing"]:
            closing = tag
            thoughts.append(text[: tag.start()])
        else:
            break
        text = text[closing.end() :].lstrip() if closing else ""
    return "\n".join(filter(None, map(str.strip, thoughts))), text


def _is_data(text: str) -> bool:
    """JSON or a code block: a tag inside is content."""
    return text.lstrip().startswith(("{", "[", "```"))


class ThinkingFilter:
    """Hands pieces of a streamed answer on to `emit`, without the thinking: what comes out is `split_thinking`'s rest.

    Thinking without an opening tag has been handed on before its end shows that it was none of the answer; an empty
    piece then announces that the answer begins anew. Call `finish()` after the last piece.
    """

    def __init__(self, emit: Callable[[str], None]) -> None:
        self._emit = emit
        self._begin()

    def _begin(self, *, after_thinking: bool = False) -> None:
        self._held = ""
        self._closing: re.Pattern[str] | None = None
        self._answering = False
        self._watching = True
        self._strip = after_thinking

    def feed(self, piece: str) -> None:
        if not piece:
            self._begin()
            self._emit("")
            return
        self._held += piece
        while self._held and self._step():
            pass

    def finish(self) -> None:
        """Hand on what was held back because a tag might have begun in it."""
        if self._held and self._closing is None:
            self._emit(self._held)
        self._begin()

    def _step(self) -> bool:
        """Take one decision on the text held back; False when it needs more text."""
        if self._closing is not None:
            return self._think(self._closing)
        if not self._answering:
            return self._open()
        if not self._watching:
            self._hand_on(len(self._held))
            return False
        tag = THINKING_TAG.search(self._held)
        if tag is None:
            self._hand_on(len(self._held) - _beginning_of_tag(self._held))
            return False
        if tag["opening"]:
            self._watching = False
            return True
        rest = self._held[tag.end() :]
        self._begin(after_thinking=True)
        self._emit("")
        self._held = rest
        return True

    def _think(self, closing: re.Pattern[str]) -> bool:
        end = closing.search(self._held)
        if end is None:
            self._held = self._held[-_LONGEST_TAG:]
            return False
        rest = self._held[end.end() :]
        self._begin(after_thinking=True)
        self._held = rest
        return True

    def _open(self) -> bool:
        if self._strip:
            self._held = self._held.lstrip()
        begun = self._held.lstrip().lower()
        if opening := _LEADING.match(self._held):
            self._closing = closing_tag(opening[1])
            self._held = self._held[opening.end() :]
            return True
        if not begun or any(tag.startswith(begun) for tag in _PAIRS) or "```".startswith(begun):
            return False
        self._answering = True
        self._watching = not _is_data(self._held)
        return True

    def _hand_on(self, characters: int) -> None:
        if characters:
            self._emit(self._held[:characters])
            self._held = self._held[characters:]


def _beginning_of_tag(text: str) -> int:
    """Characters at the end of `text` that a tag may begin with."""
    tail = text[-_LONGEST_TAG:].lower()
    return next((len(tail) - i for i in range(len(tail)) if any(tag.startswith(tail[i:]) for tag in _TAGS)), 0)
