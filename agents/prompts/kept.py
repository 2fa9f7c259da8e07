"""A bounded memory of what takes long to make: blocks of data, and how many tokens they have."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """Values by key, at most `most_characters` of text in all: what was not asked for longest goes first.

    Safe to share between threads; two that ask for the same at once may both make it.
    """

    def __init__(self, most_characters: int) -> None:
        self._most_characters = most_characters
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._characters = 0
        self._lock = Lock()

    def get(self, key: Key, make: Callable[[], Value], *, characters: int) -> Value:
        """The value of `key`, made if it is not there; `characters` is what keeping it takes."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
        value = make()
        with self._lock:
            if key not in self._values and characters <= self._most_characters:
                self._values[key] = value, characters
                self._characters += characters
            while self._characters > self._most_characters:
                _, (_, freed) = self._values.popitem(last=False)
                self._characters -= freed
        return value
