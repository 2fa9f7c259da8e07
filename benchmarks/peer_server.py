"""A server that is not ours, in front of a real if senseless model: `llama_cpp.server`, asked through the whole stack.

    python benchmarks/peer_server.py --python PYTHON

PYTHON is an interpreter that has `llama-cpp-python[server]` and `gguf`; without them the check is skipped. The model
(benchmarks/tiny_gguf.py) has random weights and a window of 512 tokens. Looked at: streaming, usage, JSON, a prompt
that is too long, several requests at once, one that is given up, a wrong key. Exit code 1 if anything is not as it
should be.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from lcdoc.agents.models.budget import Budget, Ledger
from lcdoc.agents.models.errors import AuthenticationError, ContextOverflowError, ModelError
from lcdoc.agents.models.model import Completion, Message, ModelSpec, RateLimits, Request, Server
from lcdoc.agents.models.names import Chosen
from lcdoc.agents.models.retry import RetryPolicy
from lcdoc.agents.models.secrets import Key
from lcdoc.agents.models.stack import ModelStack
from lcdoc.agents.models.timeouts import Timeouts
from lcdoc.memory import Library

WINDOW_TOKENS = 512
KEY = "sk-peer-not-a-secret"


class Finding(BaseModel):
    """Bounded in every part, so that even random weights come to its end."""

    found: bool
    mood: Literal["calm", "stormy"]
    page: int
    claim: str = Field(max_length=12)


class Weather(BaseModel):
    """The same without a text, whose length our own schemas say in words only."""

    found: bool
    mood: Literal["calm", "stormy"]


class Failed(Exception):  # noqa: N818 - the outcome of a check
    """Something is not as it should be."""


def require(holds: bool, found: object) -> None:
    """Raise Failed, with what was found, unless it holds."""
    if not holds:
        raise Failed(str(found))


@contextmanager
def running(python: str, folder: Path) -> Iterator[str]:
    """The server's base address, for as long as it runs."""
    model = folder / "tiny.gguf"
    maker = Path(__file__).with_name("tiny_gguf.py")
    subprocess.run([python, str(maker), str(model), "--context", str(WINDOW_TOKENS)], check=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [python, "-m", "llama_cpp.server", "--model", str(model), "--model_alias", "tiny", "--api_key", KEY]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", str(WINDOW_TOKENS), "--n_threads", "1"]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{port}/v1"
            deadline = time.monotonic() + 90
            while not answers(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the server did not start:\n{log.read_text(errors='replace')[-2_000:]}")
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(url: str) -> bool:
    request = urllib.request.Request(f"{url}/models", headers={"Authorization": f"Bearer {KEY}"})
    try:
        with urllib.request.urlopen(request, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def asked(text: str, **settings: Any) -> Request:
    return Request((Message("user", text),), **settings)


class Peer:
    """The server, and ways to ask it through the stack."""

    def __init__(self, url: str, library: Library) -> None:
        self._url = url
        self._library = library

    def stack(self, *, key: str = KEY, at_once: int = 1, **server: Any) -> ModelStack:
        spec = ModelSpec(
            name="tiny",
            context_window=WINDOW_TOKENS,
            server=Server(base_url=self._url, model="tiny", **server),
            limits=RateLimits(concurrency=at_once),
        )
        policy = RetryPolicy(attempts=4, first_wait_s=0.1)
        waits = Timeouts(first_token_s=20, idle_s=20)
        return ModelStack(Chosen(spec, Key(key), ()), self._library, policy=policy, timeouts=waits)

    async def ask(self, request: Request, **settings: Any) -> tuple[Completion, Ledger]:
        ledger = Ledger(Budget())
        async with self.stack(**settings) as stack:
            return await stack.for_run(ledger).complete(request), ledger

    async def error(self, request: Request, **settings: Any) -> ModelError:
        try:
            completion, _ = await self.ask(request, **settings)
        except ModelError as error:
            return error
        raise Failed(f"it was answered: {completion.text[:60]!r}")


async def streams(peer: Peer) -> str:
    """The text comes in pieces; its usage is counted here, since this server reports none of streams."""
    pieces: list[str] = []
    completion, _ = await peer.ask(asked("Say hello to the page", max_tokens=40, on_text=pieces.append))
    require("".join(pieces) == completion.text and len(pieces) > 1, pieces)
    require(completion.finish in ("stop", "length"), completion.finish)
    require(
        completion.usage.estimated and completion.usage.tokens_in > 0 < completion.usage.tokens_out, completion.usage
    )
    require(completion.model == "tiny", completion.model)
    return f"{len(pieces)} pieces, {completion.finish}, {completion.usage}"


async def limits(peer: Peer) -> str:
    """`max_tokens` is heeded, and the finish reason tells."""
    completion, _ = await peer.ask(asked("Say it with eight", max_tokens=3))
    require(completion.finish == "length", completion.finish)
    return f"{completion.finish} after {completion.text!r}"


async def fields(peer: Peer) -> str:
    """Seed, top_p, stop and temperature are taken; equal seeds write the same, also where it is no stored answer."""
    settings: dict[str, Any] = {"max_tokens": 12, "temperature": 0.8, "top_p": 0.9, "seed": 7, "stop": ("</s>",)}
    first, _ = await peer.ask(asked("Say something", **settings))
    second, _ = await peer.ask(asked("Say something", **settings))
    require(second.text == first.text, (first.text, second.text))
    return f"{first.text!r} twice"


async def grammar(peer: Peer) -> str:
    """With a grammar, in this server's own dialect, random weights write a valid answer."""
    form = {"type": "json_object", "schema": Finding.model_json_schema()}
    extra = (("response_format", form),)
    request = asked("Find it", schema=Finding, max_tokens=300, prompt="peer/1")
    completion, ledger = await peer.ask(request, structured="json_object", extra_body=extra)
    finding = completion.parsed_as(Finding)
    again, _ = await peer.ask(request, structured="json_object", extra_body=extra)
    require(again.stored and again.parsed == finding, again)
    return f"{finding!r} in {ledger.total().calls} calls"


async def negotiates(peer: Peer) -> str:
    """It knows no `json_schema`, and fails where it ought to refuse: found out by one request, remembered for the next
    run, and its own form is taken, whose grammar has even random weights write valid answers."""
    first, second = Ledger(Budget()), Ledger(Budget())
    async with peer.stack() as stack:
        for number, ledger in enumerate((first, second)):
            request = asked(f"Find it, {number}", schema=Weather, max_tokens=300, prompt="peer/1")
            finding = (await stack.for_run(ledger).complete(request)).parsed_as(Weather)
    require(first.total().calls == 2, f"{first.total()}")
    require(second.total().calls == 1, f"the mode is not remembered: {second.total()}")
    return f"{first.total().calls} calls, then {second.total().calls}; {finding!r}"


async def overflows(peer: Peer) -> str:
    """A prompt that is too long is told as such, at once."""
    error = await peer.error(asked("xyzzy " * 400, max_tokens=6))
    require(isinstance(error, ContextOverflowError), f"{type(error).__name__}: {error}")
    return f"{type(error).__name__}: {error}"


async def at_once(peer: Peer) -> str:
    """Eight requests at once, as many as it is told to take at once, to a server that computes one at a time."""
    ledger = Ledger(Budget())
    async with peer.stack(at_once=8) as stack:
        model = stack.for_run(ledger)
        calls = (model.complete(asked(f"Say number {number}", max_tokens=300, temperature=0.9)) for number in range(8))
        ends = await asyncio.gather(*calls, return_exceptions=True)
    wrong = [repr(end) for end in ends if not isinstance(end, Completion)]
    require(not wrong, f"{len(wrong)} of 8 failed, {ledger.total()}: {wrong[:2]}")
    torn = [end.text for end in ends if isinstance(end, Completion) and end.finish not in ("stop", "length")]
    require(not torn, f"{len(torn)} of 8 answers were interrupted and taken for whole: {torn[:3]}")
    return f"all answered, {ledger.total().calls} requests"


async def gives_up(peer: Peer) -> str:
    """A request that is cancelled leaves the server fit for the next."""
    began = asyncio.Event()
    async with peer.stack() as stack:
        model = stack.for_run(Ledger(Budget()))
        long = asked("Say a lot", max_tokens=400, temperature=0.7, on_text=lambda _piece: began.set())
        call = asyncio.create_task(model.complete(long))
        await began.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        completion = await model.complete(asked("Say less", max_tokens=5))
    return f"cancelled: {call.cancelled()}; then {completion.text!r}"


async def wrong_key(peer: Peer) -> str:
    """A wrong key is told as such, and not shown."""
    error = await peer.error(asked("Say hello"), key="sk-peer-stolen-key")
    require(isinstance(error, AuthenticationError) and "stolen" not in str(error), f"{type(error).__name__}: {error}")
    return str(error)


Check = Callable[[Peer], Coroutine[None, None, str]]
CHECKS: tuple[Check, ...] = (
    streams,
    limits,
    fields,
    grammar,
    negotiates,
    overflows,
    at_once,
    gives_up,
    wrong_key,
)


def main() -> int:
    """Print a line for each check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--python", default=sys.executable, help="an interpreter with llama-cpp-python[server] and gguf"
    )
    arguments = parser.parse_args()
    needed = "import gguf, llama_cpp.server.app; print(llama_cpp.__version__)"
    version = subprocess.run([arguments.python, "-c", needed], capture_output=True, text=True, check=False)
    if version.returncode:
        print(f"skipped: {arguments.python} has no llama-cpp-python[server] or no gguf; name another with --python")
        return 0
    print(f"llama-cpp-python {version.stdout.strip()}, {os.cpu_count()} CPUs")
    failed = 0
    with tempfile.TemporaryDirectory() as folder, running(arguments.python, Path(folder)) as url:
        for check in CHECKS:
            with Library.open(Path(folder) / f"{check.__name__}.sqlite") as library:
                start = time.monotonic()
                try:
                    said = asyncio.run(check(Peer(url, library)))
                except (Failed, ModelError) as error:
                    failed += 1
                    said = f"FAILED  {error}"
                print(f"{check.__name__:10} {time.monotonic() - start:5.1f} s  {said}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
