"""Calls to an etcd cluster: its endpoints one after another, its errors as ours."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, cast

import grpc
import grpc.aio

from colonist_server.store.etcd import wire
from colonist_server.store.etcd.address import Address
from colonist_server.store.interface import (
    CompactedError,
    LawError,
    StoreError,
    TooBigError,
    UnavailableError,
)

log = logging.getLogger(__name__)

CALL_S: Final = 3.0
"""How long one call may take: a member that stands still is given up for another."""
GIVE_UP_S: Final = 10.0
"""How long a caller waits, over all endpoints."""
PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),  # the default of 4 MiB breaks ranges and watches
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
)
_Code = grpc.StatusCode


class TroubleError(UnavailableError):
    """No answer, or one that leaves open what was done: ask again."""


class NotDoneError(UnavailableError):
    """Refused for now, and surely not done: ask again."""


class FullError(UnavailableError):
    """etcd has no space; what was asked may have been done nevertheless."""


class LeaseEndedError(LawError):
    """A lease has ended, or never was."""


FULL: Final = (
    "etcd is out of space (alarm NOSPACE) and takes no writes: make room, compact, defragment, "
    "then disarm the alarm (docs/howto/high-availability.md)"
)


def pauses() -> Iterator[float]:
    """Growing pauses between tries, without end; by chance unlike those of other nodes."""
    longest_s = PAUSE_S
    while True:
        chance = int.from_bytes(os.urandom(2), "big") / 65_536
        yield longest_s * (1 + chance) / 2
        longest_s = min(2 * longest_s, LONGEST_PAUSE_S)


class Client:
    """One cluster. Calls go to one endpoint as long as that answers."""

    def __init__(self, address: Address) -> None:
        """Raise `StoreError` if a certificate cannot be read."""
        self.address = address
        self._credentials = _credentials(address)
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._calls: dict[tuple[str, str], Any] = {}
        self._current = 0
        self._token = ""
        self._login: asyncio.Task[None] | None = None
        self._is_closed = False
        self.trouble = ""
        """What the last call met; "" when it was answered."""

    @property
    def endpoint(self) -> str:
        """Where calls go now."""
        return self.address.endpoints[self._current]

    def move_on(self, endpoint: str) -> None:
        """Try another endpoint than this one from now on."""
        if endpoint == self.endpoint and len(self.address.endpoints) > 1:
            self._current = (self._current + 1) % len(self.address.endpoints)
            log.warning("etcd: endpoint %s gives trouble, going on at %s", endpoint, self.endpoint)

    async def call(self, method: wire.Method, request: bytes, timeout_s: float = CALL_S) -> Any:
        """One call to one endpoint, which is left after trouble. Raises what `_told` makes."""
        endpoint = self.endpoint
        if self.address.user and not self._token:
            await self._log_in(timeout_s)
        try:
            response = await self._unary(endpoint, method)(
                request, timeout=timeout_s, metadata=self._metadata()
            )
        except grpc.aio.AioRpcError as error:
            told = self._told(error, endpoint)
            if isinstance(told, TroubleError):
                self.trouble = str(told)
                self.move_on(endpoint)
            raise told from error
        self.trouble = ""
        return response

    async def ask(self, method: wire.Method, request: bytes, give_up_s: float = GIVE_UP_S) -> Any:
        """A call that may be repeated, until it is answered. Raises `StoreError`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + give_up_s
        for pause_s in pauses():
            try:
                return await self.call(method, request, min(CALL_S, give_up_s))
            except (TroubleError, NotDoneError):
                if loop.time() + pause_s >= until:
                    raise
            await asyncio.sleep(pause_s)
        raise AssertionError  # pragma: no cover - pauses do not end

    async def stream(
        self, method: wire.Method, request: bytes, opened: Callable[[str], None]
    ) -> AsyncGenerator[Any]:
        """The answers to one request of a stream, until it breaks. Raises what `_told` makes."""
        endpoint = self.endpoint
        if self.address.user and not self._token:
            await self._log_in(CALL_S)
        channel = self._channel(endpoint)
        # A member that has lost its leader ends the stream instead of keeping silent.
        metadata = (*self._metadata(), ("hasleader", "true"))
        call: Any = cast("Any", channel).stream_stream(method.path, None, method.parse)(
            metadata=metadata
        )
        try:
            await call.write(request)
            opened(endpoint)
            while (response := await call.read()) is not grpc.aio.EOF:
                yield response
        except grpc.aio.AioRpcError as error:
            raise self._told(error, endpoint) from error
        finally:
            call.cancel()

    async def renew(self, lease: int) -> bool:
        """Keep a lease alive; False when it has ended."""
        request = wire.keep_alive_request(lease)
        async with (
            asyncio.timeout(CALL_S),
            aclosing(self.stream(wire.KEEP_ALIVE, request, lambda _: None)) as answers,
        ):
            async for response in answers:
                return response.TTL > 0
        raise TroubleError("etcd closed the stream of leases")

    async def close(self) -> None:
        """Close the connections."""
        self._is_closed = True
        for channel in self._channels.values():
            await channel.close()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("token", self._token),) if self._token else ()

    async def _log_in(self, timeout_s: float) -> None:
        """Fetch a token; whoever needs one meanwhile waits for the same."""
        if self._login is None:
            self._login = asyncio.create_task(self._fetch_token(timeout_s))
        try:
            await asyncio.shield(self._login)
        finally:
            self._login = None

    async def _fetch_token(self, timeout_s: float) -> None:
        endpoint = self.endpoint
        request = wire.login_request(self.address.user, self.address.password)
        try:
            response = await self._unary(endpoint, wire.AUTHENTICATE)(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if "not enabled" in _details(error):
                raise StoreError(
                    f"etcd at {endpoint} asks for no user: leave out user= in the store's address"
                ) from None
            told = self._told(error, endpoint)
            if isinstance(told, TroubleError):
                self.move_on(endpoint)
            raise told from error
        self._token = response.token

    def _told(self, error: grpc.aio.AioRpcError, endpoint: str) -> StoreError:
        """An error of etcd as one of ours."""
        details, code = _details(error), error.code()
        for text, kind, told in _KNOWN:
            if text in details:
                if kind is NotDoneError:
                    self._token = ""
                return kind(told or f"etcd at {endpoint}: {details}")
        if code is _Code.PERMISSION_DENIED:
            user = f"user {self.address.user!r}" if self.address.user else "whoever has no user"
            return StoreError(
                f"etcd does not let {user} at the keys {self.address.prefix}/: grant a role with "
                f"readwrite on that prefix ({details})"
            )
        hint = _tls_hint(details, self.address)
        return TroubleError(f"etcd at {endpoint}: {details or code.name}{hint}")

    def _unary(self, endpoint: str, method: wire.Method) -> Any:
        found = self._calls.get((endpoint, method.path))
        if found is None or self._is_closed:
            channel = cast("Any", self._channel(endpoint))
            found = channel.unary_unary(method.path, None, method.parse)
            self._calls[endpoint, method.path] = found
        return found

    def _channel(self, endpoint: str) -> grpc.aio.Channel:
        if self._is_closed:
            raise UnavailableError("the store is closed")
        channel = self._channels.get(endpoint)
        if channel is None:
            if self._credentials is None:
                channel = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
            else:
                channel = grpc.aio.secure_channel(endpoint, self._credentials, options=_OPTIONS)
            self._channels[endpoint] = channel
        return channel


_WRONG_USER: Final = "etcd refuses this user or password: check user= and the password"
# text in etcd's answer: our error, and its words ("": etcd's own)
_KNOWN: Final[tuple[tuple[str, type[StoreError], str], ...]] = (
    ("database space exceeded", FullError, FULL),
    ("invalid auth token", NotDoneError, ""),
    ("revision of auth store is old", NotDoneError, ""),
    ("too many requests", NotDoneError, ""),
    ("invalid user ID or password", StoreError, _WRONG_USER),
    ("user name is empty", StoreError, "etcd asks for a user: add user= to the store's address"),
    ("user name not found", StoreError, _WRONG_USER),
    ("required revision has been compacted", CompactedError, ""),
    ("requested lease not found", LeaseEndedError, "the lease has ended"),
    ("request is too large", TooBigError, ""),
    ("too many operations", TooBigError, ""),
)


def _details(error: grpc.aio.AioRpcError) -> str:
    return (error.details() or "").removeprefix("etcdserver: ")


_BROKEN_OFF: Final = ("ssl", "tls", "tsi_", "handshake", "socket closed", "goaway", "reset by peer")


def _tls_hint(details: str, address: Address) -> str:
    lowered = details.lower()
    if "certificate_verify_failed" in lowered or "hostname verification" in lowered:
        return ": its certificate is not signed by ca=, or not for this host name"
    if not any(word in lowered for word in _BROKEN_OFF):
        return ""
    if address.is_tls:
        return ": check ca=, cert= and key= in the store's address"
    return ": if it speaks TLS, add ca= (and cert=, key=) or tls=true to the store's address"


def _credentials(address: Address) -> grpc.ChannelCredentials | None:
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it logs each handshake that fails
    if not address.is_tls:
        return None
    files = address.files
    return grpc.ssl_channel_credentials(_read(files.ca), _read(files.key), _read(files.cert))


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        text = path.read_bytes()
    except OSError as error:
        raise StoreError(f"a certificate for etcd cannot be read: {error}") from error
    if b"-----BEGIN " not in text:
        raise StoreError(f"{path}: not in PEM format, as certificates for etcd must be")
    return text
