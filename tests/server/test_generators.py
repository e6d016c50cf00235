"""Generators: COLONIES-RPC sections 2.8 and 4.8, in virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from colonist_protocol.errors import TooLargeError
from colonist_protocol.generator import (
    MAX_ARGUMENT_BYTES,
    MAX_FIRING_BYTES,
    MAX_LIST,
    MAX_SPEC_BYTES,
    MAX_TRIGGER,
    GetGenerators,
    PackGenerator,
    RemoveGenerator,
    ResolveGenerator,
    largest_argument,
    packed,
)
from colonist_protocol.times import SECOND_NS, UNSET, from_text
from colonist_server.repo import keys
from tests.server.house import DEADLINE_S, house
from tests.support.clock import virtual
from tests.support.generators import (
    add,
    add_of,
    given,
    idle,
    node,
    pack,
    read,
    stored,
    workflow,
)
from tests.support.memory_store import MemoryStore
from tests.support.rooms import (
    COLONY,
    EPOCH_NS,
    bench,
    key,
    refused,
)
from tests.support.stores import CountingStore

E1 = key("e1")


# -- what a generator is


@virtual
async def test_a_generator_is_returned_as_it_was_given() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        text = '{ "colonyname" :"dev", "functionspecs":[ {"nodename":"a","funcname":"f"} ]}'
        made = await server.call(add_of(spec=text, trigger=3, timeout=10), E1)
        assert made == {
            "generatorid": made["generatorid"],
            "initiatorid": E1.id,
            "initiatorname": "e1",
            "colonyname": COLONY,
            "name": "g",
            "workflowspec": text,
            "trigger": 3,
            "timeout": 10,
            "firstpack": UNSET,
            "lastrun": UNSET,
            "queuesize": 0,
            "checkerperiod": 1000,
        }
        id = made["generatorid"]
        assert await read(server, id) == made
        resolve = ResolveGenerator(colonyname=COLONY, generatorname="g")
        assert await server.call(resolve, E1) == made
        listed = GetGenerators(colonyname=COLONY, count=10)
        assert await server.call(listed, E1) == [made]


@virtual
async def test_generators_are_listed_in_the_order_they_were_made_also_after_a_restart() -> None:
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            for name in "cab":
                await add(server, name=name)
        async with bench(store) as server:
            found = await server.call(GetGenerators(colonyname=COLONY, count=2), E1)
            assert [each["name"] for each in found] == ["c", "a"]
            assert await server.call(GetGenerators(colonyname=COLONY, count=0), E1) == []
            for count in (-1, MAX_LIST + 1):
                message = GetGenerators(colonyname=COLONY, count=count)
                assert (await refused(server, message))[:2] == (400, "invalid_value")


@virtual
async def test_a_name_is_taken_once_and_free_again_after_the_removal() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server)
        status, code, text = await refused(server, add_of())
        assert (status, code) == (409, "exists")
        assert text == "Generator with name <g> in Colony <dev> already exists"
        await server.call(RemoveGenerator(generatorid=id), E1)
        assert await add(server) != id


@pytest.mark.parametrize(
    "changes",
    [
        {"trigger": 0},
        {"trigger": -1},
        {"trigger": MAX_TRIGGER + 1},
        {"timeout": 2**62},
        {"name": ""},
        {"name": "a:b"},
        {"spec": "{"},
        {"spec": "[]"},
        {"spec": workflow(node("a", "nobody"))},
        {"spec": workflow(node("a"), node("a"))},
        {"spec": workflow(node("a", "b"), node("b", "a"))},
        {"spec": '{"colonyname": "dev", "functionspecs": []}'},
        {"spec": workflow(colony="other")},
        {"spec": workflow(*(node(f"n{i}") for i in range(900))), "trigger": 10_000},
    ],
)
@virtual
async def test_what_makes_no_sense_is_refused_and_changes_nothing(changes: dict[str, Any]) -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        status, code, _ = await refused(server, add_of(**changes))
        assert status == 400, code
        assert not stored(store)


@virtual
async def test_a_spec_that_is_too_large_is_refused() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        spec = workflow(node("a", label="x" * MAX_SPEC_BYTES))
        assert (await refused(server, add_of(spec=spec)))[:2] == (413, "too_large")


# -- firing on the count


@virtual
async def test_every_trigger_arguments_start_a_workflow_with_exactly_these_in_order() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        spec = workflow(
            node("a", args=["old"], kwargs={"k": 1}),
            node("b", "a", args=["kept"], kwargs={"k": 2}),
            node("c", args=[1]),
        )
        id = await add(server, spec=spec)
        await pack(server, id, "1", "2")
        await idle()
        assert given(store) == []
        assert (await read(server, id))["queuesize"] == 2
        await pack(server, id, "3", "4", "5", "6", "7")
        await idle()
        assert given(store, "a") == given(store, "c") == [["1", "2", "3"], ["4", "5", "6"]]
        assert given(store, "b") == [["kept"], ["kept"]]
        assert (await read(server, id))["queuesize"] == 1
        process = await server.assign("e1")
        assert process.spec.arguments() == ["1", "2", "3"]
        assert process.spec.keywords() == {}
        assert (process.initiatorid, process.initiatorname) == (E1.id, "e1")
        assert process.processgraphid


@virtual
async def test_the_times_of_a_generator_say_when_it_was_first_packed_and_last_run() -> None:
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            id = await add(server, trigger=2)
            await asyncio.sleep(5)
            await pack(server, id, "1")
            assert _seconds((await read(server, id))["firstpack"]) == 5
            await asyncio.sleep(5)
            await pack(server, id, "2")
            await idle()
            await pack(server, id, "3")
            made = await read(server, id)
            assert (_seconds(made["firstpack"]), _seconds(made["lastrun"])) == (5, 10)
        async with bench(store) as server:
            assert await read(server, id) == made


def _seconds(text: str) -> int:
    return (from_text(text) - EPOCH_NS) // SECOND_NS


@virtual
async def test_arguments_are_texts_whatever_is_in_them() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, trigger=4)
        texts = ["", '"],["', "\x00\u2028é", "1"]
        await pack(server, id, *texts)
        await idle()
        assert given(store) == [texts]


@virtual
async def test_packs_at_the_same_time_are_each_consumed_once() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, trigger=7)
        await asyncio.gather(*(pack(server, id, str(i)) for i in range(100)))
        await idle()
        fired = given(store)
        assert [len(args) for args in fired] == [7] * 14
        assert (await read(server, id))["queuesize"] == 2
        assert len({arg for args in fired for arg in args}) == 98


@virtual
async def test_a_trigger_too_large_for_one_commit_fires_in_steps() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, trigger=300)
        texts = [str(i) for i in range(650)]
        await pack(server, id, *texts)
        await idle()
        assert given(store) == [texts[:300], texts[300:600]]
        assert (await read(server, id))["queuesize"] == 50
        assert not stored(store, keys.FIRING)
        assert len(stored(store, keys.ARGUMENT)) == 50


async def test_on_a_real_store_small_and_large_triggers_fire_and_the_rest_outlives_a_restart(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as made:
        await made.found("e1")
        small = bytes.fromhex(await add(made, name="small", trigger=3))
        large = bytes.fromhex(await add(made, name="large", trigger=400))
        generators = made.rooms.generators
        await asyncio.gather(
            *(generators.pack(small, f"s{i}") for i in range(10)),
            *(generators.pack(large, f"l{i}") for i in range(850)),
        )
        async with asyncio.timeout(DEADLINE_S):
            while made.colony.waiting < 5 or generators.get(large).under_way:
                await made.request("GET", "/livez")
        sizes = sorted([len((await made.assign("e1")).spec.arguments()) for _ in range(5)])
        assert sizes == [3, 3, 3, 400, 400]
    async with house(tmp_path) as made:
        left = {each.gid: len(each.waiting) for each in made.rooms.generators.view.all.values()}
        assert left == {small: 1, large: 50}


# -- firing in time


@virtual
async def test_what_waits_fires_when_the_oldest_has_waited_long_enough() -> None:
    async with MemoryStore() as store, bench(store, stale_s=0) as server:
        await server.found("e1")
        id = await add(server, trigger=3, timeout=10)
        await asyncio.sleep(1000)  # a long quiet time is no reason to fire at once
        await pack(server, id, "1")
        await asyncio.sleep(6)
        await pack(server, id, "2")
        await asyncio.sleep(3.99)
        assert given(store) == []
        await asyncio.sleep(0.02)
        await idle()
        assert given(store) == [["1", "2"]]
        await pack(server, id, "3")
        await asyncio.sleep(9.9)
        assert len(given(store)) == 1
        await asyncio.sleep(0.2)
        assert given(store) == [["1", "2"], ["3"]]


@virtual
async def test_time_counts_from_the_oldest_that_is_left_after_a_firing() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, trigger=2, timeout=10)
        await pack(server, id, "1")
        await asyncio.sleep(4)
        await pack(server, id, "2", "3")
        await asyncio.sleep(9.9)
        assert given(store) == [["1", "2"]]
        await asyncio.sleep(0.2)
        assert given(store) == [["1", "2"], ["3"]]


@pytest.mark.parametrize("timeout", [0, -1])
@virtual
async def test_without_a_timeout_arguments_wait_for_ever(timeout: int) -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, timeout=timeout)
        await pack(server, id, "1")
        await asyncio.sleep(1_000_000)
        assert given(store) == []


@virtual
async def test_time_runs_on_over_a_restart() -> None:
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            soon = await add(server, timeout=10)
            await pack(server, soon, "1")
            overdue = await add(server, name="h", timeout=2)
            await pack(server, overdue, "2")
        await asyncio.sleep(5)
        async with bench(store) as server:
            await idle()
            assert given(store) == [["2"]]
            await asyncio.sleep(5.1)
            assert given(store) == [["2"], ["1"]]


# -- packing


@virtual
async def test_arguments_are_bounded_so_that_a_firing_fits() -> None:
    assert largest_argument(1, 1) == MAX_ARGUMENT_BYTES
    assert largest_argument(100, 1) == MAX_FIRING_BYTES // 100
    with pytest.raises(TooLargeError):
        packed("x" * 15, 16)
    assert packed("x" * 14, 16) == b'"' + b"x" * 14 + b'"'
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, trigger=2)
        too_large = PackGenerator(generatorid=id, arg="x" * MAX_ARGUMENT_BYTES)
        assert (await refused(server, too_large))[:2] == (413, "too_large")
        await pack(server, id, "x" * (MAX_ARGUMENT_BYTES - 2), "y" * (MAX_ARGUMENT_BYTES - 2))
        await idle()
        assert [len(arg) for arg in given(store)[0]] == [MAX_ARGUMENT_BYTES - 2] * 2


@virtual
async def test_so_many_arguments_may_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colonist_protocol.generator.MAX_WAITING", 2)
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, trigger=3)
        await pack(server, id, "1", "2")
        assert (await refused(server, PackGenerator(generatorid=id, arg="3")))[:2] == (429, "busy")


@virtual
async def test_a_colony_has_so_many_generators_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colonist_protocol.generator.MAX_GENERATORS", 2)
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        await add(server, name="g")
        await add(server, name="h")
        assert (await refused(server, add_of(name="i")))[:2] == (429, "busy")


@virtual
async def test_a_pack_writes_one_key_and_reads_nothing_from_the_store() -> None:
    async with CountingStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, trigger=100)
        store.asked.clear()
        store.commits.clear()
        await pack(server, id, *map(str, range(20)))
        assert store.asked == ["commit"] * 20
        assert [len(ops) for _, ops in store.commits] == [1] * 20
