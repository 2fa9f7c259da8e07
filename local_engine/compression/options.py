"""Options of a part as a recipe writes them: its dataclass's fields, read by their types."""

from __future__ import annotations

import types
from dataclasses import MISSING, fields
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from lcdoc.local_engine.compression.parts import names
from lcdoc.local_engine.errors import InvalidRequestError

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def option_values(made: type[Any]) -> dict[str, Any]:
    """The options of a part's class, and the type of each."""
    hints = get_type_hints(made)
    return {field.name: hints[field.name] for field in fields(made) if field.init}


def read_value(text: str, kind: Any, what: str) -> Any:
    """`text` as a value of type `kind`: int, float, bool, str, a Literal, or one of these or None.

    Raises InvalidRequestError that begins with `what`.
    """
    origin = get_origin(kind)
    if origin is Literal:
        found = {str(each): each for each in get_args(kind)}
        if text not in found:
            raise InvalidRequestError(f"{what} is {text!r}: it is {names(list(found))}")
        return found[text]
    if origin in {Union, types.UnionType}:
        inner = [each for each in get_args(kind) if each is not type(None)]
        if text.lower() == "none" and len(inner) < len(get_args(kind)):
            return None
        return read_value(text, inner[0], what)
    if kind is bool:
        if text.lower() not in _TRUTHS:
            raise InvalidRequestError(f"{what} is {text!r}: it is true or false")
        return _TRUTHS[text.lower()]
    if kind in {int, float}:
        try:
            return kind(text)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise InvalidRequestError(f"{what} is {text!r}: give {wanted}") from None
    return text


def written(part: object) -> str:
    """The options of a part that are not as by default, as a recipe has them."""
    said = []
    for field in fields(part):  # type: ignore[arg-type]
        if not field.init:
            continue
        value = getattr(part, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if value != default:
            said.append(f"{field.name}={str(value).lower() if isinstance(value, bool | None) else value}")
    return ",".join(said)
