"""The weaknesses of COLONIES-RPC section 5 that generators had are absent, each by its number."""

from __future__ import annotations

import asyncio

import pytest

from colonist_protocol.colony import AddColony, Colony
from colonist_protocol.generator import (
    GetGenerator,
    GetGenerators,
    PackGenerator,
    RemoveGenerator,
    ResolveGenerator,
)
from colonist_protocol.message import Message
from colonist_server.repo import keys
from tests.server.people import world
from tests.support.clock import virtual
from tests.support.generators import add, add_of, given, idle, pack, stored, workflow
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, OWNER, Refused, bench, key, refused
from tests.support.stores import CountingStore

E1 = key("e1")


@virtual
async def test_S7_a_workflow_of_another_colony_is_refused() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        await server.call(AddColony(colony=Colony(colonyid=key("o").id, name="other")), OWNER)
        assert (await refused(server, add_of(spec=workflow(colony="other"))))[1] == "invalid_value"
        assert not stored(store)
        other = server.rooms.view.colonies["other"]
        await pack(server, await add(server, trigger=1), "1")
        await idle()
        assert server.colony.waiting == 1
        assert other.waiting == 0


@pytest.mark.parametrize("trigger", [0, -1, 10_001, 2**63 - 1])
@virtual
async def test_P1_a_trigger_that_makes_no_sense_is_refused(trigger: int) -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        with pytest.raises(Refused, match="400 invalid_value: Generator trigger must be"):
            await server.call(add_of(trigger=trigger), E1)
        assert not stored(store)
        await add(server)  # and the server lives


@virtual
async def test_W14_time_counts_from_the_oldest_argument_that_waits() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, trigger=2, timeout=10)
        await pack(server, id, "1", "2")
        await asyncio.sleep(100)
        await pack(server, id, "3")
        await asyncio.sleep(9.9)
        assert given(store) == [["1", "2"]]
        await asyncio.sleep(0.2)
        assert given(store) == [["1", "2"], ["3"]]


@virtual
async def test_W14_a_workflow_and_the_removal_of_its_arguments_are_one_commit() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, trigger=3)
        await pack(server, id, "1", "2", "3")
        await idle()
        (pid,) = server.rooms.view.rows
        made = await store.get(keys.birth(pid))
        counted = await store.get(keys.firings(bytes.fromhex(id)))
        assert made is not None
        assert counted is not None
        assert made.created == counted.modified
        assert not stored(store, keys.ARGUMENT)


@virtual
async def test_G6_generators_that_wait_cost_nothing() -> None:
    async with CountingStore() as store, bench(store, stale_s=0) as server:
        await server.found("e1")
        for number in range(1000):
            gid = await add(server, name=f"g{number}", trigger=2, timeout=10**6)
            await server.rooms.generators.pack(bytes.fromhex(gid), "1")
        await asyncio.sleep(100)
        store.asked.clear()
        await asyncio.sleep(3600)
        assert store.asked == []


@virtual
async def test_G9_a_generator_fires_at_once_and_in_time_to_the_moment() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        loop = asyncio.get_running_loop()
        id = await add(server, trigger=2, timeout=7)
        await pack(server, id, "1", "2")
        process = await server.assign("e1", timeout=100)
        assert loop.time() == 0
        await pack(server, id, "3")
        process = await server.assign("e1", timeout=100)
        assert process.spec.arguments() == ["3"]
        assert loop.time() == pytest.approx(7, abs=0.01)


@pytest.mark.parametrize("kind", [GetGenerator, PackGenerator, RemoveGenerator])
@virtual
async def test_S11_what_is_foreign_and_what_is_not_there_are_refused_alike(
    kind: type[GetGenerator | PackGenerator | RemoveGenerator],
) -> None:
    async with world() as made:
        await made.populate()
        id = (await made.call(add_of(), key("ada")))["generatorid"]
        texts = {
            str(await made.refuse(kind(generatorid=each), key("eve")))
            for each in (id, "ab" * 32, "nonsense", "")
        }
        assert len(texts) == 1
        own = str(await made.refuse(kind(generatorid=id[:8] + "ab" * 28), key("ada")))
        assert own.startswith("404 not_found")


@virtual
async def test_S14_lists_are_bounded() -> None:
    async with world() as made:
        await made.populate()
        message: Message = GetGenerators(colonyname=COLONY, count=10**9)
        assert str(await made.refuse(message, key("ada"))).startswith("400 invalid_value")
        message = ResolveGenerator(colonyname=COLONY, generatorname="nobody")
        assert str(await made.refuse(message, key("ada"))).startswith("404 not_found")
