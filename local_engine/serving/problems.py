"""Refusals and failures as OpenAI's API has them: a status, and a body with message, type, param and code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse


class Problem(Exception):  # noqa: N818 - an answer on its way to the client, not a fault of this program
    """A request that is answered with an error. The message says what is wrong and what to do about it."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        """The request's field that is at fault."""
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """What an answer, or an event of a stream, says."""
        return {"error": {"message": self.message, "type": self._type, "param": self.param, "code": self.code}}

    @property
    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)

    @property
    def _type(self) -> str:
        if self.status == 401:
            return "authentication_error"
        if self.status == 429:
            return "rate_limit_error"
        return "invalid_request_error" if self.status < 500 else "server_error"


class ClientGoneError(Exception):
    """The client has closed its connection: nobody reads an answer."""


def unknown_model(name: str, served: str) -> Problem:
    return Problem(
        f"The model `{name}` does not exist here. This server has `{served}`.",
        status=404,
        param="model",
        code="model_not_found",
    )


def closing() -> Problem:
    return Problem(
        "The server is shutting down and takes no more requests.",
        status=503,
        code="shutting_down",
        headers={"Retry-After": "5"},
    )


def ended() -> Problem:
    return Problem("The engine has ended; the server's log says why. Start the server again.", status=503, code="ended")


def timed_out(limit_s: float) -> Problem:
    # The official client would send it again, to run into the same limit.
    return Problem(
        f"The request took longer than {limit_s:g} seconds, which is this server's limit.",
        status=408,
        code="request_timeout",
        headers={"x-should-retry": "false"},
    )
