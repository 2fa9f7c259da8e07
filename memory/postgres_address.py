"""Where the shared part of a library is: the address of a PostgreSQL database, and how it is shown.

An address may hold a password. Nothing that is shown, logged or raised here has it, and neither has what could be a
part of it: an unescaped `@` or `/` cuts a password in two, and the rest becomes a port or the name of a host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from lcdoc.memory.errors import LibraryAccessError

_SCHEMES = ("postgresql", "postgres")
_FORM = "it is postgresql://USER@HOST/DATABASE, with `@ : / ? #` in a password written %40 %3A %2F %3F %23"
_SHOWN = "--shared"
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[^\[\]:@]*)(?::\d+)?")


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a database."""

    url: str
    """As it was given, with the password. Not to be shown."""
    name: str
    """The address without its password, and without its parameters."""

    def __repr__(self) -> str:
        return f"Address({self.name!r})"


def address(url: str) -> Address:
    """The address, checked as far as can be without connecting. Raises LibraryAccessError."""
    try:
        parts = urlsplit(url)
        parameters = dict(parse_qsl(parts.query))
    except ValueError:  # what it says may quote a part of a password
        parts, parameters = urlsplit(""), {}
    if parts.scheme not in _SCHEMES:
        raise LibraryAccessError(_SHOWN, "not the URL of a PostgreSQL database", _FORM)
    login, at, hosts = parts.netloc.rpartition("@")
    user = login.partition(":")[0]
    database = parts.path.removeprefix("/")
    astray = "@" in login + parts.query or parts.fragment or re.search("[@/]", database)
    if astray or not all(_HOST.fullmatch(host) for host in hosts.split(",")):
        raise LibraryAccessError(_SHOWN, "it cannot be told where its password ends", _FORM)
    database = unquote(database) or parameters.get("dbname", "")
    if not database:
        raise LibraryAccessError(_SHOWN, "it names no database", _FORM)
    return Address(url, f"postgresql://{unquote(user)}{at}{hosts or parameters.get('host', '')}/{database}")
