"""Calls to an etcd cluster: its endpoints one after another, its errors as ours."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any, Final

from colonist_protocol.errors import InvalidValueError
from colonist_server.store.etcd import wire
from colonist_server.store.etcd.address import Address
from colonist_server.store.etcd.channel import HANDSHAKE, Channel
from colonist_server.store.etcd.frames import CallError, Code
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
        tls = _tls(address)
        self._channels = {each: Channel(each, tls) for each in address.endpoints}
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
            response = method.read(
                await self._channels[endpoint].unary(
                    method.path, request, self._metadata(), timeout_s
                )
            )
        except CallError as error:
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
                if self._is_closed or loop.time() + pause_s >= until:
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
        # A member that has lost its leader ends the stream instead of keeping silent.
        metadata = (*self._metadata(), ("hasleader", "true"))
        try:
            stream = await self._channels[endpoint].stream(method.path, request, metadata)
            opened(endpoint)
            with closing(stream):
                async for message in stream:
                    yield method.read(message)
        except CallError as error:
            raise self._told(error, endpoint) from error

    async def renew(self, lease: int) -> bool:
        """Keep a lease alive; False when it has ended. Raises `TroubleError`, once."""
        endpoint = self.endpoint
        try:
            async with asyncio.timeout(CALL_S):
                return await self._renew(lease)
        except TimeoutError:
            self.move_on(endpoint)
            raise TroubleError(f"etcd at {endpoint}: a lease was not renewed in time") from None
        except TroubleError:
            self.move_on(endpoint)
            raise

    async def _renew(self, lease: int) -> bool:
        request = wire.keep_alive_request(lease)
        stream = self.stream(wire.KEEP_ALIVE, request, lambda _: None)
        async with aclosing(stream) as answers:
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
            response = wire.AUTHENTICATE.read(
                await self._channels[endpoint].unary(wire.AUTHENTICATE.path, request, (), timeout_s)
            )
        except CallError as error:
            if "not enabled" in _details(error):
                raise StoreError(
                    f"etcd at {endpoint} asks for no user: leave out user= in the store's address"
                ) from None
            told = self._told(error, endpoint)
            if isinstance(told, TroubleError):
                self.move_on(endpoint)
            raise told from error
        self._token = response.token

    def _told(self, error: CallError, endpoint: str) -> StoreError:
        """An error of etcd as one of ours."""
        details = _details(error)
        for text, kind, told in _KNOWN:
            if text in details:
                if kind is NotDoneError:
                    self._token = ""
                return kind(told or f"etcd at {endpoint}: {details}")
        if error.code == Code.PERMISSION_DENIED:
            user = f"user {self.address.user!r}" if self.address.user else "whoever has no user"
            return StoreError(
                f"etcd does not let {user} at the keys {self.address.prefix}/: grant a role with "
                f"readwrite on that prefix ({details})"
            )
        hint = _tls_hint(details, self.address)
        return TroubleError(f"etcd at {endpoint}: {details or f'error {error.code} of gRPC'}{hint}")


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
    ("received message larger than max", TooBigError, ""),
)


def _details(error: CallError) -> str:
    return error.details.removeprefix("etcdserver: ")


def _tls_hint(details: str, address: Address) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in details:
        return ": its certificate is not signed by ca=, or not for this host name"
    if HANDSHAKE not in details:
        return ""
    if address.is_tls:
        return ": check ca=, cert= and key= in the store's address"
    return ": if it speaks TLS, add ca= (and cert=, key=) or tls=true to the store's address"


def _tls(address: Address) -> ssl.SSLContext | None:
    if not address.is_tls:
        return None
    ca, cert, key = address.files.ca, address.files.cert, address.files.key
    for path in (ca, cert, key):
        _check(path)
    if key is not None:
        try:
            address.custody.check(key, "key= of the store, file")
        except InvalidValueError as error:
            raise StoreError(str(error)) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        if ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(ca)
        if cert is not None:
            # A key with a password would be asked for at the terminal.
            context.load_cert_chain(cert, key, password="")
    except OSError as error:
        raise StoreError(f"the certificates for etcd cannot be used: {error}") from error
    return context


def _check(path: Path | None) -> None:
    if path is None:
        return
    try:
        text = path.read_bytes()
    except OSError as error:
        raise StoreError(f"a certificate for etcd cannot be read: {error}") from error
    if b"-----BEGIN " not in text:
        raise StoreError(f"{path}: not in PEM format, as certificates for etcd must be")
