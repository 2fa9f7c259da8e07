"""Schemas as they are given: the subset, the short form, pydantic's, and what is wrong with others, in one line."""

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel
from pydantic import Field as Described

from lcdoc.agents.extract_fields import Bounds, Field, Table
from lcdoc.workflows.extract_request import ExtractRequest, extract_request, read_schema
from lcdoc.workflows.extract_schema import SchemaError
from lcdoc.workflows.extract_schema_reading import MAX_FIELDS, schema_of

SHORT: dict[str, Any] = {
    "tenant": "who rents",
    "rent": {"type": "number", "description": "monthly rent in EUR", "minimum": 0},
    "rooms": ["their names"],
    "kind": {"enum": ["office", "flat"]},
    "payments": [{"due": {"format": "date"}, "amount": {"type": "number"}}],
    "landlord": {"name": "", "address": "where to write"},
}


def test_the_short_form_names_what_is_wanted() -> None:
    schema = schema_of(SHORT)
    assert schema.fields == (
        Field(("tenant",), description="who rents"),
        Field(("rent",), "number", description="monthly rent in EUR", bounds=Bounds(minimum=0)),
        Field(("rooms",), description="their names", many=True),
        Field(("kind",), enum=("office", "flat")),
        Table(("payments",), (Field(("due",), "date"), Field(("amount",), "number"))),
        Field(("landlord", "name")),
        Field(("landlord", "address"), description="where to write"),
    )
    assert schema.filled({("rent",): 5, ("landlord", "name"): "Lind"}) == {
        "tenant": None,
        "rent": 5,
        "rooms": [],
        "kind": None,
        "payments": [],
        "landlord": {"name": "Lind", "address": None},
    }


def test_equal_schemas_make_equal_questions() -> None:
    request = ExtractRequest.of(SHORT)
    again = ExtractRequest.of(json.dumps(request.schema.to_json(), indent=3))
    assert again.question == request.question
    assert extract_request(request.question) == request
    assert extract_request(json.dumps(SHORT)) == request
    assert "\n" not in request.question


class Payment(BaseModel):
    due: date
    amount: Decimal


class Lease(BaseModel):
    """What a lease says."""

    tenant: str = Described(description="who rents", max_length=80)
    rent: float | None = None
    kind: Literal["office", "flat"]
    payments: list[Payment]
    first: Payment | None = None


def test_a_pydantic_model_is_a_schema() -> None:
    schema = schema_of(Lease)
    assert (schema.title, schema.description) == ("Lease", "What a lease says.")
    assert schema.fields == (
        Field(("tenant",), title="Tenant", description="who rents", bounds=Bounds(longest=80)),
        Field(("rent",), "number", title="Rent"),
        Field(("kind",), title="Kind", enum=("office", "flat")),
        Table(
            ("payments",),
            (Field(("due",), "date", title="Due"), Field(("amount",), "number", title="Amount")),
            title="Payments",
        ),
        Field(("first", "due"), "date", title="Due"),
        Field(("first", "amount"), "number", title="Amount"),
    )
    assert schema_of(schema.to_json()) == schema


def properties(**named: Any) -> dict[str, Any]:
    return {"type": "object", "properties": named}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{", "the schema is no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1', "the schema is no JSON"),
        ([1], "an object with properties, not a list"),
        (None, "an object with properties, not null"),
        ({}, "has no properties"),
        (properties(), "has no properties"),
        ({"a": 3}, '"a" is a number'),
        (properties(a={"type": "money"}), '"a" has the type "money"; there are string, number'),
        (properties(a={"type": ["string", "number"]}), '"a" has the type'),
        (properties(a={"anyOf": [{"type": "string"}, {"type": "boolean"}]}), '"a" may be several things'),
        (properties(a={"type": "string", "pattern": "x+"}), '"a" has "pattern"'),
        (properties(a={"type": "array"}), '"a" is an array without items'),
        (properties(a={"type": "array", "items": {"type": "array"}}), '"a" is an array of arrays'),
        (properties(a=properties(b=properties(c={"type": "string"}))), '"a.b" is an object inside an object'),
        (properties(a={"type": "array", "items": properties(b=properties(c={"type": "string"}))}), "not flat"),
        (properties(a={"$ref": "#/properties/a"}), '"a" refers to itself'),
        (properties(a={"$ref": "https://elsewhere.example/schema"}), "references are to this schema"),
        (properties(a={"enum": []}), "has an enum that is no list of values"),
        (properties(a={"enum": [{}]}), "has an enum"),
        (properties(a={"type": "number", "minimum": "0"}), '"minimum" that is no number'),
        ('{"a": {"type": "number", "minimum": NaN}}', '"minimum" that is no number'),
        ('{"a": {"enum": [NaN]}}', "has an enum that is not of"),
        (properties(a={"type": "integer", "enum": [1, "x"]}), "has an enum with a value that is no integer"),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        ('{"\\ud800": ""}', 'the property "?"'),
        ('{"a":' * 900 + '""' + "}" * 900, "nested too deeply"),
        (properties(a={"type": "string", "description": "x" * 2_000}), "has a description of 2,000 characters"),
        ({"x" * 200: "long"}, "names have 1 to 100 characters"),
        ({"a\nb": "two lines"}, "names have 1 to 100 characters"),
        ({f"field{number}": "" for number in range(MAX_FIELDS + 1)}, f"more than {MAX_FIELDS} fields"),
        ('{"a": "' + "x" * 300_000 + '"}', "the schema has 300,"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(given: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=r"^.{1,300}$") as caught:
        schema_of(given)
    assert message in str(caught.value)


def test_a_file_is_named_in_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    path.write_text('\ufeff{"tenant": "who rents"}', encoding="utf-8")
    assert read_schema(path).schema.fields == (Field(("tenant",), description="who rents"),)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SchemaError, match=r"lease\.json: it is no UTF-8 text"):
        read_schema(path)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(SchemaError, match=r"lease\.json: the schema has no properties"):
        read_schema(path)
    with pytest.raises(SchemaError, match="No such file"):
        read_schema(tmp_path / "none.json")
