"""A connection to an MQTT broker that is made again whenever it is lost.

Rules: a new client object for each connection; the session at the broker persists (clean start
off); an orderly end publishes what the last will would have said, since a goodbye takes the will
back; reconnects with full jitter; the count of failures starts anew only after a connection that
held for a while, so two programs with one client id, which throw each other out, slow down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final, Protocol

from colonist_client.mqtt_connection import (
    BrokerAddress,
    Connection,
    Incoming,
    LinkError,
    Retained,
)
from colonist_client.retry import Backoff

STEADY_S: Final = 10.0

_log = logging.getLogger(__name__)


class Peer(Protocol):
    """Who is behind the link: it says what to announce and takes what comes."""

    def will(self, conn: int) -> Retained:
        """The last will of the connection with this number (from 1)."""
        ...

    async def connected(self, connection: Connection, conn: int) -> None:
        """Announce and subscribe, on every connection anew. May raise `LinkError`."""
        ...

    def disconnected(self) -> None:
        """The connection that `connected` saw is gone."""
        ...

    def received(self, connection: Connection, message: Incoming) -> None:
        """Take a message and acknowledge it. Must not wait and must not raise."""
        ...


class Link:
    """Keeps one connection. `run` does the work; `publish` waits for a connection if need be."""

    def __init__(
        self, address: BrokerAddress, peer: Peer, backoff: Backoff, *, steady_s: float = STEADY_S
    ) -> None:
        self._address = address
        self._peer = peer
        self._backoff = backoff
        self._steady_s = steady_s
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self.connects = 0

    @property
    def is_up(self) -> bool:
        """Whether the broker is there as far as we know."""
        return self._connection is not None and self._connection.is_open

    async def run(self) -> None:
        """Connect, serve, connect again; ends when cancelled, with a goodbye to the broker."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            why = await self._serve()
            if loop.time() - began >= self._steady_s:
                failures = 0
            failures += 1
            delay_s = self._backoff.delay_s(failures)
            _log.info("broker link down: %s; next try in %.1f s", why, delay_s)
            await asyncio.sleep(delay_s)

    async def connection(self) -> Connection:
        """The connection, once there is one that was announced and subscribed."""
        while True:
            if self._connection is not None and self._connection.is_open:
                return self._connection
            self._up.clear()
            await self._up.wait()

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish until a broker acknowledges it, over as many connections as that takes.

        The caller sets the deadline.
        """
        while True:
            connection = await self.connection()
            try:
                return await connection.publish(topic, payload, retain=retain)
            except LinkError:
                # The connection is cut by now, so this is no tight loop.
                await connection.lost()

    def cut(self) -> None:
        """Break the connection as a dead network would; `run` makes another one."""
        if self._connection is not None:
            self._connection.cut("cut")

    async def _serve(self) -> str:
        conn = self.connects = self.connects + 1
        will = self._peer.will(conn)
        connection = Connection(
            self._address,
            will=will,
            on_message=lambda message: self._peer.received(connection, message),
        )
        try:
            await connection.open()
            await self._peer.connected(connection, conn)
            self._connection = connection
            self._up.set()
            _log.info("broker link up: connection %d", conn)
            return await connection.lost()
        except LinkError as error:
            return str(error)
        finally:
            self._connection = None
            self._up.clear()
            self._peer.disconnected()
            await _goodbye(connection, will)


async def _goodbye(connection: Connection, will: Retained) -> None:
    if connection.is_open:
        with contextlib.suppress(LinkError):
            await connection.publish(will.topic, will.payload, retain=True)
    await connection.close()
