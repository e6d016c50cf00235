"""Large requests: how their bodies come, how many at once, and what is checked first."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from colonist_protocol import codec, envelope
from colonist_protocol.errors import BusyError, SlowError, TooLargeError
from colonist_protocol.function_spec import Conditions, FunctionSpec
from colonist_protocol.identity import Identity
from colonist_protocol.server import Version
from colonist_protocol.workflow import SubmitWorkflowSpec, WorkflowSpec
from colonist_server.http import bodies
from colonist_server.http.app import LARGE_AT_ONCE
from colonist_server.http.bodies import MAX_HELD_BYTES, LargeBodies
from tests.server.house import DEADLINE_S, House, sign
from tests.support.clock import virtual
from tests.support.rooms import COLONY, TYPE, key

UMA, EVE = key("uma"), key("eve")
KIB, MIB = 1024, 1_048_576


class Content:
    """A body that comes in parts of a size, one every so often; then nothing, or the end."""

    def __init__(self, total: int, part: int, every_s: float = 0.0, *, ends: bool = True) -> None:
        self.total = total
        self.part = part
        self.every_s = every_s
        self.ends = ends

    async def readany(self) -> bytes:
        await asyncio.sleep(self.every_s)
        size = min(self.part, self.total)
        self.total -= size
        if not size and not self.ends:
            await asyncio.sleep(1e9)
        return bytes(size)


def request(content: Content, *, says: int = 12_000_000) -> web.BaseRequest:
    headers = {"Content-Length": str(says)}
    return cast("web.BaseRequest", SimpleNamespace(headers=headers, content=content))


async def size(large: LargeBodies, content: Content) -> int:
    async with large.read(request(content)) as body:
        assert large.held >= len(body)
        return len(body)


@virtual
async def test_who_announces_a_large_body_and_says_nothing_is_soon_refused() -> None:
    large = LargeBodies()
    for said in (0, 1, 3 * MIB):
        start = asyncio.get_running_loop().time()
        with pytest.raises(SlowError):
            await size(large, Content(said, 64 * KIB, ends=False))
        assert asyncio.get_running_loop().time() - start < 5
        assert large.held == 0


@virtual
async def test_a_large_body_has_a_least_rate() -> None:
    large = LargeBodies()
    assert await size(large, Content(12_000_000, 80 * KIB, 0.25)) == 12_000_000
    assert await size(large, Content(12_000_000, 2 * MIB, 3.9)) == 12_000_000
    with pytest.raises(SlowError):
        await size(large, Content(12_000_000, 62 * KIB, 0.25))
    assert large.held == 0


@virtual
async def test_large_bodies_are_bounded_together_and_who_is_silent_holds_nothing() -> None:
    large = LargeBodies()
    silent = [asyncio.create_task(size(large, Content(0, 1, ends=False))) for _ in range(1000)]
    await asyncio.sleep(0.1)
    async with AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(large.read(request(Content(8 * MIB, MIB))))
        assert large.held == MAX_HELD_BYTES
        with pytest.raises(BusyError) as refused:
            await size(large, Content(3 * MIB, MIB))
        assert refused.value.retry_after_s > 0
    assert large.held == 0
    async with large.read(request(Content(12 * MIB, MIB))):
        others = [size(large, Content(12 * MIB, MIB, 0.1)) for _ in range(10)]
        got = await asyncio.gather(*others, return_exceptions=True)
        assert large.held == 12 * MIB
    assert {type(one) for one in got} == {int, BusyError}
    for task in silent:
        task.cancel()
    await asyncio.wait(silent)
    assert large.held == 0


@virtual
async def test_who_leaves_in_the_middle_frees_what_he_held() -> None:
    large = LargeBodies()
    reading = asyncio.create_task(size(large, Content(5 * MIB, MIB, ends=False)))
    await asyncio.sleep(1)
    assert large.held == 5 * MIB
    reading.cancel()
    await asyncio.wait([reading])
    assert large.held == 0


@virtual
async def test_a_large_body_that_unpacks_to_more_is_too_large() -> None:
    large = LargeBodies()
    with pytest.raises(TooLargeError):
        await size(large, Content(20 * MIB, MIB))
    with pytest.raises(TooLargeError):
        async with large.read(request(Content(20 * MIB, MIB), says=20_000_000)):
            pass
    assert large.held == 0


# -- over real sockets


def workflow(colony: str = COLONY, count: int = 2_500) -> SubmitWorkflowSpec:
    specs = [
        FunctionSpec(
            nodename=f"n{number}",
            funcname="f",
            conditions=Conditions(colonyname=colony, executortype=TYPE),
            env={"E": "x" * 1_000},
        )
        for number in range(count)
    ]
    return SubmitWorkflowSpec(spec=WorkflowSpec(colonyname=colony, functionspecs=specs))


async def test_silent_announcers_take_no_turn_from_who_has_something_to_say(home: House) -> None:
    head = b"POST /api HTTP/1.1\r\nHost: x\r\nContent-Length: 12000000\r\n\r\n{"
    silent = [
        await asyncio.open_connection(home.server.host, home.server.port)
        for _ in range(LARGE_AT_ONCE * 5)
    ]
    for _, writer in silent:
        writer.write(head)
        await writer.drain()
    async with asyncio.timeout(DEADLINE_S):
        got = await home.post(envelope.pack_request(workflow(), UMA))
        assert (got.status, got.code) == (200, "")
        for reader, writer in silent:
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408")
            writer.close()


async def test_beyond_the_bound_the_advice_is_to_come_again(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MAX_HELD_BYTES", MIB)
    got = await home.post(envelope.pack_request(workflow(), UMA))
    assert (got.status, got.code) == (429, "busy")
    assert got.payload["retry_after_s"] == bodies.RETRY_S
    assert (await home.post(envelope.pack_request(Version(), None))).status == 200
    monkeypatch.setattr(bodies, "MAX_HELD_BYTES", MAX_HELD_BYTES)
    assert (await home.post(envelope.pack_request(workflow(), UMA))).status == 200


# -- what is checked first


def _raw(text: bytes, who: Identity) -> bytes:
    return sign(text, who, kind=envelope.LARGE)


def _long(spec: str = f'"colonyname":"{COLONY}"', more: str = "") -> bytes:
    filling = ",".join(f'"{number:x}":1' for number in range(100_000))
    return f'{{"msgtype":"{envelope.LARGE}","spec":{{{spec}}},"x":{{{filling}}}{more}}}'.encode()


async def test_who_has_no_access_has_no_large_message_read(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: list[int] = []
    scan = codec.scan

    def spy(data: bytes) -> Any:
        if len(data) > MIB:
            scanned.append(len(data))
        return scan(data)

    monkeypatch.setattr(codec, "scan", spy)
    assert (await home.post(envelope.pack_request(workflow(), UMA))).status == 200
    assert len(scanned) == 1
    for who, colony in ((EVE, COLONY), (UMA, "elsewhere"), (UMA, "")):
        small = await home.post(envelope.pack_request(workflow(colony, 1), who))
        scanned.clear()
        large = await home.post(envelope.pack_request(workflow(colony), who))
        assert (large.status, large.payload) == (small.status, small.payload)
        assert large.status == 403
        twice = _long(f'"colonyname":"{colony}"', ',"a":1,"a":1')
        assert (await home.post(_raw(twice, who))).payload == small.payload
        assert scanned == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (_long(more=',"a":1,"a":2'), "duplicate_member"),
        (_long(more=',"a":' + "[" * 40 + "]" * 40), "too_deep"),
        (_long(more=',"a":1e999'), "bad_number"),
        (_long(f'"colonyname":"{COLONY}","functionspecs":1'), "wrong_type"),
        (_long('"colonyname":1'), "wrong_type"),
        (_long().replace(b'"spec"', b'"spek"'), "missing_member"),
        (_long().replace(b'"spec":{', b'"spec":null,"y":{'), "missing_member"),
        (_long().replace(b"submit", b"subnit"), "msgtype_mismatch"),
        (_long()[:-1], "not_json"),
        (_long() + b"x", "not_json"),
        (b"[" * 1_000_000, "wrong_type"),
        (b'{"x":' + b"[" * 1_000_000, "too_deep"),
        (_long(more=',"msgtype":"\xff"').replace(b"\xc3\xbf", b"\xff"), "not_utf8"),
    ],
)
async def test_a_member_is_told_what_is_wrong_with_a_large_message(
    home: House, text: bytes, code: str
) -> None:
    got = await home.post(_raw(text, UMA))
    assert (got.status, got.code) == (400, code), got.payload


async def test_a_large_body_with_more_than_the_three_members_is_not_read(home: House) -> None:
    body = json.loads(envelope.pack_request(workflow(), UMA))
    got = await home.post(json.dumps({**body, "x": {}}).encode())
    assert (got.status, got.code) == (413, "too_large")
