"""The process that parsers are forked from.

Starting Python and importing a reader takes fifteen times as long as forking a process that has done both. So a pool
has one process that does both, never sees a document, and forks for each one. A document thus meets a process as fresh
as `isolation.py` would start: nothing that one leaves behind (memory, a damaged heap, a changed setting) reaches the
next, there is nothing to recycle, and the system's limits, which are cumulative in a process, count from zero.

Forking is safe here because this process has a single thread, which a test holds. It is Linux only.

Run as `python -m lcdoc.documents.pool_template` with a SOCK_SEQPACKET socket as standard input; `pool_forks.py` is the
other end. A message on it is a media type and three descriptors: the document's `channel`, on which the forked process
serves one request as `parser_process.py` says; `noise`, which takes what that process prints; and its `leash`, another
such socket, on which this process says `begun` and later the exit status. When the other end of a leash is closed the
forked process is killed; when the socket itself is closed all are, and this process ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import selectors
import signal
import socket
import sys
import traceback
from functools import cache
from importlib import import_module
from typing import Final, NoReturn

from lcdoc.documents.parser_process import serve
from lcdoc.documents.readers import reader_version

BEGUN: Final = b"begun"
REFUSED: Final = b"refused "
MESSAGE_BYTES: Final = 256

# What readers import when they first need it, for every document or for many.
_IMPORTED_LATE: Final = {
    "application/pdf": ("pypdfium2", "encodings.utf_16_le"),
    "application/epub+zip": ("defusedxml.ElementTree", "selectolax.lexbor"),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ("defusedxml.ElementTree",),
    "text/html": ("selectolax.lexbor", "charset_normalizer"),
    "text/markdown": ("charset_normalizer",),
    "text/plain": ("charset_normalizer",),
}
_PR_SET_PDEATHSIG: Final = 1


class _Template:
    """Forks parsers, kills those that are let go, and tells how each ended."""

    def __init__(self, pool: socket.socket) -> None:
        self._pool = pool
        self._leashes: dict[int, socket.socket] = {}
        """By the process ids of the parsers that were not waited for yet, so that an id means the process it meant."""
        self._libc = ctypes.CDLL(None)
        # Unlike epoll, poll keeps nothing in the kernel that a fork would share.
        self._selector = selectors.PollSelector()
        ended, wakeup = os.pipe()
        os.set_blocking(wakeup, False)
        os.set_blocking(ended, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self._ended = ended
        self._selector.register(ended, selectors.EVENT_READ)
        self._selector.register(pool, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve the pool until it is gone."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._pool:
                    if not self._fork():
                        self._kill_all()
                        return
                elif key.fd == self._ended:
                    self._reap()
                elif key.data in self._leashes:
                    self._kill(key.data)

    def _fork(self) -> bool:
        """Start the parser that the next message asks for; False if there will be no more messages."""
        message, descriptors, _, _ = socket.recv_fds(self._pool, MESSAGE_BYTES, 3)
        if not message:
            return False
        channel, noise, leash_descriptor = descriptors
        leash = socket.socket(fileno=leash_descriptor)
        _import_reader(message.decode())
        template = os.getpid()
        try:
            process = os.fork()
        except OSError as error:
            _tell(leash, REFUSED + str(error.strerror).encode())
            leash.close()
        else:
            if not process:
                leash.close()
                self._become_parser(template, channel, noise)
            self._leashes[process] = leash
            self._selector.register(leash, selectors.EVENT_READ, process)
            _tell(leash, BEGUN)
        os.close(channel)
        os.close(noise)
        return True

    def _become_parser(self, template: int, channel: int, noise: int) -> NoReturn:
        """Serve one request, in the forked process."""
        status = 1
        try:
            self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != template:
                os._exit(status)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for kept in (self._pool, *self._leashes.values()):
                kept.close()
            os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
            for printed in (1, 2):
                os.dup2(noise, printed)
            os.close(noise)
            with socket.socket(fileno=channel) as both, both.makefile("rb") as source, both.makefile("wb") as sink:
                serve(source, sink)
            status = 0
        except BaseException:  # noqa: BLE001 - told as Python tells it at the end of a process
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stderr.flush()
            # Not the usual way out: what the template would do at its end is not the parser's to do.
            os._exit(status)

    def _kill(self, process: int) -> None:
        self._selector.unregister(self._leashes[process])
        os.kill(process, signal.SIGKILL)

    def _kill_all(self) -> None:
        for process in self._leashes:
            os.kill(process, signal.SIGKILL)
        for process in self._leashes:
            os.waitpid(process, 0)

    def _reap(self) -> None:
        """Tell how each parser ended that has."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._ended, 4096)
        while self._leashes:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            with self._leashes.pop(process) as leash:
                with contextlib.suppress(KeyError):  # it was let go
                    self._selector.unregister(leash)
                _tell(leash, str(os.waitstatus_to_exitcode(status)).encode())


def _tell(leash: socket.socket, message: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        leash.send(message)


@cache
def _import_reader(media_type: str) -> None:
    """Import what reading this type takes. What cannot be imported fails again in the parser, which reports it."""
    with contextlib.suppress(Exception):
        reader_version(media_type)
        for module in _IMPORTED_LATE.get(media_type, ()):
            import_module(module)


def main() -> int:
    """Be the template until the pool is gone."""
    # Ctrl-C reaches every process of a terminal; the pool decides what becomes of its parsers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A parser ends with its one document: looking for garbage would only cost time, and copy pages that are shared.
    gc.disable()
    sys.stdout = sys.stderr
    _Template(socket.socket(fileno=os.dup(sys.stdin.fileno()))).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
