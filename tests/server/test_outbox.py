"""What is queued for a connection is bounded, and who keeps up may have much of it for a while."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from colonist_server.http import outbox
from colonist_server.http.farewells import FAREWELLS
from colonist_server.http.outbox import Outbox, Shelf
from colonist_server.http.pubsub import Connection
from colonist_server.http.visitors import Visitor
from colonist_server.repo.topics import Ending
from tests.support.clock import virtual
from tests.support.rooms import settle

LARGE = 1_000_000


class Line:
    """A socket that is full from its first frame on and takes what `read` says."""

    def __init__(self, shelf: Shelf) -> None:
        self.sent: list[bytes] = []
        self.drops: list[float] = []
        self._unsent = 1
        self._room = asyncio.Semaphore(0)
        transport: Any = self
        self.outbox = Outbox(shelf, transport, self._send, self._dropped)

    def get_write_buffer_size(self) -> int:
        return self._unsent

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def clear(self) -> None:
        self._unsent = 0

    def sip(self, count: int) -> None:
        """The kernel takes some of what the transport has."""
        self._unsent -= count

    def ping(self) -> None:
        self._unsent += 2

    async def read(self, count: int = 1) -> None:
        for _ in range(count):
            self._room.release()
        await settle(3 * count)

    async def _send(self, frame: bytes) -> None:
        self._unsent += len(frame) + 10
        await self._room.acquire()
        self._unsent -= len(frame) + 10
        self.sent.append(frame)

    def _dropped(self) -> None:
        self.drops.append(asyncio.get_running_loop().time())


def frames(count: int, size: int = LARGE) -> list[bytes]:
    return [b"%7d" % number + bytes(size - 7) for number in range(count)]


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual
async def test_a_burst_does_not_drop_who_reads_it() -> None:
    shelf = Shelf()
    line = Line(shelf)
    burst = frames(50)
    for frame in burst:
        line.outbox.put(frame)
    for _ in burst:
        await asyncio.sleep(outbox.STALL_S * 0.9)
        await line.read()
    assert line.drops == []
    assert line.sent == burst
    assert (shelf.held_bytes, line.outbox.queued_bytes) == (0, 0)
    line.clear()
    line.outbox.put(b"next")
    assert line.sent[-1] == b"\x81\x04next"


@virtual
async def test_many_small_events_do_not_drop_who_reads_them() -> None:
    line = Line(Shelf())
    burst = frames(3 * outbox.ROOM_FRAMES, 10)
    for frame in burst:
        line.outbox.put(frame)
    await asyncio.sleep(outbox.STALL_S * 0.9)
    await line.read(len(burst))
    await asyncio.sleep(outbox.STALL_S * 10)
    assert (line.drops, line.sent) == ([], burst)


@pytest.mark.parametrize("size", [10, LARGE])
@virtual
async def test_who_reads_nothing_is_dropped_after_a_while(size: int) -> None:
    shelf = Shelf()
    line = Line(shelf)
    start = now()
    for frame in frames(outbox.ROOM_FRAMES + 2 if size == 10 else 6, size):
        line.outbox.put(frame)
    await settle()
    await asyncio.sleep(outbox.STALL_S / 2)
    line.ping()
    assert line.drops == []
    await asyncio.sleep(outbox.STALL_S * 3)
    assert line.drops == [start + outbox.STALL_S]
    assert (shelf.held_bytes, line.outbox.queued_bytes) == (0, 0)


@virtual
async def test_who_is_within_its_room_may_read_nothing() -> None:
    line = Line(Shelf())
    for frame in frames(4):
        line.outbox.put(frame)
    await asyncio.sleep(1_000)
    assert line.drops == []
    line.outbox.put(bytes(10 * outbox.ROOM_BYTES))
    await asyncio.sleep(1_000)
    assert len(line.drops) == 1


@virtual
async def test_a_part_of_a_frame_that_is_taken_counts() -> None:
    line = Line(Shelf())
    for frame in frames(8):
        line.outbox.put(frame)
    await settle()
    for _ in range(20):
        await asyncio.sleep(outbox.STALL_S * 0.9)
        line.sip(1)
    assert line.drops == []
    await asyncio.sleep(outbox.STALL_S * 3)
    assert len(line.drops) == 1


@virtual
async def test_nobody_queues_more_than_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_BYTES", 10 * LARGE)
    shelf = Shelf()
    line = Line(shelf)
    for number, frame in enumerate(frames(11)):
        assert line.drops == [], number
        line.outbox.put(frame)
        assert shelf.held_bytes <= outbox.MAX_BYTES
    assert len(line.drops) == 1
    assert shelf.held_bytes == 0


@virtual
async def test_together_they_hold_no_more_than_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_HELD_BYTES", 10 * LARGE)
    shelf = Shelf()
    greedy, modest, third = Line(shelf), Line(shelf), Line(shelf)
    shared = frames(6)
    for frame in shared:  # held once
        for line in (greedy, modest, third):
            line.outbox.put(frame)
    assert shelf.held_bytes == 6 * LARGE
    for frame in frames(4):
        greedy.outbox.put(frame)
    assert (greedy.drops, shelf.held_bytes) == ([], 10 * LARGE)
    modest.outbox.put(b"one more")
    assert [len(line.drops) for line in (greedy, modest, third)] == [1, 0, 0]
    assert shelf.held_bytes == 6 * LARGE + 8
    await modest.read(7)
    assert modest.sent == [*shared, b"one more"]


@virtual
async def test_who_is_gone_holds_nothing() -> None:
    shelf = Shelf()
    line, other = Line(shelf), Line(shelf)
    for frame in frames(8):
        line.outbox.put(frame)
        other.outbox.put(frame)
    await settle()
    line.outbox.stop()
    assert shelf.held_bytes == 7 * LARGE
    other.outbox.stop()
    assert shelf.held_bytes == 0
    await asyncio.sleep(1_000)
    assert line.drops == other.drops == []


class Full:
    """A socket that takes nothing, and its transport."""

    def __init__(self) -> None:
        self.aborted: list[float] = []

    def get_write_buffer_size(self) -> int:
        return 1

    def abort(self) -> None:
        self.aborted.append(now())

    async def send_frame(self, frame: bytes, kind: object) -> None:
        await asyncio.sleep(1_000_000)


@virtual
async def test_no_friendly_goodbye_hides_that_events_are_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "MAX_HELD_BYTES", 10 * LARGE)
    full: Any = Full()
    pubsub: Any = type("PubSub", (), {"shelf": Shelf()})()
    dispatch: Any = None
    connection = Connection(pubsub, dispatch, full, full, Visitor(""))
    other = Line(pubsub.shelf)
    for frame in frames(8):
        connection.deliver(frame)
    connection.finish(FAREWELLS[Ending.DONE])
    for frame in frames(3):
        other.outbox.put(frame)
    assert full.aborted == [0.0]
    assert (other.drops, pubsub.shelf.held_bytes) == ([], 3 * LARGE)
    connection.leave()
    other.outbox.stop()
    assert pubsub.shelf.held_bytes == 0
