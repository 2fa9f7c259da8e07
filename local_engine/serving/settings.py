"""What a server is started with."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from lcdoc.local_engine.errors import EngineError


class SettingsError(EngineError):
    """A server cannot be started so."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to listen, who may ask, how much at once. Raises SettingsError for what is unsafe or senseless."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0: any free one."""
    key: str | None = field(default=None, repr=False)
    """The bearer token that requests must bring. Needed wherever other machines can reach the server."""
    max_body_bytes: int = 8 * 2**20
    max_waiting: int = 64
    """Answers that may wait while the engine is busy with others; further requests are refused."""
    timeout_s: float = 1800.0
    """For a request from its first byte to the answer's last."""
    drain_s: float = 30.0
    """How long answers may go on being written once the server is told to end."""

    def __post_init__(self) -> None:
        if self.key is not None and (not self.key.isascii() or not self.key.isprintable() or not self.key.strip()):
            raise SettingsError("the key must be of printable ASCII characters, and not empty")
        if self.key is None and not self.on_loopback:
            raise SettingsError(
                f"{self.host} can be reached from other machines: set a key that they must send (LCDOC_SERVE_KEY, or "
                "--api-key), or listen on 127.0.0.1"
            )

    @property
    def on_loopback(self) -> bool:
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a host's name or address, as in a URL, is this machine's own."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
