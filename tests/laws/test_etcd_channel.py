"""A channel to etcd over real sockets: it connects, connects anew, and says what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest

from colonist_server.store.etcd import channel, frames
from colonist_server.store.etcd.channel import Channel
from colonist_server.store.etcd.frames import CallError, Code, Frame, Kind, Setting
from tests.support.http2 import HEADERS, answer, data, headers
from tests.support.ports import HOST, free_ports

DEADLINE_S = 10.0
Serve = Callable[["Visit"], Awaitable[None]]


class Visit:
    """One connection, as a server has it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._frames = frames.Reader()
        self._heard: list[Frame] = []
        self.writer = writer

    def say(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    async def greet(self, settings: dict[Setting, int] | None = None) -> None:
        assert await self._reader.readexactly(len(frames.PREFACE)) == frames.PREFACE
        self.say(frames.settings(settings or {}))

    async def hear(self, kind: Kind) -> Frame:
        """The next frame of a kind."""
        while True:
            while self._heard:
                found = self._heard.pop(0)
                if found.kind == kind:
                    return found
            got = await self._reader.read(65_536)
            if not got:
                raise ConnectionResetError
            self._heard += self._frames.feed(got)


@contextlib.asynccontextmanager
async def served(serve: Serve) -> AsyncGenerator[Channel, None]:
    tasks: set[asyncio.Task[None]] = set()

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        gone = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)
        with contextlib.suppress(*gone):
            await serve(Visit(reader, writer))
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(visit, HOST, 0)
    own = Channel(f"{HOST}:{server.sockets[0].getsockname()[1]}")
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield own
    finally:
        await own.close()
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def refused(own: Channel, timeout_s: float = DEADLINE_S) -> CallError:
    with pytest.raises(CallError) as caught:
        await own.unary("/s/M", b"", (), timeout_s)
    return caught.value


async def echo(visit: Visit) -> None:
    await visit.greet()
    await answer_all(visit)


async def answer_all(visit: Visit) -> None:
    while True:
        got = await visit.hear(Kind.DATA)
        visit.say(answer(got.stream, got.payload[5:]))


async def test_calls_at_once_share_one_connection() -> None:
    visits = 0

    async def serve(visit: Visit) -> None:
        nonlocal visits
        visits += 1
        await echo(visit)

    async with served(serve) as own:
        asked = [b"%d" % number for number in range(20)]
        calls = [own.unary("/s/M", each, (), DEADLINE_S) for each in asked]
        assert await asyncio.gather(*calls) == asked
        assert visits == 1


async def test_a_peer_that_takes_one_call_at_a_time_gets_one_at_a_time() -> None:
    async def serve(visit: Visit) -> None:
        await visit.greet({Setting.MAX_CONCURRENT_STREAMS: 1})
        for number in range(1, 13, 2):
            assert (await visit.hear(Kind.HEADERS)).stream == number
            assert (await visit.hear(Kind.DATA)).stream == number
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await visit.hear(Kind.HEADERS)
            visit.say(answer(number, b"a"))
        await visit.hear(Kind.GOAWAY)

    async with served(serve) as own:
        calls = [own.unary("/s/M", b"", (), DEADLINE_S) for _ in range(6)]
        assert await asyncio.gather(*calls) == [b"a"] * 6


async def test_nobody_there_is_refused_in_words() -> None:
    (port,) = free_ports(1)
    error = await refused(Channel(f"{HOST}:{port}"))
    assert (error.code, error.details) == (
        Code.UNAVAILABLE,
        "cannot be reached: Connection refused",
    )


async def test_a_host_that_is_unknown_is_said() -> None:
    error = await refused(Channel("no-such-host.invalid:1"))
    assert error.code == Code.UNAVAILABLE
    assert "cannot be reached" in error.details


@pytest.mark.parametrize("said", [b"", b"HTTP/1.0 400 Bad Request\r\n\r\n", b"\x15\x03\x01\0\2\2F"])
async def test_a_peer_that_speaks_something_else_is_said(said: bytes) -> None:
    async def serve(visit: Visit) -> None:
        visit.say(said)
        await visit.writer.drain()

    async with served(serve) as own:
        error = await refused(own)
    assert error.code == Code.UNAVAILABLE
    assert error.details.startswith(channel.HANDSHAKE)


async def test_a_peer_that_never_greets_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "CONNECT_S", 0.1)

    async def serve(_: Visit) -> None:
        await asyncio.Event().wait()

    async with served(serve) as own:
        assert "no connection within" in (await refused(own)).details
        error = await refused(own, 0.05)  # a caller with less time than that
        assert (error.code, error.details) == (Code.DEADLINE_EXCEEDED, "no connection in time")


async def test_the_next_call_after_a_lost_connection_connects_anew() -> None:
    visits = 0

    async def serve(visit: Visit) -> None:
        nonlocal visits
        visits += 1
        if visits > 1:
            await echo(visit)
        await visit.greet()
        await visit.hear(Kind.DATA)

    async with served(serve) as own:
        assert (await refused(own)).code == Code.UNAVAILABLE
        assert await own.unary("/s/M", b"a", (), DEADLINE_S) == b"a"


async def test_calls_go_elsewhere_while_an_old_connection_ends() -> None:
    visits = 0

    async def serve(visit: Visit) -> None:
        nonlocal visits
        visits += 1
        if visits > 1:
            await echo(visit)
        await visit.greet()
        got = await visit.hear(Kind.DATA)
        visit.say(headers(got.stream, HEADERS))
        visit.say(frames.frame(Kind.GOAWAY, 0, 0, (99).to_bytes(4, "big") + bytes(4)))
        visit.say(data(got.stream, frames.message(b"still")))
        await visit.hear(Kind.GOAWAY)

    async with served(serve) as own:
        stream = await own.stream("/s/M", b"", ())
        assert await anext(stream) == b"still"
        assert await own.unary("/s/M", b"a", (), DEADLINE_S) == b"a"
        stream.close()


async def test_no_answer_in_time_breaks_the_call_off_and_spares_the_connection() -> None:
    resets: asyncio.Queue[int] = asyncio.Queue()

    async def serve(visit: Visit) -> None:
        await visit.greet()
        for _ in range(2):
            resets.put_nowait((await visit.hear(Kind.RST_STREAM)).stream)
        await answer_all(visit)

    async with served(serve) as own:
        error = await refused(own, 0.05)
        assert (error.code, error.details) == (Code.DEADLINE_EXCEEDED, "no answer in time")
        assert await resets.get() == 1
        waiting = asyncio.create_task(own.unary("/s/M", b"", (), DEADLINE_S))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert await resets.get() == 3
        assert await own.unary("/s/M", b"a", (), DEADLINE_S) == b"a"


async def test_large_messages_go_both_ways() -> None:
    """The peer lets 65 535 bytes come at first, and then as much as it has read."""

    async def serve(visit: Visit) -> None:
        await visit.greet()
        joined, found = frames.Messages(), []
        while not found:
            got = await visit.hear(Kind.DATA)
            found = joined.feed(got.payload)
            size = len(got.payload)
            visit.say(frames.window_update(0, size), frames.window_update(got.stream, size))
        visit.say(answer(1, found[0] * 4))
        await visit.hear(Kind.GOAWAY)

    async with served(serve) as own:
        request = bytes(range(256)) * 6_144
        assert await own.unary("/s/M", request, (), DEADLINE_S) == request * 4


def test_the_store_needs_no_grpc() -> None:
    """Importing it costs a server 20 MB and half a second."""
    code = "import sys, colonist_server.store.etcd.store; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


async def test_a_closed_channel_makes_no_connection() -> None:
    async with served(echo) as own:
        assert await own.unary("/s/M", b"a", (), DEADLINE_S) == b"a"
        stream = await own.stream("/s/M", b"", ())
        await own.close()
        with pytest.raises(CallError, match="ends"):
            await anext(stream)
        assert "closed" in (await refused(own)).details
