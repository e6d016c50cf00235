"""Who may follow processes, and what ends a subscription before its time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from colonist_protocol.colony import RemoveColony
from colonist_protocol.executor import RejectExecutor, RemoveExecutor
from colonist_protocol.process import (
    CancelProcess,
    ReleaseProcess,
    RemoveProcess,
    State,
)
from colonist_protocol.subscription import SubscribeProcess, SubscribeProcesses
from colonist_protocol.user import RemoveUser
from colonist_server.repo import backlog
from colonist_server.repo import subscriptions as hub
from colonist_server.repo.topics import Ending
from colonist_server.store.interface import UnavailableError as StoreUnavailableError
from tests.server.following import (
    Ear,
    failure_of,
    follow,
    held_read,
    stream,
    subscribe,
)
from tests.server.people import WHO, world
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, key, settle
from tests.support.stores import HeldLoadStore

ADA, EVE, UMA = key("ada"), key("eve"), key("uma")
WAITING, RUNNING, SUCCESS, FAILED, CANCELLED = State


# -- who may


@pytest.mark.parametrize("who", WHO)
@virtual
async def test_members_may_follow_and_nobody_else(who: str) -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        for message in (
            SubscribeProcess(processid=made.running, state=1, timeout=9),
            SubscribeProcesses(colonyname=COLONY, state=-1, timeout=9),
        ):
            got = await subscribe(made, message, WHO[who])
            if who in ("user", "approved", "approved too"):
                assert isinstance(got, Ear)
            else:
                assert failure_of(got).code == "access_denied"
                assert not got.is_fatal


@virtual
async def test_unknown_and_foreign_are_refused_alike() -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        texts = set()
        for id in (made.running, "ab" * 32):
            message = SubscribeProcess(processid=id, state=1, timeout=9)
            texts.add(str(failure_of(await subscribe(made, message, EVE))))
        for name in (COLONY, "no such"):
            message = SubscribeProcesses(colonyname=name, state=1, timeout=9)
            failure = failure_of(await subscribe(made, message, EVE))
            assert failure.status == 403
        assert len(texts) == 1
        unknown = made.running[:-2] + "ff"
        message = SubscribeProcess(processid=unknown, state=1, timeout=9)
        assert failure_of(await subscribe(made, message, UMA)).code == "not_found"


@pytest.mark.parametrize("state", [-2, 5, 2**40])
@virtual
async def test_a_state_that_is_none_is_refused(state: int) -> None:
    async with world() as made:
        await made.populate()
        await made.employ()
        for message in (
            SubscribeProcess(processid=made.running, state=state, timeout=9),
            SubscribeProcesses(colonyname=COLONY, state=state, timeout=9),
        ):
            got = await subscribe(made, message, UMA)
            assert failure_of(got).code == "invalid_value"
            assert not got.is_fatal


@pytest.mark.parametrize(
    ("leaving", "who"),
    [
        (RemoveExecutor(colonyname=COLONY, executorname="ada"), "ada"),
        (RejectExecutor(colonyname=COLONY, executorname="ada"), "ada"),
        (RemoveUser(colonyname=COLONY, name="uma"), "uma"),
    ],
)
@virtual
async def test_who_leaves_hears_nothing_more(leaving: Any, who: str) -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("ben")).processid
        ears = [await stream(made, who=who), await follow(made, id, who=who)]
        others = [await stream(made, who="ben"), await follow(made, id, who="ben")]
        await made.call(leaving, COLONY_OWNER)
        await settle()
        await made.assign("ben")
        await made.close("ben", id)
        await settle()
        assert [(ear.endings, ear.frames) for ear in ears] == [([Ending.REFUSED], [])] * 2
        assert [ear.states for ear in others] == [[RUNNING, SUCCESS], [SUCCESS]]
        assert made.rooms.subscriptions.count == 1


@virtual
async def test_a_removed_colony_ends_everything() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        ears = [await stream(made), await follow(made, id)]
        held = asyncio.create_task(made.call(held_read(id), UMA))
        await settle()
        await made.call(RemoveColony(colonyname=COLONY), OWNER)
        await settle()
        assert [ear.endings for ear in ears] == [[Ending.REFUSED]] * 2
        with pytest.raises(Exception, match="access_denied"):
            await held
        assert made.rooms.subscriptions._topics == {}


@virtual
async def test_one_caller_may_not_take_all_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MAX_OF_CALLER", 3)
    async with world() as made:
        await made.populate()
        ears = [await stream(made) for _ in range(3)]
        message = SubscribeProcesses(colonyname=COLONY, state=-1, timeout=9)
        assert failure_of(await subscribe(made, message, UMA)).code == "busy"
        await stream(made, who="ada")
        subscription = ears[0].subscription
        assert subscription is not None
        for _ in range(2):
            made.rooms.subscriptions.cancel(subscription)
        await stream(made)


# -- what goes wrong


@virtual
async def test_when_the_watch_was_lost_nobody_misses_anything_silently() -> None:
    async with HeldLoadStore(is_late=False) as store, world(store) as made:
        await made.populate()
        ids = [(await made.submit("uma")).processid for _ in range(5)]
        moved, done, seen, gone, same = ids
        for id in (moved, done):
            assert (await made.assign("ada")).processid == id
        await settle()
        everything = await stream(made)
        ears = {id: await follow(made, id, FAILED) for id in ids}
        leaver = await stream(made, who="ben")
        held = asyncio.create_task(made.call(held_read(moved, 1), UMA))
        assert (await made.assign("ada")).processid == seen
        await settle()
        assert everything.pairs == [(seen, RUNNING)]
        store.gate.clear()
        store.forget()
        await settle()
        await made.call(ReleaseProcess(processid=moved), ADA)
        await made.close("ada", done)
        await made.call(RemoveProcess(processid=gone), UMA)
        await made.call(RejectExecutor(colonyname=COLONY, executorname="ben"), COLONY_OWNER)
        store.gate.set()
        store.remember()
        await settle()
        assert (len(everything.frames), everything.endings) == (1, [Ending.BEHIND])
        assert leaver.endings == [Ending.REFUSED]
        assert ears[moved].states == [WAITING]  # not what was asked for, but something was missed
        assert (ears[done].states, ears[done].endings) == ([SUCCESS], [Ending.DONE])
        assert (ears[gone].states, ears[gone].endings) == ([], [Ending.REMOVED])
        for id in (same, seen):
            assert (ears[id].states, ears[id].endings) == ([], [])
        assert (await held)["state"] == WAITING
        await made.call(CancelProcess(processid=moved), UMA)
        await settle()
        assert ears[moved].states == [WAITING, CANCELLED]


class Unreadable(MemoryStore):
    """Reads may fail."""

    fails = False

    async def get_many(self, keys: Any) -> Any:
        if self.fails:
            raise StoreUnavailableError("the disk is gone")
        return await super().get_many(keys)


@virtual
async def test_a_store_that_cannot_be_read_ends_subscriptions_and_not_the_server() -> None:
    async with Unreadable() as store, world(store) as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        await made.assign("ada")
        everything, one = await stream(made), await follow(made, id)
        made.rooms.listing._births.forget(bytes.fromhex(id))
        await made.close("ada", id)
        store.fails = True
        await settle()
        assert everything.endings == one.endings == [Ending.UNREADABLE]
        store.fails = False
        later = await stream(made)
        await made.submit("uma")
        await settle()
        assert later.states == [WAITING]


@virtual
async def test_a_fault_in_rendering_ends_subscriptions_and_not_the_server(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with world() as made:
        await made.populate()
        ear = await stream(made)

        async def broken(self: Any, wanted: Any) -> Any:
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(type(made.rooms.listing), "of_moments", broken)
            await made.submit("uma")
            await settle()
        assert ear.endings == [Ending.UNREADABLE]
        assert "ZeroDivisionError" in caplog.text
        later = await stream(made)
        await made.submit("uma")
        await settle()
        assert later.states == [WAITING]


@virtual
async def test_what_cannot_be_handed_out_in_time_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog, "MAX_PENDING", 10)
    async with world() as made:
        await made.populate()
        gate = asyncio.Event()
        original = type(made.rooms.listing).of_moments

        async def slow(self: Any, wanted: Any) -> Any:
            await gate.wait()
            return await original(self, wanted)

        monkeypatch.setattr(type(made.rooms.listing), "of_moments", slow)
        first = (await made.submit("uma", priority=9)).processid
        everything, one = await stream(made), await follow(made, first)
        await made.assign("ada")
        await made.close("ada", first)
        for _ in range(40):
            await made.submit("uma")
        await settle()
        assert len(made.rooms.subscriptions._delivery.backlog) < 20
        gate.set()
        await settle()
        assert everything.endings == [Ending.BEHIND]
        assert (one.states, one.endings) == ([SUCCESS], [Ending.DONE])


@virtual
async def test_the_end_of_the_server_ends_everything() -> None:
    async with world() as made:
        await made.populate()
        id = (await made.submit("uma")).processid
        ears = [await stream(made), await follow(made, id)]
        held = asyncio.create_task(made.call(held_read(id), UMA))
        await settle()
        called: list[str] = []
        made.rooms.subscriptions.at_close(lambda: called.append("closed"))
        made.rooms.subscriptions.close()
        assert [ear.endings for ear in ears] == [[Ending.CLOSING]] * 2
        assert (await held)["state"] == WAITING
        assert called == ["closed"]
        message = SubscribeProcesses(colonyname=COLONY, state=-1, timeout=9)
        assert failure_of(await subscribe(made, message, UMA)).code == "unavailable"
        assert (await made.call(held_read(id), UMA))["state"] == WAITING
