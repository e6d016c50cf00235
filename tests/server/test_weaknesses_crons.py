"""The weaknesses of COLONIES-RPC section 5 that crons had are absent, each by its number."""

from __future__ import annotations

import asyncio

import pytest

from colonist_protocol.colony import AddColony, Colony
from colonist_protocol.cron import GetCron, GetCrons, RemoveCron, RunCron
from colonist_protocol.message import Message
from colonist_protocol.process import CloseFailed
from colonist_protocol.times import from_text
from colonist_protocol.user import AddUser, RemoveUser, User
from colonist_protocol.workflow import CancelProcessGraph, RemoveProcessGraph
from colonist_server.repo import keys
from tests.server.people import WHO, world
from tests.support.clock import virtual
from tests.support.crons import MINUTELY, add, add_of, read, run_seconds
from tests.support.generators import node, stored, workflow
from tests.support.memory_store import MemoryStore
from tests.support.rooms import (
    COLONY,
    COLONY_OWNER,
    EPOCH_NS,
    OWNER,
    Bench,
    Refused,
    bench,
    key,
    refused,
    settle,
)
from tests.support.stores import CountingStore

E1 = key("e1")
UMA = key("uma")


@virtual
async def test_S7_a_workflow_of_another_colony_is_refused_and_its_nodes_stay_in_this_one() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        await server.call(AddColony(colony=Colony(colonyid=key("o").id, name="other")), OWNER)
        assert (await refused(server, add_of(spec=workflow(colony="other"))))[1] == "invalid_value"
        assert not stored(store, keys.CRON, keys.CRON_NAME)
        astray = node("a")
        astray["conditions"]["colonyname"] = "other"
        for number, spec in enumerate((workflow(astray), workflow(colony=""))):
            await server.call(RunCron(cronid=await add(server, name=f"k{number}", spec=spec)), E1)
        assert server.colony.waiting == 2
        assert server.rooms.view.colonies["other"].waiting == 0


@pytest.mark.parametrize("who", ["foreign executor", "foreign owner", "stranger", "colony owner"])
@virtual
async def test_S8_who_may_not_run_a_cron_starts_nothing(who: str) -> None:
    async with world() as made:
        await made.populate()
        await made.weave()
        before = await made.dump()
        refused = await made.refuse(RunCron(cronid=made.cron), WHO[who])
        assert (refused.failure.status, refused.failure.code) == (403, "access_denied")
        assert await made.dump() == before


@pytest.mark.parametrize("kind", [GetCron, RunCron, RemoveCron])
@virtual
async def test_S11_unknown_and_foreign_crons_are_refused_alike(kind: type[Message]) -> None:
    async with world() as made:
        await made.populate()
        await made.weave()
        answers = {
            ((await made.refuse(kind(cronid=id), key("eve"))).failure)
            for id in (made.cron, "ab" * 32, "", "x")
        }
        assert len(answers) == 1


@pytest.mark.parametrize("count", [-1, 1001, 2**62])
@virtual
async def test_S14_the_count_of_a_list_is_limited(count: int) -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        with pytest.raises(Refused, match="400 invalid_value: Count is not within"):
            await server.call(GetCrons(colonyname=COLONY, count=count), E1)


@virtual
async def test_P7_a_cron_that_cannot_start_is_disabled_and_left_alone() -> None:
    async with CountingStore() as store, bench(store, stale_s=0) as server:
        await server.found("e1")
        await server.call(
            AddUser(user=User(colonyname=COLONY, userid=UMA.id, name="uma")), COLONY_OWNER
        )
        id = await add(server, UMA, cronexpression="0/1 * * * * *")
        await server.call(RemoveUser(colonyname=COLONY, name="uma"), COLONY_OWNER)
        await asyncio.sleep(5)
        assert "no member" in (await read(server, id))["disabledreason"]
        await asyncio.sleep(100)
        store.asked.clear()
        await asyncio.sleep(1000)
        assert store.asked == []
        assert not stored(store, keys.WORKFLOW, keys.BIRTH)


@pytest.mark.parametrize("end", ["cancelled", "failed", "removed"])
@virtual
async def test_W12_whatever_the_end_of_the_run_before_the_next_one_comes(end: str) -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        id = await add(server, waitforprevprocessgraph=True)
        await asyncio.sleep(25)
        await _end(server, (await read(server, id))["prevprocessgraphid"], end)
        await asyncio.sleep(1)
        assert run_seconds(store, id)[-1] == 25
        assert (
            from_text((await read(server, id))["nextrun"]) // 10**9 * 10**9 == EPOCH_NS + 30 * 10**9
        )


async def _end(server: Bench, graph: str, end: str) -> None:
    if end == "cancelled":
        await server.call(CancelProcessGraph(processgraphid=graph), E1)
    elif end == "removed":
        await server.call(RemoveProcessGraph(processgraphid=graph), E1)
    else:
        process = await server.assign("e1")
        await server.call(CloseFailed(processid=process.processid, errors=["e"]), E1)


@virtual
async def test_W13_random_crons_are_random_and_the_reply_tells_the_first_run() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        ids: list[str] = []
        firsts: set[float] = set()
        for number in range(10):
            made = await server.call(add_of(f"r{number}", interval=100, random=True), E1)
            ids.append(made["cronid"])
            firsts.add((from_text(made["nextrun"]) - EPOCH_NS) / 1e9)
        assert len(firsts) == 10
        assert all(0 <= first < 100 for first in firsts)
        plain = await server.call(add_of("plain", interval=100), E1)
        assert (from_text(plain["nextrun"]) - EPOCH_NS) // 10**9 == 100
        await asyncio.sleep(201)
        for id in ids:
            assert len([each for each in run_seconds(store, id) if each < 200]) == 2
        assert {run_seconds(store, id)[0] for id in ids} == {round(f, 3) for f in firsts}


@virtual
async def test_W13_runs_that_were_missed_do_not_vanish() -> None:
    async with MemoryStore() as store:
        async with bench(store) as server:
            await server.found("e1")
            id = await add(server, cronexpression=MINUTELY)
        await asyncio.sleep(200)
        async with bench(store):
            await asyncio.sleep(50)
        assert run_seconds(store, id) == [200, 240]


@virtual
async def test_G6_crons_that_wait_ask_nothing_of_the_store() -> None:
    async with CountingStore() as store, bench(store, stale_s=0) as server:
        await server.found("e1")
        for number in range(1000):
            await add(server, name=f"k{number}", cronexpression="0 0 0 1 1 *")
        await asyncio.sleep(100)
        store.asked.clear()
        await asyncio.sleep(3600)
        assert store.asked == []


@virtual
async def test_G9_a_cron_runs_in_time_to_the_moment() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        await add(server, cronexpression="7 * * * * *")
        await server.assign("e1", timeout=100)
        await settle()
        assert asyncio.get_running_loop().time() == pytest.approx(7, abs=0.003)
