"""How a connection to PostgreSQL is made, and what is agreed on at its beginning."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from lcdoc.memory.errors import LibraryAccessError
from lcdoc.memory.postgres_address import Address

SCHEMA = "lcdoc"
_DEFAULTS: dict[str, Any] = {
    "application_name": "lcdoc",
    "client_encoding": "UTF8",
    "connect_timeout": 10,
    # A server whose machine is gone says nothing: found out in a minute, not in the two hours that TCP would take.
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_IDLE_S = 60
"""How long a transaction may do nothing. One whose machine stopped in the middle holds its locks no longer."""


class _Number(Loader):
    """Sums of whole numbers are `numeric` there; here they are whole numbers, and the rest are floats."""

    def load(self, data: Any) -> int | float:
        text = bytes(data).decode()
        return int(text) if text.lstrip("-").isdigit() else float(text)


def conninfo(address: Address) -> str:
    """What to connect with: the address, and what it leaves open. Raises LibraryAccessError."""
    try:
        return make_conninfo(**(_DEFAULTS | conninfo_to_dict(address.url)))
    except psycopg.Error:  # what it says may quote a part of the password
        remedy = "see libpq's documentation of connection URIs for what may follow the `?`"
        raise LibraryAccessError(address.name, "the address is not one that PostgreSQL takes", remedy) from None


def agreement(*, lock_timeout_s: float, durable: bool = True) -> bytes:
    """The statements every session begins with. Not `durable`: a crash of the server may cost the last commits."""
    settings = {
        "search_path": SCHEMA,
        "lock_timeout": f"{1000 * lock_timeout_s:.0f}",
        "idle_in_transaction_session_timeout": f"{1000 * _IDLE_S}",
        "tcp_keepalives_idle": "20",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
    }
    if not durable:
        settings["synchronous_commit"] = "off"
    return "; ".join(f"SET {name} = {value}" for name, value in settings.items()).encode()


def connected(address: Address, *, lock_timeout_s: float) -> psycopg.Connection[tuple[Any, ...]]:
    """A new connection. Raises psycopg.OperationalError, LibraryAccessError."""
    raw = psycopg.connect(conninfo(address), autocommit=True)
    try:
        raw.adapters.register_loader("numeric", _Number)
        raw.execute(agreement(lock_timeout_s=lock_timeout_s))
    except BaseException:
        raw.close()
        raise
    return raw
