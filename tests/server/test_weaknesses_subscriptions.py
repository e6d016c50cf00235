"""The weaknesses of COLONIES-RPC section 5 that concern subscriptions are absent, by number."""

from __future__ import annotations

import asyncio

import pytest

from colonist_protocol.envelope import pack_request
from colonist_protocol.process import State
from colonist_protocol.subscription import (
    MAX_FRAME_BYTES,
    MAX_TIMEOUT_S,
    SubscribeProcess,
    SubscribeProcesses,
)
from tests.server.following import Ear, failure_of, follow, stream, subscribe
from tests.server.house import House
from tests.server.people import OTHER, OTHER_OWNER, STRANGER, out_of, world
from tests.server.websocket import line
from tests.support.clock import virtual
from tests.support.rooms import COLONY, TYPE, key, settle

EVE, UMA = key("eve"), key("uma")
WAITING, RUNNING, SUCCESS, FAILED, CANCELLED = State


@virtual
async def test_S4_only_members_may_follow_a_process() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        for id in (made.waiting, made.running, made.succeeded):
            message = SubscribeProcess(processid=id, state=WAITING, timeout=9)
            for identity in (STRANGER, EVE, OTHER_OWNER, key("pat"), key("rex"), key("una")):
                refused = failure_of(await subscribe(made, message, identity))
                assert (refused.status, refused.code) == (403, "access_denied")
                assert COLONY not in refused.message or identity is not STRANGER
        assert made.rooms.subscriptions.count == 0


@virtual
async def test_S5_a_subscription_stays_in_its_colony() -> None:
    async with world() as made:
        await made.populate()
        ours = await stream(made, type=TYPE)
        theirs = await subscribe(
            made, SubscribeProcesses(colonyname=OTHER, executortype=TYPE, state=-1, timeout=99), EVE
        )
        assert isinstance(theirs, Ear)
        here = (await made.submit("uma")).processid
        there = (await made.submit("ulf", colonyname=OTHER)).processid
        await settle()
        assert ours.pairs == [(here, WAITING)]
        assert theirs.pairs == [(there, WAITING)]
        message = SubscribeProcesses(colonyname=OTHER, executortype=TYPE, state=-1, timeout=99)
        assert failure_of(await subscribe(made, message, UMA)).code == "access_denied"


async def test_S14_a_websocket_has_limits(home: House) -> None:
    async with line(home) as ear:
        await ear.socket.send_str("x" * (MAX_FRAME_BYTES + 1))
        assert (await ear.closed())[0] == 1009
    async with line(home) as ear:
        await ear.say(b"no envelope")
        await ear.error()
        assert (await ear.closed())[0] == 1008
    assert home.rooms.subscriptions.count == 0


@virtual
async def test_S14_nobody_subscribes_for_ever() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        ears = [await stream(made, timeout=2**62), await follow(made, id, timeout=2**62)]
        await asyncio.sleep(MAX_TIMEOUT_S + 1)
        assert all(ear.endings for ear in ears)


@virtual
async def test_W1_a_subscriber_takes_no_wake_up_from_an_executor_or_another_subscriber() -> None:
    async with world() as made:
        await made.populate()
        ears = [await stream(made, state) for state in (WAITING, WAITING, RUNNING, -1)]
        tasks = [asyncio.create_task(made.assign(name, 100)) for name in ("ada", "ben")]
        await settle()
        ids = [(await made.submit("uma")).processid for _ in tasks]
        await settle()
        assert sorted([(await task).processid for task in tasks]) == sorted(ids)
        assert asyncio.get_running_loop().time() < 1
        assert [ear.pairs for ear in ears[:2]] == [[(id, WAITING) for id in ids]] * 2
        assert ears[2].pairs == [(id, RUNNING) for id in ids]
        assert sorted(ears[3].states) == [WAITING] * 2 + [RUNNING] * 2


@virtual
async def test_W18_an_event_shows_the_process_as_it_is() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        ears = [await stream(made, SUCCESS), await follow(made, id, SUCCESS)]
        await made.assign("ada")
        await made.close("ada", id, b'[{"celsius": 21.50}]')
        await settle()
        for ear in ears:
            [shown] = ear.heard
            assert shown == await made.read(id)
            assert out_of(shown) == [{"celsius": 21.5}]
            assert not shown.endtime.startswith("0001")


async def test_55_a_subscription_ends_with_a_close_frame(
    home: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("colonist_server.http.pubsub.LINGER_S", 0.01)
    async with line(home) as timed, line(home) as done:
        await timed.say(pack_request(SubscribeProcess(processid=home.waiting, state=2), UMA))
        assert await timed.closed() == (1000, "the time is up")
        await done.order(SubscribeProcess(processid=home.succeeded, state=2, timeout=9))
        await done.process()
        assert await done.closed() == (1000, "the process has ended")


@virtual
async def test_55_one_subscription_waits_for_any_end() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        for id, state in ((made.succeeded, 2), (made.failed, 3), (made.cancelled, 4)):
            for wanted in State:
                ear = await follow(made, id, wanted)
                await settle()
                assert ear.states == [state]
