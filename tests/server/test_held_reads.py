"""Reads of a process that wait for another state (`waitwhile`), in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from colonist_protocol.process import (
    CancelProcess,
    GetProcess,
    ReleaseProcess,
    State,
)
from colonist_protocol.user import RemoveUser
from colonist_server.repo import subscriptions as hub
from colonist_server.store.interface import Event
from tests.server.following import (
    held_read,
)
from tests.server.people import OTHER_OWNER, STRANGER, world
from tests.support.clock import virtual
from tests.support.rooms import COLONY, COLONY_OWNER, key, settle
from tests.support.stores import CountingStore

ADA, EVE, UMA = key("ada"), key("eve"), key("uma")
WAITING, RUNNING, SUCCESS, FAILED, CANCELLED = State


@virtual
async def test_a_read_waits_until_the_state_is_another() -> None:
    loop = asyncio.get_running_loop()
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        held = asyncio.create_task(made.call(held_read(id), UMA))
        await asyncio.sleep(50)
        assert not held.done()
        assert made.rooms.subscriptions.parked == 1
        await made.assign("ada")
        assert (await held)["state"] == RUNNING
        assert loop.time() < 51
        held = asyncio.create_task(made.call(held_read(id, RUNNING), ADA))
        await asyncio.sleep(5)
        await made.close("ada", id)
        shown = await held
        assert (shown["state"], shown["out"]) == (SUCCESS, ["done"])
        assert made.rooms.subscriptions.parked == 0


@virtual
async def test_a_read_ends_with_its_time_or_at_once() -> None:
    loop = asyncio.get_running_loop()
    async with world() as made:
        await made.populate()
        await made.employ()
        start = loop.time()
        for message in (
            GetProcess(processid=made.waiting),
            held_read(made.waiting, WAITING, 0),
            held_read(made.waiting, WAITING, -3),
            held_read(made.waiting, -1, 50),
            held_read(made.waiting, RUNNING, 50),
            held_read(made.succeeded, SUCCESS, 50),
        ):
            await made.call(message, UMA)
        assert loop.time() == start
        assert (await made.call(held_read(made.waiting, timeout=50), UMA))["state"] == WAITING
        assert loop.time() == pytest.approx(start + 50)
        await made.call(held_read(made.waiting, timeout=10**6), UMA)
        assert loop.time() == pytest.approx(start + 3650)
        assert made.rooms.subscriptions._topics == {}


@virtual
async def test_another_attempt_is_another_state(monkeypatch: pytest.MonkeyPatch) -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        await made.assign("ada")
        held = asyncio.create_task(made.call(held_read(id, RUNNING), UMA))
        await settle()
        events: list[Event] = []
        with monkeypatch.context() as patch:
            patch.setattr(hub.Subscriptions, "watched", lambda _, event: events.append(event))
            await made.call(ReleaseProcess(processid=id), ADA)
            await made.assign("ben")
            await settle()
        assert not held.done()
        for event in events:
            made.rooms.subscriptions.watched(event)
        assert (await held)["assignedexecutorid"] == key("ben").id
        assert asyncio.get_running_loop().time() < 1


@virtual
async def test_an_executor_whose_read_waits_is_not_taken_for_dead() -> None:
    async with world(stale_s=100, presence_every_s=10) as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        await made.get("ben", id)
        held = asyncio.create_task(made.call(held_read(id, timeout=1000), ADA))
        await asyncio.sleep(500)
        assert made.colony.executors["ada"].is_approved
        assert not made.colony.executors["ben"].is_approved
        assert (await held)["state"] == WAITING


@virtual
async def test_who_leaves_does_not_wait_any_more() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("ben")).processid
        held = asyncio.create_task(made.call(held_read(id), UMA))
        gone = asyncio.create_task(made.call(held_read(id), ADA))
        await settle()
        gone.cancel()
        await settle()
        assert made.rooms.subscriptions.parked == 1
        still = asyncio.create_task(made.call(held_read(id), ADA))
        await made.call(RemoveUser(colonyname=COLONY, name="uma"), COLONY_OWNER)
        with pytest.raises(Exception, match="access_denied"):
            await held
        assert made.rooms.subscriptions.parked == 1
        await made.call(CancelProcess(processid=id), key("ben"))
        assert (await still)["state"] == CANCELLED
        assert made.rooms.subscriptions._topics == {}


@virtual
async def test_a_read_that_waits_asks_nothing_of_the_store() -> None:
    async with (
        CountingStore() as store,
        world(store, presence_every_s=1e6, tallies_every_s=1e6) as made,
    ):
        await made.populate()
        id = (await made.submit("uma")).processid
        held = [asyncio.create_task(made.call(held_read(id, 0, 3000), UMA)) for _ in range(10)]
        await settle()
        before = store.asked.count("get")
        await asyncio.sleep(2900)
        assert store.asked.count("get") == before
        for task in held:
            task.cancel()


@virtual
async def test_foreign_processes_cannot_be_waited_for() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        for who in (EVE, STRANGER, OTHER_OWNER):
            refused = await made.refuse(held_read(made.running, RUNNING), who)
            assert refused.failure.code == "access_denied"
