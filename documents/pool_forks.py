"""Parsers forked from a template, one for each document: this end of what `pool_template.py` says."""

from __future__ import annotations

import contextlib
import selectors
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Final

from lcdoc.documents.builder import Job
from lcdoc.documents.errors import ParserCrashError
from lcdoc.documents.isolation import MAX_NOISE_BYTES, crash, heard, overtime, request_line
from lcdoc.documents.pool_stop import Stop, StoppedError
from lcdoc.documents.pool_template import BEGUN, MESSAGE_BYTES, REFUSED

_BEGIN_S: Final = 60.0
"""How long the template may take to fork, when it has to start and to import a reader first."""
_END_S: Final = 5.0
_CHUNK_BYTES: Final = 1 << 20


class _TemplateDiedError(Exception):
    """The template ended, and its parsers with it, or does not answer: no document's fault."""


class Forks:
    """Runs parsers, each in a process of its own that costs a fork. Linux only. Shared by threads; `close()` it.

    The template is started when first needed, and anew should it die.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._template: _Template | None = None
        self._closed = False

    def run(self, task: str, job: Job, stop: Stop, **options: Any) -> dict[str, Any]:
        """As `run_parser`; the clock starts when the parser does. Raises StoppedError too."""
        request = request_line(task, job, options)
        for _attempt in range(2):
            template = self._living()
            try:
                return _run(template, request, job, stop)
            except _TemplateDiedError:
                stop.check()
                self._bury(template)
        raise ParserCrashError(
            job.name, f"the process that starts parsers died ({template.last_words})", "try --debug, or reinstall lcdoc"
        )

    def close(self) -> None:
        """End the template, which kills its parsers."""
        with self._lock:
            self._closed = True
            if self._template is not None:
                self._template.end()

    def _living(self) -> _Template:
        with self._lock:
            if self._closed:
                raise StoppedError("the parser pool was closed")
            if self._template is None:
                self._template = _Template()
            return self._template

    def _bury(self, template: _Template) -> None:
        with self._lock:
            template.end()
            if self._template is template:
                self._template = None


class _Template:
    """The process that `pool_template.py` is about."""

    def __init__(self) -> None:
        self._control, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # As in `isolation.py`, -P keeps the working directory off the import path.
        command = [sys.executable, "-P", "-m", "lcdoc.documents.pool_template"]
        with far:
            self._process = subprocess.Popen(
                command, stdin=far.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
        self.last_words = ""

    def fork(self, media_type: str, channel: socket.socket, noise: socket.socket, leash: socket.socket) -> None:
        """Ask for a parser of `media_type` at the other ends of these. Raises _TemplateDiedError."""
        descriptors = [channel.fileno(), noise.fileno(), leash.fileno()]
        try:
            socket.send_fds(self._control, [media_type.encode()], descriptors)
        except OSError as error:
            raise _TemplateDiedError from error

    def end(self) -> None:
        """End it and all its parsers; then `last_words` tells how it ended."""
        self._control.close()
        assert self._process.stderr is not None
        if self._process.stderr.closed:
            return
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        with self._process.stderr as stream:
            said = stream.read().decode("utf-8", "replace").strip()
        status = self._process.wait()
        self.last_words = said.splitlines()[-1][:200] if said else f"exit status {status}"


def _run(template: _Template, request: bytes, job: Job, stop: Stop) -> dict[str, Any]:
    """Have one document parsed. The parser is killed when this ends, however it does. Raises _TemplateDiedError."""
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        channel, far_channel = socket.socketpair()
        leash, far_leash = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        noise, far_noise = socket.socketpair()
        for near in (channel, leash, noise):
            ours.enter_context(near)
        for far in (far_channel, far_leash, far_noise):
            theirs.enter_context(far)

        def let_go() -> None:
            # Unlike closing, this holds even where a fork of this process has copies of the descriptor.
            with contextlib.suppress(OSError):
                leash.shutdown(socket.SHUT_RDWR)

        ours.callback(let_go)
        with stop.calls(let_go):
            template.fork(job.media_type, far_channel, far_noise, far_leash)
            theirs.close()
            return _Conversation(channel, noise, leash, job, request).result()


class _Conversation:
    """One document's: sends the request and the file, hears progress and result, and how the parser ended.

    Sending and hearing go on side by side in the thread that asks, so that none of the pipes can fill up and block.
    """

    def __init__(
        self, channel: socket.socket, noise: socket.socket, leash: socket.socket, job: Job, request: bytes
    ) -> None:
        self._channel = channel
        self._noise = noise
        self._leash = leash
        self._job = job
        self._to_send = [memoryview(job.data), memoryview(request)]
        self._heard: list[bytes] = []
        self._said = bytearray()
        self._status: int | None = None
        self._result: dict[str, Any] | None = None
        self._begun = False
        self._deadline = time.monotonic() + _BEGIN_S
        self._selector = selectors.DefaultSelector()
        channel.setblocking(False)
        self._selector.register(channel, selectors.EVENT_READ | selectors.EVENT_WRITE)
        self._selector.register(noise, selectors.EVENT_READ)
        self._selector.register(leash, selectors.EVENT_READ)

    def result(self) -> dict[str, Any]:
        """Raises as `run_parser` does, and _TemplateDiedError."""
        with self._selector:
            while self._result is None:
                # The parser has ended, and all it said was heard.
                if self._status is not None and not self._selector.get_map():
                    raise crash(self._job, self._status, bytes(self._said))
                ready = self._selector.select(max(0.0, self._deadline - time.monotonic()))
                if not ready:
                    raise overtime(self._job) if self._begun else _TemplateDiedError
                for key, events in ready:
                    if key.fileobj is self._leash:
                        self._hear_of_process()
                    elif key.fileobj is self._noise:
                        self._hear_noise()
                    elif events & selectors.EVENT_WRITE:
                        self._send()
                    else:
                        self._hear_answer()
        return self._result

    def _send(self) -> None:
        try:
            sent = self._channel.send(self._to_send[-1][:_CHUNK_BYTES])
        except BlockingIOError:
            return
        except OSError:
            # A parser that died early closes the channel; its exit status tells the story.
            self._to_send.clear()
        else:
            rest = self._to_send.pop()[sent:]
            if rest:
                self._to_send.append(rest)
        if not self._to_send:
            self._selector.modify(self._channel, selectors.EVENT_READ)

    def _hear_answer(self) -> None:
        try:
            received = self._channel.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._selector.unregister(self._channel)
            return
        *lines, rest = received.split(b"\n")
        for line in lines:
            self._heard.append(line)
            whole = b"".join(self._heard)
            self._heard.clear()
            self._result = heard(whole, self._job) or self._result
        self._heard.append(rest)

    def _hear_noise(self) -> None:
        said = self._noise.recv(_CHUNK_BYTES)
        self._said += said[: MAX_NOISE_BYTES - len(self._said)]
        if not said:
            self._selector.unregister(self._noise)

    def _hear_of_process(self) -> None:
        message = self._leash.recv(MESSAGE_BYTES)
        if message == BEGUN:
            self._begun = True
            self._deadline = time.monotonic() + self._job.limits.max_seconds
        elif message.startswith(REFUSED):
            reason = message.removeprefix(REFUSED).decode()
            raise ParserCrashError(
                self._job.name, f"no process could be started for it ({reason})", "end other programs, and try again"
            )
        elif message:
            self._status = int(message)
            self._selector.unregister(self._leash)
        else:
            raise _TemplateDiedError
