"""A wire to a server on loopback that can be cut: at once, or at a word that a client says."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Literal

Cut = Literal["before", "after"]


class Wire:
    """Carries connections to `port`; its own is `self.port`. Use as a context manager."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._word: tuple[bytes, Cut] | None = None
        self.cuts = 0
        """How often a word cut a connection."""

    def __enter__(self) -> Wire:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._listener.close()

    def cut_at(self, word: bytes, when: Cut) -> None:
        """Cut the connection whose client next says this word: before the server hears it, or after it answered."""
        self._word = word, when

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._behind))
                threading.Thread(target=self._say, args=(client, server), daemon=True).start()

    def _say(self, client: socket.socket, server: socket.socket) -> None:
        """Carry what the client says, and begin to carry what it is answered."""
        mute = threading.Event()
        answers = threading.Thread(target=self._answer, args=(server, client, mute), daemon=True)
        answers.start()
        with contextlib.suppress(OSError):
            while said := client.recv(65_536):
                word = self._word
                if word is not None and word[0] in said:
                    self._word = None
                    self.cuts += 1
                    if word[1] == "after":
                        mute.set()
                        server.sendall(said)
                        answers.join()
                    break
                server.sendall(said)
        client.close()
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _answer(self, server: socket.socket, client: socket.socket, mute: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while said := server.recv(65_536):
                if mute.is_set():
                    return
                client.sendall(said)
            client.shutdown(socket.SHUT_RDWR)
