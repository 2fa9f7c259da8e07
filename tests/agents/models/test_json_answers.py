"""Answers as language models really give them, read as what was meant or refused; never guessed at."""

from __future__ import annotations

import json
import re
import time
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from lcdoc.agents.models.json_answers import MAX_ANSWER_CHARACTERS, AnswerError, is_json, parse_answer


class Reading(BaseModel):
    found: bool
    quotes: list[str] = Field(default_factory=list)
    claim: str = ""
    confidence: float = Field(default=0.0, ge=0, le=5)


class Claim(BaseModel):
    text: str
    evidence: list[int] = Field(default_factory=list)


class Answering(BaseModel):
    found: bool
    claims: list[Claim] = Field(default_factory=list)


class Points(BaseModel):
    points: list[str]


class Choice(BaseModel):
    model_config = ConfigDict(extra="forbid")

    option: int | None
    verdict: Literal["yes", "no", "not stated"]
    reason: str


class Tree(BaseModel):
    name: str
    children: list[Tree] = Field(default_factory=list)


READING = Reading(found=True, quotes=["The mill burned in 1907."], claim="It burned.", confidence=4)
JSON = READING.model_dump_json()
CHOICE = Choice(option=2, verdict="not stated", reason="It's silent.")

READ_AS_MEANT = {
    "plain": JSON,
    "byte order mark": "\ufeff" + JSON,
    "white space": f"\n\n  {JSON}\n ",
    "indented": READING.model_dump_json(indent=2),
    "fence": f"```json\n{JSON}\n```",
    "fence in capitals": f"```JSON\n{JSON}\n```",
    "fence without a language": f"```\n{JSON}\n```",
    "unclosed fence": f"```json\n{JSON}",
    "only the closing fence": f"{JSON}\n```",
    "fence on one line": f"```json {JSON} ```",
    "tildes": f"~~~json\n{JSON}\n~~~",
    "prose before": f"Sure! Here is the JSON you asked for:\n\n{JSON}",
    "prose after": f"{JSON}\n\nLet me know if you need anything else!",
    "prose around a fence": f"Here you go:\n```json\n{JSON}\n```\nI hope this helps.",
    "braces in prose before": f"The form {{like this}} and {{}} is: {JSON}",
    "braces in prose after": f"{JSON} (I used the set {{1, 2}}.)",
    "references in prose": f"As [1] and [2, 3] say: {JSON}",
    "think": f"<think>The text says so. I am sure.</think>\n{JSON}",
    "think with a draft": f'<think>{{"found": false, "quotes": [], "claim": "", "confidence": 0}} no.</think>{JSON}',
    "think with a broken draft": f'<think>So {{"found": true, "quotes": ["a</think>\n{JSON}',
    "empty think": f"<think>\n\n</think>\n\n{JSON}",
    "thinking": f"<thinking>Hm.</thinking>{JSON}",
    "reasoning": f"<reasoning>Hm.</reasoning>\n{JSON}",
    "capital tags": f"<Think>Hm.</THINK>{JSON}",
    "Mistral's tags": f"[THINK]Hm. [1][/THINK]{JSON}",
    "only the closing tag": f"Okay, the text says it burned.\n</think>\n\n{JSON}",
    "only the closing tag, with a draft": f'Perhaps {{"found": false, "claim": "x"}}?\n</think>\n{JSON}',
    "only the closing tag, with a broken draft": f'Perhaps {{"found": false, "claim": "x\n</think>\n{JSON}',
    "unclosed think at the end": f"{JSON}\n<think>Was that right? {{",
    "two thinks": f"<think>a</think><think>b</think>{JSON}",
    "a draft, then the answer": f'First {{"found": false, "quotes": [], "claim": "", "confidence": 1}}. No: {JSON}',
    "the answer twice": f"{JSON}\n{JSON}",
    "the answer and a part of it": f'{JSON}\nI set {{"found": true}} because of 1907.',
    "function call": json.dumps({"name": "Reading", "arguments": json.loads(JSON)}),
    "function call with a string": json.dumps({"name": "Reading", "arguments": JSON}),
    "parameters": json.dumps({"name": "answer", "parameters": json.loads(JSON)}),
    "properties": json.dumps({"type": "object", "properties": json.loads(JSON)}),
    "tool call": "<tool_call>\n" + json.dumps({"name": "Reading", "arguments": json.loads(JSON)}) + "\n</tool_call>",
    "tool calls": json.dumps({"tool_calls": [{"function": {"name": "Reading", "arguments": JSON}}]}),
    "under the schema's name": json.dumps({"Reading": json.loads(JSON)}),
    "under any name": json.dumps({"my_answer": json.loads(JSON)}),
    "in a list of one": f"[{JSON}]",
    "in a string": json.dumps(JSON),
    "in a string in a fence": f"```json\n{json.dumps(JSON)}\n```",
    "quoted but not escaped": f'"{JSON}"',
    "escaped but not quoted": json.dumps(JSON)[1:-1],
    "doubled braces": f"{{{JSON}}}",
    "XML around": f"<answer>{JSON}</answer>",
    "harmony channels": f"<|channel|>final<|message|>{JSON}<|return|>",
    "Python literals": JSON.replace('"', "'").replace("true", "True"),
    "Python dict in prose": f"answer = {READING.model_dump()!r}",
    "trailing commas": JSON.replace("]", ",]").replace("}", ",}"),
    "doubled commas": JSON.replace(",", ",,"),
    "line comments": JSON.replace(',"claim"', ', // the claim\n"claim"'),
    "hash comments": JSON.replace(',"claim"', ', # the "claim"\n"claim"'),
    "block comments": JSON.replace(',"claim"', ', /* {"found": */ "claim"'),
    "typographic quotes": JSON.replace('"', "“"),
    "paired typographic quotes": re.sub('"(.*?)"', r"“\1”", JSON),
    "bare keys": re.sub('"(\\w+)":', r"\1: ", JSON),
    "keys in capitals": re.sub('"(\\w+)":', lambda key: key[0].upper(), JSON),
    "keys with blanks and lines": JSON.replace('"found"', '" found "').replace('"claim"', '"claim_"'),
    "numbers as strings": JSON.replace("4.0", '"4"').replace("true", '"true"'),
    "yes": JSON.replace("true", '"yes"'),
    "one item for a list": JSON.replace("[", "").replace("]", ""),
    "a list for one text": JSON.replace('"It burned."', '["It burned."]'),
    "a list in a string": json.dumps({**READING.model_dump(), "quotes": '["The mill burned in 1907."]'}),
    "commentary added": json.dumps({**READING.model_dump(), "explanation": "as asked"}),
    "a missing brace": JSON[:-1] + "\n",
    "a missing brace in a fence": f"```json\n{JSON[:-1]}\n```",
    "a missing comma": JSON.replace('],"claim"', '] "claim"'),
    "a missing comma between lines": JSON.replace(',"', '\n"'),
    "a brace too many": JSON + "}",
    "rounding noise": JSON.replace("4.0", "4.000000000000000"),
}


@pytest.mark.parametrize("text", READ_AS_MEANT.values(), ids=READ_AS_MEANT.keys())
def test_an_answer_is_read_as_it_was_meant(text: str) -> None:
    assert parse_answer(text, Reading) == READING


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"found": false}', Reading(found=False)),
        ('{"found": false, "quotes": null, "claim": null, "confidence": null}', Reading(found=False)),
        ('{"found": false, "explanation": "nothing about it"}', Reading(found=False)),
        ('{"found": false, "quotes": "", "claim": ""}', Reading(found=False)),
        ('{"found": true, "confidence": NaN}', Reading(found=True)),
        ('{"found": true, "confidence": 5.0000000001}', Reading(found=True, confidence=5)),
        ('{"found": true, "claim": "He said "no" to it"}', Reading(found=True, claim='He said "no" to it')),
        (
            '{"found": true, "quotes": ["He said "no" to it", "b"]}',
            Reading(found=True, quotes=['He said "no" to it', "b"]),
        ),
        ('{"found": true, "claim": 1907}', Reading(found=True, claim="1907")),
        ('{"found": true, "claim": "a\nb\tc"}', Reading(found=True, claim="a\nb\tc")),
        (r'{"found": true, "claim": "\d+ \alpha"}', Reading(found=True, claim=r"\d+ \alpha")),
        (r'{"found": true, "claim": "\u00e9\ud83d\ude00"}', Reading(found=True, claim="é😀")),
        (r'{"found": true, "claim": "a\ud83db\u0000c"}', Reading(found=True, claim="a\ufffdbc")),
        ('{"found": true, "claim": "a\ud800b\0c"}', Reading(found=True, claim="a\ufffdbc")),
        ('{"found": true, "claim": "what </think> means"}', Reading(found=True, claim="what </think> means")),
        ('{"found": true, "claim": "```json\\n{}\\n```"}', Reading(found=True, claim="```json\n{}\n```")),
        ("{'found': True, 'claim': 'It's done'}", Reading(found=True, claim="It's done")),
        ('{"found": true, "claim": "see //here, # there"}', Reading(found=True, claim="see //here, # there")),
        (r'{"found": true, "claim": "{\"found\": false}"}', Reading(found=True, claim='{"found": false}')),
    ],
)
def test_values_are_read_as_they_were_meant(text: str, expected: Reading) -> None:
    assert parse_answer(text, Reading) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('["one", "two"]', ["one", "two"]),
        ('Here:\n```json\n["one", "two"]\n```\nThat is all [1].', ["one", "two"]),
        ("- see\n['one', 'two',]", ["one", "two"]),
        ('[{"points": ["one"]}]', ["one"]),
        ('{"Points": "one"}', ["one"]),
    ],
)
def test_a_bare_list_is_the_only_field(text: str, expected: list[str]) -> None:
    assert parse_answer(text, Points).points == expected


@pytest.mark.parametrize(
    "text",
    [
        """{"option": 2, "verdict": "Not stated", "reason": "It's silent."}""",
        """{"Option": "2", "verdict": "not_stated", "reason": "It's silent.", "confidence": 3}""",
        """{'option': 2, 'verdict': 'not stated', 'reason': "It's silent."}""",
    ],
)
def test_choices_are_read_in_any_spelling(text: str) -> None:
    assert parse_answer(text, Choice) == CHOICE


def test_an_optional_field_may_be_null() -> None:
    assert parse_answer('{"option": None, "verdict": "no", "reason": ""}', Choice).option is None


def test_nested_objects_are_read_like_outer_ones() -> None:
    text = '{"Found": "True", "claims": {"Text": "It burned.", "evidence": ["1", 2.0], "note_to_self": 1}}'
    assert parse_answer(text, Answering) == Answering(found=True, claims=[Claim(text="It burned.", evidence=[1, 2])])
    text = '{"found": true, "claims": [{"text": "x", "evidence": "1, 2"}, {"text": "y", "evidence": 3}]}'
    assert [claim.evidence for claim in parse_answer(text, Answering).claims] == [[1, 2], [3]]
    text = '{"found": true, "claims": "[{\\"text\\": \\"It burned.\\"}]"}'
    assert parse_answer(text, Answering) == Answering(found=True, claims=[Claim(text="It burned.")])


REFUSED = {
    "empty": ("", "empty"),
    "blank": (" \n", "empty"),
    "prose": ("The mill burned in 1907.", "no JSON object"),
    "prose with found": ("found: true, claim: It burned.", "no JSON object"),
    "a reference": ("It burned, see [1].", "no JSON object"),
    "a scalar": ("true", "no JSON object"),
    "only thinking": ('<think>I think {"found": true}', "only thinking"),
    "thinking with the answer": (f"<think>{JSON}</think>", "only thinking"),
    "an empty object": ("{}", "none of the keys"),
    "another object": ('{"answer": "It burned."}', "none of the keys"),
    "an error": ('{"error": {"message": "overloaded"}}', "none of the keys"),
    "the schema itself": (json.dumps(Reading.model_json_schema()), "found"),
    "the form itself": ('{"found": true or false, "quotes": [<text>, ...], "claim": <text>}', "broken"),
    "a required field missing": ('{"quotes": [], "claim": "", "confidence": 2}', "found: Field required"),
    "a required field null": ('{"found": null}', "found"),
    "found is a sentence": ('{"found": "in chapter two"}', "found"),
    "out of bounds": ('{"found": true, "confidence": 5.5}', "less than or equal to 5"),
    "on another scale": ('{"found": true, "confidence": 95}', "less than or equal to 5"),
    "a fraction": ('{"found": true, "confidence": "4/5"}', "confidence"),
    "not a number": ('{"found": true, "confidence": "NaN"}', "a number is wanted"),
    "a boolean for a number": ('{"found": true, "confidence": true}', "a number is wanted"),
    "a key that may be a field": ('{"found": true, "evidence": ["a"]}', "evidence is no field"),
    "a misspelt key": ('{"found": true, "quotse": ["a"], "claim": "x", "confidence": 1}', "quotse is no field"),
    "a key twice": ('{"found": true, "claim": "a", "found": false}', "twice"),
    "a key in two spellings": ('{"found": true, "Found": false, "quotes": [], "claim": ""}', "found is given twice"),
    "an ellipsis": ('{"found": true, "quotes": ["a", "b", ...], "claim": "x", "confidence": 1}', "broken"),
    "an abbreviated list": ('{"found": true, "quotes": ["a" "b", ...]}', "broken"),
    "no value": ('{"found": true, "claim": }', "broken"),
    "cut inside a string": ('{"found": true, "quotes": ["The mill bur', "broken"),
    "cut after a comma": ('{"found": true, "quotes": ["a",', "broken"),
    "cut inside a number": (JSON[:-3], "may have been cut"),
    "cut before all fields came": ('{"found": true, "quotes": ["a"', "last bracket"),
    "several answers": ('{"found": true, "claim": "a"}\n{"found": true, "claim": "b"}', "several"),
    "several answers in a list": ('[{"found": true, "claim": "a"}, {"found": true, "claim": "b"}]', "not a list of 2"),
    "quotes that may be cut in pieces": ('{"found": true, "quotes": ["p", "q "r", s" t"]}', "broken"),
    "a broken correction": (f'{JSON}\nNo, rather {{"found": false, "quotes": [], "claim": "x, "confidence": oh}}', ""),
    "an invalid correction": (f'{JSON}\nNo: {{"found": true, "quotes": [], "claim": "x", "confidence": 8}}', "8"),
    "a digit group": ('{"found": true, "confidence": 1,000}', "broken"),
}


@pytest.mark.parametrize(("text", "problem"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_have_to_be_guessed_is_refused(text: str, problem: str) -> None:
    with pytest.raises(AnswerError) as error:
        parse_answer(text, Reading)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("cut", range(1, len(JSON)))
def test_an_answer_that_was_cut_is_never_mended(cut: int) -> None:
    with pytest.raises(AnswerError):
        parse_answer(JSON[:cut], Reading, finish="length")


LONG = Reading(found=True, quotes=["The mill burned in 1907.", "Nobody saw it."], claim="It burned.", confidence=2.5)


@pytest.mark.parametrize("cut", range(1, len(LONG.model_dump_json())))
def test_an_answer_that_ends_too_early_is_read_whole_or_not_at_all(cut: int) -> None:
    try:
        parsed = parse_answer(LONG.model_dump_json()[:cut], Reading)
    except AnswerError:
        return
    assert parsed == LONG


@pytest.mark.parametrize("mark", ["", '"', " "])
def test_a_broken_mark_loses_no_part_of_an_answer(mark: str) -> None:
    claims = [Claim(text='He said "no", twice.', evidence=[1, 2]), Claim(text="It's 5\" long: {x}", evidence=[3])]
    answer = Answering(found=True, claims=claims)
    for text in (answer.model_dump_json(), answer.model_dump_json(indent=1)):
        for place, character in enumerate(text):
            if character not in '"{}[]:':
                continue
            try:
                parsed = parse_answer(text[:place] + mark + text[place + 1 :], Answering)
            except AnswerError:
                continue
            assert [claim.evidence for claim in parsed.claims] == [[1, 2], [3]]
            assert all(
                abs(len(one.text) - len(other.text)) < 2 for one, other in zip(parsed.claims, claims, strict=True)
            )


@pytest.mark.parametrize(
    "text",
    [
        '{"found": true, "quotes": ["a.], "claim": "x", "confidence": 2}',
        '{"found": true, "quotes": "\n"a.",\n"b."\n], "claim": "x", "confidence": 2}',
        '{"found": true, "quotes": ["a.", ""b."", ","claim": "x", "confidence": 2}',
    ],
)
def test_a_field_is_not_swallowed_by_another(text: str) -> None:
    with pytest.raises(AnswerError):
        parse_answer(text, Reading)


def test_a_cut_answer_that_is_complete_is_read() -> None:
    assert parse_answer(f"{JSON}\n\nIn this answer I have us", Reading, finish="length") == READING


def test_a_draft_is_not_taken_for_the_answer_that_was_cut() -> None:
    with pytest.raises(AnswerError, match="cut off"):
        parse_answer(f'{JSON}\nBetter:\n{{"found": false, "cla', Reading, finish="length")


@pytest.mark.parametrize("cut", [10, 30, 45, 60, 75])
def test_a_part_of_a_broken_answer_is_not_the_answer(cut: int) -> None:
    whole = Tree(name="root", children=[Tree(name="one", children=[Tree(name="two")]), Tree(name="three")])
    text = whole.model_dump_json()
    with pytest.raises(AnswerError):
        parse_answer(text[:cut], Tree)


def test_the_problem_names_the_place_and_what_was_found() -> None:
    with pytest.raises(AnswerError) as error:
        parse_answer('{"found": true, "claims": [{"text": "x", "evidence": ["first"]}]}', Answering)
    assert "claims.0.evidence.0" in str(error.value)
    assert '"first"' in str(error.value)
    with pytest.raises(AnswerError) as error:
        parse_answer(json.dumps({"found": "x" * 5_000}), Answering)
    assert len(str(error.value)) < 400


def test_an_empty_string_is_not_invented() -> None:
    class Required(BaseModel):
        claim: str
        page: str

    for text in ('{"claim": "x", "page": }', '{"claim": "x", "page"}', '{"claim" "x"', "{claim}"):
        with pytest.raises(AnswerError):
            parse_answer(text, Required)


def test_is_json_tells_whole_objects_from_dressed_ones() -> None:
    assert is_json(f" {JSON}\n")
    assert not any(map(is_json, [f"```json\n{JSON}\n```", JSON[:-1], "[1]", "", f"{JSON} {JSON}"]))


N = 100_000
HOSTILE = {
    "opening braces": "{" * N,
    "opening brackets": "[" * N,
    "closing brackets": "]}" * (N // 2),
    "double quotes": '"' * N,
    "single quotes": "'" * N,
    "bracketed single quotes": "['a" * (N // 3),
    "escaped quotes": '{"a": ' + '"\\' * (N // 2),
    "backslashes": '{"a": "' + "\\" * N,
    "deep objects": '{"a":' * 10_000,
    "deep lists": "[" * 10_000 + "]" * 10_000,
    "deep closed objects": '{"found":' * 10_000 + "1" + "}" * 10_000,
    "deep after a break": '{"found": tru, "a":' + "[{" * 10_000,
    "keys without values": '{"found"' * (N // 8),
    "broken objects": '{"found": x}' * (N // 12),
    "many objects": '{"found": true, "claim": "a"} , ' * (N // 32),
    "comments": "{" + "/*" * (N // 2),
    "comment lines": '{"found": //' + "# // \n" * (N // 6),
    "think tags": "<think>" * (N // 7),
    "closing tags": "</think>" * (N // 8),
    "tags and braces": '<think>{"a":' * (N // 12),
    "closing tags and braces": '</think>{"a":' * (N // 13),
    "a long number": '{"confidence": ' + "9" * N + "}",
    "a long exponent": '{"found": true, "confidence": 1e' + "9" * 1_000 + "}",
    "commas": '{"found": true' + "," * N,
    "white space": '{"found"' + " " * N,
    "escaped JSON": '{\\"found\\": ' * (N // 12),
    "a string of JSON": json.dumps('{"a":' * 10_000),
    "quotes in a broken object": '{"found": tru, "claim": "' + 'x" y "' * 3_000 + '"}',
    "colons": '{"found": ' + '":' * (N // 2),
    "fences": "```json\n{" * (N // 9),
    "nul": "\0" * N,
    "surrogates": "\ud800" * N,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_is_refused_before_long(text: str) -> None:
    begin = time.process_time()
    try:
        parse_answer(text, Reading)
    except AnswerError:
        pass
    else:
        pytest.fail("it was read as an answer")
    # Anything that grows with the square of the text takes minutes.
    assert time.process_time() - begin < 10


def test_text_without_end_is_refused_unread() -> None:
    with pytest.raises(AnswerError, match="longer than"):
        parse_answer(JSON + " " * MAX_ANSWER_CHARACTERS, Reading)


def test_a_long_answer_among_much_text_is_read() -> None:
    reading = Reading(found=True, quotes=["a quote (of some length), " * 10] * 300, claim="x", confidence=1)
    text = "As [1] says {so} and so. " * 2_000 + reading.model_dump_json() + " {and so} on [2]." * 2_000
    assert parse_answer(text, Reading) == reading


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40) | st.sampled_from(
    [
        '"',
        "</think>",
        "<think>",
        "```",
        '{"found": false}',
        "[1]",
        "\\",
        "//",
        "/* */",
        "“a”",
        "it's",
        "...",
        "# no",
        "{",
    ]
)
READINGS = st.builds(
    Reading, found=st.booleans(), quotes=st.lists(TEXT, max_size=3), claim=TEXT, confidence=st.floats(0, 5)
)
ANSWERINGS = st.builds(
    Answering,
    found=st.booleans(),
    claims=st.lists(st.builds(Claim, text=TEXT, evidence=st.lists(st.integers(-9, 10**20), max_size=3)), max_size=3),
)
CHOICES = st.builds(
    Choice,
    option=st.none() | st.integers(),
    verdict=st.sampled_from(["yes", "no", "not stated"]),
    reason=TEXT,
)
TREES = st.recursive(
    st.builds(Tree, name=TEXT),
    lambda inner: st.builds(Tree, name=TEXT, children=st.lists(inner, max_size=2)),
    max_leaves=6,
)
THINKING = st.sampled_from(
    ["", '<think>Hm, {so} it\'s "that".</think>', "<thinking>[1]\n</thinking>\n", "Well, it's [so].\n</think>\n\n"]
)
BEFORE = st.sampled_from(["", "\ufeff", "Here it is:\n", "Sure! See [1] and {this}. ", "\n\n  "])
FENCES = st.sampled_from(
    [("", ""), ("```json\n", "\n```"), ("```\n", "\n```"), ("```json\n", ""), ("<answer>", "</answer>")]
)
AFTER = st.sampled_from(["", "\n", "\nI hope that it's of help!", " {done}", "\nSee [2]."])
WRAPPERS = st.sampled_from(["%s", "[%s]", '{"name": "f", "arguments": %s}', '{"my answer": %s}'])


@settings(max_examples=400, deadline=None)
@given(
    answer=st.one_of(READINGS, ANSWERINGS, CHOICES, TREES),
    indent=st.sampled_from([None, 2]),
    ascii_only=st.booleans(),
    thinking=THINKING,
    before=BEFORE,
    fence=FENCES,
    after=AFTER,
    wrapper=WRAPPERS,
)
def test_any_answer_in_any_dress_is_recovered_exactly(
    *,
    answer: BaseModel,
    indent: int | None,
    ascii_only: bool,
    thinking: str,
    before: str,
    fence: tuple[str, str],
    after: str,
    wrapper: str,
) -> None:
    text = json.dumps(answer.model_dump(), indent=indent, ensure_ascii=ascii_only)
    dressed = thinking + before + fence[0] + wrapper.replace("%s", text) + fence[1] + after
    assert parse_answer(dressed, type(answer)) == answer


@settings(max_examples=200, deadline=None)
@given(
    answer=READINGS, place=st.integers(0, 10_000), what=st.sampled_from(["", '"', "{", "}", "[", ",", "'", "\\", "x"])
)
def test_damage_ends_in_an_answer_or_a_refusal(answer: Reading, place: int, what: str) -> None:
    text = answer.model_dump_json()
    place %= len(text)
    damaged = text[:place] + what + text[place + 1 :]
    try:
        parsed = parse_answer(damaged, Reading)
    except AnswerError:
        return
    assert Reading.model_validate_json(parsed.model_dump_json()) == parsed
