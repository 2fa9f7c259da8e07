"""The JSON files of a checkpoint, read with errors that name the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lcdoc.local_engine.errors import ModelFilesError, UnsupportedModelError


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises ModelFilesError for one that is missing or damaged."""
    try:
        fields = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelFilesError(
            f"{path}: no such file: name a folder that holds a model as Hugging Face's hub keeps it "
            "(config.json, tokenizer.json, *.safetensors)"
        ) from None
    except OSError as error:
        raise ModelFilesError(
            f"{path}: cannot be read ({error.strerror}): check the path and its permissions"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ModelFilesError(f"{path}: not readable as JSON ({error}): download the file again") from None
    if not isinstance(fields, dict):
        raise ModelFilesError(f"{path}: holds no JSON object: download the file again")
    return fields


class Fields:
    """A file's fields, or those of an object within, each read with a check of its type. Null counts as left out."""

    def __init__(self, path: Path, fields: Mapping[str, Any], within: str = "") -> None:
        self.path = path
        self.fields = fields
        self.within = within

    def wrong(self, name: str, wanted: str) -> ModelFilesError:
        return ModelFilesError(
            f"{self.path}: {self.within}{name} is {json.dumps(self.fields.get(name))} where {wanted} is needed: "
            "download the model again, or correct the file"
        )

    def refused(self, problem: str, remedy: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"{self.path}: {problem}: {remedy}")

    def has(self, name: str) -> bool:
        return self.fields.get(name) is not None

    def size(self, name: str, default: int | None = None) -> int:
        """A positive whole number."""
        value = self.fields.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.wrong(name, "a positive whole number")
        return value

    def count(self, name: str, default: int) -> int:
        """A whole number, zero included."""
        return 0 if self.fields.get(name) == 0 else self.size(name, default)

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number."""
        value = self.fields.get(name)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise self.wrong(name, "a positive number")
        return value

    def optional_number(self, name: str) -> float | None:
        return self.number(name) if self.has(name) else None

    def flag(self, name: str, default: bool) -> bool:
        value = self.fields.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def numbers(self, name: str, length: int) -> tuple[float, ...]:
        values = self.fields.get(name)
        if not isinstance(values, list) or len(values) != length:
            raise self.wrong(name, f"a list of {length} numbers")
        if not all(isinstance(value, int | float) and value > 0 for value in values):
            raise self.wrong(name, "a list of positive numbers")
        return tuple(float(value) for value in values)

    def token_ids(self, name: str) -> tuple[int, ...]:
        """A field that holds one token's id, a list of them, or nothing."""
        value = self.fields.get(name)
        values = [] if value is None else value if isinstance(value, list) else [value]
        if not all(isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in values):
            raise self.wrong(name, "an id or a list of ids")
        return tuple(values)
