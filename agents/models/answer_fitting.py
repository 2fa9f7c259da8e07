"""A decoded value fitted to a pydantic model, where no doubt is left what the language model meant.

Keys in another case, numbers and booleans as strings, one item in place of a list of one, JSON inside a string, and the
wrappers of function calls are read. Nothing is clamped, cut or filled in: a confidence of 7 out of 5 may be meant on
another scale, and a key that nobody knows may hold what a missing field should.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from lcdoc.agents.models.json_schema import Schema, input_schema, resolved
from lcdoc.agents.models.lenient_json import BrokenJSONError, decode

_WRAPPERS = frozenset(
    {"arguments", "parameters", "properties", "input", "args", "function", "toolcalls"}
    | {"answer", "result", "response", "output", "data", "json"}
)
_COMMENTARY = frozenset(
    {"reasoning", "explanation", "thought", "thoughts", "thinking", "analysis", "rationale"}
    | {"comment", "comments", "remarks", "type", "name"}
)
"""Keys that models add of their own accord, and that hold nothing a field should."""
_INTEGERS = re.compile(r"\s*[+-]?\d{1,18}\s*(?:,\s*[+-]?\d{1,18}\s*)*")
_NOT_FINITE = ("nan", "inf", "infinity")
_ROUNDING = 1e-6
_MAX_WRAPPERS = 4
_MAX_PROBLEM_CHARACTERS = 300
_TYPES: dict[type, tuple[str, ...]] = {
    dict: ("object",),
    list: ("array",),
    str: ("string",),
    bool: ("boolean",),
    int: ("integer", "number"),
    float: ("number",),
    type(None): ("null",),
}


class MisfitError(ValueError):
    """The value does not fit; the message is one line, fit to be told to the language model."""

    def __init__(self, problem: str, *, known_keys: int = 0) -> None:
        problem = " ".join(problem.split())
        if len(problem) > _MAX_PROBLEM_CHARACTERS:
            problem = problem[:_MAX_PROBLEM_CHARACTERS] + "..."
        super().__init__(problem)
        self.known_keys = known_keys
        """How many of the model's fields the value had: whether it was meant as an answer."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """An instance, and how many of its fields the value named."""

    answer: BaseModel
    named: int


def fit(value: Any, model: type[BaseModel]) -> Fitted:
    """`value`, decoded from JSON, as an instance of `model`. Raises MisfitError."""
    problem: MisfitError | None = None
    for form in _forms(value, model):
        try:
            return _fit(form, model)
        except MisfitError as error:
            if problem is None or error.known_keys > problem.known_keys:
                problem = error
    raise problem or MisfitError(f"a JSON object is wanted, not {_kind(value)}")


def fit_list(value: list[Any], model: type[BaseModel]) -> Fitted:
    """A list given where an object was wanted: the only field, if that is a list; or an object in a list of one."""
    fields = input_schema(model).get("properties", {})
    if len(fields) == 1:
        key, shape = next(iter(fields.items()))
        if resolved(shape, input_schema(model)).get("type") == "array":
            try:
                return fit({key: value}, model)
            except MisfitError:
                if len(value) != 1:
                    raise
    if len(value) == 1:
        return fit(value[0], model)
    raise MisfitError(f"one JSON object is wanted, not a list of {len(value)}")


def known_keys(value: Any, model: type[BaseModel]) -> int:
    """How many of the object's keys are fields of `model`, in whatever spelling."""
    if not isinstance(value, dict):
        return 0
    fields = {_folded(key) for key in _fields(input_schema(model))}
    return sum(_folded(key) in fields for key in value)


def _fields(root: Schema) -> Schema:
    fields: Schema = resolved(root, root).get("properties", {})
    return fields


def _fit(value: dict[str, Any], model: type[BaseModel]) -> Fitted:
    root = input_schema(model)
    known = known_keys(value, model)
    if not known and _fields(root):
        raise MisfitError(f"none of the keys {', '.join(map(repr, _fields(root)))} is in the answer")
    try:
        conformed = _Walk(root).conform(value, root, "")
        answer = model.model_validate_json(json.dumps(conformed))
    except ValidationError as error:
        raise MisfitError(told(error), known_keys=known) from error
    except MisfitError as error:
        error.known_keys = known
        raise
    return Fitted(answer, known)


def told(error: ValidationError) -> str:
    """The first few things wrong, each with its place and what was found there."""
    problems = []
    for detail in error.errors(include_url=False, include_context=False)[:3]:
        place = ".".join(str(part) for part in detail["loc"]) or "the answer"
        found = "" if detail["type"] == "missing" else f" (found {json.dumps(detail['input'], default=str)[:60]})"
        problems.append(f"{place}: {detail['msg']}{found}")
    return "; ".join(problems)


def _forms(value: Any, model: type[BaseModel], depth: int = 0) -> Iterator[dict[str, Any]]:
    """The object itself, then what is wrapped in it under a key that is no field."""
    if isinstance(value, str):
        value = _decoded(value)
    if isinstance(value, list) and depth and len(value) == 1:
        (value,) = value
    if not isinstance(value, dict):
        return
    yield value
    if depth == _MAX_WRAPPERS:
        return
    fields = {_folded(key) for key in _fields(input_schema(model))}
    names = {*_WRAPPERS, _folded(model.__name__)}
    for key, inner in value.items():
        if _folded(key) not in fields and (_folded(key) in names or len(value) == 1):
            yield from _forms(inner, model, depth + 1)


class _Walk:
    """Goes through a value and the schema together."""

    def __init__(self, root: Schema) -> None:
        self.root = root

    def conform(self, value: Any, shape: Schema, path: str) -> Any:
        """`value` in the types that `shape` wants, where that changes nothing of what it says."""
        shape = resolved(shape, self.root)
        if "anyOf" in shape or "oneOf" in shape:
            return self._either(value, shape.get("anyOf") or shape["oneOf"], path)
        if "enum" in shape or "const" in shape:
            return _one_of(value, shape.get("enum", [shape.get("const")]))
        if shape.get("type") == "object":
            return self._object(value, shape, path)
        if shape.get("type") == "array":
            return self._list(value, shape, path)
        return _scalar(value, shape, path)

    def _either(self, value: Any, options: list[Schema], path: str) -> Any:
        shapes = [resolved(option, self.root) for option in options]
        if value is None and any(shape.get("type") == "null" for shape in shapes):
            return None
        shapes = [shape for shape in shapes if shape.get("type") != "null"]
        if len(shapes) > 1:
            shapes = [shape for shape in shapes if shape.get("type") in _TYPES.get(type(value), ())]
        if len(shapes) > 1 and isinstance(value, dict):
            keys = {_folded(key) for key in value}
            shapes = [shape for shape in shapes if {_folded(key) for key in shape.get("required", ())} <= keys]
        # With several left, pydantic decides between them on the value as it stands.
        return self.conform(value, shapes[0], path) if len(shapes) == 1 else value

    def _object(self, value: Any, shape: Schema, path: str) -> Any:
        if isinstance(value, str):
            value = _decoded(value)
        if not isinstance(value, dict) or "properties" not in shape:
            return value
        fields: Schema = shape["properties"]
        by_spelling = {_folded(key): key for key in fields}
        conformed: dict[str, Any] = {}
        unknown: list[str] = []
        for key, element in value.items():
            name = key if key in fields else by_spelling.get(_folded(key))
            if name is None:
                unknown.append(key)
                if shape.get("additionalProperties"):
                    conformed[key] = element
                continue
            if name in conformed and conformed[name] != element:
                raise MisfitError(f"{_under(path, name)} is given twice, with different values")
            if element is None and name not in shape.get("required", ()) and not self._takes_null(fields[name]):
                continue
            conformed[name] = self.conform(element, fields[name], _under(path, name))
        missing = [key for key in fields if key not in conformed and key not in value]
        strange = [key for key in unknown if _folded(key) not in _COMMENTARY]
        if missing and strange and not shape.get("additionalProperties"):
            raise MisfitError(
                f"{_under(path, strange[0][:40])} is no field of the answer, and {', '.join(missing)} is missing"
            )
        return conformed

    def _takes_null(self, shape: Schema) -> bool:
        shape = resolved(shape, self.root)
        options = shape.get("anyOf") or shape.get("oneOf") or [shape]
        return any("type" not in option or option["type"] == "null" for option in options if "$ref" not in option)

    def _list(self, value: Any, shape: Schema, path: str) -> Any:
        items = shape.get("items")
        if not isinstance(items, dict) or "prefixItems" in shape:
            return value
        if isinstance(value, str):
            value = self._listed(value, resolved(items, self.root))
        elif type(value) in _TYPES and resolved(items, self.root).get("type") in _TYPES[type(value)]:
            value = [value]
        if not isinstance(value, list):
            return value
        return [self.conform(element, items, f"{path}[{i}]") for i, element in enumerate(value)]

    def _listed(self, value: str, items: Schema) -> Any:
        """A string where a list was wanted: JSON, or the only item, or nothing."""
        decoded = _decoded(value)
        if isinstance(decoded, list):
            return decoded
        if items.get("type") == "string":
            return [value] if value.strip() else []
        if items.get("type") == "integer" and _INTEGERS.fullmatch(value):
            return [int(number) for number in value.split(",")]
        return [decoded] if isinstance(decoded, dict) else value


def _under(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _folded(key: str) -> str:
    return "".join(filter(str.isalnum, key)).casefold()


def _decoded(text: str) -> Any:
    """The object or list that `text` is, whole; else `text`."""
    bare = text.strip()
    if not bare.startswith(("{", "[")):
        return text
    try:
        decoded = decode(bare)
    except BrokenJSONError:
        return text
    return decoded.value if decoded.closed and decoded.end == len(bare) else text


def _one_of(value: Any, values: list[Any]) -> Any:
    if not isinstance(value, str) or value in values:
        return value
    alike = [each for each in values if isinstance(each, str) and _folded(each) == _folded(value)]
    return alike[0] if len(alike) == 1 else value


def _scalar(value: Any, shape: Schema, path: str) -> Any:
    wanted = shape.get("type")
    if wanted == "string":
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str):
            return value[0]
        return json.dumps(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    if wanted in ("number", "integer") and (isinstance(value, bool) or str(value).strip("+- ").lower() in _NOT_FINITE):
        raise MisfitError(f"{path}: a number is wanted (found {json.dumps(value)})")
    if wanted == "number" and isinstance(value, float):
        # What is left of a sum of decimals is no statement about the bounds.
        least, most = shape.get("minimum", value), shape.get("maximum", value)
        for bound, beyond in ((least, least - value), (most, value - most)):
            if 0 < beyond <= _ROUNDING * max(1.0, abs(bound)):
                return bound
    return value


def _kind(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else json.dumps(value)[:40]
