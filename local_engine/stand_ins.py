"""Characters of untrusted text, exchanged one for one for stand-ins, so that it can be told apart in a larger text.

The stand-ins are characters of Unicode's private planes that the text does not use. A control token found in the
larger text then consists of characters that did not come from the untrusted one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

from lcdoc.local_engine.errors import InvalidRequestError

_PRIVATE: Final = re.compile("[\U000f0000-\U000fffff]")
_STAND_INS: Final = range(0xF0000, 0xFFF00, 0x100)
"""Where blocks of stand-ins may begin, in a plane of Unicode that is left to private use."""


class Exchange:
    """Characters exchanged for stand-ins and back."""

    def __init__(self, controls: Mapping[str, bool], text: str) -> None:
        characters = sorted({character for control in controls for character in control if not character.isspace()})
        used = {ord(character) for character in _PRIVATE.findall(text)}
        base = next((base for base in _STAND_INS if used.isdisjoint(range(base, base + 0x100))), None)
        if base is None or len(characters) > 0x100:
            raise InvalidRequestError("the messages use all of a private plane of Unicode: remove such characters")
        self._forward = {ord(character): chr(base + i) for i, character in enumerate(characters)}
        self._back = {ord(stand_in): chr(character) for character, stand_in in self._forward.items()}
        self._all = _Control(controls)
        self._special = _Control([control for control, special in controls.items() if special])

    def undone(self, marked: str) -> str:
        return marked.translate(self._back)

    def harmless(self, value: Any, special: bool = False) -> Any:
        """Control tokens exchanged, wherever a value holds them; `special`: only those special to the tokenizer."""
        control = self._special if special else self._all
        return self._over(value, lambda text: control.exchange(text, self._hidden))

    def messages(self, messages: Sequence[Mapping[str, Any]], legible: frozenset[str]) -> list[dict[str, Any]]:
        """The messages with their contents exchanged, and their other fields harmless.

        Every character is that occurs in a control token. Where a message's role is one of the `legible`, only those
        are that make up a token, or the part of one at an end of the text: what a template looks for in it, such as
        `/no_think`, it still finds. A role itself is the caller's.
        """
        exchanged = []
        for message in messages:
            role = message.get("role")
            own = role == "assistant" and role in legible
            control = self._special if own else self._all
            made = {}
            for key, value in message.items():
                if key != "content":
                    made[key] = self.harmless(value, own)
                elif role in legible:
                    made[key] = self._content(value, partial(control.exchange_ends, change=self._hidden))
                else:
                    made[key] = self._content(value, self._hidden)
            exchanged.append(made)
        return exchanged

    def _hidden(self, text: str) -> str:
        return text.translate(self._forward)

    def _content(self, value: Any, change: Callable[[str], str]) -> Any:
        """A message's content: a text, or parts whose texts are changed and whose other fields are harmless."""
        if isinstance(value, str):
            return change(value)
        if isinstance(value, Mapping):
            return {
                key: self._content(each, change) if key in {"text", "content"} else self.harmless(each)
                for key, each in value.items()
            }
        return [self._content(each, change) for each in value] if isinstance(value, list | tuple) else value

    def _over(self, value: Any, change: Callable[[str], str]) -> Any:
        """Every text in a value of JSON's types changed, keys included."""
        if isinstance(value, str):
            return change(value)
        if isinstance(value, Mapping):
            return {change(str(key)): self._over(each, change) for key, each in value.items()}
        return [self._over(each, change) for each in value] if isinstance(value, list | tuple) else value


class _Control:
    """Where a text holds control tokens, or could complete one with its neighbour."""

    def __init__(self, controls: Collection[str]) -> None:
        self._tokens = sorted(controls, key=len, reverse=True)
        self._whole = re.compile("|".join(map(re.escape, self._tokens)) or "(?!)")
        self._heads = {token[:length] for token in self._tokens for length in range(1, len(token))}
        self._tails = {token[-length:] for token in self._tokens for length in range(1, len(token))}
        self._longest = max(map(len, self._tokens), default=0)

    def exchange(self, text: str, change: Callable[[str], str]) -> str:
        """Whole tokens changed."""
        return self._whole.sub(lambda match: change(match[0]), text)

    def exchange_ends(self, text: str, change: Callable[[str], str]) -> str:
        """Whole tokens changed, and parts of one at the ends; the space around a text does not count."""
        text = self.exchange(text, change)
        core = text.strip()
        if len(core) < self._longest and any(core in token for token in self._tokens):
            return change(text)
        start = len(text) - len(text.lstrip())
        end = start + len(core)
        lengths = range(min(self._longest - 1, len(core)), 0, -1)
        tail = next((length for length in lengths if core[:length] in self._tails), 0)
        head = next((length for length in lengths if core[-length:] in self._heads), 0)
        return (
            text[:start]
            + change(text[start : start + tail])
            + text[start + tail : max(start + tail, end - head)]
            + change(text[max(start + tail, end - head) : end])
            + text[end:]
        )
