"""`GET /pubsub` over real sockets (COLONIES-RPC section 1.8)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import WSMsgType

from colonist_core.limits import Limits
from colonist_protocol import envelope
from colonist_protocol.envelope import Failure, pack_request
from colonist_protocol.executor import RejectExecutor
from colonist_protocol.process import CancelProcess, GetProcess, State
from colonist_protocol.server import Version
from colonist_protocol.subscription import SubscribeProcess, SubscribeProcesses
from colonist_server.http import outbox, pubsub
from colonist_server.http.visitors import MAX_REFUSALS
from tests.server.house import DEADLINE_S, House, house, sign
from tests.server.people import STRANGER
from tests.server.websocket import Line, line
from tests.support.rooms import COLONY, COLONY_OWNER, key

WAITING, RUNNING, SUCCESS, FAILED, CANCELLED = State
UMA, ADA, EVE = key("uma"), key("ada"), key("eve")


def one(id: str, state: int = SUCCESS, timeout: int = 100) -> SubscribeProcess:
    return SubscribeProcess(processid=id, state=state, timeout=timeout, colonyname=COLONY)


def all(state: int = -1, timeout: int = 100, type: str = "") -> SubscribeProcesses:
    return SubscribeProcesses(colonyname=COLONY, state=state, timeout=timeout, executortype=type)


# -- events


async def test_a_follower_is_told_of_the_end_and_the_connection_closes(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub, "LINGER_S", 0.01)
    async with line(home) as ear:
        await ear.order(one(home.running))
        await home.close("ada", home.running, b'[{"a": 1.0}]')
        shown = await ear.process()
        assert (shown.processid, shown.state) == (home.running, SUCCESS)
        assert bytes(shown.out) == b'[{"a": 1.0}]'
        assert await ear.closed() == (1000, "the process has ended")
    assert home.rooms.subscriptions.count == 0


async def test_a_follower_of_a_colony_is_told_of_everything(home: House) -> None:
    async with line(home) as ear, line(home) as other:
        await ear.order(all())
        await other.order(all(RUNNING), ADA)
        await home.call(CancelProcess(processid=home.waiting), UMA)
        id = (await home.submit("uma")).processid
        await home.assign("ada")
        await home.close("ada", id)
        seen = [await ear.process() for _ in range(4)]
        assert [(shown.processid, shown.state) for shown in seen] == [
            (home.waiting, CANCELLED),
            (id, WAITING),
            (id, RUNNING),
            (id, SUCCESS),
        ]
        assert (await other.process()).processid == id


async def test_many_subscriptions_share_a_connection(home: House) -> None:
    async with line(home) as ear:
        await ear.order(one(home.waiting, RUNNING))
        await ear.order(one(home.running, FAILED, 1), ADA)
        await ear.order(all(CANCELLED))
        assert home.rooms.subscriptions.count == 3
        await asyncio.wait_for(_count(home, 2), DEADLINE_S)  # the second one's time is up
        await home.call(CancelProcess(processid=home.waiting), UMA)
        frames = [await ear.process() for _ in range(2)]
        assert [(shown.processid, shown.state) for shown in frames] == [
            (home.waiting, CANCELLED)
        ] * 2


async def _count(home: House, count: int) -> None:
    while home.rooms.subscriptions.count != count:
        await home.request("GET", "/livez")


async def test_an_ended_process_is_shown_and_another_order_may_follow(home: House) -> None:
    async with line(home) as ear:
        await ear.order(one(home.failed))
        assert (await ear.process()).state == FAILED
        await ear.order(one(home.waiting, WAITING))
        assert (await ear.process()).state == WAITING
        await asyncio.sleep(pubsub.LINGER_S * 1.5)
        assert home.rooms.subscriptions.count == 1


async def test_the_end_of_the_time_is_a_proper_close(home: House) -> None:
    async with line(home) as ear:
        await ear.order(one(home.waiting, SUCCESS, 0))
        assert await ear.closed() == (1000, "the time is up")
    async with line(home) as ear:
        await ear.order(one(home.waiting, SUCCESS, 1))
        assert await ear.closed() == (1000, "the time is up")


async def test_any_origin_may_connect(home: House) -> None:
    async with line(home, Origin="https://somewhere.example") as ear:
        await ear.order(one(home.waiting, WAITING))
        assert (await ear.process()).processid == home.waiting


async def test_large_frames_arrive(home: House) -> None:
    sizes = [10, 100, 50_000, 90_000, 400_000]
    async with line(home) as ear:
        await ear.order(all(SUCCESS))
        for size in sizes:
            id = (await home.submit("uma", priority=9)).processid
            await home.assign("ada")
            await home.close("ada", id, b'["%b"]' % (b"x" * size))
        for size in sizes:
            assert len(bytes((await ear.process()).out)) == size + 4


# -- refusals


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"not json", "not_json"),
        (b"null", "wrong_type"),
        (b"{}", "missing_member"),
        (pack_request(one("ab" * 32), UMA).replace(b'"signature":"', b'"signature":"00'), ""),
        (sign(b'{"msgtype":"nosuchmsg"}', UMA), "unknown_msgtype"),
        (sign(b'{"msgtype":"subscribechannelmsg"}', UMA), "not_supported"),
        (sign(b'{"msgtype":"x"}', UMA, kind="subscribeprocessmsg"), "msgtype_mismatch"),
        (sign(b'{"msgtype":"subscribeprocessmsg","state":"x"}', UMA), "wrong_type"),
        (pack_request(GetProcess(processid="ab" * 32), UMA), "wrong_door"),
        (pack_request(Version(), None), "wrong_door"),
    ],
)
async def test_nonsense_is_told_and_then_the_connection_closes(
    home: House, text: bytes, code: str
) -> None:
    async with line(home) as ear:
        await ear.say(text)
        assert (await ear.error()).code == (code or "signature_length")
        assert (await ear.closed())[0] == 1008


async def test_bytes_are_no_text(home: House) -> None:
    async with line(home) as ear:
        await ear.socket.send_bytes(pack_request(one(home.waiting), UMA))
        assert (await ear.error()).code == "invalid_message"
        assert (await ear.closed())[0] == 1008


async def test_a_frame_that_is_too_large_closes_the_connection(home: House) -> None:
    async with line(home) as ear:
        await ear.socket.send_str("x" * 70_000)
        assert (await ear.closed())[0] == 1009


async def test_a_refusal_leaves_the_others_alone(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub, "LINGER_S", 0.05)
    async with line(home) as ear, line(home) as stranger:
        await ear.order(one(home.waiting, CANCELLED))
        await ear.order(one(home.waiting), EVE)
        assert (await ear.error()).code == "access_denied"
        await stranger.order(all(), EVE)
        assert (await stranger.error()).code == "access_denied"
        assert (await stranger.closed())[0] == 1008
        await home.call(CancelProcess(processid=home.waiting), UMA)
        assert (await ear.process()).state == CANCELLED


async def test_post_api_names_the_door(home: House) -> None:
    for message in (one(home.waiting), all()):
        got = await home.post(pack_request(message, UMA))
        assert (got.status, got.code) == (400, "wrong_door")
        assert "/pubsub" in got.payload["message"]


async def test_what_is_no_websocket_is_told_so(home: House) -> None:
    got = await home.request("GET", "/pubsub")
    assert (got.status, got.headers["Upgrade"]) == (426, "websocket")
    assert (await home.request("POST", "/pubsub")).status == 405


# -- limits


async def test_a_silent_client_is_told_to_go(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pubsub, "FIRST_FRAME_S", 0.05)
    async with line(home) as ear:
        assert await ear.closed() == (1008, "no order came in time")


async def test_who_is_refused_again_and_again_wins_no_time(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub, "LINGER_S", 0.3)
    order = pack_request(all(), EVE).decode()
    async with line(home) as ear, asyncio.timeout(DEADLINE_S):

        async def insist() -> None:
            while not ear.socket.closed:
                await ear.socket.send_str(order)
                await asyncio.sleep(0.02)

        insisting = asyncio.create_task(insist())
        refusals = 0
        while (message := await ear.socket.receive()).type is WSMsgType.TEXT:
            refusals += 1
        insisting.cancel()
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
        assert 1 < refusals < 30


@asynccontextmanager
async def new_line(home: House) -> AsyncGenerator[Line]:
    """A connection by which nobody has called before."""
    async with aiohttp.ClientSession() as session, line(House(home.server, session)) as made:
        yield made


async def test_a_stranger_is_heard_four_times_and_then_no_more(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub, "LINGER_S", 2 * DEADLINE_S)
    async with new_line(home) as ear:
        for _ in range(MAX_REFUSALS):
            await ear.order(all(), STRANGER)
            assert (await ear.error()).code == "access_denied"
        assert await ear.closed() == (1008, "see the error before")


async def test_strangers_have_one_budget_for_requests_and_orders(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, limits=Limits(strangers=2)) as made:
        await made.found("ada")
        await made.enrol("uma")
        codes: list[str] = []
        async with line(made) as known, new_line(made) as ear:
            await known.order(all())
            for _ in range(MAX_REFUSALS):
                await ear.order(all(), STRANGER)
                codes.append((await ear.error()).code)
            assert codes == ["access_denied"] * 2 + ["busy"] * 2
            assert (await made.post(pack_request(all(), STRANGER))).code == "busy"
            for _ in range(2 * MAX_REFUSALS):  # it has proved itself, and keeps what it follows
                await known.order(all())
                await known.order(all(), STRANGER)
                assert (await known.error()).code == "access_denied"
            assert made.rooms.subscriptions.count == 1 + 2 * MAX_REFUSALS


async def test_who_waits_longest_without_an_order_makes_room(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub, "MAX_CONNECTIONS", 3)
    async with line(home) as served, line(home) as idle, line(home) as newer:
        await served.order(all())
        async with line(home) as ear:
            assert (await idle.socket.receive()).type is WSMsgType.CLOSED
            await newer.order(all())
            await ear.order(all())
            assert home.rooms.subscriptions.count == 3
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with line(home):
                    pass
            assert refused.value.status == 503


async def test_a_hundred_waiting_calls_may_share_a_key(home: House) -> None:
    async with contextlib.AsyncExitStack() as stack:
        ears = [await stack.enter_async_context(line(home)) for _ in range(100)]
        for ear in ears:
            await ear.order(one(home.running))
        assert home.rooms.subscriptions.count == 100


async def test_connections_and_subscriptions_are_bounded(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub, "MAX_SUBSCRIPTIONS", 3)
    monkeypatch.setattr(pubsub, "MAX_CONNECTIONS_OF_CALLER", 2)
    monkeypatch.setattr(pubsub, "MAX_CONNECTIONS", 4)
    async with line(home) as ear:
        for _ in range(3):
            await ear.order(all())
        await ear.order(all())
        assert (await ear.error()).code == "busy"
        async with line(home) as second:
            await second.order(all())
            async with line(home) as third:
                await third.order(all())
                assert (await third.error()).code == "busy"
                await third.order(all(), ADA)
                assert home.rooms.subscriptions.count == 5
                async with line(home) as fourth:
                    await fourth.order(all(), ADA)
                    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                        async with line(home):
                            pass
                    assert refused.value.status == 503
        await asyncio.wait_for(_count(home, 3), DEADLINE_S)
        async with line(home) as second:
            await second.order(all())
            assert home.rooms.subscriptions.count == 4
    await asyncio.wait_for(_count(home, 0), DEADLINE_S)


async def test_who_does_not_answer_pings_is_dropped(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pubsub, "HEARTBEAT_S", 0.1)
    async with line(home) as ear, line(home) as alive:
        await ear.order(all())
        await alive.order(all(), ADA)
        reader = asyncio.create_task(alive.process())
        await asyncio.wait_for(_count(home, 1), DEADLINE_S)
        await home.submit("uma")
        assert (await reader).state == WAITING


async def test_who_is_gone_is_forgotten(home: House) -> None:
    async with line(home) as ear:
        await ear.order(all())
        await ear.order(one(home.waiting))
        transport = ear.socket._response.connection.transport
        transport.abort()
        await asyncio.wait_for(_count(home, 0), DEADLINE_S)


async def test_a_slow_reader_is_dropped_with_a_reason_and_harms_nobody(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops reading: first the kernel's buffers fill, then its outbox, then it goes."""
    monkeypatch.setattr(outbox, "ROOM_BYTES", 1_000_000)
    monkeypatch.setattr(outbox, "STALL_S", 0.1)
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(slow, (home.server.host, home.server.port))
    async with line(home) as quick:
        await quick.order(all(SUCCESS), ADA)
        raw = await _upgraded(slow, pack_request(all(SUCCESS), UMA))
        await asyncio.wait_for(_count(home, 2), DEADLINE_S)
        ids = []
        while home.rooms.subscriptions.count == 2:
            id = (await home.submit("ben", priority=9)).processid
            await home.assign("ada")
            await home.close("ada", id, b'["%b"]' % (b"x" * 100_000))
            ids.append(id)
            assert len(ids) < 200
            assert (await quick.process()).processid == id
        assert len(ids) > 5
        frames, end = await _read_frames(slow, raw)
        assert end == (1013, "events are not read fast enough")
        *events, last = frames
        failure = envelope.parse_reply(last)
        assert isinstance(failure, Failure)
        assert failure.code == "busy"
        seen = [json.loads(envelope.parse_reply(frame))["processid"] for frame in events]
        assert seen == ids[: len(seen)]
        assert len(seen) < len(ids)
        id = (await home.submit("ben", priority=9)).processid
        await home.assign("ada")
        await home.close("ada", id)
        assert (await quick.process()).processid == id
    slow.close()


async def test_what_is_on_its_way_comes_before_the_goodbye(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "ROOM_BYTES", 100_000_000)
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(slow, (home.server.host, home.server.port))
    raw = await _upgraded(slow, pack_request(all(SUCCESS, 2), UMA))
    ids = []
    for _ in range(30):
        ids.append((await home.submit("ben", priority=9)).processid)
        await home.assign("ada")
        await home.close("ada", ids[-1], b'["%b"]' % (b"x" * 200_000))
    await asyncio.wait_for(_count(home, 0), DEADLINE_S)
    frames, end = await _read_frames(slow, raw)
    seen = [json.loads(envelope.parse_reply(frame))["processid"] for frame in frames]
    assert (seen, end) == (ids, (1000, "the time is up"))
    slow.close()


async def _upgraded(sock: socket.socket, text: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    head = (
        b"GET /pubsub HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    frame = b"\x81\xfe" + len(text).to_bytes(2, "big") + bytes(4) + text  # a mask of zeros
    await loop.sock_sendall(sock, head + frame)
    got = b""
    while b"\r\n\r\n" not in got:
        got += await loop.sock_recv(sock, 4096)
    assert got.startswith(b"HTTP/1.1 101")
    return got.partition(b"\r\n\r\n")[2]


async def _read_frames(sock: socket.socket, data: bytes) -> tuple[list[bytes], tuple[int, str]]:
    """All text frames up to the close frame, and what that says."""
    loop = asyncio.get_running_loop()
    frames: list[bytes] = []
    async with asyncio.timeout(DEADLINE_S):
        while True:
            while (parsed := _parse(data)) is None:
                more = await loop.sock_recv(sock, 65536)
                assert more, f"cut off after {len(frames)} frames"
                data += more
            opcode, payload, data = parsed
            if opcode == WSMsgType.CLOSE:
                return frames, (int.from_bytes(payload[:2], "big"), payload[2:].decode())
            if opcode == WSMsgType.TEXT:
                frames.append(payload)


def _parse(data: bytes) -> tuple[int, bytes, bytes] | None:
    if len(data) < 10 and (len(data) < 2 or len(data) < 2 + (data[1] & 0x7F)):
        return None
    length, start = data[1] & 0x7F, 2
    if length == 126:
        length, start = int.from_bytes(data[2:4], "big"), 4
    elif length == 127:
        length, start = int.from_bytes(data[2:10], "big"), 10
    if len(data) < start + length:
        return None
    return data[0] & 0x0F, data[start : start + length], data[start + length :]


# -- ends


async def test_who_is_no_member_any_more_is_told_so_at_once(home: House) -> None:
    async with line(home) as ear, line(home) as other, line(home) as both:
        await ear.order(all(), ADA)
        await other.order(all())
        await both.order(one(home.waiting), ADA)
        await both.order(one(home.waiting), UMA)
        await home.call(RejectExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        assert (await ear.error()).code == "access_denied"
        assert await ear.closed() == (1008, "not a member any more")
        assert (await both.error()).code == "access_denied"
        await home.call(CancelProcess(processid=home.waiting), UMA)
        assert (await both.process()).state == CANCELLED
        assert (await other.process()).processid == home.waiting


async def test_a_server_that_stops_says_so(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        async with house(tmp_path) as made:
            await made.populate()
            idle = await session.ws_connect(f"{made.url}/pubsub", autoclose=False)
            ears = [await session.ws_connect(f"{made.url}/pubsub", autoclose=False) for _ in "ab"]
            for ear in ears:
                await ear.send_str(pack_request(all(), UMA).decode())
            await asyncio.wait_for(_count(made, 2), DEADLINE_S)
            ends = [asyncio.create_task(_end_of(ear)) for ear in (*ears, idle)]
        assert [await end for end in ends] == [(1001, "the server stops")] * 3


async def _end_of(ear: aiohttp.ClientWebSocketResponse) -> tuple[int, str]:
    message = await ear.receive()
    assert message.type is WSMsgType.CLOSE
    await ear.close()
    return message.data, message.extra or ""


# -- a read that waits, over HTTP


async def test_a_held_read_is_answered_and_forgets_who_left(home: House) -> None:
    message = GetProcess(processid=home.running, waitwhile=RUNNING, timeout=100)
    left = asyncio.create_task(home.call(message, ADA))
    held = asyncio.create_task(home.call(message, UMA))
    async with asyncio.timeout(DEADLINE_S):
        while home.rooms.subscriptions.parked != 2:
            await home.request("GET", "/livez")
        left.cancel()
        while home.rooms.subscriptions.parked != 1:
            await home.request("GET", "/livez")
    await home.close("ada", home.running)
    assert (await held)["state"] == SUCCESS


async def test_a_server_that_stops_answers_who_waits(tmp_path: Path) -> None:
    async with house(tmp_path) as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        message = GetProcess(processid=id, waitwhile=WAITING, timeout=100)
        held = asyncio.create_task(made.call(message, UMA))
        async with asyncio.timeout(DEADLINE_S):
            while made.rooms.subscriptions.parked != 1:
                await made.request("GET", "/livez")
        made.rooms.subscriptions.close()
        assert (await held)["state"] == WAITING
