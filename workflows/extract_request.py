"""What an extraction is to fill, as the question of a run: equal schemas make equal questions, so that runs go on.

"Extract {"type": "object", "properties": {"tenant": {"type": "string"}}}"    or the schema alone, in any of its forms
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lcdoc.workflows.extract_schema import Schema, SchemaError
from lcdoc.workflows.extract_schema_reading import MAX_SCHEMA_CHARACTERS, schema_of

_OWN = "Extract "


@dataclass(frozen=True, slots=True)
class ExtractRequest:
    """A schema to be filled."""

    schema: Schema

    @classmethod
    def of(cls, given: Any) -> ExtractRequest:
        """The request for a schema: see `schema_of`. Raises SchemaError."""
        return cls(schema_of(given))

    @property
    def question(self) -> str:
        """The request in words, from which `extract_request` makes it again."""
        return _OWN + json.dumps(self.schema.to_json(), ensure_ascii=False)


def extract_request(question: str) -> ExtractRequest:
    """What `question` asks for. Raises SchemaError for one that is no schema."""
    text = question.strip().removeprefix(_OWN).strip()
    if not text.startswith("{"):
        remedy = 'give one as the question, such as {"tenant": "who rents"}, or use lcdoc extract FILE --schema FILE'
        raise SchemaError("the workflow extract fills a schema", remedy)
    return ExtractRequest.of(text)


def read_schema(path: str | os.PathLike[str]) -> ExtractRequest:
    """The request for the schema in a JSON file. Raises SchemaError with the file's name."""
    file = Path(path)
    try:
        with file.open("rb") as opened:
            raw = opened.read(4 * MAX_SCHEMA_CHARACTERS + 1)
    except OSError as error:
        raise SchemaError(f"{file}: {error.strerror or error}", "name a JSON file with a schema") from None
    try:
        return ExtractRequest.of(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise SchemaError(f"{file}: it is no UTF-8 text", "name a JSON file with a schema") from None
    except SchemaError as error:
        raise SchemaError(f"{file}: {error.problem}", error.remedy) from None
