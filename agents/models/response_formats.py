"""How a server is asked for JSON: by a schema, as some JSON, or in words; found out once and remembered."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Callable
from typing import get_args

from lcdoc.agents.models.errors import (
    ContextOverflowError,
    ModelError,
    RefusedRequestError,
    RetriesExhaustedError,
    ServerError,
    UnsupportedParameterError,
)
from lcdoc.agents.models.memos import Memos
from lcdoc.agents.models.model import ModelSpec, StructuredMode

logger = logging.getLogger(__name__)

MEMO_TTL_S = 7 * 24 * 3600.0
_WEAKER: dict[StructuredMode, StructuredMode] = {
    "json_schema": "json_object_schema",
    "json_object_schema": "json_object",
    "json_object": "prompt",
}
_IGNORED_OFTEN = 2
"""Answers in a row that no schema can have shaped, after which a server that has given none of another kind is no
longer asked to enforce one. In a long run two come in a row by chance, with servers that do enforce it."""
_ABOUT_FORMAT = re.compile(
    r"response[_ ]?format|json[_ ]?schema|json[_ ]?object|json mode|structured[_ ]output|\bschema|grammar|guided",
    re.IGNORECASE,
)


def is_about_format(error: ModelError) -> bool:
    """Whether the server refused the response format, rather than the request as such."""
    if isinstance(error, RetriesExhaustedError) and isinstance(error.__cause__, ModelError):
        return is_about_format(error.__cause__)
    if isinstance(error, UnsupportedParameterError):
        return error.parameter.split(".")[0] == "response_format"
    # Some servers fail where they ought to refuse: a schema that their grammar compiler cannot take is a 500 there.
    refused = isinstance(error, RefusedRequestError | ServerError) and not isinstance(error, ContextOverflowError)
    return refused and bool(_ABOUT_FORMAT.search(error.problem))


class FormatChoice:
    """The mode in which one model is asked for JSON, shared by all who ask it: what is refused is not tried again.

    While it is not known whether the server takes a mode, one request goes ahead (`turn`) and the others wait for the
    first sign that it was taken, so that a server refuses one request and not all of them.
    """

    def __init__(self, spec: ModelSpec, memos: Memos) -> None:
        self._spec = spec
        self._memos = memos
        server = spec.server
        # What runs inside lcdoc is held to a schema in any case.
        self._fixed = server is None or server.structured is not None
        place = [server.base_url, server.model] if server else [spec.name]
        self._key = "response-format/" + hashlib.sha256(json.dumps(place).encode()).hexdigest()[:32]
        self._mode: StructuredMode | None = server.structured if server else "json_schema"
        self._taken = self._fixed
        self._remembered: StructuredMode | None = None
        self._probe: asyncio.Event | None = None
        self._ignored = 0
        self._proven: set[StructuredMode] = set()

    @property
    def mode(self) -> StructuredMode:
        """The mode to ask in."""
        if self._mode is None:
            self._mode = self._recalled() or "json_schema"
        return self._mode

    async def turn(self) -> Callable[[], None] | None:
        """Wait until the mode is taken, or until it is this request's turn to find out.

        In the second case the request is the probe, and must call what is returned when it is over, however it ended.
        None: go ahead.
        """
        while not self._is_known() and self._probe is not None:
            await self._probe.wait()
        if self._is_known():
            return None
        probe = self._probe = asyncio.Event()

        def over() -> None:
            if self._probe is probe:
                self._wake()

        return over

    def taken(self, mode: StructuredMode) -> None:
        """The server has begun to answer a request in `mode`, or has failed for reasons of its own."""
        if mode == self.mode:
            self._taken = True
            self._wake()

    def _is_known(self) -> bool:
        return self.mode == "prompt" or self._taken

    def refused(self, mode: StructuredMode, error: ModelError) -> bool:
        """The server refused `mode`. Whether to ask again, in the mode that is next."""
        if self._fixed or mode not in _WEAKER or not is_about_format(error):
            return False
        if mode == self._mode:
            self._weaken(_WEAKER[mode], f"it refuses {mode} ({error.problem})")
            self._taken = False
            self._wake()
        return True

    def worked(self, mode: StructuredMode) -> None:
        """An answer asked for in `mode` was as it should be, at the first time of asking."""
        self._ignored = 0
        self._proven.add(mode)
        self._remember(mode)

    def ignored(self, mode: StructuredMode) -> None:
        """An answer asked for in `mode` was no JSON, and one asked for in words was."""
        if self._fixed or mode not in _WEAKER or mode != self._mode or mode in self._proven:
            return
        self._ignored += 1
        if self._ignored >= _IGNORED_OFTEN:
            self._weaken("prompt", f"it ignores {mode}")
            self._remember("prompt")

    def _wake(self) -> None:
        if self._probe is not None:
            self._probe.set()
            self._probe = None

    def _weaken(self, mode: StructuredMode, why: str) -> None:
        logger.warning("model %s is asked for JSON by %s from here on: %s", self._spec.name, mode, why)
        self._mode = mode
        self._ignored = 0

    def _recalled(self) -> StructuredMode | None:
        value = self._memos.get(self._key)
        self._remembered = next((mode for mode in get_args(StructuredMode) if mode == value), None)
        self._taken = self._remembered is not None
        return self._remembered

    def _remember(self, mode: StructuredMode) -> None:
        if not self._fixed and mode == self._mode and mode != self._remembered:
            self._memos.set(self._key, mode, ttl_s=MEMO_TTL_S)
            self._remembered = mode
