"""The client of `/pubsub` against a server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from colonist_client.client import Client
from colonist_client.failure import ServerError
from colonist_client.http import HttpTransport
from colonist_client.subscriptions import StreamEndedError, Subscriber
from colonist_client.transport import NotSentError, UnreachableError
from colonist_protocol.errors import InvalidValueError
from colonist_protocol.process import CancelProcess, State
from tests.server.house import DEADLINE_S, House, house
from tests.support.rooms import COLONY, key

WAITING, RUNNING, SUCCESS, FAILED, CANCELLED = State


async def test_a_process_is_followed_to_its_end(home: House) -> None:
    subscriber = Subscriber(home.url, key("uma"))
    async with subscriber.subscribe_process(home.waiting) as events:
        await home.assign("ada")
        await home.close("ada", home.waiting, b'["x"]')
        seen = [process async for process in events]
    assert [process.state for process in seen] == [WAITING, RUNNING, SUCCESS]
    assert seen[-1].output() == ["x"]
    assert events.ended == (1000, "the process has ended")


async def test_a_colony_is_followed_from_the_moment_of_entering(home: House) -> None:
    subscriber = Subscriber(home.url, key("ada"))
    async with subscriber.subscribe_processes(COLONY, state=CANCELLED, timeout_s=1) as events:
        await home.call(CancelProcess(processid=home.waiting), key("uma"))
        seen = [process.processid async for process in events]
    assert seen == [home.waiting]
    assert events.ended == (1000, "the time is up")
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_what_the_server_refuses_is_raised(home: House) -> None:
    subscriber = Subscriber(home.url, key("eve"))
    async with subscriber.subscribe_process(home.waiting) as events:
        with pytest.raises(ServerError) as refused:
            await anext(events)
    assert refused.value.code == "access_denied"


async def test_the_end_of_the_server_is_raised_with_its_reason(tmp_path: Path) -> None:
    async with house(tmp_path) as made:
        await made.populate()
        events = Subscriber(made.url, key("uma")).subscribe_processes(COLONY)
        await events.__aenter__()
        next_one = asyncio.create_task(anext(events))  # pyright: ignore[reportArgumentType]
    with pytest.raises(StreamEndedError, match="the server stops") as ended:
        await next_one
    assert ended.value.ended == (1001, "the server stops")
    await events.aclose()


async def test_a_lost_connection_is_raised(home: House) -> None:
    async with Subscriber(home.url, key("uma")).subscribe_processes(COLONY) as events:
        assert events._socket is not None
        events._socket._response.connection.transport.abort()
        with pytest.raises(StreamEndedError) as ended:
            await anext(events)
    assert ended.value.ended.code == 1006


async def test_pings_are_answered_while_events_are_awaited(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colonist_server.http.pubsub.HEARTBEAT_S", 0.05)
    async with Subscriber(home.url, key("uma")).subscribe_processes(COLONY) as events:
        task = asyncio.create_task(anext(events))  # pyright: ignore[reportArgumentType]
        await asyncio.sleep(0.3)
        id = (await home.submit("uma")).processid
        assert (await task).processid == id


async def test_nobody_there_is_said(tmp_path: Path) -> None:
    async with house(tmp_path) as made:
        url = made.url
    with pytest.raises(NotSentError, match="no connection"):
        async with Subscriber(url, key("uma")).subscribe_processes(COLONY):
            pass
    with pytest.raises(InvalidValueError):
        Subscriber("ftp://x", key("uma"))
    with pytest.raises(NotSentError, match="not entered"):
        await anext(Subscriber(url, key("uma")).subscribe_processes(COLONY))


async def test_what_is_no_colonist_server_is_said() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/pubsub" or "Upgrade" not in request.headers:
            return web.Response(status=404)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive()
        await socket.send_str("hello")
        await socket.receive()
        return socket

    async def nothing(request: web.BaseRequest) -> web.StreamResponse:
        del request
        return web.Response(status=404)

    for handler, expected in ((answer, "cannot be read"), (nothing, "no WebSocket there")):
        runner = web.ServerRunner(web.Server(handler))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        with pytest.raises(UnreachableError, match=expected):
            async with Subscriber(url, key("uma")).subscribe_processes(COLONY) as events:
                await anext(events)
        await runner.cleanup()


async def test_a_read_that_waits_comes_back_at_the_change(home: House) -> None:
    async with Client(HttpTransport(home.url), key("uma")) as client:
        held = asyncio.create_task(
            client.get(home.running, while_state=RUNNING, timeout_s=int(DEADLINE_S))
        )
        done = asyncio.create_task(client.wait(home.running, timeout_s=DEADLINE_S))
        async with asyncio.timeout(DEADLINE_S):
            while home.rooms.subscriptions.parked != 2:
                await home.request("GET", "/livez")
        await home.close("ada", home.running)
        assert (await held).state == SUCCESS
        assert (await done).state == SUCCESS


def test_nothing_of_the_key_is_shown() -> None:
    subscriber = Subscriber("http://127.0.0.1:1", key("uma"))
    assert key("uma").reveal() not in repr(subscriber.subscribe_processes(COLONY))
