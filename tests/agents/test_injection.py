"""Documents that give orders: whatever they hold stays inside its block of data, in every skill."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lcdoc.agents.extract_fields import Field, Table
from lcdoc.agents.extracting import extract
from lcdoc.agents.folding import fold
from lcdoc.agents.models.memos import ForgetfulMemos
from lcdoc.agents.models.model import ModelSpec, Profile, Server
from lcdoc.agents.models.openai_client import OpenAIModel
from lcdoc.agents.models.structured import StructuredModel
from lcdoc.agents.notes import UNQUOTED_ANSWER, Claim, Note, checked_note
from lcdoc.agents.prompted_reader import PromptedReader
from lcdoc.agents.prompts.fence import Fence, neutral, one_line, restored
from lcdoc.agents.prompts.templates import SKILLS, prompt
from lcdoc.agents.quotes import Citation
from lcdoc.agents.reader import Passage
from lcdoc.documents import Document, Page, Source, Span
from lcdoc.tests.servers.chat_server import ChatServer
from lcdoc.tests.servers.truthful import Block, answering, blocks_of, skill_of

SECRET = bytes(range(32))
ATTEMPTS = {
    one["name"]: one["text"] * one.get("repeat", 1)
    for one in json.loads(Path(__file__).with_name("injections.json").read_text(encoding="utf-8"))
}
CONDENSE = ("condense", "large")
QUESTION = "When did the king die?"
KEEPER = Field(("keeper",), description="who kept the light")
BEFORE, AFTER = "The king died in May.", "The queen reigned for ten years."
HARMLESS = "The lamp of Otter Rock was lit."
URL = "https://evil.example/collect?notes=everything"
CONTROL_TOKENS = (
    *("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|user|>", "<|system|>", "<|end|>"),
    *(
        "[INST]",
        "[/INST]",
        "<<SYS>>",
        "<</SYS>>",
        "<s>",
        "</s>",
        "<start_of_turn>",
        "<end_of_turn>",
        "[gMASK]",
        "<sop>",
    ),
    *("<｜User｜>", "<｜Assistant｜>", "[SYSTEM_PROMPT]", "[TOOL_CALLS]", "<tool_call>", "</tool_call>", "<|message|>"),
    *("<think>", "</think>", "<question>", "</question>", "</data>"),
)
# What a model answers that does whatever it is told: quotes that stand nowhere, numbers that were never given.
OBEYING = answering(
    read={"found": True, "quotes": ["PWNED by the admin", URL, "x"], "claim": f"See {URL}.", "confidence": 5},
    merge={"found": True, "keep": [7, 9, 999], "claim": f"See {URL}.", "confidence": 5},
    answer={"found": True, "claims": [{"text": f"See {URL}.", "evidence": [7, 999, 0, -3]}]},
    summarize={"points": [{"text": f"See {URL}.", "quote": "PWNED by the admin"}] * 8},
    condense={"points": [{"text": f"See {URL}.", "evidence": [99]}]},
    choose={"reason": URL, "option": 666, "confidence": 5},
    judge={"reason": URL, "supported": [1, 2, 666], "contradicted": [], "best": 666, "confidence": 5},
    direct={"found": True, "claims": [{"quotes": ["PWNED by the admin", URL], "text": f"See {URL}.", "confidence": 5}]},
    extract={
        "fields": [
            {"field": 1, "found": True, "value": URL, "quotes": [BEFORE], "quote": BEFORE, "confidence": 5},
            {"field": 1, "found": True, "value": URL, "quotes": [URL], "quote": URL, "confidence": 5},
            {"field": 666, "found": True, "value": URL, "quotes": [BEFORE], "quote": BEFORE, "confidence": 5},
        ]
    },
    rows={"found": True, "rows": [{"cells": [{"column": 1, "value": URL}], "quotes": [BEFORE]}], "confidence": 5},
)


class Desk:
    """A server with an obeying model behind it, and readers that ask it, in one event loop."""

    def __init__(self, server: ChatServer, runner: asyncio.Runner) -> None:
        self.server = server
        self.run = runner.run
        self._models: dict[tuple[int, Profile], StructuredModel] = {}
        self._clients: list[OpenAIModel] = []
        self._harmless: dict[Profile, Asked] = {}

    def reader(self, window: int, profile: Profile) -> PromptedReader:
        if (window, profile) not in self._models:
            spec = ModelSpec("test", window, Server(self.server.url, "test"), profile=profile)
            self._clients.append(OpenAIModel(spec, None))
            self._models[window, profile] = StructuredModel(self._clients[-1], ForgetfulMemos())
        return PromptedReader(self._models[window, profile], secret=SECRET)

    def harmless(self, profile: Profile) -> Asked:
        """What is asked of documents without an attempt."""
        if profile not in self._harmless:
            document = document_of(HARMLESS, title="Title")
            self._harmless[profile] = ask_everything(self, document, HARMLESS, heading="Heading", profile=profile)
        return self._harmless[profile]

    def close(self) -> None:
        for client in self._clients:
            self.run(client.aclose())


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with ChatServer() as server, asyncio.Runner() as runner:
        server.default = OBEYING
        desk = Desk(server, runner)
        yield desk
        desk.close()


def document_of(attempt: str, *, name: str = "story.txt", title: str = "") -> Document:
    text = f"{BEFORE}\n\n{attempt}\n\n{AFTER}"
    source = Source(name, "text/plain", 0, title, "text", "1", "0" * 32)
    return Document.create(text, (Page(1, "1", 0, len(text)),), (), source)


@dataclass
class Asked:
    """What one pass through all skills sent and gave back."""

    requests: list[dict[str, Any]]
    results: list[Any]


def ask_everything(
    desk: Desk, document: Document, attempt: str, *, heading: str = "", profile: Profile = "large"
) -> Asked:
    """Every skill once, with the attempt wherever text of documents, or what models made of it, may stand."""
    passage = Passage(document, Span(0, len(document.text)), (heading,) if heading else ())
    place = [(document, passage.span)]
    # A note as it would be if a model had quoted and repeated the attempt.
    note = checked_note(place, found=True, quotes=[BEFORE, attempt[:2_000]], claim=f"Noted: {attempt}", confidence=4)
    other = checked_note(place, found=True, quotes=[AFTER], claim=f"Also: {attempt}", confidence=3)
    claims = [Claim(text=f"1. {attempt}", citations=note.citations), Claim(text="Nothing.")]

    async def main() -> list[Any]:
        reader = desk.reader(400_000, profile)
        return [
            await reader.read(passage, QUESTION, note),
            await reader.merge([note, other], QUESTION),
            await reader.answer(QUESTION, [note, other]),
            await reader.summarize([passage], words=50),
            await reader.choose(QUESTION, [attempt, "Kings"], [attempt]),
            await reader.judge(QUESTION, claims, passages=[passage]),
            await reader.answer_from([passage], QUESTION),
            await extract(reader, [passage], [KEEPER]),
            await extract(reader, [passage], [Table(("keepers",), (KEEPER,))]),
        ]

    desk.server.requests.clear()
    results = desk.run(main())
    return Asked([request.body for request in desk.server.requests], results)


def assert_contained(asked: Asked, harmless: Asked, profile: Profile) -> dict[str, list[Block]]:
    """That both asked the same but for what stands inside blocks of data. Gives the blocks by skill."""
    blocks: dict[str, list[Block]] = {}
    assert len(asked.requests) == len(harmless.requests) == 9
    for body, like in zip(asked.requests, harmless.requests, strict=True):
        system, user = body["messages"]
        other_system, other_user = like["messages"]
        known = skill_of(system["content"])
        assert known
        assert system == other_system == {"role": "system", "content": prompt(known[0], profile).system}
        assert user["role"] == "user"
        found, outside = blocks_of(user["content"])
        expected, other_outside = blocks_of(other_user["content"])
        assert outside == other_outside
        assert len(found) == len(expected)
        # No line but ours looks like a marker, and no control token reaches the server.
        assert len(re.findall(r"</?data-[0-9a-f]+>", user["content"], re.IGNORECASE)) == 2 * len(found)
        inside = "\n".join([*(line for block in found for line in block.header.values()), *(b.text for b in found)])
        assert not [token for token in CONTROL_TOKENS if token in inside]
        blocks[known[0]] = found
    return blocks


def citations_in(value: Any) -> Iterator[Citation]:
    """Every citation in a note, draft, summary or a part of one."""
    for name in ("quotes", "claims", "points", "findings"):
        for part in getattr(value, name, ()):
            yield from citations_in(part)
    if hasattr(value, "citation"):
        yield value.citation
    elif not isinstance(value, Note):
        yield from getattr(value, "citations", ())


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_in_the_text_stays_data(desk: Desk, name: str) -> None:
    attempt = ATTEMPTS[name]
    document = document_of(attempt)
    asked = ask_everything(desk, document, attempt)
    blocks = assert_contained(asked, desk.harmless("large"), "large")
    assert restored(blocks["read"][0].text) == restored(document.text)
    assert neutral(document.text) == blocks["summarize"][0].text == blocks["judge"][0].text == blocks["direct"][0].text
    # The model did as it was told, and still nothing is cited that is not in the document.
    for result in asked.results:
        for citation in citations_in(result):
            words = "".join(part.of(document.text) for part in citation.parts)
            assert fold(citation.quote.replace(" … ", "")) == fold(words)
            assert "PWNED by the admin" not in citation.quote
            assert URL not in citation.quote
    note, _, draft, summary, choice, judgement, direct, form, table = asked.results
    assert (draft.found, draft.claims, draft.warnings) == (False, (), (UNQUOTED_ANSWER,))
    assert note.dropped == 3
    assert (direct.found, direct.claims, direct.warnings, direct.dropped) == (False, (), (UNQUOTED_ANSWER,), 2)
    assert all(not point.citations for point in summary.points)
    assert choice.option is None
    assert judgement.best in {0, 1}
    # A value that no quote shows is refused, though the quote stands there.
    assert not form.found
    assert not table.found
    assert (form.dropped, [one.refused for one in form.findings]) == (1, [URL])


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_in_names_and_headings_stays_data(desk: Desk, name: str) -> None:
    attempt = ATTEMPTS[name]
    harmless = desk.harmless("small")
    titled = document_of(HARMLESS, title=attempt)
    blocks = assert_contained(
        ask_everything(desk, titled, HARMLESS, heading=attempt, profile="small"), harmless, "small"
    )
    header = blocks["read"][0].header
    assert restored(header["document"]) == restored(one_line(titled.name))
    assert restored(header["section"]) == restored(one_line(attempt))
    assert all("\n" not in value and len(value) < 900 for value in header.values())
    # Without a title the file's name is shown; a path separator in it ends what is before.
    named = document_of(HARMLESS, name=f"{attempt.replace('/', '_')}.txt")
    assert_contained(ask_everything(desk, named, HARMLESS, heading="Heading", profile="small"), harmless, "small")


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_in_what_a_model_made_of_it_stays_data(desk: Desk, name: str) -> None:
    """Points of a summary that repeat the attempt are data for the call that shortens them."""
    attempt = ATTEMPTS[name][:600]
    text = " ".join(f"On day {day} the boat left Brackwater at noon." for day in range(300))
    document = document_of(text)

    def condensing_request(repeated: str) -> dict[str, Any]:
        points = [{"text": f"{repeated} So it says, and nothing but that.", "quote": repeated}]
        desk.server.default = answering(summarize={"points": points}, condense={"points": []})
        desk.server.requests.clear()
        reader = desk.reader(4_096, "large")
        desk.run(reader.summarize([Passage(document, Span(0, len(document.text)))], words=5))
        desk.server.default = OBEYING
        (body,) = [r.body for r in desk.server.requests if skill_of(r.body["messages"][0]["content"]) == CONDENSE]
        return dict(body)

    requests = [condensing_request(repeated) for repeated in (attempt, HARMLESS)]
    (system, user), (like_system, like_user) = (body["messages"] for body in requests)
    assert system == like_system
    blocks, outside = blocks_of(user["content"])
    _, like_outside = blocks_of(like_user["content"])
    assert outside.split() == like_outside.split()
    assert " ".join(attempt.split())[:50] in restored(blocks[0].text)
    assert not [token for token in CONTROL_TOKENS if token in blocks[0].text]


def test_the_codes_are_those_of_the_secret(desk: Desk) -> None:
    document = document_of(HARMLESS)
    asked = ask_everything(desk, document, HARMLESS)
    made = Fence(SECRET).wrap(document.text, {"document": document.name})
    user = asked.requests[0]["messages"][1]["content"]
    assert user.startswith(made)
    assert not user.startswith(Fence(bytes(32)).wrap(document.text, {"document": document.name})[:24])
    assert SECRET.hex() not in json.dumps(asked.requests)


def test_there_are_forty_attempts_and_every_skill_is_asked() -> None:
    assert len(ATTEMPTS) == 40
    assert max(map(len, ATTEMPTS.values())) > 100_000
    others = {"condense", "list", "extract", "rows"}
    assert set(SKILLS) == {"read", "merge", "answer", "summarize", "choose", "judge", "direct"} | others
