"""Signing replies and working through signatures, beside the loop where there are many.

A lifecycle of sealed requests needs three signatures of 20 us, and has two to be verified in 35 us
each: a third of the loop's time. What one turn of the loop has of these goes in one write to a
process of its own (`signing_process`), on another core; what comes alone is done at once, which is
sooner than asking. Should that process end, all is done here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Final, Protocol, TypeVar, cast

import msgspec

from colonist_client import memory
from colonist_protocol import envelope
from colonist_protocol.envelope import Envelope, Signed, Unsigned
from colonist_protocol.errors import ColonistError
from colonist_protocol.identity import Identity
from colonist_server.rpc.signing_process import (
    MODULE,
    Done,
    Request,
    Verified,
    Work,
    pack,
)
from colonist_server.store.framing import Frames

log = logging.getLogger(__name__)

START_S: Final = 20.0
STOP_S: Final = 5.0
PATIENCE_S: Final = 5.0
"""How long the process may owe the same."""
MAX_BYTES: Final = 32_768
"""What is larger is done here: to send it takes as long."""

MAX_BATCH: Final = 4
"""So many are answered together, while the process goes on with the next."""

T = TypeVar("T")


class Signer(Protocol):
    """Signs with the server's key, and tells who signed."""

    async def sign(self, reply: Unsigned) -> bytes:
        """The body of a reply."""
        ...

    async def verify(self, request: Envelope, seal: bytes) -> Signed:
        """Who signed a sealed request; `seal` is the JSON of its seal. Raises `SignatureError`."""
        ...


class Here:
    """In the loop."""

    __slots__ = ("_identity",)

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def sign(self, reply: Unsigned) -> bytes:
        """The body of a reply."""
        return reply.signed(self._identity)

    async def verify(self, request: Envelope, seal: bytes) -> Signed:
        """Who signed a request. Raises `SignatureError`."""
        return envelope.authenticate(request, seal)


class _Batch:
    """What is to be done together: requests to verify, replies to sign."""

    __slots__ = ("replies", "requests", "signed", "verified")

    def __init__(self) -> None:
        self.requests: list[tuple[Envelope, bytes]] = []
        self.verified: list[asyncio.Future[Signed]] = []
        self.replies: list[Unsigned] = []
        self.signed: list[asyncio.Future[bytes]] = []

    def __len__(self) -> int:
        return len(self.requests) + len(self.replies)

    def work(self) -> Work:
        """As it is sent."""
        return Work(
            [Request(each.payload, each.seal, each.signature) for each, _ in self.requests],
            self.replies,
        )

    def settle(self, done: Done) -> None:
        """Tell those who wait."""
        for (request, seal), found, future in zip(
            self.requests, done.callers, self.verified, strict=True
        ):
            if found is None:
                _verify(request, seal, future)
            else:
                _settle(future, _signed(request, seal, found))
        for body, signed in zip(done.bodies, self.signed, strict=True):
            _settle(signed, body)

    def do(self, identity: Identity) -> None:
        """Do it here."""
        for (request, seal), future in zip(self.requests, self.verified, strict=True):
            _verify(request, seal, future)
        for reply, signed in zip(self.replies, self.signed, strict=True):
            _settle(signed, reply.signed(identity))


class Beside(asyncio.Protocol):
    """In a process of its own what comes together, here what comes alone.

    The process is started when first there is something for it.
    """

    def __init__(self, identity: Identity, patience_s: float = PATIENCE_S) -> None:
        self._identity = identity
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._due: list[_Batch] = []
        self._sent: deque[_Batch] = deque()
        self._watched: _Batch | None = None
        self._frames = Frames()
        self._done = msgspec.msgpack.Decoder(Done)

    @property
    def is_beside(self) -> bool:
        """Whether the process is ready."""
        return self._transport is not None

    @property
    def pid(self) -> int:
        """The process; 0: it was not started."""
        return self._child.pid if self._child is not None else 0

    @property
    def waiting(self) -> int:
        """How much the process owes."""
        return sum(map(len, self._sent))

    async def sign(self, reply: Unsigned) -> bytes:
        """The body of a reply."""
        if len(reply.payload) > MAX_BYTES:
            return reply.signed(self._identity)
        future: asyncio.Future[bytes] = self._loop.create_future()
        due = self._begun()
        due.replies.append(reply)
        due.signed.append(future)
        return await future

    async def verify(self, request: Envelope, seal: bytes) -> Signed:
        """Who signed a request. Raises `SignatureError`."""
        if len(request.payload) > MAX_BYTES or len(request.signature) > MAX_BYTES:
            return envelope.authenticate(request, seal)
        future: asyncio.Future[Signed] = self._loop.create_future()
        due = self._begun()
        due.requests.append((request, seal))
        due.verified.append(future)
        return await future

    def _begun(self) -> _Batch:
        if not self._due:
            self._loop.call_soon(self._flush)
        if not self._due or len(self._due[-1]) >= MAX_BATCH:
            self._due.append(_Batch())
        return self._due[-1]

    def _flush(self) -> None:
        """At the end of a turn: all that it has for the process."""
        due, self._due = self._due, []
        is_alone = len(due) == len(due[0]) == 1 and not self._sent
        if self._transport is None or is_alone:
            for batch in due:
                batch.do(self._identity)
        else:
            self._sent.extend(due)
            self._transport.write(b"".join([pack(batch.work()) for batch in due]))
            if self._watched is None:
                self._watch()
        if self._starting is None and not is_alone:
            self._starting = self._loop.create_task(self._start(), context=Context())

    async def _start(self) -> None:
        """Start the process; until it is ready, and if it never is, all is done here."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs:
                self._child = await asyncio.to_thread(_spawn, theirs.fileno())
            async with asyncio.timeout(START_S):
                await self._loop.sock_sendall(ours, bytes.fromhex(self._identity.reveal()))
                if not await self._loop.sock_recv(ours, 1):
                    raise ConnectionError("it has ended")
            await self._loop.create_unix_connection(lambda: self, sock=ours)
        except (OSError, TimeoutError) as error:
            ours.close()
            log.warning(
                "no process to sign replies could be started, they are signed here: %s", error
            )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process is ready."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """What was asked for, in that order."""
        for batch in self._frames.feed(data):
            self._sent[0].settle(self._done.decode(batch))
            self._sent.popleft()

    def _watch(self) -> None:
        """Go on without a process that has owed the same for too long."""
        oldest = self._sent[0] if self._sent else None
        if oldest is not None and oldest is self._watched:
            log.warning("the process that signs replies does not answer")
            if self._transport is not None:
                self._transport.abort()
            return
        self._watched = oldest
        if oldest is not None:
            self._loop.call_later(self._patience_s, self._watch)

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended: go on without it."""
        if exc is not None:
            log.warning("the process that signs replies has ended, they are signed here: %s", exc)
        self._transport = self._watched = None
        while self._sent:
            self._sent.popleft().do(self._identity)

    async def close(self) -> None:
        """Let the process end, and wait for it."""
        if self._starting is not None:
            self._starting.cancel()
        if self._transport is not None:
            self._transport.close()
        if self._child is not None:
            await asyncio.to_thread(_end, self._child)


def _verify(request: Envelope, seal: bytes, future: asyncio.Future[Signed]) -> None:
    try:
        _settle(future, envelope.authenticate(request, seal))
    except ColonistError as error:
        if not future.done():
            future.set_exception(error)


def _signed(request: Envelope, seal: bytes, found: Verified) -> Signed:
    return Signed(found.caller, found.digest, bytes.fromhex(request.signature), seal)


def _settle(future: asyncio.Future[T], value: T) -> None:
    if not future.done():  # its caller may have gone
        future.set_result(value)


@asynccontextmanager
async def beside(identity: Identity, patience_s: float = PATIENCE_S) -> AsyncGenerator[Signer]:
    """A signer whose process ends with the block, and with this process."""
    signer = Beside(identity, patience_s)
    try:
        yield signer
    finally:
        await signer.close()


def _spawn(end: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - this interpreter, a module of ours
        [sys.executable, "-m", MODULE, str(end)],
        pass_fds=(end,),
        env=memory.for_ours(os.environ),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
