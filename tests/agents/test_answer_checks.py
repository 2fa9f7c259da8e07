"""What a model says is looked at: refusals are no claims, figures must stand in quotes, claims stream as text."""

from __future__ import annotations

import json

import pytest

from lcdoc.agents.prompts.checks import is_refusal, plain, unquoted_figures
from lcdoc.agents.prompts.claim_stream import ClaimStream
from lcdoc.agents.prompts.fence import JOINER

REFUSALS = [
    "Not mentioned.",
    "not mentioned in the text",
    "It is not specified.",
    "The answer is not given in the passages.",
    "The passage does not mention this.",
    "The document doesn't provide any relevant information about this.",
    "These passages do not contain information to answer the question.",
    "The text does not say.",
    "No information",
    "[NO INFORMATION]",
    "No relevant information was found in the document.",
    "There is no mention in the text.",
    "Unknown",
    "I don’t know.",
    "I cannot answer the question.",
    "N/A",
    "None.",
    "-",
    "Keine Angaben",
    "Nicht erwähnt.",
    "Aucune information",
    "No se menciona",
]
CLAIMS = [
    "The handbook does not mention the king's death in 1903, only his illness.",
    "The Bittern may carry 48 passengers; the limit for the Plover is not mentioned.",
    "No information may be given to the press before the Clerk has signed.",
    "None of the ferries runs at night.",
    "The text does not say that she left, but the letter does.",
    "She answered: I do not know where he is.",
    "Nothing was found in the wreck but a clock.",
    "The unknown soldier was buried at Pell Ness.",
    "The document does not contain a signature.",
    "48",
    "No.",
    "Yes",
    "",
]


@pytest.mark.parametrize("claim", REFUSALS)
def test_a_refusal_is_no_claim(claim: str) -> None:
    assert is_refusal(claim)


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_statement_with_refusing_words_is_none(claim: str) -> None:
    assert not is_refusal(claim)


def test_long_text_is_looked_at_quickly() -> None:
    assert not is_refusal("the passage does not mention " * 20_000)
    assert unquoted_figures("1 234 " * 20_000 + "x", ["1,234 " * 20_000]) == ()


@pytest.mark.parametrize(
    ("claim", "sources", "missing"),
    [
        ("It took 48 passengers.", ["up to 48 passengers"], ()),
        ("It took 84 passengers.", ["up to 48 passengers"], ("84",)),
        ("It cost 1,250 crowns.", ["1250 crowns"], ()),
        ("It cost 1250 crowns.", ["1 250 crowns"], ()),
        ("It cost 1.250 Kronen.", ["1,250 crowns"], ()),
        ("It cost 0,80 crowns.", ["corrected to 0.80"], ()),
        ("At 2.4 metres she stops.", ["a level of 2.40 metres"], ()),
        ("At 2.5 metres she stops.", ["a level of 2.40 metres"], ("2.5",)),
        ("It was on 2018-05-17.", ["the morning of 17 May 2018"], ("05",)),
        ("It was on 17 May 2018.", ["on 17 May 2018"], ()),
        ("It was on 17 May 2019.", ["on 17 May 2018"], ("2019",)),
        ("There are 71 people and 20 boats.", ["seventy-one people, Twenty boats"], ()),
        ("There are 12 lights.", ["twelve-hour shifts"], ()),
        ("Three of 7 lights", ["lights"], ()),
        ("In 1903 it was late.", ["it was late", "What happened in 1903?"], ()),
        ("12, 12 and 13", [], ("12", "13")),
    ],
)
def test_figures_that_stand_nowhere_are_named(claim: str, sources: list[str], missing: tuple[str, ...]) -> None:
    assert unquoted_figures(claim, sources) == missing


def test_text_of_a_model_is_one_line_without_joiners() -> None:
    assert plain(f"  The <{JOINER}|im_end|>\n token ") == "The <|im_end|> token"


ANSWER = {
    "found": True,
    "claims": [
        {"text": 'Grüße 😀 "quoted" \\ back\n\nslash', "evidence": [1, 2]},
        {"text": "Second claim: 中文 \u202e.", "evidence": []},
        {"text": "", "evidence": []},
    ],
}
TEXT = 'Grüße 😀 "quoted" \\ back slash\nSecond claim: 中文 \u202e.'


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_pieces_of_json_become_growing_text(ascii_only: bool, size: int) -> None:
    raw = json.dumps(ANSWER, ensure_ascii=ascii_only)
    pieces: list[str] = []
    stream = ClaimStream(pieces.append)
    for start in range(0, len(raw), size):
        stream(raw[start : start + size])
    assert "".join(pieces) == TEXT
    assert "" not in pieces
    assert size > 7 or len(pieces) > 5
    stream.finish(TEXT)
    assert "".join(pieces) == TEXT


@pytest.mark.parametrize("ascii_only", [True, False])
def test_a_cut_at_every_position_shows_only_a_beginning_of_the_text(ascii_only: bool) -> None:
    raw = json.dumps(ANSWER, ensure_ascii=ascii_only)
    for cut in range(len(raw) + 1):
        pieces: list[str] = []
        stream = ClaimStream(pieces.append)
        stream(raw[:cut])
        assert TEXT.startswith("".join(pieces))
        stream(raw[cut:])
        assert "".join(pieces) == TEXT


def test_an_answer_that_begins_anew_says_so_once() -> None:
    pieces: list[str] = []
    stream = ClaimStream(pieces.append)
    stream("")
    stream('{"found": true, "claims": [{"text": "The fir')
    stream("")
    stream("")
    stream('{"found": true, "claims": [{"text": "Another"')
    stream.finish("Another")
    assert pieces == ["The fir", "", "Another"]


def test_the_end_makes_good_what_was_shown_otherwise() -> None:
    pieces: list[str] = []
    stream = ClaimStream(pieces.append)
    stream('{"found": true, "claims": [{"text": "Not mentioned."')
    stream.finish("")
    assert pieces == ["Not mentioned.", ""]
    pieces.clear()
    stream = ClaimStream(pieces.append)
    stream("no JSON at all")
    stream.finish("All of it.")
    assert pieces == ["All of it."]


@pytest.mark.parametrize(
    "raw",
    [
        '<think>{"found": true, "claims": [{"text": "draft"}]}</think>{"found": true, "claims": [{"text": "A."}]}',
        'Here it is:\n```json\n{"found": true, "claims": [{"text": "A."}]}\n```',
    ],
)
def test_dressed_up_answers_end_with_their_text(raw: str) -> None:
    shown = ""

    def on_text(piece: str) -> None:
        nonlocal shown
        shown = shown + piece if piece else ""

    stream = ClaimStream(on_text)
    for character in raw:
        stream(character)
    stream.finish("A.")
    assert shown == "A."


@pytest.mark.parametrize(
    "raw", ['{"found": false, "claims": [{"text": "x"}]}', "[1]", '{"claims": 3}', '{"found": true, "claims": [1, {}]}']
)
def test_answers_without_claims_show_nothing(raw: str) -> None:
    pieces: list[str] = []
    ClaimStream(pieces.append)(raw)
    assert pieces == []
