"""Envelopes over `POST /api`.

Every exchange ends: with a body that may be a reply, or with one line that tells an operator what
is wrong. Connections are kept and used again. Redirects are not followed and cookies not kept: a
Colonist server needs neither, a captive portal both.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import aiohttp

from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol.errors import InvalidValueError

MAX_REPLY_BYTES: Final = 64 * 1024 * 1024
CONNECT_S: Final = 10.0

_GATEWAY_ERRORS: Final = frozenset({502, 503, 504})
_FIRST_ERROR: Final = 400


class HttpTransport:
    """One server's `/api`, at `http://host[:port]` or `https://host[:port]`."""

    way: str = "http"

    def __init__(
        self,
        url: str,
        *,
        tls: ssl.SSLContext | None = None,
        connect_s: float = CONNECT_S,
        max_connections: int = 64,
        max_reply_bytes: int | None = None,
    ) -> None:
        """`tls` replaces the machine's trusted authorities. Raises `InvalidValueError`."""
        self.url = check_url(url)
        self._endpoint = f"{self.url}/api"
        self._tls = tls
        self._connect_s = connect_s
        self._max_connections = max_connections
        self._max_reply_bytes = max_reply_bytes or MAX_REPLY_BYTES
        self._session: aiohttp.ClientSession | None = None
        self._open: set[asyncio.Timeout] = set()
        self._is_closed = False

    async def exchange(self, body: bytes, *, wait_s: float) -> bytes:
        """Send one request body and return the reply body, within `wait_s`.

        Raises `NotSentError` where no connection came about, else `UnreachableError`.
        """
        if self._is_closed:
            raise NotSentError(f"{self.url}: the connection was closed by this program")
        try:
            async with asyncio.timeout(wait_s) as deadline:
                self._open.add(deadline)
                try:
                    return await self._post(body, wait_s)
                finally:
                    self._open.discard(deadline)
        except TimeoutError as error:
            raise self._timed_out(error, wait_s) from None

    async def close(self) -> None:
        """Let go of all connections; open exchanges end with `UnreachableError`. Idempotent."""
        self._is_closed = True
        now = asyncio.get_running_loop().time()
        for deadline in tuple(self._open):
            deadline.reschedule(now)
        if self._session is not None:
            await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _post(self, body: bytes, wait_s: float) -> bytes:
        timeout = aiohttp.ClientTimeout(total=None, connect=min(self._connect_s, wait_s))
        try:
            async with self._connected().post(
                self._endpoint, data=body, timeout=timeout, allow_redirects=False
            ) as response:
                return await self._read(response)
        except aiohttp.ClientError as error:
            raise self._translated(error) from None

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=self._max_connections, ssl=self._tls if self._tls is not None else True
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"Content-Type": "application/json"},
            )
        return self._session

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        received = bytearray()
        async for chunk in response.content.iter_any():
            received += chunk
            if len(received) > self._max_reply_bytes:
                raise UnreachableError(
                    f"{self.url}: the reply is over {self._max_reply_bytes} bytes"
                )
        if received.lstrip().startswith(b"{"):
            return bytes(received)
        raise UnreachableError(f"{self.url}: {_stranger(response)}")

    def _translated(self, error: aiohttp.ClientError) -> UnreachableError:
        text = reason(error)
        if isinstance(error, aiohttp.ClientConnectorError):
            return NotSentError(f"{self.url}: {text}")
        return UnreachableError(f"{self.url}: {text}")

    def _timed_out(self, error: TimeoutError, wait_s: float) -> UnreachableError:
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return NotSentError(f"{self.url}: no connection within {self._connect_s:g} s")
        if self._is_closed:
            return UnreachableError(f"{self.url}: the connection was closed by this program")
        return UnreachableError(f"{self.url}: no reply within {wait_s:g} s")


def check_url(url: str) -> str:
    """`scheme://host[:port]` without a slash at the end. Raises `InvalidValueError`."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise InvalidValueError("the server's URL cannot be read") from None
    if not valid or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise InvalidValueError("the server's URL is not http[s]://host[:port]")
    if parts.username or parts.password:
        raise InvalidValueError("the server's URL holds a user name; requests are signed instead")
    return f"{parts.scheme}://{parts.netloc}"


def reason(error: aiohttp.ClientError) -> str:
    """Why a connection failed, in one line."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"TLS: the server's certificate is not trusted: {_certificate(error)}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return _no_connection(error)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection broke before the reply came"
    if isinstance(error, (aiohttp.ClientOSError, aiohttp.ClientPayloadError)):
        return f"the connection broke: {_short(error)}"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is not HTTP: wrong port, or TLS expected?"
    return f"the connection failed: {type(error).__name__}"


def _no_connection(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name {error.host} cannot be resolved"
    if error.ssl is not False and isinstance(error.os_error, ssl.SSLError):
        return f"TLS failed (does the server speak plain HTTP?): {_short(error.os_error)}"
    return f"no connection: {_short(error.os_error)}"


def _stranger(response: aiohttp.ClientResponse) -> str:
    kind = response.headers.get("Content-Type", "").partition(";")[0] or "no content type"
    said = f"HTTP {response.status}, {kind[:40]}"
    if response.status in _GATEWAY_ERRORS:
        return f"a proxy in front of the server answered ({said})"
    if response.status < _FIRST_ERROR:
        return f"something else answered, not a Colonist server ({said}): a captive portal?"
    return f"not a Colonist server ({said}): wrong address or port?"


def _certificate(error: aiohttp.ClientConnectorCertificateError) -> str:
    cause = error.certificate_error
    return getattr(cause, "verify_message", "") or _short(cause)


def _short(error: BaseException) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number and number > 0 and not isinstance(error, ssl.SSLError):
        return os.strerror(number)
    text = str(error) or type(error).__name__
    return text.splitlines()[0][:160]
