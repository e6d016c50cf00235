"""Generators that are removed leave nothing, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from colonist_protocol.colony import RemoveColony
from colonist_protocol.generator import (
    GetGenerator,
    PackGenerator,
    RemoveGenerator,
)
from colonist_server.loops.generators import GeneratorLoop
from colonist_server.repo import keys
from tests.support.clock import virtual
from tests.support.generators import (
    DyingStore,
    add,
    add_of,
    given,
    idle,
    pack,
    read,
    stored,
)
from tests.support.memory_store import MemoryStore
from tests.support.rooms import (
    COLONY,
    OWNER,
    Refused,
    bench,
    key,
    refused,
    settle,
)

E1 = key("e1")


@virtual
async def test_entries_of_removed_generators_do_not_pile_up() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        generators = server.rooms.generators
        ada = server.colony.executors["e1"]
        for _ in range(1100):
            wanted = add_of(timeout=10**6).generator
            made = await generators.add(server.colony, ada, wanted)
            await generators.pack(made.gid, "1")
            await generators.remove(made.gid)
        loop = cast("GeneratorLoop", getattr(generators.view._changed, "__self__"))  # noqa: B009
        assert len(loop._heap) < 1010
        assert len(loop._armed) < 1010


@virtual
async def test_two_sweeps_of_the_same_remains_do_no_harm() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, trigger=400)
        await pack(server, id, *map(str, range(300)))
        gid = bytes.fromhex(id)
        sweeps = [server.rooms.generators.sweep(gid) for _ in range(2)]
        await asyncio.gather(*sweeps)
        assert (await read(server, id))["queuesize"] == 300  # it is there
        await asyncio.gather(
            server.call(RemoveGenerator(generatorid=id), E1), server.rooms.generators.sweep(gid)
        )
        await server.rooms.generators.sweep(gid)
        assert not stored(store)


@virtual
async def test_remains_that_cannot_be_swept_now_wait_for_the_next_start() -> None:
    async with DyingStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            id = await add(server)
            await pack(server, id, "1")
        for each in stored(store, keys.GENERATOR, keys.GENERATOR_NAME):
            store._delete([each], [])
        async with bench(store) as server:
            store.is_dead = True
            await idle()
            store.is_dead = False
        assert stored(store)
        async with bench(store) as server:
            await idle()
        assert not stored(store)


@virtual
async def test_a_removed_generator_leaves_nothing() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, trigger=301, timeout=10)
        await pack(server, id, *map(str, range(300)))
        await server.call(RemoveGenerator(generatorid=id, all=True), E1)
        assert not stored(store)
        assert not server.rooms.generators.view.all
        assert not server.rooms.generators.view.names
        for message in (GetGenerator, RemoveGenerator, PackGenerator):
            assert (await refused(server, message(generatorid=id)))[:2] == (404, "not_found")
        await asyncio.sleep(100)
        assert given(store) == []


@virtual
async def test_a_removed_colony_leaves_nothing_of_its_generators() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, trigger=2, timeout=10)
        await pack(server, id, "1", "2", "3")
        await idle()
        await server.call(RemoveColony(colonyname=COLONY), OWNER)
        assert not stored(store)
        assert not server.rooms.generators.view.all
        await asyncio.sleep(100)


@virtual
async def test_what_a_stop_left_of_a_removal_goes_at_the_next_start() -> None:
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            id = await add(server, trigger=2)
            await pack(server, id, "1", "2", "3")
            await idle()
        for each in stored(store, keys.GENERATOR, keys.GENERATOR_NAME):
            store._delete([each], [])
        assert stored(store)
        async with bench(store) as server:
            await idle()
            assert not stored(store)
            assert not server.rooms.generators.view.all


@pytest.mark.parametrize("steps", range(8))
@virtual
async def test_packs_during_a_removal_leave_nothing_behind(steps: int) -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server)
        removal = asyncio.create_task(server.call(RemoveGenerator(generatorid=id), E1))
        await settle(steps)
        packs = [asyncio.create_task(pack(server, id, str(i))) for i in range(5)]
        await removal
        ended = await asyncio.gather(*packs, return_exceptions=True)
        assert all(each is None or isinstance(each, Refused) for each in ended)
        assert not stored(store)
