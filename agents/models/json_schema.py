"""A pydantic model told to a server, as a JSON schema it enforces, and to a language model, in words.

The schema keeps to what every server understands: OpenAI's strict mode as its oldest models have it, which Azure,
vLLM (xgrammar, guidance), SGLang, Ollama and llama.cpp accept too. All else that the pydantic model demands (bounds,
lengths, patterns) is said in descriptions, and checked when the answer is read: a pattern or a great length makes
llama.cpp refuse the schema or, worse, ignore it.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_MAX_ENUM = 250
"""Above this, strict mode bounds the length of the values together, and grammars grow slow."""
_MAX_NESTING = 10
_SAID = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "matching the regular expression {}",
    "format": "in the format {}",
}
_SCALARS = ("string", "number", "integer", "boolean", "null")


def strict_schema(model: type[BaseModel]) -> Schema:
    """`model` in OpenAI's strict form: every field required and in its order, nothing besides, no defaults.

    Types that hold others are spelled out where they stand; `$defs` is left for those that hold themselves. Class
    docstrings are left out: they speak to programmers, the fields' descriptions to the model. Raises TypeError for
    what strict mode has no word for: mappings, tuples of fixed length, fields of any type.
    """
    schema: Schema = json.loads(_strict_text(model))
    return schema


def response_format(model: type[BaseModel]) -> dict[str, Any]:
    """The request's `response_format` that makes a server enforce `model`."""
    name = re.sub(r"[^a-zA-Z0-9_-]+", "_", model.__name__).strip("_")[:64] or "answer"
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": strict_schema(model)}}


def object_format(model: type[BaseModel]) -> dict[str, Any]:
    """The same, as llama.cpp and llama-cpp-python have it."""
    return {"type": "json_object", "schema": strict_schema(model)}


@lru_cache(maxsize=256)
def _strict_text(model: type[BaseModel]) -> str:
    schema = input_schema(model)
    return json.dumps(_Strict(model.__name__, schema).root())


@lru_cache(maxsize=256)
def input_schema(model: type[BaseModel]) -> Schema:
    """The JSON schema of what `model` accepts, as pydantic gives it. Shared: not to be changed."""
    return model.model_json_schema(mode="validation")


def resolved(shape: Schema, root: Schema) -> Schema:
    """`shape` with its `$ref` followed; what stands beside the reference goes before what it names."""
    while "$ref" in shape or len(shape.get("allOf", ())) == 1:
        named: Schema = root["$defs"][shape["$ref"].rsplit("/", 1)[-1]] if "$ref" in shape else shape["allOf"][0]
        shape = {**named, **{key: value for key, value in shape.items() if key not in ("$ref", "allOf")}}
    return shape


def recursive_names(root: Schema) -> frozenset[str]:
    """The `$defs` that hold themselves, directly or through others."""
    defs = root.get("$defs", {})
    holds = {
        name: set(re.findall(r'"\$ref": "#/\$defs/([^"]+)"', json.dumps(shape, ensure_ascii=False)))
        for name, shape in defs.items()
    }
    for _ in defs:
        for name, inner in holds.items():
            holds[name] = inner.union(*(holds[other] for other in inner))
    return frozenset(name for name, inner in holds.items() if name in inner)


class _Strict:
    """Turns pydantic's schema into the strict form, and knows where it is when it cannot."""

    def __init__(self, name: str, source: Schema) -> None:
        self.name = name
        self.source = source
        self.recursive = recursive_names(source)

    def root(self) -> Schema:
        # The root is spelled out even if it holds itself: strict mode wants an object there, not a reference.
        root = resolved({key: value for key, value in self.source.items() if key != "description"}, self.source)
        root.pop("description", None)
        strict = self.shape(root, (), 0)
        if strict.get("type") != "object":
            raise TypeError(f"{self.name} is no object with fields, and an answer has to be one")
        if self.recursive:
            defs = self.source["$defs"]
            strict["$defs"] = {name: self.shape(defs[name], (name,), 1, named=True) for name in sorted(self.recursive)}
        return strict

    def shape(self, shape: Schema, path: tuple[str, ...], depth: int, *, named: bool = False) -> Schema:
        if depth > _MAX_NESTING:
            raise TypeError(f"{self._at(path)} is nested more than {_MAX_NESTING} levels deep")
        reference = shape.get("$ref", "").rsplit("/", 1)[-1]
        if reference in self.recursive:
            return {"$ref": shape["$ref"]}
        description = None if named else shape.get("description")
        shape = resolved(shape, self.source)
        if options := shape.get("anyOf") or shape.get("oneOf"):
            strict: Schema = {"anyOf": [self.shape(option, path, depth) for option in options]}
        elif "enum" in shape or "const" in shape:
            strict = self._enumeration(shape, path)
        elif shape.get("type") == "object":
            strict = self._object(shape, path, depth)
        elif shape.get("type") == "array" and "items" in shape and "prefixItems" not in shape:
            strict = {"type": "array", "items": self.shape(shape["items"], (*path, "[]"), depth)}
        elif shape.get("type") in _SCALARS:
            strict = {"type": shape["type"]}
        else:
            raise TypeError(f"{self._at(path)} has no strict JSON schema: {json.dumps(shape)[:200]}")
        if said := ". ".join(filter(None, [description, constraints(shape)])):
            strict["description"] = said
        return strict

    def _object(self, shape: Schema, path: tuple[str, ...], depth: int) -> Schema:
        if isinstance(shape.get("additionalProperties"), dict) or "properties" not in shape:
            raise TypeError(f"{self._at(path)} is a mapping; strict JSON schemas have only named fields")
        properties = {key: self.shape(value, (*path, key), depth + 1) for key, value in shape["properties"].items()}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }

    def _enumeration(self, shape: Schema, path: tuple[str, ...]) -> Schema:
        values = shape.get("enum", [shape.get("const")])
        if len(values) > _MAX_ENUM:
            raise TypeError(f"{self._at(path)} has {len(values)} values to choose from; {_MAX_ENUM} at most")
        return {**({"type": shape["type"]} if "type" in shape else {}), "enum": values}

    def _at(self, path: tuple[str, ...]) -> str:
        return ".".join((self.name, *path)).replace(".[]", "[]")


def constraints(shape: Schema) -> str:
    """What a field demands beyond its type, in words: `at least 0, at most 5`."""
    return ", ".join(said.format(shape[key]) for key, said in _SAID.items() if key in shape)


@lru_cache(maxsize=256)
def schema_in_words(model: type[BaseModel]) -> str:
    """What to tell a model whose server enforces nothing: the form of the answer, and what goes into each field.

    Ends with a filled example where the model class has one (`model_config["json_schema_extra"]["examples"]`), which
    does more for small models than any description. Raises TypeError as `strict_schema` does.
    """
    strict = strict_schema(model)
    words = _Words(strict)
    lines = ["Answer with one JSON object and nothing else, in this form:", words.form(strict, 0), *words.notes]
    examples = input_schema(model).get("examples")
    if isinstance(examples, list) and examples:
        # Through the model: pydantic sorts the keys of what is written there.
        example = model.model_validate(examples[0]).model_dump_json(by_alias=True, round_trip=True)
        lines += ["For example:", json.dumps(json.loads(example), ensure_ascii=False)]
    return "\n".join(lines)


class _Words:
    """Writes a strict schema as a skeleton, and gathers what the fields' descriptions say."""

    def __init__(self, root: Schema) -> None:
        self.root = root
        self.notes: list[str] = []
        self._seen: set[str] = set()

    def form(self, shape: Schema, depth: int, path: str = "") -> str:
        if "$ref" in shape:
            name = shape["$ref"].rsplit("/", 1)[-1]
            if name in self._seen:
                return f"<{name}>"
            self._seen.add(name)
            shape = self.root["$defs"][name]
        if path and "description" in shape:
            self.notes.append(f"- {path}: {' '.join(shape['description'].split())}")
        if "anyOf" in shape:
            return " or ".join(self.form(option, depth, path) for option in shape["anyOf"])
        if "enum" in shape:
            return " or ".join(json.dumps(value, ensure_ascii=False) for value in shape["enum"])
        if shape["type"] == "object":
            inner = [
                f'"{key}": {self.form(value, depth + 1, f"{path}.{key}" if path else key)}'
                for key, value in shape["properties"].items()
            ]
            return "{" + ", ".join(inner) + "}"
        if shape["type"] == "array":
            return f"[{self.form(shape['items'], depth, path)}, ...]"
        return {"boolean": "true or false", "string": "<text>", "integer": "<whole number>"}.get(
            shape["type"], f"<{shape['type']}>" if shape["type"] != "null" else "null"
        )
