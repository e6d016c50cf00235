"""A connection to etcd keeps to HTTP/2, and survives a peer that does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from colonist_server.store.etcd import frames, http2, streams
from colonist_server.store.etcd.frames import CallError, Code, Kind, Reason, Setting
from colonist_server.store.etcd.http2 import Connection
from colonist_server.store.etcd.streams import Room, Stream
from tests.laws.test_etcd_frames import cut, places
from tests.support.clock import run_virtual, virtual
from tests.support.http2 import HEADERS, OK, Peer, Wire, answer, data, encode, headers

BLOCK = frames.request_headers("http", "h:1", "/s/M", ())


def call(connection: Connection, request: bytes = b"", *, is_single: bool = True) -> Stream:
    return connection.open(BLOCK, request, is_single=is_single)


async def error_of(stream: Stream) -> CallError:
    with pytest.raises(CallError) as caught:
        await stream.only()
    return caught.value


# -- calls


@virtual
async def test_a_call_is_headers_and_data_and_its_answer_one_message() -> None:
    peer = Peer()
    assert {each.kind for each in peer.greeting} == {Kind.SETTINGS, Kind.WINDOW_UPDATE}
    stream = call(peer.connection, b"ask")
    first, second = peer.take()
    assert (first.kind, first.payload) == (Kind.HEADERS, BLOCK)
    assert (second.payload, second.flags) == (frames.message(b"ask"), frames.END_STREAM)
    peer.say(answer(1, b"told"))
    assert await stream.only() == b"told"
    assert peer.take() == []  # both halves are closed: nothing is to be broken off


@virtual
async def test_a_stream_is_broken_off_when_nobody_reads_it_any_more() -> None:
    peer = Peer()
    stream = call(peer.connection, b"ask", is_single=False)
    assert all(not each.flags & frames.END_STREAM for each in peer.take())
    peer.say(headers(1, HEADERS), data(1, frames.message(b"a") + frames.message(b"b")))
    assert [await anext(stream), await anext(stream)] == [b"a", b"b"]
    stream.close()
    (reset,) = peer.take()
    assert (reset.kind, reset.stream) == (Kind.RST_STREAM, 1)
    assert frames.number(reset.payload) == Reason.CANCEL
    peer.say(data(1, frames.message(b"late")), headers(1, OK, is_last=True))
    assert peer.connection.is_usable


@virtual
async def test_what_came_before_a_break_is_read_before_it_is_told() -> None:
    peer = Peer()
    stream = call(peer.connection, is_single=False)
    peer.say(headers(1, HEADERS), data(1, frames.message(b"a")))
    peer.connection.connection_lost(None)
    assert await anext(stream) == b"a"
    with pytest.raises(CallError, match="closed the connection"):
        await anext(stream)


@virtual
async def test_a_stream_that_ends_well_ends_the_iteration() -> None:
    peer = Peer()
    stream = call(peer.connection, is_single=False)
    peer.say(answer(1, b"a"))
    assert [each async for each in stream] == [b"a"]
    assert [each.kind for each in peer.take()][-1] == Kind.RST_STREAM  # our half was open


REFUSED = (*HEADERS, ("grpc-status", "14"), ("grpc-message", "no%20leader"))
NO_ANSWER = ((":status", "502"), ("content-type", "text/html"))


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (headers(1, REFUSED, is_last=True), 14, "no leader"),
        (headers(1, NO_ANSWER, is_last=True), 2, "HTTP status 502"),
        (headers(1, NO_ANSWER) + data(1, b"<html>"), 2, "HTTP status 502"),
        (headers(1, HEADERS) + headers(1, (), is_last=True), 2, "without a status"),
        (headers(1, HEADERS) + data(1, b"\0", frames.END_STREAM), 2, "without a status"),
        (answer(1), 13, "0 messages"),
        (answer(1, b"a", b"b"), 13, "2 messages"),
        (headers(1, HEADERS) + data(1, b"\0\0") + headers(1, OK, is_last=True), 13, "within"),
        (headers(1, HEADERS) + data(1, b"\1\0\0\0\0"), 13, "packed"),
        (frames.reset(1, Reason.CANCEL), 14, "broke off"),
    ],
)
@virtual
async def test_a_call_that_fails_says_why(said: bytes, code: int, words: str) -> None:
    peer = Peer()
    stream = call(peer.connection)
    peer.say(said)
    error = await error_of(stream)
    assert (error.code, words in error.details) == (code, True), error.details
    assert peer.connection.is_usable


@virtual
async def test_headers_for_later_are_passed_over() -> None:
    peer = Peer()
    stream = call(peer.connection)
    peer.say(headers(1, ((":status", "103"),)), answer(1, b"a"))
    assert await stream.only() == b"a"


@virtual
async def test_headers_that_go_on_in_other_frames_are_joined() -> None:
    peer = Peer()
    stream = call(peer.connection)
    block = encode(HEADERS)
    peer.say(
        frames.frame(Kind.HEADERS, 0, 1, block[:3]),
        frames.frame(Kind.CONTINUATION, 0, 1, block[3:5]),
        frames.frame(Kind.CONTINUATION, frames.END_HEADERS, 1, block[5:]),
        data(1, frames.message(b"a")),
        headers(1, OK, is_last=True),
    )
    assert await stream.only() == b"a"


@virtual
async def test_a_call_whose_time_is_over_is_broken_off() -> None:
    peer = Peer()
    stream = call(peer.connection)
    peer.take()
    stream.expire()
    assert (await error_of(stream)).code == Code.DEADLINE_EXCEEDED
    assert [each.kind for each in peer.take()] == [Kind.RST_STREAM]


@given(
    st.lists(st.lists(st.binary(max_size=30), max_size=3), min_size=1, max_size=4),
    st.integers(0, 1 << 30),
    places,
)
def test_answers_are_the_same_however_they_are_mixed_and_cut(
    wanted: list[list[bytes]], seed: int, at: list[int]
) -> None:
    async def scenario() -> None:
        peer = Peer()
        calls = [call(peer.connection, is_single=False) for _ in wanted]
        parts = [
            [
                headers(number, HEADERS),
                *(data(number, frames.message(each)) for each in messages),
                headers(number, OK, is_last=True),
            ]
            for number, messages in zip(range(1, 99, 2), wanted, strict=False)
        ]
        chance, said = Random(seed), b""
        while any(parts):
            said += chance.choice([each for each in parts if each]).pop(0)
        for part in cut(said, at):
            peer.say(part)
        assert [[each async for each in stream] for stream in calls] == wanted

    run_virtual(scenario())


# -- windows


class Windows:
    """A model: what was granted, less what was sent, on each stream and on all."""

    def __init__(self, first: int, requests: list[bytes]) -> None:
        self.peer = Peer({Setting.INITIAL_WINDOW_SIZE: first})
        self.calls = [call(self.peer.connection, each) for each in requests]
        self.wanted = [frames.message(each) for each in requests]
        self.total, self.initial, self.first = frames.DEFAULT_WINDOW, first, first
        self.granted = dict.fromkeys((each.number for each in self.calls), 0)
        self.sent = dict.fromkeys(self.granted, b"")
        self.ends: set[int] = set()

    def resize(self, size: int) -> None:
        self.initial = size
        self.peer.say(frames.settings({Setting.INITIAL_WINDOW_SIZE: size}))

    def grant(self, number: int, size: int) -> None:
        if number:
            self.granted[number] += size
        else:
            self.total += size
        self.peer.say(frames.window_update(number, size))

    def check(self) -> None:
        for each in self.peer.take(Kind.DATA):
            assert each.stream not in self.ends
            self.sent[each.stream] += each.payload
            self.total -= len(each.payload)
            if each.flags & frames.END_STREAM:
                self.ends.add(each.stream)
        assert self.total >= 0
        for stream, wanted in zip(self.calls, self.wanted, strict=True):
            sent = self.sent[stream.number]
            room = self.initial + self.granted[stream.number] - len(sent)
            assert wanted.startswith(sent)
            assert room == stream.window
            assert room >= 0 or self.initial < self.first  # a smaller window comes too late
            assert sent == wanted or room <= 0 or self.total == 0  # nothing waits without need
            assert (stream.number in self.ends) == (sent == wanted)


@settings(max_examples=60)
@example([150_000], [(0, 50_000)], 100_000)  # all streams together are held up
@example([90_000], [(-1, 10_000), (1, 50_000), (1, 50_000)], 65_535)  # a window below nothing
@given(
    st.lists(st.integers(0, 150_000), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(-1, 3), st.integers(1, 90_000)), max_size=20),
    st.integers(0, 100_000),
)
def test_no_more_is_sent_than_the_peer_takes(
    sizes: list[int], steps: list[tuple[int, int]], first: int
) -> None:
    async def scenario() -> None:
        model = Windows(first, [Random(size).randbytes(size) for size in sizes])
        model.check()
        for target, size in steps:
            if target < 0:
                model.first = max(model.first, size)
                model.resize(size)
            else:
                model.grant(target and model.calls[target % len(sizes)].number, size)
            model.check()
        for number in (0, *model.granted):
            model.grant(number, 1 << 20)
        model.check()
        assert model.ends == set(model.granted)

    run_virtual(scenario())


@given(st.integers(2, 200), st.lists(st.integers(0, 60), max_size=30))
def test_a_room_gives_back_what_it_took_and_half_at_least(size: int, takes: list[int]) -> None:
    room, left, owed = Room(size), size, 0
    for each in takes:
        if each > left:
            with pytest.raises(frames.ProtocolError):
                room.take(each)
            return
        room.take(each)
        left, owed = left - each, owed + each
        given_back = room.give()
        assert given_back == (owed if owed >= size // 2 else 0)
        left, owed = left + given_back, owed - given_back
    assert left > 0


class Sender:
    """A peer that sends as much as it may."""

    def __init__(self, peer: Peer, number: int) -> None:
        self.peer, self.number = peer, number
        self.left = {0: http2.CONNECTION_WINDOW, number: streams.WINDOW}

    def send(self, body: bytes) -> int:
        """How much went before the window was shut."""
        at = 0
        while at < len(body):
            size = min(frames.MAX_FRAME_BYTES, len(body) - at, *self.left.values())
            if not size:
                break
            self.peer.say(data(self.number, body[at : at + size]))
            at += size
            for which in self.left:
                self.left[which] -= size
            self.hear()
        return at

    def hear(self) -> None:
        for each in self.peer.take(Kind.WINDOW_UPDATE):
            self.left[each.stream] += frames.number(each.payload)


@virtual
async def test_a_message_larger_than_all_windows_comes_through() -> None:
    peer = Peer()
    stream = call(peer.connection)
    body = bytes(http2.CONNECTION_WINDOW + 5_000_000)
    peer.say(headers(1, HEADERS))
    whole = frames.message(body)
    assert Sender(peer, 1).send(whole) == len(whole)
    peer.say(headers(1, OK, is_last=True))
    assert await stream.only() == body


@virtual
async def test_a_peer_waits_for_whoever_reads_slowly() -> None:
    peer = Peer()
    stream = call(peer.connection, is_single=False)
    peer.say(headers(1, HEADERS))
    sender, body = Sender(peer, 1), frames.message(bytes(1_000_000)) * 60
    went = sender.send(body)
    assert streams.WINDOW <= went <= 2 * streams.WINDOW + 1_000_005
    count = 0
    while went < len(body):
        await anext(stream)
        count += 1
        sender.hear()
        went += sender.send(body[went:])
    for _ in range(60 - count):
        assert len(await anext(stream)) == 1_000_000


@virtual
async def test_more_data_than_the_window_has_ends_the_connection() -> None:
    peer = Peer()
    stream = call(peer.connection, is_single=False)
    peer.say(headers(1, HEADERS), data(1, frames.message(bytes(1_000_000)) * 40))
    assert not peer.connection.is_usable
    while True:  # what was whole is read
        try:
            await anext(stream)
        except CallError as error:
            assert "window" in error.details
            break


# -- ends


@virtual
async def test_a_lost_connection_fails_all_calls_at_once() -> None:
    peer = Peer()
    calls = [call(peer.connection) for _ in range(3)]
    peer.connection.connection_lost(ConnectionResetError(104, "reset by peer"))
    for stream in calls:
        error = await error_of(stream)
        assert error.code == Code.UNAVAILABLE
        assert "reset by peer" in error.details
    assert not peer.connection.has_room


@virtual
async def test_a_connection_that_ends_slowly_answers_what_it_took() -> None:
    peer = Peer()
    taken, not_taken = call(peer.connection), call(peer.connection)
    peer.say(frames.frame(Kind.GOAWAY, 0, 0, (1).to_bytes(4, "big") + bytes(4) + b"bye"))
    assert "bye" in (await error_of(not_taken)).details
    assert not peer.connection.has_room
    assert not peer.wire.is_gone
    peer.say(answer(1, b"a"))
    assert await taken.only() == b"a"
    assert peer.wire.is_gone


@virtual
async def test_a_silent_peer_is_asked_and_then_left() -> None:
    peer = Peer()
    stream = call(peer.connection, is_single=False)
    peer.take()
    await asyncio.sleep(http2.SILENT_S + 1)
    (ping,) = peer.take()
    peer.say(frames.frame(Kind.PING, frames.ACK, 0, ping.payload))
    await asyncio.sleep(http2.SILENT_S + http2.ANSWER_S - 0.5)
    assert [each.kind for each in peer.take()] == [Kind.PING]
    assert not peer.wire.is_gone
    begun = asyncio.get_running_loop().time()
    with pytest.raises(CallError, match="no answer to a ping"):
        await anext(stream)
    assert asyncio.get_running_loop().time() - begun <= http2.ANSWER_S
    assert peer.wire.is_gone


@virtual
async def test_nothing_is_asked_where_nobody_waits() -> None:
    peer = Peer()
    await asyncio.sleep(10 * http2.SILENT_S)
    assert peer.take() == []
    assert peer.connection.has_room
    peer.connection.abort("over")
    peer.connection.connection_lost(None)


@virtual
async def test_pings_and_settings_are_acknowledged() -> None:
    peer = Peer()
    peer.say(frames.frame(Kind.PING, 0, 0, b"12345678"), frames.settings({}))
    assert [(each.kind, each.flags, each.payload) for each in peer.take()] == [
        (Kind.PING, frames.ACK, b"12345678"),
        (Kind.SETTINGS, frames.ACK, b""),
    ]


@virtual
async def test_only_so_many_calls_as_the_peer_allows() -> None:
    peer = Peer({Setting.MAX_CONCURRENT_STREAMS: 1})
    first = call(peer.connection)
    waiting = asyncio.create_task(peer.connection.room())
    await asyncio.sleep(1)
    assert not waiting.done()
    peer.say(answer(first.number, b"a"))
    await waiting
    assert peer.connection.has_room


# -- peers that do not keep to it


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        frames.frame(Kind.PUSH_PROMISE, 0, 1, bytes(4)),
        frames.frame(Kind.CONTINUATION, 0, 1, b"a"),
        frames.frame(Kind.HEADERS, 0, 1, b"a") + frames.settings({}),
        frames.frame(Kind.HEADERS, 0, 1, encode(HEADERS)[:3])
        + frames.frame(Kind.CONTINUATION, frames.END_HEADERS, 3, encode(HEADERS)[3:])
        + data(1, frames.message(b"a"))
        + headers(1, OK, is_last=True),
        frames.frame(Kind.HEADERS, 0, 1, b"a")
        + frames.frame(Kind.CONTINUATION, 0, 1, bytes(16_000)) * 5,
        headers(99, HEADERS),
        headers(2, HEADERS),
        data(1, b"a"),
        headers(1, HEADERS) * 2,
        frames.window_update(0, 0),
        frames.window_update(0, frames.MAX_WINDOW),
        frames.window_update(1, frames.MAX_WINDOW),
        frames.frame(Kind.WINDOW_UPDATE, 0, 0, b"abc"),
        frames.frame(Kind.PING, 0, 0, b"abc"),
        frames.frame(Kind.GOAWAY, 0, 0, b"abc"),
        frames.frame(Kind.SETTINGS, 0, 1),
        frames.frame(Kind.HEADERS, frames.END_HEADERS, 1, b"\xff\xff\xff"),
        frames.frame(Kind.DATA, frames.PADDED, 1, b"\x05a"),
    ],
)
@virtual
async def test_a_peer_that_does_not_keep_to_http2_is_left(said: bytes) -> None:
    peer = Peer()
    stream = call(peer.connection)
    peer.take()
    peer.say(said)
    error = await error_of(stream)
    assert (error.code, "does not keep to HTTP/2" in error.details) == (14, True)
    goaway = peer.take()[-1]
    assert goaway.kind == Kind.GOAWAY
    assert int.from_bytes(goaway.payload[4:8], "big") != Reason.NO_ERROR
    assert peer.wire.is_gone


@virtual
async def test_unknown_frames_are_passed_over() -> None:
    peer = Peer()
    stream = call(peer.connection)
    unknown = frames.frame(Kind.DATA, 0, 77, b"any")
    peer.say(unknown[:3] + b"\xee" + unknown[4:], answer(1, b"a"))
    assert await stream.only() == b"a"


@virtual
async def test_a_peer_that_asks_and_does_not_read_is_left() -> None:
    peer = Peer()
    peer.connection.pause_writing()
    for _ in range(http2.MAX_OWED_ACKS + 1):
        peer.say(frames.frame(Kind.PING, 0, 0, bytes(8)))
    assert not peer.connection.is_usable


@virtual
async def test_a_peer_that_does_not_begin_with_settings_is_no_peer() -> None:
    connection = Connection(asyncio.get_running_loop())
    connection.connection_made(Wire())
    connection.data_received(frames.frame(Kind.PING, 0, 0, bytes(8)))
    with pytest.raises(CallError, match="begin with SETTINGS"):
        await connection.ready


frame_like = st.builds(
    frames.frame,
    st.sampled_from(Kind),
    st.integers(0, 255),
    st.integers(0, 5),
    st.binary(max_size=12),
)


@settings(max_examples=300)
@given(st.lists(frame_like | st.binary(max_size=12), max_size=20))
def test_whatever_a_peer_says_calls_end_and_nothing_breaks(said: list[bytes]) -> None:
    async def scenario() -> None:
        peer = Peer()
        calls = [call(peer.connection, b"a"), call(peer.connection, bytes(100_000))]
        read = [asyncio.create_task(_quietly(stream.only)) for stream in calls]
        for each in said:
            if not peer.wire.is_gone:
                peer.say(each)
        peer.connection.connection_lost(None)
        await asyncio.gather(*read)
        assert not peer.connection.is_usable

    run_virtual(scenario())


async def _quietly(only: Callable[[], Awaitable[bytes]]) -> None:
    try:
        await only()
    except CallError:
        return
