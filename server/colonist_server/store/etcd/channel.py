"""Calls of gRPC to one etcd member, over a connection that is made when there is none."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import suppress
from typing import Final

from colonist_server.store.etcd import frames
from colonist_server.store.etcd.frames import CallError, Code
from colonist_server.store.etcd.http2 import LEAVE_S, Connection
from colonist_server.store.etcd.streams import Stream

CONNECT_S: Final = 3.0
HANDSHAKE: Final = "the handshake failed"
"""Said where a member can be reached, and no connection comes about all the same."""

Metadata = tuple[tuple[str, str], ...]


class Channel:
    """One member, as `host:port`; with `tls`, encrypted. Bound to the loop of its first call."""

    def __init__(self, endpoint: str, tls: ssl.SSLContext | None = None) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._scheme = "http" if tls is None else "https"
        self._connection: Connection | None = None
        self._old: set[Connection] = set()
        self._connecting: asyncio.Task[Connection] | None = None
        self._is_closed = False

    async def unary(self, path: str, request: bytes, metadata: Metadata, timeout_s: float) -> bytes:
        """One message for another. Raises `CallError`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        stream = await self._open(path, request, metadata, until, is_single=True)
        timer = loop.call_at(until, stream.expire)
        try:
            return await stream.only()
        finally:
            timer.cancel()
            stream.close()

    async def stream(self, path: str, request: bytes, metadata: Metadata) -> Stream:
        """The answers to a request, while our half stays open; to be closed. Raises `CallError`."""
        until = asyncio.get_running_loop().time() + CONNECT_S
        return await self._open(path, request, metadata, until, is_single=False)

    async def close(self) -> None:
        """Break off all calls and leave."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        connections = {*self._old, *([self._connection] if self._connection else [])}
        self._connection = None
        for connection in connections:
            connection.leave()
        for connection in connections:
            with suppress(TimeoutError):
                async with asyncio.timeout(2 * LEAVE_S):
                    await connection.closed

    async def _open(
        self, path: str, request: bytes, metadata: Metadata, until: float, *, is_single: bool
    ) -> Stream:
        headers = frames.request_headers(self._scheme, self._endpoint, path, metadata)
        connection = self._connection
        if connection is None or not connection.has_room:
            try:
                async with asyncio.timeout_at(until):
                    connection = await self._usable()
            except TimeoutError:
                raise CallError(Code.DEADLINE_EXCEEDED, "no connection in time") from None
        return connection.open(headers, request, is_single=is_single)

    async def _usable(self) -> Connection:
        connection = self._connection
        if connection is None or not connection.is_usable:
            if self._is_closed:
                raise CallError(Code.UNAVAILABLE, "the store is closed")
            connection = await self._connect()
        while not connection.has_room:
            if not connection.is_usable:
                raise CallError(Code.UNAVAILABLE, "etcd closed the connection")
            await connection.room()
        return connection

    async def _connect(self) -> Connection:
        """Make a connection; whoever needs one meanwhile waits for the same."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connected())
            self._connecting.add_done_callback(self._settle)
        return await asyncio.shield(self._connecting)

    def _settle(self, task: asyncio.Task[Connection]) -> None:
        self._connecting = None
        if task.cancelled() or task.exception() is not None:
            return
        if self._connection is not None and not self._connection.closed.done():
            old = self._connection
            self._old.add(old)
            old.closed.add_done_callback(lambda _: self._old.discard(old))
        self._connection = task.result()

    async def _connected(self) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(loop)
        host, _, port = self._endpoint.rpartition(":")
        host = host.strip("[]")
        name = None if self._tls is None else host
        try:
            async with asyncio.timeout(CONNECT_S):
                transport, _ = await loop.create_connection(
                    lambda: connection, host, int(port), ssl=self._tls, server_hostname=name
                )
                _check_protocol(transport)
                await connection.ready
        except TimeoutError:
            raise CallError(Code.UNAVAILABLE, f"no connection within {CONNECT_S:.0f} s") from None
        except (OSError, CallError) as error:
            raise CallError(Code.UNAVAILABLE, _words(error)) from error
        finally:
            if not _is_up(connection):
                connection.abort("given up")
        return connection


def _is_up(connection: Connection) -> bool:
    ready = connection.ready
    return ready.done() and not ready.cancelled() and ready.exception() is None


def _check_protocol(transport: asyncio.BaseTransport) -> None:
    tls = transport.get_extra_info("ssl_object")
    if tls is not None and tls.selected_alpn_protocol() != "h2":
        raise CallError(Code.UNAVAILABLE, "the peer does not offer HTTP/2")


_AT_THE_DOOR: Final = (ssl.SSLError, ConnectionResetError, ConnectionAbortedError, CallError)


def _words(error: OSError | CallError) -> str:
    if isinstance(error, _AT_THE_DOOR):
        return f"{HANDSHAKE}: {error}"
    if isinstance(error, socket.gaierror) or not error.errno:
        return f"cannot be reached: {error.strerror or error}"
    return f"cannot be reached: {os.strerror(error.errno)}"
