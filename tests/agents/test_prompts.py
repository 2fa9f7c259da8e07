"""Prompt files: every text has the version it was given, and is what its schema and its fields need."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lcdoc.agents.extract_prompted import FORMS, Rows
from lcdoc.agents.listing import LISTINGS
from lcdoc.agents.models.model import Profile
from lcdoc.agents.prompts import schemas, templates
from lcdoc.agents.prompts.templates import SKILLS, Skill, prompt

PROFILES: tuple[Profile, ...] = ("small", "large")
FIELDS: dict[Skill, set[str]] = {
    "read": {"passages", "carried", "question"},
    "merge": {"evidence", "question"},
    "answer": {"evidence", "question"},
    "summarize": {"passages", "words"},
    "condense": {"points", "words"},
    "choose": {"options", "trail", "question"},
    "judge": {"passages", "claims", "question"},
    "list": {"passages", "question"},
    "direct": {"passages", "question"},
    "extract": {"passages", "question"},
    "rows": {"passages", "question"},
}
SCHEMAS = {
    "read": schemas.READINGS,
    "merge": dict.fromkeys(PROFILES, schemas.Merging),
    "answer": dict.fromkeys(PROFILES, schemas.Answering),
    "summarize": dict.fromkeys(PROFILES, schemas.Summarizing),
    "condense": dict.fromkeys(PROFILES, schemas.Condensing),
    "choose": schemas.CHOICES,
    "judge": schemas.JUDGEMENTS,
    "list": LISTINGS,
    "direct": dict.fromkeys(PROFILES, schemas.DirectAnswering),
    "extract": FORMS,
    "rows": dict.fromkeys(PROFILES, Rows),
}
DIGESTS = {
    "read/small/2": "9961d69bae861812",
    "read/large/1": "58517ab7d7dd56ad",
    "merge/small/3": "d20d0cc3a9132cd6",
    "merge/large/3": "ae67415a3156f73e",
    "answer/small/3": "2a1633c5978f9e90",
    "answer/large/3": "00fcbd542e31f598",
    "summarize/small/1": "b4e574549bf9d9fd",
    "summarize/large/1": "ec6fe53235766399",
    "condense/small/1": "0dd39e9974afc901",
    "condense/large/1": "90c1718acee904cb",
    "choose/small/1": "56a9de529c058484",
    "choose/large/1": "5742f30be53767b9",
    "judge/small/1": "7a42dc15d338d992",
    "judge/large/1": "cc7940315706953b",
    "list/small/1": "0262958ca6250207",
    "list/large/1": "922feee09739d05e",
    "direct/small/1": "169258d916f78e9d",
    "direct/large/1": "e8f2466f7d9fead7",
    "extract/small/1": "59332e4429f116fa",
    "extract/large/1": "51a4533e7c390453",
    "rows/small/1": "71e2693a1efb6e76",
    "rows/large/1": "e3b872118a1ffc2b",
}
ALL = [(skill, profile) for skill in SKILLS for profile in PROFILES]


@pytest.mark.parametrize(("skill", "profile"), ALL)
def test_a_changed_prompt_has_another_version(skill: Skill, profile: Profile) -> None:
    made = prompt(skill, profile)
    assert DIGESTS.get(made.name) == made.digest, (
        f"{skill}.{profile}.md changed: raise its version and set the digest of {made.name} to {made.digest}"
    )


def test_every_prompt_is_listed_once() -> None:
    assert {prompt(*one).name for one in ALL} == set(DIGESTS)
    files = {path.name for path in Path(templates.__file__).parent.glob("[a-z]*.md")}
    assert files == {f"{skill}.{profile}.md" for skill, profile in ALL}


@pytest.mark.parametrize(("skill", "profile"), ALL)
def test_prompts_name_the_fields_of_their_schema(skill: Skill, profile: Profile) -> None:
    made, schema = prompt(skill, profile), SCHEMAS[skill][profile]
    for name in schema.model_fields:
        assert re.search(rf"^ *- {name}: ", made.system, re.MULTILINE), name
    assert "$" not in made.system
    assert "\n@" not in made.system
    assert set(re.findall(r"\$(\w+)", made.user)) == FIELDS[skill]
    assert "data-CODE" in made.system


def test_small_models_get_less_and_decide_first() -> None:
    for skill in SKILLS:
        assert len(prompt(skill, "small").system) < len(prompt(skill, "large").system)
        assert "\nExample" in prompt(skill, "small").system
    assert list(schemas.Reading.model_fields) == ["found", "quotes", "claim", "confidence"]
    assert list(schemas.ReasonedReading.model_fields) == ["found", "quotes", "rationale", "claim", "confidence"]
    assert not {"reason", "rationale"} & {
        name for schema in (schemas.Reading, schemas.Choosing, schemas.Judging) for name in schema.model_fields
    }


def test_what_is_filled_in_is_not_a_template_and_empty_fields_leave_no_hole() -> None:
    passages = "$question ${question} $$ {{ question }} {% if %}\n\n\n\n$nothing"
    _, user = prompt("read", "large").messages(passages=passages, carried="", question="Why?")
    assert user.content == f"{passages}\n\n<question>\nWhy?\n</question>"
    with pytest.raises(KeyError):
        prompt("read", "large").messages(passages="", question="Why?")


def test_the_question_comes_last_and_the_passages_first() -> None:
    system, user = prompt("read", "small").messages(passages="PASSAGES", carried="CARRIED", question="QUESTION")
    assert [user.content.index(part) for part in ("PASSAGES", "CARRIED", "QUESTION")] == [0, 10, 30]
    assert system == prompt("read", "small").messages(passages="", carried="", question="")[0]


@pytest.mark.parametrize(("given", "kept"), [(7, 5.0), (-1, 0.0), (4.5, 4.5), (float("nan"), 0.0)])
def test_ratings_are_kept_within_their_bounds(given: float, kept: float) -> None:
    assert schemas.Reading(found=True, confidence=given).confidence == kept


def test_answers_that_leave_out_what_is_empty_are_understood() -> None:
    assert schemas.ReasonedReading.model_validate({"found": False}).quotes == []
    assert schemas.Answering.model_validate({"found": False}).claims == []
