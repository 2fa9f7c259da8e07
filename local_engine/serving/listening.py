"""The address that a server listens on, taken before anything that takes long is begun."""

from __future__ import annotations

import errno
import os
import socket

from lcdoc.local_engine.serving.settings import Settings, SettingsError


def bound(settings: Settings) -> socket.socket:
    """A socket at the settings' address, not yet listening. Raises SettingsError when the address is not to be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise cannot_listen(settings, error) from None
    try:
        if os.name == "posix":
            # The port of a server that has just ended can be had at once. Windows means another thing by it.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        raise cannot_listen(settings, error) from None
    return made


def cannot_listen(settings: Settings, error: OSError) -> SettingsError:
    """What is to be done about an address that cannot be had."""
    place = f"{settings.host}:{settings.port}"
    if error.errno == errno.EADDRINUSE:
        return SettingsError(f"{place}: the port is in use: end the program that has it, or take another with --port")
    if error.errno == errno.EACCES:
        return SettingsError(f"{place}: this port needs more rights: take one above 1023 with --port")
    return SettingsError(f"{place}: cannot listen there ({error.strerror or error}): check --host and --port")
