"""Answers of a shape, over HTTP: how servers are asked for them, asked again, and what users see meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from lcdoc.agents.models.errors import (
    AuthenticationError,
    ContextOverflowError,
    InvalidOutputError,
    ModelError,
    RefusedRequestError,
    RetriesExhaustedError,
    ServerError,
    UnsupportedParameterError,
)
from lcdoc.agents.models.json_schema import schema_in_words, strict_schema
from lcdoc.agents.models.ledger import Ledger
from lcdoc.agents.models.memos import ForgetfulMemos, Memos
from lcdoc.agents.models.model import Completion, Message, ModelSpec, Request, Server, StructuredMode
from lcdoc.agents.models.names import Chosen
from lcdoc.agents.models.openai_client import OpenAIModel
from lcdoc.agents.models.response_formats import is_about_format
from lcdoc.agents.models.stack import ModelStack
from lcdoc.agents.models.structured import MAX_ECHO_CHARACTERS, StructuredModel
from lcdoc.agents.models.thinking import ThinkingFilter, split_thinking
from lcdoc.memory import Library
from lcdoc.tests.servers.chat_server import Behaviour, ChatServer, Recorded, Reply, Status, error_body


class Reading(BaseModel):
    found: bool = Field(description="whether the text says it")
    claim: str = ""
    confidence: float = Field(default=0.0, ge=0, le=5)


GOOD = '{"found": true, "claim": "It burned.", "confidence": 4}'
READING = Reading(found=True, claim="It burned.", confidence=4)
ASKED = (Message("system", "Be brief."), Message("user", "Did it burn?"))
REQUEST = Request(ASKED, schema=Reading, max_tokens=200)
WORDS = schema_in_words(Reading)
STRONGEST_FIRST: list[StructuredMode] = ["json_schema", "json_object_schema", "json_object", "prompt"]


def spec_of(server: ChatServer, *, structured: StructuredMode | None = None, **known: Any) -> ModelSpec:
    return ModelSpec(
        **{
            "name": "test",
            "context_window": 8_000,
            "server": Server(server.url, "test", structured=structured),
            **known,
        }
    )


def run(
    server: ChatServer,
    talk: Callable[[StructuredModel], Coroutine[Any, Any, Any]],
    *,
    memos: Memos | None = None,
    spec: ModelSpec | None = None,
) -> Any:
    async def session() -> Any:
        client = OpenAIModel(spec or spec_of(server), None)
        try:
            return await talk(StructuredModel(client, memos or ForgetfulMemos()))
        finally:
            await client.aclose()

    return asyncio.run(session())


def ask(server: ChatServer, request: Request = REQUEST, **settings: Any) -> Completion:
    return run(server, lambda model: model.complete(request), **settings)


def modes(server: ChatServer) -> list[str]:
    forms = [request.body.get("response_format") or {"type": "prompt"} for request in server.requests]
    return [f"{form['type']}_schema" if "schema" in form else form["type"] for form in forms]


def sent(server: ChatServer, number: int) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in server.requests[number].body["messages"]]


def by_mode(recorded: Recorded) -> Reply:
    """A server that enforces what it is asked to enforce, and chats otherwise."""
    return Reply(GOOD if "response_format" in recorded.body else "Yes, it burned.")


def test_a_server_is_asked_to_enforce_the_schema() -> None:
    with ChatServer() as server:
        server.script(Reply(GOOD))
        completion = ask(server)
    assert completion.parsed_as(Reading) == READING
    assert Reading.model_validate_json(completion.text) == READING
    (request,) = server.requests
    assert request.body["response_format"]["json_schema"]["schema"] == strict_schema(Reading)
    assert sent(server, 0) == [("system", "Be brief."), ("user", "Did it burn?")]
    assert request.body["max_tokens"] == 200


def test_what_is_kept_of_an_answer_validates_again() -> None:
    class Aliased(BaseModel):
        page: int = Field(alias="pageNumber")

    with ChatServer() as server:
        server.script(Reply('```json\n{"page_number": "4"}\n```'))
        completion = ask(server, replace(REQUEST, schema=Aliased))
    assert Aliased.model_validate_json(completion.text) == completion.parsed == Aliased(pageNumber=4)


@pytest.mark.parametrize("refused", [{"json_schema"}, {"json_schema", "json_object"}])
def test_a_refused_mode_gives_way_to_the_next_and_is_remembered(refused: set[str], tmp_path: Path) -> None:
    with ChatServer() as server, Library.open(tmp_path / "library.sqlite") as library:
        server.refuses_modes = refused
        server.default = Reply(f"Sure:\n{GOOD}")
        assert ask(server, memos=library.memos).parsed == READING
        asked = modes(server)
        ways = {1: ["json_schema", "json_object_schema"], 2: STRONGEST_FIRST}
        assert asked == ways[len(refused)]
        # The schema is said at the end, so that the beginning is what other requests begin with.
        assert sent(server, -1) == [("system", "Be brief."), ("user", f"Did it burn?\n\n{WORDS}")]
        assert ask(server, memos=library.memos).parsed == READING
        assert modes(server) == [*asked, asked[-1]]


def test_a_server_without_the_field_is_asked_in_words() -> None:
    with ChatServer() as server:
        server.refuses = {"response_format"}
        server.default = Reply(GOOD)
        assert ask(server).parsed == READING
    assert modes(server)[-1] == "prompt"


def test_a_mode_that_brought_nothing_is_not_remembered() -> None:
    memos = ForgetfulMemos()
    with ChatServer() as server:
        server.refuses_modes = {"json_schema"}
        server.script(Reply("no"), Reply("no"))
        with pytest.raises(InvalidOutputError):
            ask(server, memos=memos)
        server.refuses_modes = set()
        server.script(Reply(GOOD))
        ask(server, memos=memos)
    assert modes(server) == ["json_schema", "json_object_schema", "json_object_schema", "json_schema"]


def test_what_llama_cpp_python_refuses_as_its_own_failure_is_asked_for_in_its_form() -> None:
    said = "1 validation error: {'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), 'msg': \"Input "
    said += "should be 'text' or 'json_object'\", 'input': 'json_schema'}"

    def peer(recorded: Recorded) -> Behaviour:
        form = recorded.body["response_format"]
        if form["type"] == "json_schema":
            return Status(500, error_body(said, kind="internal_server_error"))
        return Reply(GOOD if form.get("schema") == strict_schema(Reading) else "Yes, it burned.")

    with ChatServer() as server:
        server.default = peer
        assert ask(server).parsed == READING
    # The words are said too, for servers that take the form and do not heed it.
    assert modes(server) == ["json_schema", "json_object_schema"]
    assert sent(server, 1)[-1] == ("user", f"Did it burn?\n\n{WORDS}")


def test_a_refused_mode_is_remembered_by_all_runs_of_a_stack_though_no_answer_came(tmp_path: Path) -> None:
    async def session(url: str, library: Library) -> None:
        spec = ModelSpec("test", 8_000, Server(url, "test"))
        async with ModelStack(Chosen(spec, None, ()), library) as stack:
            for question in ("Did it burn?", "Did it sink?"):
                with pytest.raises(InvalidOutputError):
                    await stack.for_run(Ledger()).complete(replace(REQUEST, messages=(Message("user", question),)))

    with ChatServer() as server, Library.open(tmp_path / "library.sqlite") as library:
        server.refuses_modes = {"json_schema"}
        server.default = Reply("no")
        asyncio.run(session(server.url, library))
    assert modes(server) == ["json_schema", *["json_object_schema"] * 4]


def test_what_is_remembered_is_of_one_server_and_model() -> None:
    memos = ForgetfulMemos()
    with ChatServer() as server:
        server.refuses_modes = {"json_schema"}
        server.default = Reply(GOOD)
        ask(server, memos=memos)
        other = replace(spec_of(server), server=Server(server.url, "another"))
        ask(server, memos=memos, spec=other)
    assert modes(server) == ["json_schema", "json_object_schema"] * 2


def test_a_server_that_refuses_what_it_once_took_is_asked_in_another_way() -> None:
    memos = ForgetfulMemos()
    with ChatServer() as server:
        server.default = Reply(GOOD)
        ask(server, memos=memos)
        server.refuses_modes = {"json_schema"}
        ask(server, memos=memos)
        ask(server, memos=memos)
    assert modes(server) == ["json_schema", "json_schema", "json_object_schema", "json_object_schema"]


@pytest.mark.parametrize("mode", STRONGEST_FIRST)
def test_the_users_word_on_the_mode_is_final(mode: StructuredMode) -> None:
    with ChatServer() as server:
        server.default = Reply(GOOD)
        ask(server, spec=spec_of(server, structured=mode))
        assert modes(server) == [mode]
        server.refuses_modes = {mode.removesuffix("_schema") if mode == "json_object_schema" else mode}
        if mode != "prompt":
            with pytest.raises(RefusedRequestError):
                ask(server, spec=spec_of(server, structured=mode))
    assert set(modes(server)) == {mode}


def test_only_one_of_many_requests_is_refused() -> None:
    async def talk(model: StructuredModel) -> list[Completion]:
        return await asyncio.gather(*(model.complete(REQUEST) for _ in range(64)))

    with ChatServer() as server:
        server.refuses_modes = {"json_schema", "json_object"}
        server.default = Reply(GOOD)
        answers = run(server, talk)
    assert all(answer.parsed == READING for answer in answers)
    assert modes(server) == [*STRONGEST_FIRST[:-1], *["prompt"] * 64]


def test_the_others_wait_for_the_first_words_only() -> None:
    async def talk(model: StructuredModel) -> list[Completion]:
        return await asyncio.gather(*(model.complete(REQUEST) for _ in range(5)))

    with ChatServer() as server:
        # The first answer takes 1.6 s; were it waited for to its end, only the other four would overlap.
        server.default = Reply(GOOD, pieces=8, drip_s=0.2)
        answers = run(server, talk)
    assert all(answer.parsed == READING for answer in answers)
    assert server.open_peak == 5


def test_a_probe_that_fails_or_is_given_up_keeps_nobody_waiting() -> None:
    async def talk(model: StructuredModel) -> list[Any]:
        tasks = [asyncio.create_task(model.complete(REQUEST)) for _ in range(6)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)

    with ChatServer() as server:
        server.script(Status(503), Status(503))
        server.default = Reply(GOOD)
        outcomes = run(server, talk)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert sum(isinstance(outcome, Completion) for outcome in outcomes) >= 3
    assert all(isinstance(outcome, Completion | ServerError) for outcome in outcomes[1:])


@pytest.mark.parametrize(
    ("error", "about_format"),
    [
        (UnsupportedParameterError("m", "unknown field", parameter="response_format"), True),
        (UnsupportedParameterError("m", "bad json_schema", parameter="logprobs"), False),
        (RefusedRequestError("m", "400: 'response_format' of type 'json_schema' is not supported"), True),
        (RefusedRequestError("m", "400: Failed to initialize samplers: failed to parse grammar"), True),
        (RefusedRequestError("m", "422: invalid value: `json_schema`, supported: `json_object`"), True),
        (RefusedRequestError("m", "400: Invalid schema for field answer"), True),
        (ServerError("m", "500: the grammar could not be compiled"), True),
        (RefusedRequestError("m", "400: max_tokens is too large"), False),
        (RefusedRequestError("grammar/json_schema", "400: no"), False),
        (ContextOverflowError("m", "400: the schema is too long for the window"), False),
        (AuthenticationError("m", "401: no schema for you"), False),
    ],
)
def test_a_refusal_of_the_format_is_told_from_others(error: ModelError, about_format: bool) -> None:
    assert is_about_format(error) is about_format
    exhausted = RetriesExhaustedError("m", "it kept failing")
    exhausted.__cause__ = error
    assert is_about_format(exhausted) is about_format


def test_a_request_that_cannot_be_made_keeps_nobody_waiting() -> None:
    class Mapping(BaseModel):
        pages: dict[str, int]

    async def talk(model: StructuredModel) -> list[Any]:
        requests = [replace(REQUEST, schema=Mapping), REQUEST, REQUEST]
        return await asyncio.wait_for(asyncio.gather(*map(model.complete, requests), return_exceptions=True), 30)

    with ChatServer() as server:
        server.default = Reply(GOOD)
        outcomes = run(server, talk)
    assert [type(outcome) for outcome in outcomes] == [TypeError, Completion, Completion]


def test_a_refusal_of_something_else_is_passed_on() -> None:
    with ChatServer() as server:
        server.script(Status(400, error_body("the picture is too large")))
        with pytest.raises(RefusedRequestError):
            ask(server)
    assert modes(server) == ["json_schema"]


def test_an_answer_that_does_not_fit_is_asked_for_once_more() -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 10, "total_tokens": 60}
    with ChatServer() as server:
        server.script(Reply("<think>Hm.</think>It burned.", usage=usage), Reply(GOOD, usage=usage))
        completion = ask(server)
    assert completion.parsed == READING
    assert (completion.usage.tokens_in, completion.usage.tokens_out) == (100, 20)
    first, second = sent(server, 0), sent(server, 1)
    assert second[:2] == first
    assert second[2] == ("assistant", "It burned.")
    role, demand = second[3]
    assert role == "user"
    assert "no JSON object" in demand
    assert demand.endswith(WORDS)


def test_the_second_question_names_what_was_wrong_and_repeats_no_schema_that_was_said() -> None:
    wrong = '{"found": true, "claim": "It burned.", "confidence": 90}'
    with ChatServer() as server:
        server.script(Reply(wrong), Reply(GOOD))
        ask(server, spec=spec_of(server, structured="prompt"))
    conversation = sent(server, 1)
    assert conversation[2] == ("assistant", wrong)
    assert "confidence: Input should be less than or equal to 5" in conversation[3][1]
    assert WORDS not in conversation[3][1]
    assert "\n" not in conversation[3][1]


def test_two_misshapen_answers_are_an_error_that_says_so() -> None:
    with ChatServer() as server:
        server.default = Reply('{"found": "perhaps"}')
        with pytest.raises(InvalidOutputError, match=r"does not fit Reading.*found") as error:
            ask(server)
    assert len(server.requests) == 2
    assert error.value.usage.tokens == 0


def test_a_long_answer_is_shown_again_in_part() -> None:
    with ChatServer() as server:
        server.script(Reply("It burned. " * 2_000), Reply(GOOD))
        ask(server, replace(REQUEST, max_tokens=6_000), spec=spec_of(server, context_window=50_000))
    assert len(sent(server, 1)[2][1]) <= MAX_ECHO_CHARACTERS


def test_an_answer_that_was_cut_is_asked_for_with_more_room_and_not_shown_again() -> None:
    cut = Reply('{"found": true, "claim": "It bur', finish="length")
    with ChatServer() as server:
        server.script(cut, Reply(GOOD))
        assert ask(server).parsed == READING
        server.script(cut, Reply(GOOD))
        ask(server, spec=spec_of(server, max_output_tokens=300))
        server.script(cut, Reply(GOOD))
        ask(server, spec=spec_of(server, context_window=700))
    assert [role for role, _ in sent(server, 1)] == ["system", "user"]
    assert "cut off after 200 tokens" in sent(server, 1)[1][1]
    assert "It bur" not in sent(server, 1)[1][1]
    tokens = [request.body["max_tokens"] for request in server.requests]
    assert tokens[:4] == [200, 400, 200, 300]
    assert 16 <= tokens[5] < 400


def test_a_window_without_room_for_a_second_question_is_not_overrun() -> None:
    with ChatServer() as server:
        server.script(Reply("It burned."))
        with pytest.raises(InvalidOutputError, match="no room"):
            ask(server, spec=spec_of(server, context_window=60))
    assert len(server.requests) == 1


def test_an_assumed_window_does_not_keep_from_asking_again() -> None:
    with ChatServer() as server:
        server.script(Reply("It burned."), Reply(GOOD))
        assert ask(server, spec=spec_of(server, context_window=60, context_window_known=False)).parsed == READING


def test_an_overflow_at_the_second_question_is_no_overflow_of_the_first() -> None:
    overflow = error_body(
        "This model's maximum context length is 100 tokens. However, you requested 300 tokens.",
        code="context_length_exceeded",
    )
    with ChatServer() as server:
        server.script(Reply("It burned."), Status(400, overflow))
        with pytest.raises(InvalidOutputError, match="asking again does not fit its window"):
            ask(server)


def test_a_filtered_answer_is_not_asked_for_again() -> None:
    with ChatServer() as server:
        server.script(Reply('{"found": tr', finish="content_filter"))
        with pytest.raises(InvalidOutputError, match="content filter"):
            ask(server)
    assert len(server.requests) == 1


def test_a_server_that_ignores_the_format_twice_is_asked_in_words() -> None:
    memos = ForgetfulMemos()

    def ignoring(recorded: Recorded) -> Reply:
        return Reply(GOOD if "JSON" in str(recorded.body["messages"]) else "Yes, it burned.")

    async def talk(model: StructuredModel) -> None:
        for _ in range(4):
            assert (await model.complete(REQUEST)).parsed == READING

    with ChatServer() as server:
        server.default = ignoring
        run(server, talk, memos=memos)
        assert modes(server) == ["json_schema"] * 4 + ["prompt"] * 2
        ask(server, memos=memos)
        assert modes(server)[6:] == ["prompt"]


def test_one_misshapen_answer_between_good_ones_is_no_reason() -> None:
    async def talk(model: StructuredModel) -> None:
        for _ in range(4):
            await model.complete(REQUEST)

    chat = Reply("Yes, it burned.")
    with ChatServer() as server:
        server.script(chat, Reply(GOOD), Reply(GOOD), chat, Reply(GOOD))
        server.default = Reply(GOOD)
        run(server, talk)
    assert set(modes(server)) == {"json_schema"}


def test_a_mode_that_has_worked_is_kept_whatever_comes_later() -> None:
    async def talk(model: StructuredModel) -> None:
        for _ in range(5):
            await model.complete(REQUEST)

    with ChatServer() as server:
        server.script(Reply(GOOD), *[Reply("Yes, it burned."), Reply(GOOD)] * 3)
        server.default = Reply(GOOD)
        run(server, talk)
    assert set(modes(server)) == {"json_schema"}


def test_a_value_out_of_bounds_is_no_sign_of_a_format_ignored() -> None:
    async def talk(model: StructuredModel) -> None:
        for _ in range(3):
            await model.complete(REQUEST)

    wrong = Reply('{"found": true, "claim": "", "confidence": 90}')
    with ChatServer() as server:
        server.script(*[wrong, Reply(GOOD)] * 3)
        run(server, talk)
    assert set(modes(server)) == {"json_schema"}


def test_words_go_to_the_last_user_message_or_become_one() -> None:
    prefilled = replace(REQUEST, messages=(*ASKED, Message("assistant", "Answer:")))
    with ChatServer() as server:
        server.default = Reply(GOOD)
        spec = spec_of(server, structured="prompt")
        ask(server, prefilled, spec=spec)
        ask(server, replace(REQUEST, messages=ASKED[:1]), spec=spec)
    assert sent(server, 0)[1:] == [("user", f"Did it burn?\n\n{WORDS}"), ("assistant", "Answer:")]
    assert sent(server, 1) == [("system", "Be brief."), ("user", WORDS)]


def test_the_stream_of_an_answer_has_no_thinking_and_announces_a_second_one() -> None:
    pieces: list[str] = []
    with ChatServer() as server:
        server.script(
            Reply(f"<think>Let me see {{}}.</think>\nYes. {GOOD[:-1]}, oh}}", pieces=20),
            Reply(f"<think>Again.</think>{GOOD}", pieces=20),
        )
        completion = ask(server, replace(REQUEST, on_text=pieces.append))
    assert pieces.count("") == 1
    again = pieces.index("")
    assert "".join(pieces[:again]) == f"Yes. {GOOD[:-1]}, oh}}"
    assert "".join(pieces[again:]) == GOOD
    assert completion.parsed == READING
    assert completion.reasoning == "Again."


def test_free_text_is_passed_on_without_its_thinking() -> None:
    pieces: list[str] = []
    with ChatServer() as server:
        server.script(Reply("<think>It is 1907.</think>\n\nIn 1907.", pieces=12, reasoning="Before."))
        completion = ask(server, Request(ASKED, on_text=pieces.append))
    assert completion.text == "".join(pieces) == "In 1907."
    assert completion.reasoning == "Before.\nIt is 1907."
    assert completion.parsed is None
    assert "response_format" not in server.requests[0].body


def test_thinking_alone_is_no_answer() -> None:
    with ChatServer() as server:
        server.default = Reply("<think>It is 1907, or", finish="length")
        with pytest.raises(InvalidOutputError, match="only thinking came"):
            ask(server, Request(ASKED))
        with pytest.raises(InvalidOutputError, match="there is only thinking"):
            ask(server)


def test_thinking_apart_that_used_up_the_tokens_is_given_more() -> None:
    exhausted = Reply("", reasoning="Let me think.", finish="length")
    with ChatServer() as server:
        server.script(exhausted, Reply(GOOD, reasoning="Short."))
        completion = ask(server)
        assert completion.parsed == READING
        assert completion.usage.tokens_in > sum(len(text) // 4 for _, text in sent(server, 1))
        assert [request.body["max_tokens"] for request in server.requests] == [200, 400]
        server.script(exhausted)
        with pytest.raises(InvalidOutputError, match="thinking"):
            ask(server, spec=spec_of(server, max_output_tokens=200))
    assert len(server.requests) == 3


def test_text_that_cannot_be_stored_is_made_storable() -> None:
    with ChatServer() as server:
        server.script(Reply("a\0b"), Reply('{"found": true, "claim": "a\\u0000b\\ud800c"}'))
        assert ask(server, Request(ASKED)).text == "ab"
        claim = ask(server).parsed_as(Reading).claim
    assert claim == "ab\ufffdc"
    assert json.dumps(claim).encode()


def test_a_mistake_in_the_schema_is_told_before_anything_is_sent() -> None:
    class Mapping(BaseModel):
        pages: dict[str, int]

    with ChatServer() as server, pytest.raises(TypeError, match=r"Mapping\.pages"):
        ask(server, replace(REQUEST, schema=Mapping))
    assert not server.requests


THOUGHTS = st.lists(
    st.sampled_from(
        [
            "<think>",
            "</think>",
            "<thinking>",
            "</thinking>",
            "[THINK]",
            "[/THINK]",
            "a",
            "b c",
            " ",
            "\n",
            "<",
            "</",
            "[",
            "{",
            "```",
        ]
    ),
    max_size=12,
).map("".join)


@settings(max_examples=500, deadline=None)
@given(text=THOUGHTS, cuts=st.sets(st.integers(0, 80)))
def test_a_stream_shows_what_the_whole_text_shows(text: str, cuts: set[int]) -> None:
    shown: list[str] = []
    stream = ThinkingFilter(shown.append)
    places = [0, *sorted(cut for cut in cuts if 0 < cut < len(text)), len(text)]
    for start, end in pairwise(places):
        if end > start:
            stream.feed(text[start:end])
    stream.finish()
    begun_anew = len(shown) - shown[::-1].index("") if "" in shown else 0
    assert "".join(shown[begun_anew:]) == split_thinking(text)[1]


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("<think>a</think>b", "a", "b"),
        ("\n<THINK>\na\n</think>\n\nb", "a", "b"),
        ("a\n</think>\nb", "a", "b"),
        ("<think>a", "a", ""),
        ("<think>a</think><think>b</think>c", "a\nb", "c"),
        ("Models write <think> and </think>.", "", "Models write <think> and </think>."),
        ('{"claim": "the </think> tag"}', "", '{"claim": "the </think> tag"}'),
        (" plain ", "", " plain "),
        ("", "", ""),
    ],
)
def test_thinking_is_what_comes_before_the_answer(text: str, thinking: str, answer: str) -> None:
    assert split_thinking(text) == (thinking, answer)
