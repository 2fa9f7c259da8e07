"""Answers of models, kept by the fingerprint of what was asked, and who is asking just now.

Only answers are kept, and what they cost; never what was asked, which is long, and the reader's own affair.

A call under way has a lease, so that other processes wait for its answer instead of paying for another.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from lcdoc.memory.document_rows import pack, unpack
from lcdoc.memory.journal import Journal
from lcdoc.memory.leases import Leases
from lcdoc.memory.store import Connection, Store

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Call:
    """A model's answer as it is kept. Field names as in `agents.models.model.Completion`."""

    text: str
    model: str
    """The model asked, as its server knows it."""
    base_url: str = ""
    """Empty for models inside lcdoc."""
    prompt: str = ""
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    estimated: bool = False
    finish: str = "stop"
    served_by: str = ""
    """The model's name as the server gave it with the answer."""
    reasoning: str = ""
    logprobs: tuple[tuple[str, float], ...] | None = None
    created_at: float = 0.0
    """Unix time; given by the store."""


class Calls:
    """The answers in a store, and the leases on calls under way."""

    def __init__(self, store: Store, journal: Journal, leases: Leases, *, is_far: bool = False) -> None:
        self._store = store
        self._journal = journal
        self._leases = leases
        self.is_far = is_far
        """Reading may take long, so an event loop leaves it to a thread: the store is on a server."""
        self.flights: dict[object, asyncio.Future[Any]] = {}
        """Calls under way in this process; kept by `agents.models.call_store`."""

    def get(self, key: str) -> Call | None:
        """The answer kept under this key. One point read, tens of microseconds: fit for an event loop's own thread,
        unless the store `is_far`.

        Notes the use, to within a day. Raises LibraryCorruptError when the answer cannot be read.
        """
        with self._store.read() as connection:
            row = connection.execute(_SELECT, (key,)).fetchone()
            if row is None:
                return None
            call = _call_from(row[1:])
        now = time.time()
        if now - row[0] > _DAY_S:
            self._journal.post(lambda c: c.execute("UPDATE calls SET used_at = ? WHERE key = ?", (now, key)))
        return call

    async def put(self, key: str, call: Call) -> None:
        """Keep an answer, in the place of an earlier one, and end the lease. It is kept when this returns."""
        now = time.time()
        row = (
            key,
            call.model,
            call.base_url,
            call.prompt,
            now,
            now,
            call.tokens_in,
            call.tokens_cached,
            call.tokens_out,
            call.estimated,
            call.finish,
            call.served_by,
        )

        def insert(connection: Connection) -> None:
            # Packed here, in the journal's thread: the one that calls has the next question to send.
            values = (*row, _packed_answer(call))
            connection.execute(_REPLACE, values)
            self._leases.end(connection, key)

        await self._journal.write(insert)
        self._leases.let_go(key)

    async def claim(self, key: str, *, other_than: float | None = None) -> Call | bool:
        """Take the lease on a call. True: it is ours, the call may be made; `put` or `release` it. False: another's.

        An answer that has come in the meantime is returned instead, unless it is the one `created_at` `other_than`.
        """

        def take(connection: Connection) -> Call | bool:
            self._store.claim(connection, f"call/{key}")
            call = _readable(connection.execute(_SELECT, (key,)).fetchone())
            if call is not None and call.created_at != other_than:
                return call
            if self._leases.holder(connection, key) is not None:
                return False
            self._leases.take(connection, key)
            return True

        self._leases.hold(key)  # first: it may be taken although whoever waits for that is cancelled
        claim = await self._journal.write(take)
        if claim is not True:
            self._leases.let_go(key)
        return claim

    def is_claimed(self, key: str) -> bool:
        """Whether another process, or another opening of this library, holds the lease."""
        with self._store.read() as connection:
            return self._leases.holder(connection, key) is not None

    def release(self, key: str) -> None:
        """End our lease without an answer. Nothing happens when we do not have it, or not any more."""
        if self._leases.let_go(key):
            self._journal.post(lambda connection: self._leases.end(connection, key))

    def pace(self, base_url: str, model: str) -> dict[tuple[str, bool | None], tuple[float, int]]:
        """Tokens out of this model's latest answers, on average, and of how many.

        By skill, the first word of a prompt, and by whether the answer says that something was found; None where it
        does not say. The latest 1,000 answers are looked at, which takes some hundredths of a second.
        """
        totals: dict[tuple[str, bool | None], tuple[int, int]] = {}
        with self._store.read() as connection:
            rows = connection.execute(
                "SELECT prompt, tokens_out, answer FROM calls WHERE base_url = ? AND model = ?"
                " ORDER BY used_at DESC LIMIT 1000",
                (base_url, model),
            )
            for prompt, tokens, answer in rows:
                kind = prompt.partition("/")[0], _says_found(answer)
                total, number = totals.get(kind, (0, 0))
                totals[kind] = total + tokens, number + 1
        return {kind: (total / number, number) for kind, (total, number) in totals.items()}

    def prune(self, unused_days: float) -> int:
        """Forget answers that were not used for so many days; returns how many. See also `Library.prune`."""
        return self._delete("used_at < ?", time.time() - unused_days * _DAY_S)

    def prune_bytes(self, excess: int) -> int:
        """Forget the answers used longest ago, until they made up `excess` bytes; returns how many."""
        last = 0.0
        with self._store.read() as connection:
            for used_at, size in connection.execute("SELECT used_at, length(answer) FROM calls ORDER BY used_at"):
                last = used_at
                excess -= size
                if excess <= 0:
                    break
        return self._delete("used_at <= ?", last)

    def problems(self) -> list[str]:
        """What is wrong with the kept answers, a line each."""
        problems: list[str] = []
        with self._store.read() as connection:
            for key, answer in connection.execute("SELECT key, answer FROM calls ORDER BY key"):
                try:
                    _unpacked_answer(answer)
                except sqlite3.DatabaseError as error:
                    problems.append(
                        f"{self._store.path}: the stored call {key[:12]} is damaged ({error}); it will be made again"
                    )
        return problems

    def _delete(self, which: str, value: float) -> int:
        self._journal.flush()
        with self._store.write() as connection:
            self._leases.forget_expired(connection)
            return connection.execute(f"DELETE FROM calls WHERE {which}", (value,)).rowcount


_SELECT = (
    "SELECT used_at, model, base_url, prompt, tokens_in, tokens_cached, tokens_out, estimated, finish, served_by,"
    " created_at, answer FROM calls WHERE key = ?"
)
_COLUMNS = (
    "model, base_url, prompt, created_at, used_at, tokens_in, tokens_cached, tokens_out, estimated, finish, served_by,"
    " answer"
)
_REPLACE = (
    f"INSERT INTO calls (key, {_COLUMNS}) VALUES ({', '.join('?' * 13)}) ON CONFLICT (key) DO UPDATE SET "
    + ", ".join(f"{column} = excluded.{column}" for column in _COLUMNS.split(", "))
)


def _readable(row: tuple[Any, ...] | None) -> Call | None:
    """The answer in a row, unless it is damaged: then it is as good as none, and the next one takes its place."""
    try:
        return None if row is None else _call_from(row[1:])
    except sqlite3.DatabaseError:
        return None


def _call_from(row: tuple[Any, ...]) -> Call:
    model, base_url, prompt, tokens_in, tokens_cached, tokens_out, estimated, finish, served_by, created_at, answer = (
        row
    )
    text, reasoning, logprobs = _unpacked_answer(answer)
    return Call(
        text=text,
        model=model,
        base_url=base_url,
        prompt=prompt,
        tokens_in=tokens_in,
        tokens_cached=tokens_cached,
        tokens_out=tokens_out,
        estimated=bool(estimated),
        finish=finish,
        served_by=served_by,
        reasoning=reasoning,
        logprobs=logprobs,
        created_at=created_at,
    )


def _packed_answer(call: Call) -> bytes:
    answer = (call.text, call.reasoning, call.logprobs)
    try:
        return pack(json.dumps(answer, ensure_ascii=False))
    except UnicodeEncodeError:
        # Half a surrogate pair, as some servers send; escapes can hold it.
        return pack(json.dumps(answer))


def _unpacked_answer(blob: bytes) -> tuple[str, str, tuple[tuple[str, float], ...] | None]:
    """Raises sqlite3.DatabaseError on damaged bytes."""
    try:
        text, reasoning, logprobs = json.loads(unpack(blob))
        if not isinstance(text, str) or not isinstance(reasoning, str):
            raise ValueError("no texts")
        kept = None if logprobs is None else tuple((str(token), float(logprob)) for token, logprob in logprobs)
    except (ValueError, TypeError) as error:
        damaged = sqlite3.DatabaseError(f"a stored answer cannot be read: {error}")
        damaged.sqlite_errorname = "SQLITE_CORRUPT"
        raise damaged from error
    return text, reasoning, kept


def _says_found(blob: bytes) -> bool | None:
    """The field `found` of an answer; None where it has none."""
    try:
        found = json.loads(_unpacked_answer(blob)[0])["found"]
    except (sqlite3.DatabaseError, ValueError, TypeError, KeyError):
        return None
    return found if isinstance(found, bool) else None
