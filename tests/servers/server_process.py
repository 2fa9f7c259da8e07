"""The chat server in a process of its own, for measurements that must not share its interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from types import TracebackType
from typing import Any


class ServerProcess:
    """Serves the mix (see `mix.py`) from `__enter__` to `__exit__`; ends by itself when this process dies."""

    def __init__(self, mix: dict[str, Any]) -> None:
        self._mix = mix
        self.url = ""

    def stats(self) -> dict[str, Any]:
        """The server's counters at this moment: `ChatServer.stats`."""
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/control/stats") as answer:
            counters: dict[str, Any] = json.load(answer)
        return counters

    def __enter__(self) -> ServerProcess:
        command = [sys.executable, "-m", "lcdoc.tests.servers.chat_server", "--mix", json.dumps(self._mix)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the chat server ended at once with status {self._process.wait()}")
        self.url = json.loads(line)["url"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
