"""What an answer has to look like: `response_format`, and the fields that vLLM's clients send."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lcdoc.local_engine.serving.bodies import parsed
from lcdoc.local_engine.serving.fields import Fields
from lcdoc.local_engine.serving.problems import Problem

_LONGEST_SCHEMA = 256 * 1024
_LONGEST_REGEX = 16 * 1024
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Constraint:
    """A JSON schema, a regular expression, or neither; `field` is where the request has it."""

    schema: Mapping[str, Any] | None = None
    regex: str | None = None
    field: str | None = None


def read_constraint(fields: Fields) -> Constraint:
    """The one constraint of a request. Raises Problem for several, and for kinds that are not served."""
    found = [_response_format(fields), *_structured_outputs(fields)]
    found += [_schema(fields, "guided_json"), _regex(fields, "guided_regex")]
    for name in ("guided_choice", "guided_grammar"):
        if fields.has(name):
            raise fields.unsupported(name, "give a JSON schema in `response_format`, or `guided_regex`")
    given = [each for each in found if each is not None]
    if len(given) > 1:
        raise Problem(
            f"An answer follows one constraint, not both '{given[0].field}' and '{given[1].field}'.",
            param=given[1].field,
            code="invalid_value",
        )
    return given[0] if given else Constraint()


def _response_format(fields: Fields) -> Constraint | None:
    given = fields.fields("response_format")
    if given is None:
        return None
    match given.text("type"):
        case "text":
            return None
        case "json_object":
            # llama.cpp's clients put a schema here.
            return _schema(given, "schema") or Constraint(_ANY_OBJECT, field="response_format")
        case "json_schema":
            inner = given.fields("json_schema")
            found = None if inner is None else _schema(inner, "schema")
            if found is None:
                raise given.missing("json_schema.schema", "the JSON schema")
            return found
    raise given.wrong("type", "one of 'text', 'json_object' and 'json_schema'")


def _structured_outputs(fields: Fields) -> list[Constraint | None]:
    given = fields.fields("structured_outputs")
    if given is None:
        return []
    for name in given.values:
        if given.has(name) and name not in {"json", "regex"} and given.values[name] is not False:
            raise given.unsupported(name, "give `json` or `regex`")
    return [_schema(given, "json"), _regex(given, "regex")]


def _schema(fields: Fields, name: str) -> Constraint | None:
    value = fields.values.get(name)
    if isinstance(value, str):
        # vLLM's clients may send the schema's text.
        if len(value) > _LONGEST_SCHEMA:
            raise fields.wrong(name, f"at most {_LONGEST_SCHEMA:,} characters of JSON")
        try:
            value = parsed(value.encode())
        except Problem as problem:
            raise fields.wrong(name, f"a JSON schema ({problem.message})") from None
    if value is None:
        return None
    if not isinstance(value, dict):
        raise fields.wrong(name, "a JSON schema, an object")
    if len(json.dumps(value, ensure_ascii=False)) > _LONGEST_SCHEMA:
        raise fields.wrong(name, f"at most {_LONGEST_SCHEMA:,} characters of JSON")
    return Constraint(value, field=fields.path(name))


def _regex(fields: Fields, name: str) -> Constraint | None:
    pattern = fields.text(name)
    if pattern is None:
        return None
    if len(pattern) > _LONGEST_REGEX:
        raise fields.wrong(name, f"at most {_LONGEST_REGEX:,} characters")
    return Constraint(regex=pattern, field=fields.path(name))
