"""Connections to a server: the `openai` client, with nothing of the environment that is not meant for this server."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from lcdoc.agents.models.error_bodies import clean
from lcdoc.agents.models.error_translation import Refusal
from lcdoc.agents.models.errors import ModelConfigError
from lcdoc.agents.models.model import Server
from lcdoc.agents.models.secrets import Key, SecretHeaders

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

_MAX_ERROR_BYTES: Final = 64_000


def checked_host(model: str, server: Server, key: Key | None, secret_headers: SecretHeaders = ()) -> str:
    """The host of the server's address. Raises ModelConfigError for an address, key or header that cannot be used."""
    try:
        address = urlsplit(server.base_url)
        host = address.hostname or ""
        _ = address.port
    except ValueError as error:
        raise ModelConfigError(model, f"its address is none ({clean(str(error))})") from None
    if address.scheme not in {"http", "https"} or not host:
        shown = clean(server.base_url)
        raise ModelConfigError(model, f"{shown!r} is not the address of a server", "it begins with http:// or https://")
    secrets = [(name, value.reveal()) for name, value in secret_headers]
    for field, value in (*server.headers, *secrets, ("its key", key.reveal() if key is not None else "")):
        if not (value + field).isascii() or not (value + field).isprintable():
            what = field if field == "its key" else f"the header {clean(field)}"
            raise ModelConfigError(
                model, f"{what} has characters that cannot be sent", "look for what was copied along"
            )
    return host


def shown_address(server: Server, host: str) -> str:
    """The server's address, without what might be a password or a key."""
    address = urlsplit(server.base_url)
    port = f":{address.port}" if address.port else ""
    return clean(f"{address.scheme}://{f'[{host}]' if ':' in host else host}{port}{address.path}")


def per_request_headers(server: Server, key: Key | None, secret_headers: SecretHeaders = ()) -> dict[str, Any]:
    """What tells the `openai` client that there is no key, where there is none."""
    from openai import Omit

    names = {name.lower() for name, _ in (*server.headers, *secret_headers)}
    authorizes = key is not None or "authorization" in names
    return {} if authorizes else {"Authorization": Omit()}


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_nearby(host: str) -> bool:
    """Whether `host` is this machine or one of its network: a server that somebody runs for themselves."""
    if is_loopback(host) or ("." not in host and ":" not in host) or host.endswith((".local", ".lan", ".internal")):
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


def new_client(
    server: Server,
    host: str,
    key: Key | None,
    *,
    secret_headers: SecretHeaders = (),
    connect_s: float,
    write_s: float,
) -> AsyncOpenAI:
    """A client for `server`. Reading has no timeout: the layer above knows a token from a keep-alive line.

    Raises ImportError, ValueError or OSError where a proxy or certificate file of the environment does not work. An
    error answer is raised as Refusal, of its body no more than 64 kB.
    """
    import httpx2
    from openai import AsyncOpenAI

    own_headers: dict[str, Any] = {"Accept": "application/json", "Content-Type": "application/json"}
    own_headers["User-Agent"] = "lcdoc"
    # Compressed streams are held back by some proxies until a block is full.
    own_headers["Accept-Encoding"] = "identity"
    if key is not None:
        own_headers["Authorization"] = f"Bearer {key.reveal()}"
    for name, value in (*server.headers, *((name, secret.reveal()) for name, secret in secret_headers)):
        for present in [given for given in own_headers if given.lower() == name.lower()]:
            del own_headers[present]
        own_headers[name] = value
    is_openai = host == "openai.com" or host.endswith(".openai.com")

    class Client(AsyncOpenAI):
        """The client with our headers and no others: its own come in part from the environment."""

        @property
        def default_headers(self) -> dict[str, Any]:
            return {**super().default_headers, **own_headers} if is_openai else own_headers

    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=128, keepalive_expiry=15.0)
    timeout = httpx2.Timeout(connect=connect_s, read=None, write=write_s, pool=None)
    transport = None
    if is_loopback(host):
        # A transport of one's own keeps the proxies of the environment out; plain HTTP needs no certificates loaded.
        transport = httpx2.AsyncHTTPTransport(limits=limits, verify=server.base_url.lower().startswith("https:"))
    return Client(
        # Never sent: the headers above decide. Without any the client would look for one in the environment.
        api_key="none",
        base_url=server.base_url,
        max_retries=0,
        timeout=timeout,
        http_client=httpx2.AsyncClient(
            timeout=timeout,
            limits=limits,
            transport=transport,
            # A server that sends requests elsewhere would get documents and headers there.
            follow_redirects=False,
            event_hooks={"response": [_raise_refusal]},
        ),
    )


async def _raise_refusal(response: httpx2.Response) -> None:
    """Turn error answers into Refusal before the client reads a body of any length."""
    if response.status_code < 300:
        return
    data = await bounded(response, _MAX_ERROR_BYTES)
    headers = {name.lower(): value for name, value in response.headers.items()}
    raise Refusal(response.status_code, headers, data.decode("utf-8", "replace"))


async def bounded(response: httpx2.Response, most: int) -> bytes:
    """The body, or its first `most` bytes."""
    data = bytearray()
    async for part in response.aiter_bytes():
        data += part
        if len(data) >= most:
            break
    return bytes(data[:most])
