"""Worker processes: started, heard, started again when they die, ended."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO

from lcdoc.jobs.ending import Ending

_log = logging.getLogger(__name__)

SILENT_S = 300.0
"""A worker that gives no sign of life for so long is in a loop from which nothing brings it back."""
_LONGEST_WAIT_S = 30.0
_END_S = 20.0
"""How long workers have to give back what they hold."""
_KEPT_LINES = 20


@dataclass(slots=True)
class _Process:
    """One worker's."""

    worker: str
    popen: subprocess.Popen[bytes]
    heard_at: float = field(default_factory=time.monotonic)
    noise: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    """The last it wrote on standard error."""


class Crew:
    """Keeps one worker in each place. Use as a context manager: what still works at its end gives back and ends.

    `command(worker)` is what a process is started with; `environments`, one for each place. `said` is given what
    workers say, from `tend`. `died` is told of a worker that did not end by itself.
    """

    def __init__(
        self,
        command: Callable[[str], Sequence[str]],
        environments: Sequence[dict[str, str]],
        *,
        said: Callable[[str], None],
        died: Callable[[str], None] = lambda _worker: None,
        silent_s: float = SILENT_S,
    ) -> None:
        self._command = command
        self._environments = environments
        self._said = said
        self._died = died
        self._silent_s = silent_s
        self._places: list[_Process | None] = [None] * len(environments)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._changed = threading.Event()
        self._not_before = 0.0
        self.deaths_in_vain = 0
        """How many have died since `progress` was last called."""
        self.last_words = ""
        """Of the worker that died last."""

    @property
    def size(self) -> int:
        return len(self._places)

    @property
    def working(self) -> int:
        """Processes that run."""
        return sum(process is not None for process in self._places)

    @property
    def pids(self) -> list[int]:
        """Of the processes that run."""
        return [process.popen.pid for process in self._places if process is not None]

    def progress(self) -> None:
        """Something was done: deaths until now were not in vain."""
        self.deaths_in_vain = 0

    def start(self) -> None:
        """Fill the places that are empty, unless workers die at once."""
        for place, process in enumerate(self._places):
            if process is None and time.monotonic() >= self._not_before:
                self._places[place] = self._started(place)

    def tend(self) -> None:
        """Look after them: tell what they said, end the silent, empty the places of those that ended."""
        self._changed.clear()
        with contextlib.suppress(queue.Empty):
            while True:
                self._said(self._lines.get_nowait())
        for place, process in enumerate(self._places):
            if process is None:
                continue
            if time.monotonic() - process.heard_at > self._silent_s and process.popen.poll() is None:
                self._said(f"worker {process.worker} has given no sign of life for {self._silent_s:.0f} s and is ended")
                process.popen.kill()
                process.popen.wait()
            status = process.popen.poll()
            if status is None:
                continue
            self._places[place] = None
            if status not in set(Ending):
                self._mourn(process, status)

    def wait(self, timeout_s: float) -> None:
        """Until something has happened, at most so long."""
        self._changed.wait(timeout_s)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.end()

    def end(self) -> None:
        """Have all give back what they hold, and end."""
        running = [process for process in self._places if process is not None]
        for process in running:
            _hang_up(process)
        deadline = time.monotonic() + _END_S
        for process in running:
            try:
                process.popen.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait()
        self._places = [None] * len(self._places)

    def _started(self, place: int) -> _Process:
        worker = secrets.token_hex(4)
        # A session of its own: Ctrl-C is the runner's, which lets the workers give back what they hold.
        popen = subprocess.Popen(
            list(self._command(worker)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environments[place],
            start_new_session=os.name == "posix",
        )
        process = _Process(worker, popen)
        for listen, stream in ((self._hear, popen.stdout), (self._overhear, popen.stderr)):
            threading.Thread(target=listen, args=(process, stream), name="lcdoc-crew", daemon=True).start()
        return process

    def _hear(self, process: _Process, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                process.heard_at = time.monotonic()
                with contextlib.suppress(ValueError):
                    said = json.loads(line).get("line")
                    if said:
                        self._lines.put(said)
                        self._changed.set()
        self._changed.set()

    def _overhear(self, process: _Process, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                process.noise.append(line.decode("utf-8", "replace").rstrip())

    def _mourn(self, process: _Process, status: int) -> None:
        self.deaths_in_vain += 1
        wait_s = 0.0 if self.deaths_in_vain <= self.size else 0.25 * 2.0 ** (self.deaths_in_vain - self.size)
        self._not_before = time.monotonic() + min(_LONGEST_WAIT_S, wait_s)
        how = f"was killed ({_name(-status)})" if status < 0 else f"ended with status {status}"
        words = next((line for line in reversed(process.noise) if line.strip()), "")
        self.last_words = f"it {how}" + (f", saying: {words[:200]}" if words else "")
        if process.noise:
            _log.debug("worker %s said:\n%s", process.worker, "\n".join(process.noise))
        self._said(f"worker {process.worker} died: {self.last_words}; what it held is taken over")
        self._died(process.worker)


def _hang_up(process: _Process) -> None:
    """Close the life line; works where signals do not."""
    if process.popen.stdin is not None:
        with contextlib.suppress(OSError):
            process.popen.stdin.close()


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def python(module: str, *arguments: str) -> list[str]:
    """The command of a Python process; -P keeps the working directory off its import path."""
    return [sys.executable, "-P", "-m", module, *arguments]
