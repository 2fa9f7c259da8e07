"""Characters of untrusted text, exchanged one for one for stand-ins, so that it can be told apart in a larger text.

The stand-ins are characters of one of Unicode's private planes, such as the text does not use. Of every control token
at least one character is exchanged wherever untrusted text holds it; so a control token that is found in the larger
text cannot have come from it, not even in pieces that were joined or after something between them was cut out. As few
characters as possible are exchanged, so that a chat template still finds what it looks for, such as `/no_think`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from lcdoc.local_engine.errors import InvalidRequestError

_PRIVATE: Final = re.compile("[\U000f0000-\U000fffff]")
_STAND_INS: Final = range(0xF0000, 0xFFF00, 0x100)
"""Where blocks of stand-ins may begin."""


class Exchange:
    """The exchange for one set of messages.

    `controls` are the tokens that nobody but the template may write, and whether they are special to the tokenizer: an
    assistant's own messages keep those that are not, such as `<think>`, since that is how the model wrote them.
    """

    def __init__(self, controls: Mapping[str, bool], messages: Sequence[Mapping[str, Any]], variables: object) -> None:
        special = [control for control, is_special in controls.items() if is_special]
        ordinary = {character for control in controls if control not in special for character in control}
        everywhere, assistants = _distinctive(controls, frozenset()), _distinctive(special, ordinary)
        used = {ord(character) for text in _texts([messages, variables]) for character in _PRIVATE.findall(text)}
        characters = sorted({*everywhere, *assistants})
        base = next((base for base in _STAND_INS if used.isdisjoint(range(base, base + 0x100))), None)
        if base is None or len(characters) > 0x100:
            raise InvalidRequestError("the messages use all of a private plane of Unicode: remove such characters")
        stand_ins = {ord(character): chr(base + i) for i, character in enumerate(characters)}
        self._back = {ord(stand_in): chr(character) for character, stand_in in stand_ins.items()}
        self._everywhere = {ord(character): stand_ins[ord(character)] for character in everywhere}
        self._assistants = {ord(character): stand_ins[ord(character)] for character in assistants}

    def messages(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The messages with stand-ins, except in their roles, which are the caller's."""
        return [
            {
                key: value if key == "role" else self._exchanged(value, self._table(message))
                for key, value in message.items()
            }
            for message in messages
        ]

    def variables(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """What a template may know besides, with stand-ins."""
        return {name: self._exchanged(value, self._everywhere) for name, value in variables.items()}

    def undone(self, text: str) -> str:
        """The text with its characters as they were."""
        return text.translate(self._back)

    def _table(self, message: Mapping[str, Any]) -> Mapping[int, str]:
        return self._assistants if message.get("role") == "assistant" else self._everywhere

    def _exchanged(self, value: Any, table: Mapping[int, str]) -> Any:
        if isinstance(value, str):
            return value.translate(table)
        if isinstance(value, Mapping):
            return {str(key).translate(table): self._exchanged(each, table) for key, each in value.items()}
        return [self._exchanged(each, table) for each in value] if isinstance(value, list | tuple) else value


def _distinctive(tokens: Collection[str], kept: Collection[str]) -> list[str]:
    """Characters of which every token has one; if possible none of `kept`, nor letters, and few."""
    chosen, left = [], [token for token in tokens if token.strip()]
    while left:
        counts = {character: sum(character in token for token in left) for character in set("".join(left))}
        best = min(counts, key=lambda one: (one in kept, one.isalnum() or one.isspace(), -counts[one], one))
        chosen.append(best)
        left = [token for token in left if best not in token]
    return chosen


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value of JSON's types."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from (str(key), *_texts(each))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)
