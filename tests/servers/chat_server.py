"""A chat server that answers, dawdles, refuses and breaks as a test tells it to: real HTTP on the loopback.

    with ChatServer() as server:
        server.script(Status(429, retry_after="1"), Reply("hello"))
        ...
        assert [request.finished for request in server.requests] == [True, True]

It speaks HTTP/1.1 itself, in a thread with its own event loop, so that connections can be cut, reset, hung and dripped
exactly. `python -m lcdoc.tests.servers.chat_server --help` runs it as a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import struct
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from lcdoc.tests.servers.behaviours import (
    AUTO,
    Behaviour,
    Chooser,
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
    error_body,
)
from lcdoc.tests.servers.mix import mix_from_json

__all__ = [
    "AUTO",
    "Behaviour",
    "ChatServer",
    "Cut",
    "Echo",
    "EmptyChoices",
    "ErrorEvent",
    "Fill",
    "Garbage",
    "Hang",
    "HangMid",
    "Nonsense",
    "Recorded",
    "Refuse",
    "Reply",
    "Status",
    "error_body",
]

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


class ChatServer:
    """Serves from `__enter__` to `__exit__`, which closes every connection and ends the thread.

    An exception inside a behaviour or in a `default` function answers 500 and is raised again by `__exit__`.
    """

    def __init__(self, *, port: int = 0, keeps_requests: bool = True) -> None:
        self.default: Behaviour | Chooser = Reply("ok")
        """What becomes of requests when the script is at its end."""
        self.requests: list[Recorded] = []
        """Chat requests in the order they came, refused ones too."""
        self.other_requests: list[Recorded] = []
        """Requests of `/v1/models` and of anything else."""
        self.models: list[dict[str, Any]] = [{"id": "test", "object": "model", "created": 1, "owned_by": "test"}]
        """Answer of `/v1/models`; give them what fields you like, such as `max_model_len`."""
        self.pages: dict[str, Any] = {}
        """Further paths and the JSON they answer, such as `/props`."""
        self.key: str | None = None
        """Where set, requests with another key are answered 401."""
        self.refuses: set[str] = set()
        """Fields of a chat request that are answered 400, with an error that names them; no behaviour is used up."""
        self.refuses_modes: set[str] = set()
        """Types of `response_format` that are answered so."""
        self.received: Counter[str] = Counter()
        """Chat requests by `Recorded.key`."""
        self.answered: Counter[str] = Counter()
        """Of those, how many got a whole answer that should end the asking (`Behaviour.is_answer`)."""
        self.repeated: Counter[str] = Counter()
        """Of those, how many came when one with their key had been answered so."""
        self.tokens_in = 0
        """Of whole answers, as their usage says."""
        self.tokens_out = 0
        self.played: Counter[str] = Counter()
        """How often each kind of behaviour was begun."""
        self.open_now = 0
        """Chat requests being answered."""
        self.open_peak = 0
        self.connections_now = 0
        self._keeps_requests = keeps_requests
        self._script: deque[Behaviour] = deque()
        self._port = port
        self._changed = threading.Condition()
        self._connections: set[_Connection] = set()
        self._failures: list[BaseException] = []

    @property
    def url(self) -> str:
        """The base address that clients take: `http://127.0.0.1:PORT/v1`."""
        return f"http://127.0.0.1:{self._port}/v1"

    def script(self, *behaviours: Behaviour) -> None:
        """Play these for the next chat requests, one each, after those scripted before."""
        self._script.extend(behaviours)

    def wait_for(self, predicate: Callable[[], bool], timeout_s: float = 30.0) -> None:
        """Wait until `predicate` holds: it is asked after every change of a request or connection.

        Raises TimeoutError.
        """
        with self._changed:
            if not self._changed.wait_for(predicate, timeout_s):
                raise TimeoutError(f"it did not come to this within {timeout_s} s")

    def stats(self) -> dict[str, Any]:
        """The counters, as `/control/stats` gives them."""
        return {
            "received": dict(self.received),
            "answered": dict(self.answered),
            "repeated": dict(self.repeated),
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "played": dict(self.played),
            "open_now": self.open_now,
            "open_peak": self.open_peak,
            "connections_now": self.connections_now,
        }

    def __enter__(self) -> ChatServer:
        started: deque[BaseException | None] = deque()
        ready = threading.Event()

        async def serve() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            try:
                listener = await self._loop.create_server(
                    lambda: _Connection(self), "127.0.0.1", self._port, backlog=1024
                )
                self._port = listener.sockets[0].getsockname()[1]
            except OSError as error:
                started.append(error)
                return
            finally:
                ready.set()
            await self._stop.wait()
            listener.close()
            for connection in list(self._connections):
                connection.drop()
            await listener.wait_closed()

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), name="chat-server", daemon=True)
        self._thread.start()
        ready.wait()
        if started and started[0] is not None:
            self._thread.join()
            raise started[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._failures and error is None:
            raise self._failures[0]

    # What follows runs in the server's thread.

    def _choose(self, recorded: Recorded) -> Behaviour:
        """What to do with a chat request."""
        body = recorded.body
        if refusal := self._refusal(body):
            return Status(400, refusal)
        if self._script:
            return self._script.popleft()
        return self.default if isinstance(self.default, Behaviour) else self.default(recorded)

    def _refusal(self, body: Any) -> Any:
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list) or not body["messages"]:
            return error_body("you must provide a messages parameter", param="messages")
        for name in body:
            if name in self.refuses:
                said = f"Unsupported parameter: '{name}' is not supported with this model."
                return error_body(said, param=name, code="unsupported_parameter")
        mode = (body.get("response_format") or {}).get("type")
        if mode in self.refuses_modes:
            said = f"Invalid parameter: 'response_format' of type '{mode}' is not supported with this model."
            return error_body(said, param="response_format")
        return None

    def _other(self, recorded: Recorded) -> tuple[int, Any]:
        """Answer to a request that is none for a chat."""
        path = recorded.path
        if path == "/control/stats":
            return 200, self.stats()
        if path in self.pages:
            return 200, self.pages[path]
        if path == "/v1/models":
            return 200, {"object": "list", "data": self.models}
        for model in self.models:
            if path == f"/v1/models/{model['id']}":
                return 200, model
        return 404, error_body(f"Unknown request URL: {path}.", code="unknown_url")

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


class _Connection(asyncio.Protocol):
    """One client's connection: takes requests one after the other and is the `Exchange` of each."""

    recorded: Recorded

    def __init__(self, server: ChatServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._open = False
        """Whether a chat request waits for the end of its answer."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server._connections.add(self)
        self._server.connections_now += 1

    def connection_lost(self, error: Exception | None) -> None:
        self._server._connections.discard(self)
        self._server.connections_now -= 1
        if self._open and not self._transport_dropped:
            self.recorded.aborted = True
        if self._task is not None:
            self._task.cancel()
        self._settle()
        self._server._notify()

    def eof_received(self) -> bool:
        return False

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._take_request()

    def drop(self) -> None:
        """End it because the server ends."""
        self._transport_dropped = True
        self._transport.abort()

    _transport_dropped = False

    def _take_request(self) -> None:
        if self._task is not None:
            return
        head_end = self._buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        lines = self._buffer[:head_end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        body_end = head_end + 4 + int(headers.get("content-length", "0"))
        if len(self._buffer) < body_end:
            return
        content = bytes(self._buffer[head_end + 4 : body_end])
        del self._buffer[:body_end]
        method, target, _ = lines[0].split(" ")
        try:
            body = json.loads(content) if content else None
        except ValueError:
            body = None
        self.recorded = Recorded(target.partition("?")[0], headers, body, time.monotonic())
        self._begin(is_chat=method == "POST" and self.recorded.path == "/v1/chat/completions")

    def _begin(self, *, is_chat: bool) -> None:
        server, recorded = self._server, self.recorded
        if not is_chat:
            server.other_requests.append(recorded)
        elif server._keeps_requests:
            server.requests.append(recorded)
        if server.key is not None and recorded.headers.get("authorization") != f"Bearer {server.key}":
            said = "Incorrect API key provided."
            self.answer(401, error_body(said, code="invalid_api_key"))
        elif is_chat:
            self._open = True
            server.open_now += 1
            server.open_peak = max(server.open_peak, server.open_now)
            key = recorded.key if isinstance(recorded.body, dict) else ""
            server.received[key] += 1
            if server.answered[key]:
                server.repeated[key] += 1
            server._notify()
            self._task = asyncio.get_running_loop().create_task(self._play())
        else:
            self.answer(*server._other(recorded))

    async def _play(self) -> None:
        try:
            self.recorded.behaviour = behaviour = self._server._choose(self.recorded)
            self._server.played[type(behaviour).__name__] += 1
            await behaviour.play(self)
        except Exception as error:  # noqa: BLE001 - kept for the test that caused it
            self._server._failures.append(error)
            self._transport.abort()
        self._task = None
        self._settle()
        self._take_request()

    def _settle(self) -> None:
        """The chat request is over. Done before the last byte leaves, so that whoever has read it sees it done."""
        if not self._open:
            return
        self._open = False
        server, recorded = self._server, self.recorded
        server.open_now -= 1
        if not recorded.aborted:
            recorded.finished = True
            if recorded.behaviour is not None and recorded.behaviour.is_answer:
                server.answered[recorded.key] += 1
            usage = recorded.usage or {}
            server.tokens_in += usage.get("prompt_tokens", 0)
            server.tokens_out += usage.get("completion_tokens", 0)
        server._notify()

    def answer(self, status: int, payload: object, headers: Mapping[str, str] = {}) -> None:
        if isinstance(payload, bytes):
            body, kind = payload, "application/octet-stream"
        elif isinstance(payload, str):
            body, kind = payload.encode(), "text/html"
        else:
            body, kind = json.dumps(payload, ensure_ascii=False).encode(), "application/json"
        fields = {"content-type": kind, "content-length": str(len(body)), **headers}
        head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
        self._settle()
        self._transport.write(head.encode("latin-1") + body)

    def open_stream(self) -> None:
        self._transport.write(_STREAM_HEAD)

    def events(self, *data: object, last: bool = False) -> None:
        parts = []
        for item in data:
            text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False, separators=(",", ":"))
            event = b"data: %b\n\n" % text.encode()
            parts.append(b"%x\r\n%b\r\n" % (len(event), event))
        if last:
            parts.append(b"0\r\n\r\n")
            self._settle()
        self._transport.write(b"".join(parts))

    def raw(self, data: bytes) -> None:
        self._transport.write(data)

    def close(self, *, reset: bool = False) -> None:
        self._settle()
        if reset:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.close()


def main() -> int:
    """Serve until the standard input ends. The first line of output is JSON with the `url`."""
    parser = argparse.ArgumentParser(prog="chat_server", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--mix", default='{"answer": {"kind": "Fill"}}', help="behaviours as JSON: see mix.py")
    arguments = parser.parse_args()
    with ChatServer(port=arguments.port, keeps_requests=False) as server:
        server.default = mix_from_json(json.loads(arguments.mix))
        sys.stdout.write(json.dumps({"url": server.url}) + "\n")
        sys.stdout.flush()
        try:
            while sys.stdin.buffer.read(1 << 16):
                pass
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
