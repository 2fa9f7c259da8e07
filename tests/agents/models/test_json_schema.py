"""Pydantic models as strict JSON schemas, and in words."""

from __future__ import annotations

import datetime
import enum
import json
from typing import Annotated, Any, Generic, Literal, TypeVar

import pytest
from pydantic import BaseModel, Field

from lcdoc.agents.models.json_answers import AnswerError, parse_answer
from lcdoc.agents.models.json_schema import response_format, schema_in_words, strict_schema
from lcdoc.agents.notes import Confidence
from lcdoc.agents.prompts import schemas
from lcdoc.tests.servers.schema_instances import instance_of

Item = TypeVar("Item")
SUPPORTED = {"type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "$ref", "$defs"}


class Quote(BaseModel):
    """For programmers only."""

    text: str = Field(description="verbatim", min_length=1, max_length=500)
    page: int | None = None


class Verdict(enum.Enum):
    """For programmers only."""

    YES = "yes"
    NO = "no"


class Reading(BaseModel):
    """For programmers only."""

    found: bool = Field(description="whether the text says it")
    quotes: tuple[Quote, ...] = Field(default=(), max_length=3)
    best: Quote | None = Field(default=None, description="the best of them")
    verdict: Verdict = Verdict.NO
    kind: Literal["a"] = "a"
    day: datetime.date | None = None
    code: str = Field(default="", pattern="^[a-z]+$")
    confidence: Confidence = Field(default=0.0, description="how sure")


class Tree(BaseModel):
    name: str
    children: list[Tree] = Field(default_factory=list, description="what is below")


class Forest(BaseModel):
    trees: list[Tree]


def objects(schema: Any) -> list[dict[str, Any]]:
    found = [schema] if isinstance(schema, dict) and schema.get("type") == "object" else []
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return found + [each for element in inner for each in objects(element)]


def keywords(schema: dict[str, Any]) -> set[str]:
    found = set(schema)
    for inner in [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values(), *schema.get("anyOf", [])]:
        found |= keywords(inner)
    return found | (keywords(schema["items"]) if "items" in schema else set())


MODELS = [Reading, Tree, Forest, *(each for each in vars(schemas).values() if isinstance(each, type))]
MODELS = [model for model in MODELS if issubclass(model, BaseModel) and model is not BaseModel]


@pytest.mark.parametrize("model", MODELS)
def test_every_object_is_closed_and_every_field_required(model: type[BaseModel]) -> None:
    schema = strict_schema(model)
    assert schema["type"] == "object"
    assert keywords(schema) <= SUPPORTED | {"description"}
    for each in objects(schema):
        assert each["additionalProperties"] is False
        assert each["required"] == list(each["properties"])


def test_fields_keep_their_order() -> None:
    assert list(strict_schema(Reading)["properties"]) == list(Reading.model_fields)
    assert json.dumps(strict_schema(Reading)["properties"]).startswith('{"found"')


def test_what_strict_mode_has_no_word_for_is_said_in_descriptions() -> None:
    fields = strict_schema(Reading)["properties"]
    assert fields["confidence"] == {"type": "number", "description": "how sure. at least 0, at most 5"}
    assert fields["quotes"]["description"] == "at most 3 items"
    assert fields["quotes"]["items"]["properties"]["text"] == {
        "type": "string",
        "description": "verbatim. at least 1 characters, at most 500 characters",
    }
    assert "^[a-z]+$" in fields["code"]["description"]
    assert fields["day"] == {"anyOf": [{"type": "string", "description": "in the format date"}, {"type": "null"}]}
    assert fields["best"]["description"] == "the best of them"


def test_class_docstrings_and_titles_are_left_out() -> None:
    text = json.dumps(strict_schema(Reading))
    assert "programmers" not in text
    assert "title" not in text


def test_choices_are_enumerations() -> None:
    fields = strict_schema(Reading)["properties"]
    assert fields["verdict"] == {"type": "string", "enum": ["yes", "no"]}
    assert fields["kind"] == {"type": "string", "enum": ["a"]}


def test_only_what_holds_itself_stays_a_reference() -> None:
    assert "$defs" not in strict_schema(Reading)
    tree = strict_schema(Tree)
    assert tree["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert tree["$defs"]["Tree"]["properties"] == tree["properties"]
    assert list(strict_schema(Forest)["$defs"]) == ["Tree"]


def test_a_field_named_as_a_keyword_is_a_field() -> None:
    class Odd(BaseModel):
        description: str
        default: int
        title: str = "x"

    assert list(strict_schema(Odd)["properties"]) == ["description", "default", "title"]


def test_the_schema_handed_out_is_the_callers_own() -> None:
    strict_schema(Reading)["properties"].clear()
    assert strict_schema(Reading)["properties"]


class _Mapping(BaseModel):
    pages: dict[str, int]


class _Anything(BaseModel):
    value: Any


class _Pair(BaseModel):
    inner: list[tuple[int, str]]


class _Huge(BaseModel):
    place: Annotated[str, Field(json_schema_extra={"enum": [str(i) for i in range(500)]})]


@pytest.mark.parametrize(
    ("model", "place"),
    [(_Mapping, "_Mapping.pages"), (_Anything, "_Anything.value"), (_Pair, "_Pair.inner[]"), (_Huge, "_Huge.place")],
)
def test_what_cannot_be_enforced_is_named(model: type[BaseModel], place: str) -> None:
    with pytest.raises(TypeError) as error:
        strict_schema(model)
    assert place in str(error.value)


def test_the_response_format_has_a_name_that_servers_take() -> None:
    class Page(BaseModel, Generic[Item]):
        text: Item

    made = response_format(Page[int])
    assert made["type"] == "json_schema"
    assert made["json_schema"]["name"] == "Page_int"
    assert made["json_schema"]["strict"] is True
    assert made["json_schema"]["schema"] == strict_schema(Page[int])


@pytest.mark.parametrize("model", [model for model in MODELS if model is not Forest])
def test_what_a_server_makes_of_the_schema_is_an_answer(model: type[BaseModel]) -> None:
    # A server that enforces the schema knows nothing of a pattern.
    instance = instance_of(strict_schema(model))
    if "code" in instance:
        instance["code"] = "x"
    assert parse_answer(json.dumps(instance), model)


def test_words_show_the_form_and_say_what_belongs_in_it() -> None:
    words = schema_in_words(Reading)
    assert "JSON" in words
    assert (
        '{"found": true or false, "quotes": [{"text": <text>, "page": <whole number> or null}, ...],'
        ' "best": {"text": <text>, "page": <whole number> or null} or null, "verdict": "yes" or "no", "kind": "a",'
        ' "day": <text> or null, "code": <text>, "confidence": <number>}'
    ) in words.splitlines()
    assert "- found: whether the text says it" in words.splitlines()
    assert "- quotes.text: verbatim. at least 1 characters, at most 500 characters" in words.splitlines()
    assert "- confidence: how sure. at least 0, at most 5" in words.splitlines()


def test_words_end_where_a_model_holds_itself() -> None:
    assert '"children": [<Tree>, ...]' in schema_in_words(Tree)
    assert len(schema_in_words(Forest)) < 500


def test_words_end_with_the_schemas_own_example() -> None:
    class Shown(BaseModel):
        model_config = {"json_schema_extra": {"examples": [{"found": True, "claim": "é"}]}}

        found: bool
        claim: str

    assert schema_in_words(Shown).splitlines()[-1] == '{"found": true, "claim": "é"}'
    assert "examples" not in strict_schema(Shown)


@pytest.mark.parametrize("model", [Reading, Tree, schemas.Answering, schemas.Choosing])
def test_a_form_given_back_is_no_answer(model: type[BaseModel]) -> None:
    with pytest.raises(AnswerError):
        parse_answer(schema_in_words(model), model)
