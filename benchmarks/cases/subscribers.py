"""Subscribers: how soon a thousand who follow one colony all see what happens in it.

`subscribers/1000`: every subscriber has a connection of its own and follows every state of every
process. Processes are submitted and assigned one after another, each step once everybody has seen
the one before. A delivery is counted from the reply of the submit or assign to the event's arrival
at one subscriber, and `last_*` to its arrival at the last of them.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from benchmarks.colony import Executor, stage
from benchmarks.connection import OK, Connection, connect
from benchmarks.meter import Meter
from benchmarks.place import Place, Server
from benchmarks.rows import Row, latencies
from benchmarks.workers import Tally

SUBSCRIBERS = 1_000
CALLERS = 20
PROCESSES = 50
TIMEOUT_S = 600
SETTLE_S = 1.0
GIVE_UP_S = 5.0
AT_ONCE = 100

_UPGRADE = (
    b"GET /pubsub HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_TEXT = 0x81
_PONG = 0x8A
_PING = b"\x89\x80" + bytes(4)


async def measure(place: Place) -> list[Row]:
    """One run."""
    async with place.server() as server:
        return [await _run(server)]


async def _run(server: Server) -> Row:
    callers = await stage(server, CALLERS)
    hall = Hall(SUBSCRIBERS)
    await hall.fill(server, callers)
    (client,) = await connect(server.port)
    await asyncio.sleep(SETTLE_S)
    tally, meter = Tally(), Meter(server)
    meter.start()
    for request in callers[0].submits(PROCESSES):
        await _step(client, request, hall, tally)
        await _step(client, callers[0].poll(-1), hall, tally)
    used = meter.stop()
    client.close()
    hall.close()
    metrics = {
        "subscribers": float(SUBSCRIBERS),
        "deliveries": float(len(hall.waits)),
        **latencies("", hall.waits),
        **latencies("last_", hall.last_waits),
        "missing": float(2 * PROCESSES * SUBSCRIBERS - len(hall.waits)),
        "failures": float(tally.failures.total()),
        **used.metrics(len(hall.waits)),
    }
    return Row(name=f"subscribers/{SUBSCRIBERS}", metrics=metrics, notes=tally.notes())


async def _step(client: Connection, request: bytes, hall: Hall, tally: Tally) -> None:
    """One change, until everybody has seen it."""
    hall.expect()
    reply = await client.request(request)
    replied = time.perf_counter()
    if reply.status != OK:
        tally.fail(*reply)
        return
    await hall.settle(replied)


class Hall:
    """All subscribers, and when the event under way reached each."""

    def __init__(self, seats: int) -> None:
        self.waits: list[float] = []
        self.last_waits: list[float] = []
        self._seats = seats
        self._ears: list[Ear] = []
        self._arrivals: list[float] = []
        self._is_standing = 0
        self._changed = asyncio.Event()

    async def fill(self, server: Server, callers: list[Executor]) -> None:
        """Connect and subscribe, a hundred at a time."""
        loop = asyncio.get_running_loop()
        for start in range(0, self._seats, AT_ONCE):
            some = range(start, min(start + AT_ONCE, self._seats))
            made = [
                loop.create_connection(
                    lambda caller=callers[seat % CALLERS]: Ear(self, _order(caller)),
                    "127.0.0.1",
                    server.port,
                )
                for seat in some
            ]
            self._ears += [ear for _, ear in await asyncio.gather(*made)]
            async with asyncio.timeout(TIMEOUT_S):
                while self._is_standing < len(self._ears):
                    self._changed.clear()
                    await self._changed.wait()

    def stands(self) -> None:
        """One more subscription stands."""
        self._is_standing += 1
        self._changed.set()

    def expect(self) -> None:
        """Another event will come."""
        self._arrivals = []

    def arrived(self) -> None:
        """The event reached one subscriber."""
        self._arrivals.append(time.perf_counter())
        if len(self._arrivals) == self._seats:
            self._changed.set()

    async def settle(self, replied: float) -> None:
        """Until everybody has it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(GIVE_UP_S):
                while len(self._arrivals) < self._seats:
                    self._changed.clear()
                    await self._changed.wait()
        found = [max(0.0, at - replied) for at in self._arrivals]
        self.waits += found
        self.last_waits.append(max(found) if len(found) == self._seats else GIVE_UP_S)

    def close(self) -> None:
        """Everybody leaves."""
        for ear in self._ears:
            ear.close()


class Ear(asyncio.Protocol):
    """One subscriber: counts text frames, and takes a pong for the sign that it is subscribed."""

    __slots__ = ("_data", "_hall", "_is_open", "_order", "_transport")

    def __init__(self, hall: Hall, order: bytes) -> None:
        self._hall = hall
        self._order = order
        self._data = b""
        self._is_open = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Upgrade, subscribe, ping: all at once."""
        self._transport = transport  # pyright: ignore[reportAttributeAccessIssue]
        if self._transport is not None:
            self._transport.write(_UPGRADE + _frame(self._order) + _PING)

    def data_received(self, data: bytes) -> None:
        """Whole frames, in almost every case one."""
        self._data += data
        if not self._is_open:
            head, found, self._data = self._data.partition(b"\r\n\r\n")
            if not found:
                self._data = head
                return
            if not head.startswith(b"HTTP/1.1 101"):
                raise RuntimeError(f"no upgrade: {head!r}")
            self._is_open = True
        while (end := _end_of_frame(self._data)) and len(self._data) >= end:
            kind, self._data = self._data[0], self._data[end:]
            if kind == _TEXT:
                self._hall.arrived()
            elif kind == _PONG:
                self._hall.stands()

    def close(self) -> None:
        """Leave without a word."""
        if self._transport is not None:
            self._transport.abort()


def _order(caller: Executor) -> bytes:
    request = caller.key.call(
        "subscribeprocessesmsg",
        colonyname=caller.colony,
        executortype="",
        state=-1,
        timeout=TIMEOUT_S,
    )
    return request.partition(b"\r\n\r\n")[2]


def _frame(text: bytes) -> bytes:
    """A text frame of a client, with a mask of zeros."""
    return b"\x81\xfe" + len(text).to_bytes(2, "big") + bytes(4) + text


def _end_of_frame(data: bytes) -> int:
    """Where the first frame ends; 0 when its head is not all there."""
    if len(data) < 2:
        return 0
    length = data[1]
    if length == 126:
        return 4 + int.from_bytes(data[2:4], "big") if len(data) >= 4 else 0
    if length == 127:
        return 10 + int.from_bytes(data[2:10], "big") if len(data) >= 10 else 0
    return 2 + length
