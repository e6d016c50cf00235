"""Crons and generators run in the name of whoever made them, wait while that one may not, and pass
to nobody else."""

from __future__ import annotations

import asyncio

import pytest

from colonist_protocol.colony import RemoveColony
from colonist_protocol.cron import RunCron
from colonist_protocol.executor import (
    AddExecutor,
    ApproveExecutor,
    ChangeExecutorId,
    Executor,
    RejectExecutor,
    RemoveExecutor,
)
from colonist_protocol.user import AddUser, ChangeUserId, RemoveUser, User
from colonist_server.repo import keys
from colonist_server.repo.identities import MAX_FORMER
from tests.support import crons, generators
from tests.support.clock import virtual
from tests.support.generators import given, idle, pack, stored
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, OWNER, TYPE, Bench, bench, key, until
from tests.support.stores import CountingStore

REJECT = RejectExecutor(colonyname=COLONY, executorname="bob")
APPROVE = ApproveExecutor(colonyname=COLONY, executorname="bob")
REMOVE_USER = RemoveUser(colonyname=COLONY, name="uma")


def _user(name: str, who: str) -> AddUser:
    return AddUser(user=User(colonyname=COLONY, userid=key(who).id, name=name))


def _executor(name: str, who: str) -> AddExecutor:
    return AddExecutor(
        executor=Executor(
            executorid=key(who).id, executortype=TYPE, executorname=name, colonyname=COLONY
        )
    )


async def _both(server: Bench, who: str) -> tuple[str, str]:
    cron = await crons.add(server, key(who))
    return cron, await generators.add(server, key(who), trigger=1)


async def _reasons(server: Bench, cron: str, generator: str) -> set[str]:
    shown = (await crons.read(server, cron), await generators.read(server, generator))
    return {each.get("disabledreason", "") for each in shown}


@virtual
async def test_no_user_inherits_from_an_executor_of_its_name() -> None:
    async with MemoryStore() as store, bench(store, may_reregister=True) as server:
        await server.found("e1", "bob")
        cron, generator = await _both(server, "bob")
        await server.call(_user("bob", "user bob"), COLONY_OWNER)
        await server.call(_executor("bob", "bob 2"), COLONY_OWNER)
        await server.call(APPROVE, COLONY_OWNER)
        await pack(server, generator, "1")
        await until(35)
        assert not crons.runs(store, cron)
        assert not given(store)
        gone = {"its creator bob is no member any more"}
        assert await _reasons(server, cron, generator) == gone


@virtual
async def test_nobody_inherits_under_the_key_of_the_creator_but_in_another_kind() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        await server.call(_user("uma", "uma"), COLONY_OWNER)
        cron, generator = await _both(server, "uma")
        await server.call(REMOVE_USER, COLONY_OWNER)
        await server.hire("uma")
        await pack(server, generator, "1")
        await until(35)
        assert not stored(store, keys.WORKFLOW)
        assert len(await _reasons(server, cron, generator) - {""}) == 1


@virtual
async def test_another_user_who_gets_the_name_inherits_nothing_and_the_same_goes_on() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        await server.call(_user("uma", "uma"), COLONY_OWNER)
        cron, generator = await _both(server, "uma")
        await server.call(REMOVE_USER, COLONY_OWNER)
        await server.call(_user("uma", "another"), COLONY_OWNER)
        await pack(server, generator, "1")
        await until(35)
        assert not stored(store, keys.WORKFLOW)
        await server.call(REMOVE_USER, COLONY_OWNER)
        await server.call(_user("uma", "uma"), COLONY_OWNER)
        await until(45)
        assert crons.run_seconds(store, cron) == [35, 40]
        assert given(store)[0] == ["1"]


@pytest.mark.parametrize("kind", ["executor", "user"])
@virtual
async def test_what_was_set_up_under_any_former_key_goes_on(kind: str) -> None:
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            if kind == "executor":
                await server.hire("ann")
            else:
                await server.call(_user("ann", "ann"), COLONY_OWNER)
            cron, generator = await _both(server, "ann")
            who = key("ann")
            for number in range(MAX_FORMER):
                new = key(f"ann {number}")
                change = ChangeExecutorId(colonyname=COLONY, executorid=new.id)
                if kind == "user":
                    change = ChangeUserId(colonyname=COLONY, userid=new.id)
                await server.call(change, who)
                who = new
        async with bench(store) as server:
            await pack(server, generator, "1")
            await until(15)
            assert [run.initiator_id for run in crons.runs(store, cron)] == [who.id]
            assert given(store)[0] == ["1"]


@virtual
async def test_former_ids_of_a_user_stay_taken_until_it_is_removed_and_are_bounded() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        await server.call(_user("uma", "uma"), COLONY_OWNER)
        who = key("uma")
        for number in range(MAX_FORMER + 2):
            new = key(f"uma {number}")
            await server.call(ChangeUserId(colonyname=COLONY, userid=new.id), who)
            who = new
        back = key("uma 8")
        await server.call(ChangeUserId(colonyname=COLONY, userid=back.id), who)
        assert len(server.colony.former) == MAX_FORMER
        for taken in ("uma 2", "uma 9"):
            assert "409" in str(await server.refuse(_user("x", taken), COLONY_OWNER))
        await server.call(_user("free", "uma 0"), COLONY_OWNER)
        await server.call(REMOVE_USER, COLONY_OWNER)
        assert not server.colony.former
        await server.call(_user("x", "uma 2"), COLONY_OWNER)
        await server.call(ChangeUserId(colonyname=COLONY, userid=key("x 2").id), key("uma 2"))
        tag = server.colony.tag
        assert [each for each in stored(store, b"i/") if each.endswith(tag)]
        await server.call(RemoveColony(colonyname=COLONY), OWNER)
        await asyncio.sleep(1)
        assert not [each for each in stored(store, b"i/") if each.endswith(tag)]


@virtual
async def test_a_creator_that_is_approved_again_finds_its_definitions_at_work() -> None:
    async with CountingStore() as store, bench(store, stale_s=0) as server:
        await server.found("e1", "bob")
        cron, generator = await _both(server, "bob")
        await until(12)
        await server.call(REJECT, COLONY_OWNER)
        await pack(server, generator, "1", "2")
        await until(147)
        assert await _reasons(server, cron, generator) == {"its creator bob is not approved"}
        assert "409" in str(await server.refuse(RunCron(cronid=cron), key("e1")))
        await until(247)  # it is noted that e1 was heard
        store.asked.clear()
        await until(1147)
        assert store.asked == [], "nothing is polled, nothing is written"
        await server.call(APPROVE, COLONY_OWNER)
        assert await _reasons(server, cron, generator) == {""}
        await until(1165)
        assert crons.run_seconds(store, cron) == [10, 1147, 1150, 1160], "one for all it missed"
        assert [args for args in given(store) if args] == [["1"], ["2"]]


@virtual
async def test_the_time_of_an_argument_goes_on_while_its_generator_is_held() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1", "bob")
        id = await generators.add(server, key("bob"), trigger=3, timeout=20)
        await pack(server, id, "1")
        await server.call(REJECT, COLONY_OWNER)
        await until(50)
        assert not given(store)
        await pack(server, id, "2")
        await idle()
        await server.call(APPROVE, COLONY_OWNER)
        await idle()
        assert given(store) == [["1", "2"]]


@virtual
async def test_a_hold_outlasts_a_restart_and_ends_after_it() -> None:
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1", "bob")
            cron, generator = await _both(server, "bob")
            await server.call(REJECT, COLONY_OWNER)
            await pack(server, generator, "1")
            await until(25)
        async with bench(store) as server:
            await until(33)
            assert not stored(store, keys.WORKFLOW)
            await server.call(APPROVE, COLONY_OWNER)
            await until(41)
            assert crons.run_seconds(store, cron) == [33, 40]
            assert given(store)[0] == ["1"]


@virtual
async def test_an_executor_that_its_owner_removed_may_come_back_under_its_key() -> None:
    async with MemoryStore() as store, bench(store, may_reregister=True) as server:
        await server.found("e1", "bob")
        cron, generator = await _both(server, "bob")
        remove = RemoveExecutor(colonyname=COLONY, executorname="bob")
        await server.call(remove, COLONY_OWNER)
        await asyncio.sleep(25)
        gone = {"its creator bob is no member any more"}
        assert await _reasons(server, cron, generator) == gone
        await server.call(_executor("bob", "bob"), COLONY_OWNER)
        await asyncio.sleep(1)
        assert not crons.runs(store, cron), "it is not approved yet"
        await server.call(APPROVE, COLONY_OWNER)
        await until(31)
        assert crons.run_seconds(store, cron) == [26, 30]
