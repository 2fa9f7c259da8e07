"""The server that everything about models is tested against: does it do what it is told, and tell what happened?"""

import asyncio
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from lcdoc.tests.servers.behaviours import automatic_usage
from lcdoc.tests.servers.chat_server import (
    ChatServer,
    Cut,
    Echo,
    EmptyChoices,
    ErrorEvent,
    Fill,
    Garbage,
    Hang,
    HangMid,
    Nonsense,
    Recorded,
    Refuse,
    Reply,
    Status,
)
from lcdoc.tests.servers.mix import mix_from_json
from lcdoc.tests.servers.schema_instances import instance_of
from lcdoc.tests.servers.server_process import ServerProcess


def asked(text="hi", **fields):
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


class Wire:
    """One keep-alive connection, read without any library's opinion of what comes."""

    def __init__(self, server, reader, writer):
        self.server, self.reader, self.writer = server, reader, writer

    async def send(self, body, path="/v1/chat/completions", **headers):
        content = json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(content)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        await self.writer.drain()

    async def head(self):
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:])

    async def chunks(self):
        """The chunks of a streamed body; ends with its proper end, raises IncompleteReadError at any other."""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            yield await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)

    async def events(self):
        return [json.loads(data) if (data := c.decode()[6:].strip()) != "[DONE]" else data async for c in self.chunks()]

    async def json(self):
        status, headers = await self.head()
        return status, headers, json.loads(await self.reader.readexactly(int(headers["content-length"])))


@asynccontextmanager
async def connected(server):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.split(":")[2].split("/")[0]))
    try:
        yield Wire(server, reader, writer)
    finally:
        writer.close()


def play(conversation, **settings):
    """Run `conversation(wire)` against a server."""

    async def run(server):
        async with connected(server) as wire:
            return await conversation(wire)

    with ChatServer() as server:
        for name, value in settings.items():
            setattr(server, name, value)
        return asyncio.run(run(server))


def text_of(events):
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e != "[DONE]" and e["choices"])


def test_a_script_is_played_in_order_and_then_the_default():
    async def conversation(wire):
        wire.server.script(Status(429, retry_after="1.5"), Reply("first"))
        wire.server.default = Reply("then")
        await wire.send(asked(), X_Thing="7")
        status, headers, body = await wire.json()
        assert (status, headers["retry-after"], body["error"]["message"]) == (429, "1.5", "the server says 429")
        for expected in ("first", "then", "then"):
            await wire.send(asked())
            _, _, body = await wire.json()
            assert body["choices"][0]["message"] == {"role": "assistant", "content": expected}
        first, *_ = wire.server.requests
        assert (first.path, first.headers["x-thing"], first.body) == ("/v1/chat/completions", "7", asked())
        assert [request.finished for request in wire.server.requests] == [True] * 4
        assert wire.server.answered == {"hi": 3}
        assert wire.server.repeated == {"hi": 2}

    play(conversation)


def test_a_stream_has_pieces_reasoning_logprobs_a_finish_and_usage():
    async def conversation(wire):
        wire.server.default = Reply("ab cd", pieces=("ab", " ", "cd"), reasoning="hmm", logprobs=True, finish="length")
        body = asked(stream=True, stream_options={"include_usage": True}, logprobs=True)
        await wire.send(body)
        assert (await wire.head())[1]["content-type"] == "text/event-stream"
        *events, usage, done = await wire.events()
        assert done == "[DONE]"
        assert usage["choices"] == []
        assert usage["usage"] == automatic_usage(body, "hmmab cd") == wire.server.requests[0].usage
        assert wire.server.tokens_in + wire.server.tokens_out == usage["usage"]["total_tokens"]
        choices = [event["choices"][0] for event in events]
        assert [c["delta"].get("content") for c in choices] == ["", None, "ab", " ", "cd", None]
        assert choices[1]["delta"] == {"reasoning_content": "hmm"}
        assert [c["finish_reason"] for c in choices] == [None] * 5 + ["length"]
        tokens = [c["logprobs"]["content"][0] for c in choices if c["logprobs"]]
        assert [(t["token"], t["logprob"]) for t in tokens] == [("ab", -0.25), (" ", -0.5), ("cd", -0.75)]

        await wire.send(asked(stream=True))
        await wire.head()
        *events, done = await wire.events()
        assert all(event["choices"] and not event["choices"][0]["logprobs"] for event in events)

    play(conversation)


@pytest.mark.parametrize(("usage", "given"), [(None, None), ({"prompt_tokens": 5}, {"prompt_tokens": 5})])
def test_usage_is_what_the_behaviour_says(usage, given):
    async def conversation(wire):
        wire.server.default = Reply("x", usage=usage)
        await wire.send(asked(stream=True, stream_options={"include_usage": True}))
        await wire.head()
        assert [event["usage"] for event in await wire.events() if "usage" in event] == ([given] if given else [])
        await wire.send(asked())
        assert (await wire.json())[2].get("usage") == given

    play(conversation)


def test_a_dripped_answer_comes_in_time_and_its_comments_first():
    async def conversation(wire):
        wire.server.default = Reply("abc", pieces=3, drip_s=0.02, comments=2)
        start = time.monotonic()
        await wire.send(asked(stream=True))
        await wire.head()
        chunks = [chunk async for chunk in wire.chunks()]
        assert chunks[:2] == [b": keep-alive\n\n"] * 2
        assert len(chunks) == 2 + 6
        assert time.monotonic() - start >= 0.1

    play(conversation)


def test_fields_and_modes_are_refused_by_name_and_use_up_no_behaviour():
    async def conversation(wire):
        wire.server.script(Reply("played"))
        wire.server.refuses = {"logprobs"}
        wire.server.refuses_modes = {"json_schema"}
        await wire.send(asked(logprobs=True))
        status, _, body = await wire.json()
        assert (status, body["error"]["param"], body["error"]["code"]) == (400, "logprobs", "unsupported_parameter")
        await wire.send(asked(response_format={"type": "json_schema", "json_schema": {}}))
        status, _, body = await wire.json()
        assert (status, body["error"]["param"]) == (400, "response_format")
        assert "json_schema" in body["error"]["message"]
        await wire.send(asked(response_format={"type": "json_object"}))
        assert (await wire.json())[2]["choices"][0]["message"]["content"] == "played"
        assert len(wire.server.requests) == 3
        assert wire.server.answered == {"hi": 1}

    play(conversation)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("behaviour", [Cut("some of"), Cut("some of", reset=True)])
def test_a_cut_answer_has_its_beginning_and_no_end(behaviour, stream):
    async def conversation(wire):
        await wire.send(asked(stream=stream))
        assert (await wire.head())[0] == 200
        rest = b""
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            while True:
                rest += await wire.reader.readexactly(1)
        assert b"some of" in rest
        assert b"finish_reason" not in rest or b'"finish_reason":null' in rest
        assert b"0\r\n\r\n" not in rest
        assert wire.server.requests[0].finished
        assert not wire.server.requests[0].aborted

    play(conversation, default=behaviour)


def test_a_clean_cut_ends_the_body_but_not_the_answer():
    async def conversation(wire):
        await wire.send(asked(stream=True))
        await wire.head()
        events = await wire.events()
        assert text_of(events) == "some of"
        assert all(event["choices"][0]["finish_reason"] is None for event in events)
        await wire.send(asked())
        assert (await wire.json())[2]["choices"][0]["finish_reason"] is None
        assert not wire.server.answered

    play(conversation, default=Cut("some of", clean=True))


def test_a_refused_connection_brings_no_byte():
    async def conversation(wire):
        await wire.send(asked())
        with pytest.raises(ConnectionResetError):
            await wire.reader.readexactly(1)

    play(conversation, default=Refuse())


@pytest.mark.parametrize("behaviour", [Hang(), Hang(comments_s=0.01), HangMid("some of"), Reply("late", first_s=60)])
def test_a_client_that_goes_away_is_noticed(behaviour):
    async def conversation(wire):
        await wire.send(asked(stream=True))
        await asyncio.to_thread(wire.server.wait_for, lambda: wire.server.open_now == 1)
        if isinstance(behaviour, HangMid):
            while b"some of" not in await wire.reader.readline():
                pass
        wire.writer.close()
        await asyncio.to_thread(wire.server.wait_for, lambda: wire.server.open_now == 0)
        (request,) = wire.server.requests
        assert request.aborted
        assert not request.finished
        assert not wire.server.answered
        await asyncio.to_thread(wire.server.wait_for, lambda: wire.server.connections_now == 0)

    play(conversation, default=behaviour)


def test_an_error_can_come_in_the_middle_of_a_stream():
    async def conversation(wire):
        await wire.send(asked(stream=True))
        await wire.head()
        *pieces, error, done = await wire.events()
        assert text_of(pieces) == "par"
        assert error["error"]["message"] == "the engine died"
        assert done == "[DONE]"

    play(conversation, default=ErrorEvent("par"))


def test_answers_can_be_none_at_all():
    async def conversation(wire):
        wire.server.script(EmptyChoices(), EmptyChoices(), Garbage(b"<html>"), Garbage(b"{]", "text/plain"))
        await wire.send(asked(stream=True))
        await wire.head()
        empty, done = await wire.events()
        assert (empty["choices"], done) == ([], "[DONE]")
        await wire.send(asked())
        assert (await wire.json())[2]["choices"] == []
        for body, kind in ((b"<html>", "text/event-stream"), (b"{]", "text/plain")):
            await wire.send(asked(stream=True))
            status, headers = await wire.head()
            assert (status, headers["content-type"]) == (200, kind)
            assert await wire.reader.readexactly(int(headers["content-length"])) == body
        assert not wire.server.answered

    play(conversation)


class Colour(BaseModel):
    shade: Literal["red", "blue"]
    depth: int = Field(ge=3, le=5)


class Picture(BaseModel):
    title: str = Field(min_length=8, max_length=12)
    colours: list[Colour] = Field(min_length=2)
    score: float = Field(gt=0.5)
    framed: bool
    inside: "Picture | None"
    spot: tuple[int, int]


def test_a_schema_is_filled():
    async def conversation(wire):
        form = {"type": "json_schema", "json_schema": {"name": "Picture", "schema": Picture.model_json_schema()}}
        await wire.send(asked(stream=True, response_format=form))
        await wire.head()
        picture = Picture.model_validate_json(text_of(await wire.events()))
        assert len(picture.colours) == 2
        await wire.send(asked())
        assert (await wire.json())[2]["choices"][0]["message"]["content"] == "{}"

    play(conversation, default=Fill())


def test_instances_of_odd_schemas():
    assert instance_of({"allOf": [{"type": "integer", "minimum": 4}]}) == 4
    assert instance_of({"type": ["number", "null"], "maximum": -2}) == -2
    assert instance_of({"const": "x"}) == "x"
    assert instance_of({"type": "array", "items": {"enum": [9]}, "minItems": 2}) == [9, 9]


def test_models_pages_and_keys():
    async def conversation(wire):
        server = wire.server
        server.models = [{"id": "m", "max_model_len": 4096}]
        server.pages = {"/props": {"n_ctx": 7}}

        async def get(path, key="k"):
            wire.writer.write(f"GET {path} HTTP/1.1\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
            status, _, body = await wire.json()
            return status, body

        server.key = "k"
        assert await get("/v1/models") == (200, {"object": "list", "data": [{"id": "m", "max_model_len": 4096}]})
        assert await get("/v1/models/m") == (200, {"id": "m", "max_model_len": 4096})
        assert await get("/props") == (200, {"n_ctx": 7})
        assert (await get("/v1/models/other"))[0] == 404
        assert (await get("/v1/models", key="stolen"))[0] == 401
        await wire.send(asked(), Authorization="Bearer k")
        assert (await wire.json())[0] == 200
        assert len(server.requests) == 1
        assert [request.path for request in server.other_requests[:2]] == ["/v1/models", "/v1/models/m"]

    play(conversation)


def test_a_function_chooses_by_the_request():
    async def conversation(wire):
        for text in ("a", "b"):
            await wire.send(asked(text))
            assert (await wire.json())[2]["choices"][0]["message"]["content"] == text * 2

    def choose(recorded: Recorded):
        return Reply(recorded.key * 2)

    play(conversation, default=choose)


def test_a_function_that_fails_is_not_hidden():
    async def conversation(wire):
        await wire.send(asked())
        assert await wire.reader.read() == b""

    def choose(recorded: Recorded):
        raise LookupError("no behaviour for this")

    with pytest.raises(LookupError, match="no behaviour for this"):
        play(conversation, default=choose)


def test_a_hundred_at_once_are_counted():
    async def ask(server, number, all_open):
        async with connected(server) as wire:
            await wire.send(asked(f"call {number}\nmore"))
            if server.open_now < 100:
                await asyncio.wait_for(all_open.wait(), 30)
            return (await wire.json())[2]["choices"][0]["message"]["content"]

    async def run(server):
        all_open = asyncio.Event()

        async def release():
            await asyncio.to_thread(server.wait_for, lambda: server.open_now == 100)
            all_open.set()

        return (await asyncio.gather(release(), *(ask(server, n, all_open) for n in range(100))))[1:]

    with ChatServer() as server:
        server.default = Echo('say "{key}"', first_s=2)
        assert asyncio.run(run(server)) == [f'say "call {n}"' for n in range(100)]
        assert server.open_peak == 100
        assert server.open_now == 0
        assert server.answered == {f"call {n}": 1 for n in range(100)}
        assert not server.repeated


def test_no_thread_or_port_outlives_the_server():
    before = threading.active_count()

    async def hang(server):
        async with connected(server) as wire:
            await wire.send(asked())
            await asyncio.to_thread(server.wait_for, lambda: server.open_now == 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), ChatServer() as server:
        server.default = Hang()
        asyncio.run(hang(server))
    assert threading.active_count() == before
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(server.url.split(":")[2].split("/")[0])))
    with ChatServer() as first, pytest.raises(OSError):
        ChatServer(port=int(first.url.split(":")[2].split("/")[0])).__enter__()
    assert threading.active_count() == before


def test_waiting_in_vain_ends():
    with ChatServer() as server, pytest.raises(TimeoutError):
        server.wait_for(lambda: bool(server.requests), timeout_s=0.01)


def test_a_mix_draws_the_same_whatever_the_order():
    def kinds(keys):
        mix = mix_from_json({"answer": {"kind": "Fill"}, "faults": [{"weight": 0.3, "kind": "Hang"}], "seed": 5})
        drawn = [(key, type(mix(Recorded("", {}, asked(key), 0.0))).__name__) for key in keys]
        return sorted(drawn)

    keys = [f"call {n}" for n in range(200)]
    assert kinds(keys) == kinds(keys[::-1])
    assert 30 < sum(kind == "Hang" for _, kind in kinds(keys)) < 90
    with pytest.raises(ValueError, match="weights"):
        mix_from_json({"answer": {"kind": "Fill"}, "faults": [{"weight": 1, "kind": "Hang"}]})
    with pytest.raises(ValueError, match="Sulk"):
        mix_from_json({"answer": {"kind": "Sulk"}})


def test_the_server_runs_as_a_process_and_reports():
    mix = {"answer": {"kind": "Echo"}, "faults": [{"weight": 0.5, "kind": "Status", "code": 500}], "seed": 1}
    with ServerProcess(mix) as server:
        codes = []
        for number in range(20):
            body = json.dumps(asked(f"call {number}")).encode()
            try:
                with urllib.request.urlopen(server.url + "/chat/completions", body) as answer:
                    codes.append(answer.status)
                    assert json.load(answer)["choices"][0]["message"]["content"] == f"call {number}"
            except urllib.error.HTTPError as error:
                codes.append(error.code)
                error.close()
        stats = server.stats()
    assert {200, 500} == set(codes)
    assert len(stats["received"]) == 20
    assert sum(stats["answered"].values()) == codes.count(200)
    assert stats["played"] == {"Echo": codes.count(200), "Status": codes.count(500)}
    assert stats["repeated"] == {}
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(server.url + "/models")


def test_nonsense_is_a_reply_that_does_not_end_the_asking():
    async def conversation(wire):
        await wire.send(asked())
        assert (await wire.json())[2]["choices"][0]["message"]["content"] == "?"
        assert not wire.server.answered

    play(conversation, default=Nonsense("?"))
