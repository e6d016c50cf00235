"""What a connection meets first: refusals in the bytes as they come, and time for heads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colonist_core.limits import Limits
from colonist_protocol.colony import GetColony
from colonist_protocol.envelope import pack_request, parse_reply
from colonist_protocol.process import AssignProcess
from colonist_protocol.server import Version
from colonist_server.http import doorway, porter
from colonist_server.http.doorway import MAX_PIPELINED, PARTIAL, UNUSUAL, frame
from colonist_server.http.visitors import MAX_REFUSALS, address_of
from tests.server.house import House, house
from tests.server.people import STRANGER
from tests.support.rooms import COLONY, key

ASK = GetColony(colonyname=COLONY)
GOOD = pack_request(ASK, key("uma"))
BAD = pack_request(ASK, STRANGER)
UNSIGNED = pack_request(ASK, None)
DEADLINE_S = 10.0


def request(body: bytes, more: str = "") -> bytes:
    head = f"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


class Line(NamedTuple):
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        """Status and body of the next response."""
        async with asyncio.timeout(DEADLINE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            return int(head[9:12]), await self.reader.readexactly(length)

    async def is_closed(self) -> bool:
        """It is, once what was on its way has been read."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                return await self.reader.read() == b""
            except ConnectionError:
                return True


@pytest.fixture
async def home(tmp_path: Path) -> AsyncGenerator[House]:
    """A server with few in it."""
    async with house(tmp_path) as made:
        await made.found("ada", "ben")
        await made.enrol("uma")
        yield made


@asynccontextmanager
async def line(home: House) -> AsyncGenerator[Line]:
    reader, writer = await asyncio.open_connection(home.server.host, home.server.port)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


async def figure(home: House, name: str) -> int:
    text = (await home.request("GET", "/metrics")).body.decode()
    return next(int(row.split()[1]) for row in text.splitlines() if row.startswith(f"{name} "))


# -- refusals


async def test_a_refusal_at_the_door_is_that_of_the_rooms(home: House) -> None:
    async with line(home) as kept:
        for body in (BAD, UNSIGNED, b"rubbish", b"", b"{}", GOOD[:-40]):
            async with line(home) as other:
                kept.send(request(body))
                other.send(request(body, "Expect: 100-continue\r\n"))  # it goes on to aiohttp
                refused = await kept.answer()
                assert refused[0] in (400, 403)
                assert refused == await other.answer()


async def test_a_member_is_let_in_by_the_first_request_that_is_his(home: House) -> None:
    async with line(home) as one:
        for _ in range(20):
            one.send(request(BAD))
            assert (await one.answer())[0] == 403
        for body, status in ((GOOD, 200), (BAD, 403), (GOOD, 200)):
            one.send(request(body))
            assert (await one.answer())[0] == status
    assert await figure(home, "colonist_refused_early_total") == 20


async def test_answers_come_in_order_however_requests_are_sent(home: House) -> None:
    async with line(home) as one:
        one.send(b"".join(map(request, (BAD, UNSIGNED, GOOD, b"{", GOOD))))
        assert [(await one.answer())[0] for _ in range(5)] == [403, 403, 200, 400, 200]


async def test_who_sends_much_without_listening_is_cut_off(home: House) -> None:
    async with line(home) as one:
        one.send(request(BAD) * (MAX_PIPELINED + 5))
        for _ in range(MAX_PIPELINED):
            assert (await one.answer())[0] == 403
        assert await one.is_closed()


async def test_past_the_door_an_unproven_connection_ends_after_a_few_refusals(home: House) -> None:
    async with line(home) as one:
        one.send(request(pack_request(Version(), None)))
        assert (await one.answer())[0] == 200
        for _ in range(MAX_REFUSALS):
            one.send(request(BAD))
            assert (await one.answer())[0] == 403
        assert await one.is_closed()


async def test_a_connection_that_proved_itself_stays_whatever_comes(home: House) -> None:
    async with line(home) as one:
        for body, status in ((GOOD, 200), *((BAD, 403),) * 3 * MAX_REFUSALS, (GOOD, 200)):
            one.send(request(body))
            assert (await one.answer())[0] == status


async def test_strangers_have_a_budget_of_their_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(porter, "TRUST", 3)
    async with house(tmp_path, limits=Limits(strangers=1)) as made:
        await made.found()
        await made.enrol("uma")
        async with line(made) as known, line(made) as one:
            known.send(request(GOOD))
            assert (await known.answer())[0] == 200
            one.send(request(BAD))
            while (await one.answer())[0] == 403:
                one.send(request(BAD))
            for _ in range(10):  # beside it, from the same address, and judged now and then
                known.send(request(GOOD))
                assert (await known.answer())[0] == 200
                one.send(request(BAD))
                assert (await one.answer())[0] in (403, 429)


async def test_who_shares_a_connection_with_others_has_a_rate_alone(tmp_path: Path) -> None:
    """As the devices behind one bridge do."""
    async with house(tmp_path, limits=Limits(rate=1, burst=30)) as made:
        await made.found("ada")
        await made.enrol("uma")
        async with line(made) as bridge:
            status = 200
            while status == 200:
                bridge.send(request(GOOD))
                status, _ = await bridge.answer()
            assert status == 429
            bridge.send(request(pack_request(ASK, key("ada"))))
            assert (await bridge.answer())[0] == 200


# -- frames


@pytest.mark.parametrize(
    ("data", "ends"),
    [
        (b"", PARTIAL),
        (b"PO", PARTIAL),
        (b"GET / HTTP/1.1\r\n", UNUSUAL),
        (b"POST /api HTTP/1.0\r\n", UNUSUAL),
        (b"\x16\x03\x01", UNUSUAL),
        (request(b"ab")[:-3], PARTIAL),
        (request(b"ab")[:-1], UNUSUAL),
        (request(b"ab"), len(request(b"ab"))),
        (request(b"ab") + b"more", len(request(b"ab"))),
        (request(b"ab", "Connection: keep-alive\r\n"), len(request(b"ab")) + 24),
        (request(b"ab", "connection: close\r\n"), UNUSUAL),
        (request(b"ab", "ORIGIN: x\r\n"), UNUSUAL),
        (request(b"ab", "Transfer-Encoding : chunked\r\n"), UNUSUAL),
        (request(b"ab", "Content-Encoding: gzip\r\n"), UNUSUAL),
        (request(b"ab", "Content-Length: 2\r\n"), UNUSUAL),
        (request(b"ab", "Content-Length : 2\r\n"), UNUSUAL),
        (b"POST /api HTTP/1.1\r\nHost: x\r\n\r\n", UNUSUAL),
        (b"POST /api HTTP/1.1\r\nContent-Length: +2\r\n\r\nab", UNUSUAL),
        (b"POST /api HTTP/1.1\r\nContent-Length: 9999999\r\n\r\nab", UNUSUAL),
        (b"POST /api HTTP/1.1\r\n" + b"a" * 70_000, UNUSUAL),
    ],
)
def test_only_plain_whole_requests_are_read_at_the_door(data: bytes, ends: int) -> None:
    assert frame(data)[1] == ends


class Pipe:
    """A transport that keeps what is written."""

    def __init__(self, unread: int = 0) -> None:
        self.written: list[bytes] = []
        self.unread = unread
        self.closed = False
        self.inside: Inside | None = None

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.1", 5) if name == "peername" else None

    def get_write_buffer_size(self) -> int:
        return self.unread

    def set_write_buffer_limits(self, high: int) -> None:
        assert high == doorway.MAX_UNREAD_BYTES

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    def set_protocol(self, protocol: Any) -> None:
        self.inside = protocol


class Inside:
    """Where a connection goes on."""

    def __init__(self) -> None:
        self.data = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data


class Queue:
    """Nobody's time is up."""

    def enter(self, who: Any) -> None: ...

    def leave(self, who: Any) -> None: ...


class Doors:
    """The doors of a house in which `good` is good, and all else rubbish."""

    def __init__(self) -> None:
        self.at_door = Queue()

    def judge(self, body: bytes, visitor: Any) -> bytes | None:
        assert visitor.address == "192.0.2.1"
        return None if body == b"good" else b"no:" + body

    def inside(self, visitor: Any) -> Inside:
        return Inside()


def come_in(pieces: list[bytes], pipe: Pipe) -> None:
    """A connection that brings these."""
    protocol: Any = doorway.Doorway(Doors())  # pyright: ignore[reportArgumentType]
    protocol.connection_made(pipe)
    for piece in pieces:
        (pipe.inside or protocol).data_received(piece)


@given(
    st.lists(st.sampled_from([b"good", b"bad", b"worse"]), min_size=1, max_size=6),
    st.lists(st.integers(0, 500), max_size=8),
)
def test_however_the_bytes_are_cut_each_request_is_refused_or_goes_on(
    bodies: list[bytes], cuts: list[int]
) -> None:
    """Refusals come in order up to the first good one; from there all bytes go on, and none twice.

    A request whose body is not there yet goes on, too.
    """
    data = b"".join(map(request, bodies))
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in pairwise(places)]
    pipe = Pipe()
    come_in(pieces, pipe)
    refused = [piece.removeprefix(b"no:") for piece in pipe.written]
    assert refused == bodies[: len(refused)]
    assert b"good" not in refused
    rest = b"".join(map(request, bodies[len(refused) :]))
    assert (pipe.inside.data if pipe.inside else b"") == rest


def test_who_does_not_read_what_he_is_told_is_cut_off() -> None:
    pipe = Pipe(unread=doorway.MAX_UNREAD_BYTES + 1)
    come_in([request(b"bad") * 3], pipe)
    assert (pipe.written, pipe.closed) == ([b"no:bad"], True)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (("192.0.2.7", 80), "192.0.2.7"),
        (("::ffff:192.0.2.7", 80, 0, 0), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 80, 0, 0), bytes.fromhex("20010db800010002")),
        (("2001:db8:1:2:ffff::1", 80, 0, 0), bytes.fromhex("20010db800010002")),
        (("fe80::1%eth0", 80, 0, 3), bytes.fromhex("fe80000000000000")),
        (("no:address", 80), "no:address"),
        ("", ""),
        (None, ""),
        ((), ""),
        ((7,), 7),
    ],
)
def test_an_address_is_a_host_or_the_network_of_a_household(peer: object, address: object) -> None:
    assert address_of(peer) == address


# -- time


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorway, "HEAD_S", 0.3)
    monkeypatch.setattr(doorway, "_SWEEP_S", 0.02)


async def test_a_head_that_does_not_come_ends_the_connection(hurry: None, home: House) -> None:
    async def begin(before: bytes, start: bytes) -> bool:
        async with line(home) as one:
            one.send(before)
            if before:
                await one.answer()
            one.send(start)
            return await one.is_closed()

    begun = b"POST /api HTTP/1.1\r\nHost:"
    cases = [
        (before, start)
        for before in (b"", request(GOOD), request(BAD))
        for start in (b"", b"P", begun, b"GET /health HTTP/1.1\r\nHost:")
        if start or before != request(GOOD)  # who proved itself may be idle
    ]
    assert await asyncio.gather(*(begin(*case) for case in cases)) == [True] * 11
    assert await figure(home, "colonist_slow_heads_total") == 11


async def test_bytes_that_trickle_win_no_time(hurry: None, home: House) -> None:
    async with line(home) as one:
        one.send(request(GOOD))
        await one.answer()
        one.send(b"POST /api HTTP/1.1\r\nX: ")

        async def trickle() -> None:
            while True:
                one.send(b"x")
                await asyncio.sleep(0.005)

        task = asyncio.create_task(trickle())
        assert await one.is_closed()
        task.cancel()


async def test_who_waits_for_work_or_between_requests_has_time(hurry: None, home: House) -> None:
    poll = pack_request(AssignProcess(colonyname=COLONY, timeout=100), key("ben"))
    async with line(home) as parked, line(home) as quiet, line(home) as slow:
        parked.send(request(poll))
        quiet.send(request(GOOD))
        await quiet.answer()
        await home.until_parked(1)
        slow.send(b"P")
        assert await slow.is_closed()
        quiet.send(request(GOOD))
        assert (await quiet.answer())[0] == 200
        submitted = await home.submit("uma")
        status, body = await parked.answer()
        assert status == 200
        shown = parse_reply(body)
        assert isinstance(shown, bytes)
        assert submitted.processid.encode() in shown


async def test_a_body_that_takes_its_time_is_no_head(hurry: None, home: House) -> None:
    async with line(home) as one, line(home) as slow:
        whole = request(GOOD)
        one.send(whole[:-10])
        slow.send(b"P")
        assert await slow.is_closed()
        one.send(whole[-10:-5])
        await asyncio.sleep(0)
        one.send(whole[-5:])
        assert (await one.answer())[0] == 200


async def test_so_many_stand_at_the_door_and_who_stood_longest_goes(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorway, "MAX_AT_DOOR", 2)
    async with line(home) as first, line(home) as second, line(home) as third:
        assert await first.is_closed()
        for one in (second, third):
            one.send(request(GOOD))
            assert (await one.answer())[0] == 200


async def test_past_the_door_the_oldest_of_whom_nothing_is_known_makes_room(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorway, "MAX_UNPROVEN", 2)
    alive = b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    follow = (
        b"GET /pubsub HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )

    async def comes(one: Line, data: bytes) -> None:
        one.send(data)
        async with asyncio.timeout(DEADLINE_S):
            await one.reader.readuntil(b"\r\n\r\n")

    async with AsyncExitStack() as stack:
        member, idle, second, third, fourth, fifth = [
            await stack.enter_async_context(line(home)) for _ in range(6)
        ]
        member.send(request(GOOD))
        assert (await member.answer())[0] == 200
        await comes(idle, follow)
        await comes(second, alive)
        await comes(third, alive)
        assert await idle.is_closed()
        second.send(request(GOOD))
        assert (await second.answer())[0] == 200
        await comes(fourth, alive)  # in the place of the second, which stays
        await comes(fifth, alive)
        assert await third.is_closed()
        for one in (member, second, fourth, fifth):
            one.send(request(GOOD))
            assert (await one.answer())[0] == 200


async def test_a_server_that_stops_waits_for_nobody_at_its_door(tmp_path: Path) -> None:
    async with house(tmp_path) as made:
        reader, writer = await asyncio.open_connection(made.server.host, made.server.port)
        writer.write(b"PO")
        await writer.drain()
        await made.request("GET", "/health")
    assert await Line(reader, writer).is_closed()
    writer.close()
