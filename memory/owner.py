"""Which process wrote something, on which machine; and whether it has ended since, as far as can be told from here."""

from __future__ import annotations

import json
import os
import secrets
import socket
from dataclasses import astuple, dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Owner:
    """Who wrote something: this process, told apart from every other that has had its number."""

    host: str
    boot: str
    """What the kernel calls this run of it; empty where it does not say."""
    namespace: str
    """Where `pid` counts: two containers of one machine may each have a process 7."""
    pid: int
    started: str
    token: str
    """Tells journals of one process apart."""
    machine: str = ""
    """Tells machines of one name apart, which may share a server; empty where nothing does."""

    @classmethod
    def here(cls) -> Owner:
        """This process, with a token of its own."""
        host, boot, namespace = _place()
        pid = os.getpid()
        return cls(host, boot, namespace, pid, _started(pid), secrets.token_hex(8), _machine())

    @classmethod
    def from_text(cls, text: str) -> Owner:
        """The inverse of `str`. Raises ValueError."""
        try:
            owner = cls(*json.loads(text))
        except TypeError as error:
            raise ValueError(f"{text!r} names no process") from error
        if not isinstance(owner.pid, int) or owner.pid <= 0:
            raise ValueError(f"{text!r} names no process")
        return owner

    def __str__(self) -> str:
        return json.dumps(astuple(self))

    def is_gone(self) -> bool:
        """True when the process has surely ended; False also where that cannot be told from here: see `is_here`."""
        if not self.is_here():
            return False
        return self.boot != _place()[1] or not _runs(self.pid, self.started)

    def is_here(self) -> bool:
        """Whether it can be told from here if the process has ended: it is, or was, one of this machine's."""
        host, boot, namespace = _place()
        if self.host != host or (self.machine and self.machine != _machine()):
            return False
        return self.boot != boot or self.namespace == namespace


@cache
def _place() -> tuple[str, str, str]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return socket.gethostname(), "", ""
    return socket.gethostname(), boot, namespace


@cache
def _machine() -> str:
    try:
        identity = Path("/etc/machine-id").read_bytes().strip()
    except OSError:
        return ""
    # As machine-id(5) asks: it stays on its machine, and others are shown what follows from it.
    return blake2b(identity, digest_size=8, person=b"lcdoc").hexdigest() if identity else ""


_ENDED = "ended"


def _started(pid: int) -> str:
    """When the process began, in the kernel's ticks; empty where that is not told, `_ENDED` for one that is no more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
    return _ENDED if state in "ZX" else fields[18]


def _runs(pid: int, started: str) -> bool:
    if os.name != "posix":
        return True  # signal 0 is not a question there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs, as another user
    now = _started(pid)
    return now != _ENDED and (not now or not started or now == started)
