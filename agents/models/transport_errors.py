"""What it means when a connection does not come about, or breaks."""

from __future__ import annotations

from lcdoc.agents.models.error_bodies import clean
from lcdoc.agents.models.errors import (
    ConnectionFailedError,
    CutStreamError,
    ModelConfigError,
    ModelError,
    ModelTimeoutError,
    ServerError,
)


def not_connected(error: Exception, *, model: str, url: str) -> ModelError:
    """The error that `error` is, an httpx2 one from before the answer began."""
    import httpx2

    said = clean(str(error)) or type(error).__name__
    if isinstance(error, httpx2.ConnectTimeout):
        return ModelTimeoutError(model, f"no connection to {url} came about in time", "is the server reachable?")
    if isinstance(error, httpx2.TimeoutException):
        return ModelTimeoutError(model, f"the server did not take the request in time ({said})")
    if isinstance(error, httpx2.ProxyError):
        return ConnectionFailedError(model, f"the proxy gave no connection ({said})", "look at HTTPS_PROXY")
    if isinstance(error, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol):
        return ModelConfigError(model, f"the request cannot be sent ({said})", "look at its address, key and headers")
    if not isinstance(error, httpx2.ConnectError):
        return ConnectionFailedError(model, f"the connection to {url} broke before an answer ({said})")
    lowered = said.lower()
    if "certificate" in lowered or "ssl" in lowered or "tls" in lowered:
        remedy = "its certificate is not trusted here, or the address wants http:// instead of https://"
    elif any(words in lowered for words in ("name or service", "getaddrinfo", "nodename", "resolution", "no address")):
        remedy = "that name is not known: check the address"
    else:
        remedy = f"is the server running at {url}?"
    return ConnectionFailedError(model, f"no connection to {url} ({said})", remedy)


def broken_off(error: Exception, *, model: str) -> ModelError:
    """The error that `error` is, an httpx2 one from after the answer had begun."""
    import httpx2

    said = clean(str(error)) or type(error).__name__
    if isinstance(error, httpx2.DecodingError):
        return ServerError(model, f"the server sent what is not an answer: {said}")
    return CutStreamError(model, f"the connection ended in the middle of the answer ({said})")
