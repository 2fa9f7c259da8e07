"""What servers admit, shared by all processes of this machine and user, through a small file."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Final

from lcdoc.agents.models.model import RateLimits
from lcdoc.agents.models.sharing import Given, Sharing, Told
from lcdoc.memory.owner import Owner
from lcdoc.memory.shared_limits import SharedFile, machine_path

_log = logging.getLogger(__name__)

_ALONE_S: Final = 30.0
"""For how long the file is not tried again after it failed."""
_NEVER: Final = float("-inf")


class MachineLimits:
    """Gives turns by what a file says, which all processes change in turn.

    Where the file cannot be had, that is logged once, and the limits are held by this process for itself meanwhile.
    """

    def __init__(self, path: Path) -> None:
        self._file = SharedFile(path)
        # A lock that others hold is not to keep the event loop waiting.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lcdoc-limits")
        self._alone: dict[str, Sharing] = {}
        self._alone_until = _NEVER

    async def exchange(self, server: str, limits: RateLimits, member: str, told: Told) -> Given:
        """See `SharedLimits`. Raises ValueError for limits that admit nothing."""

        def change(kept: str | None) -> tuple[str, Given]:
            now = time.monotonic()
            sharing = Sharing(limits, now, None if kept is None else json.loads(kept))
            given = sharing.exchange(member, told, now, _is_gone)
            return json.dumps(sharing.state(), separators=(",", ":")), given

        if time.monotonic() >= self._alone_until:
            try:
                given = self._file.change_at_once(server, change)
                if given is None:
                    loop = asyncio.get_running_loop()
                    given = await loop.run_in_executor(self._thread, self._file.change, server, change)
            except (sqlite3.Error, OSError, ValueError, LookupError, TypeError) as error:
                if self._alone_until == _NEVER:
                    _log.warning("%s: rate limits are not shared with other processes now: %s", self._file.path, error)
                self._alone_until = time.monotonic() + _ALONE_S
            else:
                self._alone_until = _NEVER
                self._alone.pop(server, None)
                return given
        now = time.monotonic()
        sharing = self._alone.setdefault(server, Sharing(limits, now))
        return sharing.exchange(member, told, now, _is_gone)

    def close(self) -> None:
        """Close the file."""
        self._thread.shutdown(wait=True)
        self._file.close()


def _is_gone(member: str, _unseen_s: float) -> bool:
    """All members are processes of this run of the machine, so it can be told of each."""
    return Owner.from_text(member).is_gone()


def machine_limits() -> MachineLimits:
    """Those of this process: all its stacks talk through one thread and one connection."""
    return _limits_of(os.getpid(), machine_path())


@cache
def _limits_of(_pid: int, path: Path) -> MachineLimits:
    # A fork has none of its parent's threads, and would wait for the one that talks to the file.
    return MachineLimits(path)
