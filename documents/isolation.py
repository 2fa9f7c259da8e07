"""Running a parser in a process of its own, under a clock."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from typing import IO, Any

from lcdoc.documents import errors
from lcdoc.documents.builder import Job
from lcdoc.documents.errors import LimitError, ParserCrashError
from lcdoc.documents.pool_stop import Stop

_log = logging.getLogger(__name__)
MAX_NOISE_BYTES = 64_000
_END = b""


def run_parser(task: str, job: Job, *, stop: Stop | None = None, **options: Any) -> dict[str, Any]:
    """Run `task` (`read`, `boxes` or `render`) on `job` in a child process and return its result.

    Raises the DocumentError the child reports, LimitError when time runs out, ParserCrashError when the child dies,
    StoppedError when `stop` is set. The child never outlives the call.
    """
    request = request_line(task, job, options)
    # -P keeps the working directory, which may hold anything, off the child's import path.
    command = [sys.executable, "-P", "-m", "lcdoc.documents.parser_process"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    lines: queue.Queue[bytes] = queue.Queue()
    noise: list[bytes] = []
    threads = [
        threading.Thread(target=_feed, args=(process.stdin, request, job.data)),
        threading.Thread(target=_drain, args=(process.stdout, lines)),
        threading.Thread(target=_collect, args=(process.stderr, noise)),
    ]
    for thread in threads:
        thread.daemon = True
        thread.start()
    stop = stop or Stop()
    try:
        with stop.calls(process.kill):
            return _listen(process, lines, noise, job)
    except ParserCrashError:
        stop.check()
        raise
    finally:
        process.kill()
        process.wait()
        for thread in threads:
            thread.join(timeout=5)
        for stream in (process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                stream.close()


def request_line(task: str, job: Job, options: dict[str, Any]) -> bytes:
    """What a parser's process is told before the file's bytes."""
    request = {
        "task": task,
        "name": job.name,
        "size": len(job.data),
        "media_type": job.media_type,
        "password": job.password,
        "limits": asdict(job.limits),
        "options": options,
    }
    return json.dumps(request).encode() + b"\n"


def heard(line: bytes, job: Job) -> dict[str, Any] | None:
    """What a line from a parser's process says: the result, or None after telling `job.progress`.

    Raises the DocumentError it reports.
    """
    message = json.loads(line)
    if "progress" in message:
        job.progress(*message["progress"])
        return None
    if "error" in message:
        kind, problem, remedy = message["error"]
        raise getattr(errors, kind)(job.name, problem, remedy)
    result: dict[str, Any] = message["result"]
    return result


def overtime(job: Job) -> LimitError:
    """A parser took too long by the clock."""
    return LimitError(
        job.name,
        f"parsing took longer than {job.limits.max_seconds:g} s",
        "raise Limits.max_seconds, or repair the file by printing it to a new PDF",
    )


def crash(job: Job, status: int, noise: bytes) -> ParserCrashError | LimitError:
    """A parser ended without an answer, with this exit status (negative: the signal) after printing `noise`."""
    said = noise.decode("utf-8", "replace").strip()
    if said:
        _log.debug("parser process said:\n%s", said)
    if status < 0:
        with contextlib.suppress(ValueError):
            name = signal.Signals(-status).name
            if name == "SIGXCPU":
                return LimitError(job.name, "parsing used too much processor time", "raise Limits.max_seconds")
            return ParserCrashError(
                job.name, f"the parser crashed ({name})", "print the file to a new PDF and try that"
            )
    last = said.splitlines()[-1][:200] if said else f"exit status {status}"
    return ParserCrashError(job.name, f"the parser failed ({last})", "try --debug, or convert the file")


def _feed(stream: IO[bytes], header: bytes, data: bytes) -> None:
    # A child that died early closes the pipe; its exit status tells the story.
    with contextlib.suppress(OSError), stream:
        stream.write(header)
        stream.write(data)


def _drain(stream: IO[bytes], lines: queue.Queue[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError):
        for line in stream:
            lines.put(line)
    lines.put(_END)


def _collect(stream: IO[bytes], noise: list[bytes]) -> None:
    size = 0
    with contextlib.suppress(OSError, ValueError):
        for line in stream:
            size += len(line)
            if size <= MAX_NOISE_BYTES:
                noise.append(line)


def _listen(
    process: subprocess.Popen[bytes], lines: queue.Queue[bytes], noise: list[bytes], job: Job
) -> dict[str, Any]:
    deadline = time.monotonic() + job.limits.max_seconds
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            raise overtime(job) from None
        if line == _END:
            raise crash(job, process.wait(), b"".join(noise))
        if (result := heard(line, job)) is not None:
            return result
