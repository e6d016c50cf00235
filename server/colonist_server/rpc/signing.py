"""Signing replies, beside the loop where there are many.

A signature takes 20 us, and a lifecycle of sealed requests needs three: a sixth of the loop's time.
What one turn of the loop has to sign goes in one write to a process of its own, on another core; a
single reply is signed at once, which is sooner than asking. Should that process end, replies are
signed here.

    python -m colonist_server.rpc.signing SOCKET_FD     (started by the server only)

The key goes over the socket, so it stands in no argument, environment or file of that process.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Final, Protocol, cast

from colonist_client import memory
from colonist_protocol.identity import (
    DIGEST_BYTES,
    KEY_BYTES,
    SIGNATURE_BYTES,
    Identity,
    digest,
)

log = logging.getLogger(__name__)

MODULE: Final = "colonist_server.rpc.signing"
RECEIVED_BYTES: Final = 262_144
MAX_TEXT_BYTES: Final = 16_384
START_S: Final = 20.0
STOP_S: Final = 5.0

_SIZE: Final = struct.Struct("<H")
_DIGEST: Final = _SIZE.pack(0)


class Signer(Protocol):
    """Signs with the server's key."""

    async def sign(self, text: bytes) -> str:
        """The signature of the SHA3-256 of a text, as 130 hex characters."""
        ...


class Here:
    """Signs in the loop."""

    __slots__ = ("_identity",)

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def sign(self, text: bytes) -> str:
        """The signature of a text."""
        return self._identity.sign(text)


_Job = tuple[bytes, asyncio.Future[str]]


class Beside(asyncio.Protocol):
    """Signs in a process of its own what comes together, here what comes alone.

    The process is started when first there is something for it.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._due: list[_Job] = []
        self._sent: deque[_Job] = deque()
        self._received = bytearray()

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
        """How many signatures the process owes."""
        return len(self._sent)

    async def sign(self, text: bytes) -> str:
        """The signature of a text."""
        future: asyncio.Future[str] = self._loop.create_future()
        if not self._due:
            self._loop.call_soon(self._flush)
        self._due.append((text, future))
        return await future

    def _flush(self) -> None:
        """At the end of a turn: all that it has to sign."""
        due, self._due = self._due, []
        is_alone = len(due) == 1 and not self._sent
        if self._transport is None or is_alone:
            self._sign_here(due)
        else:
            self._sent.extend(due)
            self._transport.write(b"".join([pack(text) for text, _ in due]))
        if self._starting is None and not is_alone:
            self._starting = self._loop.create_task(self._start(), context=Context())

    def _sign_here(self, jobs: list[_Job]) -> None:
        for text, future in jobs:
            _settle(future, self._identity.sign_digest(digest(text)))

    async def _start(self) -> None:
        """Start the process; until it is ready, and if it never is, replies are signed here."""
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
        """Signatures, in the order in which they were asked for."""
        received = self._received
        received += data
        whole = len(received) - len(received) % SIGNATURE_BYTES
        for start in range(0, whole, SIGNATURE_BYTES):
            _, future = self._sent.popleft()
            _settle(future, bytes(received[start : start + SIGNATURE_BYTES]))
        del received[:whole]

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended: go on without it."""
        if exc is not None:
            log.warning("the process that signs replies has ended, they are signed here: %s", exc)
        self._transport = None
        jobs = list(self._sent)
        self._sent.clear()
        self._sign_here(jobs)

    async def close(self) -> None:
        """Let the process end, and wait for it."""
        if self._starting is not None:
            self._starting.cancel()
        if self._transport is not None:
            self._transport.close()
        if self._child is not None:
            await asyncio.to_thread(_end, self._child)


def _settle(future: asyncio.Future[str], signature: bytes) -> None:
    if not future.done():  # its caller may have gone
        future.set_result(signature.hex())


@asynccontextmanager
async def beside(identity: Identity) -> AsyncGenerator[Signer]:
    """A signer whose process ends with the block, and with this process."""
    signer = Beside(identity)
    try:
        yield signer
    finally:
        await signer.close()


def _spawn(end: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - this interpreter, a module of ours
        [sys.executable, "-m", MODULE, str(end)],
        pass_fds=(end,),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def _end(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def pack(text: bytes) -> bytes:
    """A text as it goes to the process: whole, or as its digest where it is long."""
    if len(text) > MAX_TEXT_BYTES:
        return _DIGEST + digest(text)
    return _SIZE.pack(len(text)) + text


def unpack(received: bytearray) -> list[bytes]:
    """The digests of what has come whole, which is taken out."""
    found: list[bytes] = []
    at, end = 0, len(received)
    while end - at >= _SIZE.size:
        (size,) = _SIZE.unpack_from(received, at)
        start = at + _SIZE.size
        stop = start + (size or DIGEST_BYTES)
        if stop > end:
            break
        part = bytes(received[start:stop])
        found.append(digest(part) if size else part)
        at = stop
    del received[:at]
    return found


def serve(end: socket.socket) -> None:
    """Sign what comes, until the other end is closed."""
    key = end.recv(KEY_BYTES, socket.MSG_WAITALL)
    identity = Identity(key)
    end.sendall(b"!")
    received = bytearray()
    while data := end.recv(RECEIVED_BYTES):
        received += data
        end.sendall(b"".join(map(identity.sign_digest, unpack(received))))


def main() -> None:
    """Run the process. Whoever stops the server stops it by the closed socket."""
    memory.close(os.environ)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(fileno=int(sys.argv[1])) as end:
        try:
            serve(end)
        except ConnectionError:
            return  # the server was killed


if __name__ == "__main__":
    main()
