"""A secret that is a store's own: prompts mark what is data with codes that follow from it."""

from __future__ import annotations

import secrets

from lcdoc.memory.store import Store

_SELECT = "SELECT value FROM meta WHERE key = 'secret'"


def secret_of(store: Store) -> bytes:
    """32 random bytes, made at their first use. Not to be shown or logged."""
    with store.read() as connection:
        row = connection.execute(_SELECT).fetchone()
    if row is None:
        with store.write() as connection:
            # Another process may have been faster: then its secret stays.
            connection.execute(
                "INSERT INTO meta (key, value) VALUES ('secret', ?) ON CONFLICT (key) DO NOTHING",
                (secrets.token_hex(32),),
            )
            row = connection.execute(_SELECT).fetchone()
    return bytes.fromhex(row[0])
