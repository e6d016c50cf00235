"""Events that are large: they are handed out in turns, and without inputs that are too long."""

from __future__ import annotations

import asyncio

import pytest

from colonist_protocol.process import CloseFailed, State
from colonist_server.repo import delivery
from colonist_server.repo.listing import MAX_EVENT_INPUT_BYTES
from tests.server.following import Ear, LaggingStore, follow, stream
from tests.server.people import World, world
from tests.support.clock import virtual
from tests.support.rooms import key, settle

ADA = key("ada")
WAITING, RUNNING, SUCCESS, FAILED, CANCELLED = State
NOTHING = b"[]"


@pytest.mark.parametrize(("size", "is_shown"), [(-4, True), (-3, False), (500_000, False)])
@virtual
async def test_an_input_that_is_too_long_is_not_in_an_event(size: int, is_shown: bool) -> None:
    async with world() as made:
        await made.populate()
        graph = await made.submit_workflow("uma", {"a": [], "b": ["a"], "c": ["b"]})
        await _take_all(made, graph.processids[0])
        ear = await stream(made, WAITING)
        out = b'["%b"]' % (b"x" * (MAX_EVENT_INPUT_BYTES + size))
        await made.close("ada", graph.processids[0], out)
        await settle()
        [shown] = ear.heard
        read = await made.read(shown.processid)
        assert bytes(read.inputs) == out
        assert read.errors == []
        if is_shown:
            assert shown == read
        else:
            assert bytes(shown.inputs) == NOTHING
            assert len(shown.errors) == 1
            assert str(MAX_EVENT_INPUT_BYTES) in shown.errors[0]


async def _take_all(made: World, id: str) -> None:
    while (await made.assign("ada")).processid != id:
        pass


@pytest.mark.parametrize(("size", "count"), [(300_000, 12), (60_000, 40), (100, 40)])
@virtual
async def test_others_have_a_turn_between_large_events(size: int, count: int) -> None:
    async with world() as made:
        await made.populate()
        ears = [await stream(made) for _ in range(30)]
        most = 0
        is_over = False

        async def other() -> None:
            nonlocal most
            before = _heard_bytes(ears)
            while not is_over:
                await asyncio.sleep(0)
                now = _heard_bytes(ears)
                most, before = max(most, now - before), now

        watcher = asyncio.create_task(other())
        for _ in range(count // 4):
            await asyncio.gather(*(made.submit("uma", args=["x" * size]) for _ in range(4)))
        await settle(3000)
        is_over = True
        await watcher
        assert len({len(ear.frames) for ear in ears}) == 1
        assert len(ears[0].frames) == count
        frame = len(ears[0].frames[-1])
        assert frame <= most < delivery.TURN_BYTES + frame + delivery.SINK_BYTES


def _heard_bytes(ears: list[Ear]) -> int:
    return sum(len(frame) for ear in ears for frame in ear.frames)


@pytest.mark.parametrize("lag", [0, 30])
@virtual
async def test_a_blocked_member_is_not_in_waiting_when_a_subscription_opens(lag: int) -> None:
    async with LaggingStore(lag) as store, world(store) as made:
        await made.populate()
        graph = await made.submit_workflow("uma", {"a": [], "b": ["a"], "c": ["b"]})
        await settle(200)
        a, b, c = graph.processids
        free = await follow(made, a, WAITING)
        blocked, any = await follow(made, b, WAITING), await follow(made, b, -1)
        await settle(200)
        assert free.pairs == [(a, WAITING)]
        assert blocked.pairs == []
        assert [shown.waitforparents for shown in any.heard] == [True]
        await _take_all(made, a)
        await made.close("ada", a)
        await settle(300)
        assert [shown.waitforparents for shown in blocked.heard] == [False]
        late = await follow(made, b, WAITING)
        await settle(200)
        assert late.pairs == [(b, WAITING)]
        await _take_all(made, b)
        await made.call(CloseFailed(processid=b, errors=["no"]), ADA)
        doomed = await follow(made, c, WAITING)
        await settle(500)
        assert doomed.states == [FAILED]
