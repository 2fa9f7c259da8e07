"""A JSON object's fields by type. What is null is as good as absent; what is of another type is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lcdoc.local_engine.serving.problems import Problem


class Fields:
    """The fields of an object that stands at `path` in the request."""

    def __init__(self, values: Mapping[str, Any], path: str = "") -> None:
        self.values = values
        self._path = path

    def path(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def wrong(self, name: str, wanted: str) -> Problem:
        """What is to be raised for a field that is not as it must be."""
        path = self.path(name)
        return Problem(f"Invalid value for '{path}': it must be {wanted}.", param=path, code="invalid_value")

    def missing(self, name: str, what: str) -> Problem:
        path = self.path(name)
        return Problem(f"Missing required parameter: '{path}' ({what}).", param=path, code="missing_required_parameter")

    def unsupported(self, name: str, remedy: str = "leave it out") -> Problem:
        path = self.path(name)
        return Problem(
            f"Unsupported parameter: '{path}' is not supported here: {remedy}.",
            param=path,
            code="unsupported_parameter",
        )

    def number(self, name: str) -> float | None:
        value = self.values.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, "a number")
        try:
            return float(value)
        except OverflowError:
            raise self.wrong(name, "a number that a float64 holds") from None

    def integer(self, name: str) -> int | None:
        value = self.values.get(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self.wrong(name, "an integer")
        return value

    def flag(self, name: str) -> bool:
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return bool(value)

    def text(self, name: str) -> str | None:
        value = self.values.get(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value

    def fields(self, name: str) -> Fields | None:
        """An object's fields."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return Fields(value, self.path(name))

    def items(self, name: str) -> list[Any] | None:
        value = self.values.get(name)
        if value is not None and not isinstance(value, list):
            raise self.wrong(name, "an array")
        return value
