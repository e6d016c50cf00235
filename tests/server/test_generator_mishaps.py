"""Generators that cannot fire: creators that left, bad workflows, a full store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from colonist_protocol.executor import ApproveExecutor, RejectExecutor
from colonist_protocol.generator import (
    PackGenerator,
)
from colonist_protocol.user import AddUser, ChangeUserId, RemoveUser, User
from colonist_server.repo import keys
from colonist_server.repo.records import decode_generator, encode
from colonist_server.store.interface import Guard, Op, Put, Revision
from tests.support.clock import virtual
from tests.support.generators import (
    DyingStore,
    add,
    given,
    idle,
    pack,
    read,
    stored,
)
from tests.support.memory_store import MemoryStore
from tests.support.rooms import (
    COLONY,
    COLONY_OWNER,
    bench,
    key,
    refused,
    settle,
)


@virtual
async def test_a_generator_whose_creator_may_not_work_keeps_its_arguments_and_takes_more() -> None:
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1", "e2")
            id = await add(server, key("e2"))
            await server.call(RejectExecutor(colonyname=COLONY, executorname="e2"), COLONY_OWNER)
            await pack(server, id, "1", "2", "3")
            await idle()
        async with bench(store) as server:
            await asyncio.sleep(100)
            made = await read(server, id)
            assert made["disabledreason"] == "its creator e2 is not approved"
            assert made["queuesize"] == 3
            assert given(store) == []
            await pack(server, id, "4")
            assert (await read(server, id))["queuesize"] == 4


async def _spoil(store: MemoryStore, id: str) -> None:
    """As if a later version refused a workflow that this one has accepted."""
    key = keys.generator(bytes.fromhex(id))
    item = await store.get(key)
    assert item is not None
    record = msgspec.structs.replace(decode_generator(item.value), spec="{}")
    assert await store.commit([Guard(key, item.modified)], [Put(key, encode(record))])


@virtual
async def test_a_generator_whose_workflow_is_refused_is_disabled_and_keeps_its_arguments() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server)
        await _spoil(store, id)
        await settle()
        await pack(server, id, "1", "2", "3")
        await idle()
        made = await read(server, id)
        assert "no functionspecs" in made["disabledreason"]
        assert made["queuesize"] == 3
        status, code, text = await refused(server, PackGenerator(generatorid=id, arg="4"))
        assert (status, code) == (409, "conflict")
        assert "disabled: " in text


@virtual
async def test_a_firing_under_way_that_is_refused_gives_its_arguments_back() -> None:
    async with DyingStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            id = await add(server, trigger=130)
            await pack(server, id, *map(str, range(130)))
            await idle()
            assert (await read(server, id))["queuesize"] == 0
        store.is_dead = False
        await _spoil(store, id)
        async with bench(store) as server:
            await idle()
            made = await read(server, id)
            assert "no functionspecs" in made["disabledreason"]
            assert made["queuesize"] == 130
            assert not stored(store, keys.FIRING)
            assert given(store) == []


@virtual
async def test_a_creator_that_comes_back_while_it_is_missed_is_not_missed() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1", "e2")
        id = await add(server, key("e2"), trigger=1)
        await server.call(RejectExecutor(colonyname=COLONY, executorname="e2"), COLONY_OWNER)
        generator = server.rooms.generators.get(bytes.fromhex(id))
        executor = server.colony.executors["e2"]
        approve = ApproveExecutor(colonyname=COLONY, executorname="e2")
        await asyncio.gather(server.call(approve, COLONY_OWNER), pack(server, id, "1"))
        await idle()
        assert executor.is_approved
        assert not generator.definition.disabled
        assert given(store) == [["1"]]


@virtual
async def test_a_user_who_changed_its_key_is_the_creator_still() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        user = User(colonyname=COLONY, userid=key("uma").id, name="uma")
        await server.call(AddUser(user=user), COLONY_OWNER)
        id = await add(server, key("uma"), trigger=1)
        await server.call(ChangeUserId(colonyname=COLONY, userid=key("new").id), key("uma"))
        await pack(server, id, "1")
        await idle()
        process = await server.assign("e1")
        assert (process.initiatorid, process.initiatorname) == (key("new").id, "uma")
        await server.call(RemoveUser(colonyname=COLONY, name="uma"), COLONY_OWNER)
        await pack(server, id, "2")
        await idle()
        assert "disabledreason" in await read(server, id)


class FullStore(MemoryStore):
    """Refuses commits that make a workflow while it `is_stuck`."""

    is_stuck = False
    tries = 0

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        if self.is_stuck and any(each.key.startswith(keys.FIRINGS) for each in guards):
            self.tries += 1
            self.is_full = True
            try:
                return await super().commit(guards, ops)
            finally:
                self.is_full = False
        return await super().commit(guards, ops)


@virtual
async def test_a_store_that_cannot_write_is_tried_again_each_second() -> None:
    async with FullStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, trigger=2, timeout=5)
        store.is_stuck = True
        await pack(server, id, "1")
        await asyncio.sleep(8.5)
        assert 3 <= store.tries <= 5
        await pack(server, id, "2", "3")
        await asyncio.sleep(10)
        assert store.tries <= 20
        store.is_stuck = False
        await asyncio.sleep(20)
        assert given(store) == [["1", "2"], ["3"]]


@virtual
async def test_time_counts_from_the_oldest_of_those_that_came_while_a_firing_was_held_up() -> None:
    async with FullStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, trigger=3, timeout=10)
        store.is_stuck = True
        await pack(server, id, "1", "2", "3")
        await asyncio.sleep(1)
        await pack(server, id, "4")
        await asyncio.sleep(2)
        await pack(server, id, "5")
        store.is_stuck = False
        await asyncio.sleep(7.9)
        assert given(store) == [["1", "2", "3"]]
        await asyncio.sleep(0.2)
        assert given(store) == [["1", "2", "3"], ["4", "5"]]
