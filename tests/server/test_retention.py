"""History is forgotten by age and by number, where the server is set so, and in no other way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from colonist_protocol.colony import GetMemberHistory
from colonist_protocol.executor import ApproveExecutor
from colonist_protocol.log import AddExecutorLog, AddLog, GetLogs
from colonist_protocol.message import Message
from colonist_protocol.process import (
    CancelProcess,
    CloseFailed,
    GetProcess,
    ReleaseProcess,
    RemoveProcess,
    SetOutput,
    State,
)
from colonist_protocol.workflow import GetProcessGraphs
from colonist_server.config import ServerConfig
from colonist_server.loops import retention
from colonist_server.loops.leadership import Leadership
from colonist_server.repo import keys
from colonist_server.repo.leftovers import Leftovers
from colonist_server.repo.records import Ended, encode
from colonist_server.repo.retirement import Retirement
from colonist_server.store.interface import (
    Delete,
    Guard,
    Op,
    Put,
    Revision,
    Store,
    UnavailableError,
)
from tests.server.house import house
from tests.server.people import World, attribute_of, world
from tests.support.clock import virtual
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, COLONY_OWNER, Refused, bench, key
from tests.support.stores import CountingStore

ADA, UMA = key("ada"), key("uma")
HOUR = 3600.0
DAY = 86_400.0
OF_PROCESSES = (
    keys.BIRTH,
    keys.LIVE,
    keys.CLOSED,
    keys.ENDED,
    keys.OUTPUT,
    keys.ATTRIBUTE,
    b"ai/",
    keys.EVENTS,
)


class Stopped(Exception):
    """The process ended here."""


def old(store: Store | None = None, **settings: Any) -> AbstractAsyncContextManager[World]:
    """A server with little else to do for years."""
    idle = {"stale_s": 0.0, "presence_every_s": 1e9, "tallies_every_s": 1e9}
    return world(store, **idle, **settings)


async def found(made: World) -> None:
    await made.found("ada")
    await made.enrol("uma")


async def end(made: World, state: State = State.SUCCESS, **spec: object) -> str:
    """A process that has left every kind of trace, ended in a state."""
    id = (await made.submit("uma", env={"E": "1"}, **spec)).processid
    for _ in range(10):  # more events than its record holds
        await made.assign("ada")
        await made.call(ReleaseProcess(processid=id), ADA)
    await made.assign("ada")
    await made.call(attribute_of(id), ADA)
    await made.call(SetOutput(processid=id, out=msgspec.Raw(b"[0]")), ADA)
    await made.call(AddLog(processid=id, message="at work"), ADA)
    if state == State.SUCCESS:
        await made.close("ada", id)
    elif state == State.FAILED:
        await made.call(CloseFailed(processid=id, errors=["e"]), ADA)
    else:
        await made.call(CancelProcess(processid=id), UMA)
    return id


async def quick(made: World, count: int) -> list[str]:
    """Processes that ended one after the other."""
    ids = []
    for _ in range(count):
        id = (await made.submit("uma")).processid
        await made.call(CancelProcess(processid=id), UMA)
        ids.append(id)
    return ids


async def of_processes(made: World) -> list[bytes]:
    return [key for key in await made.dump() if key.startswith(OF_PROCESSES)]


async def lines(made: World) -> list[bytes]:
    return [key for key in await made.dump() if key.startswith(keys.LOG)]


async def is_there(made: World, id: str) -> bool:
    return (await made.answer(GetProcess(processid=id), UMA)).status == 200


@virtual
async def test_g8_nothing_is_forgotten_unless_the_server_is_set_so() -> None:
    async with old() as made:
        await found(made)
        id = await end(made)
        await asyncio.sleep(10)
        before = await made.dump()
        await asyncio.sleep(10 * DAY)  # each minute of it is counted in the store
        assert await is_there(made, id)
        assert await made.dump() | {keys.EPOCH: b""} == before | {keys.EPOCH: b""}


@pytest.mark.parametrize("state", [State.SUCCESS, State.FAILED, State.CANCELLED])
@virtual
async def test_g8_what_ended_an_age_ago_leaves_nothing(state: State) -> None:
    async with old(retention_age_s=DAY) as made:
        await found(made)
        id = await end(made, state)
        waiting = (await made.submit("uma")).processid
        await asyncio.sleep(DAY - 60)
        assert await is_there(made, id)
        await asyncio.sleep(HOUR + 60)
        assert not await is_there(made, id)
        kept = await of_processes(made)
        assert all(key.endswith(bytes.fromhex(waiting)) for key in kept)
        assert await lines(made) == []
        assert await made.statistics() | {"waitingprocesses": 0} == {
            **dict.fromkeys(await made.statistics(), 0),
            "colonies": 1,
            "executors": 1,
            "activeexecutors": 1,
        }


@virtual
async def test_g8_it_is_removed_when_it_comes_of_age_and_not_before() -> None:
    async with old(retention_age_s=60.0) as made:
        await found(made)
        ids = []
        for _ in range(5):
            ids.append((await quick(made, 1))[0])
            await asyncio.sleep(10)
        for n in range(5):
            await asyncio.sleep(9.0 if n == 0 else 10.0)
            there = [await is_there(made, id) for id in ids]
            assert there == [False] * n + [True] * (5 - n)


@virtual
async def test_an_idle_server_looks_once_an_hour() -> None:
    async with CountingStore() as store, old(store, retention_age_s=30 * DAY) as made:
        await found(made)
        await quick(made, 3)
        await asyncio.sleep(10)
        before = store.asked.count("range")
        await asyncio.sleep(24 * HOUR)
        assert store.asked.count("range") - before <= 24 * 10


@virtual
async def test_the_newest_are_kept_where_a_number_is_set() -> None:
    async with old(retention_count=20) as made:
        await found(made)
        ids = [await end(made, state) for state in (State.SUCCESS, State.FAILED) * 3]
        ids += await quick(made, 14)
        await asyncio.sleep(1)
        assert all([await is_there(made, id) for id in ids])
        ids += await quick(made, 7)
        await asyncio.sleep(1)
        there = [await is_there(made, id) for id in ids]
        assert there == [False] * 7 + [True] * 20
        counts = await made.statistics()
        kept = sum(counts[f"{each}processes"] for each in ("successful", "failed", "cancelled"))
        assert kept == 20
        assert await made.list(State.CANCELLED) == ids[:6:-1]
        assert len(await lines(made)) == 6  # the executor's own: they go by age


@virtual
async def test_what_ends_while_the_oldest_go_counts_too() -> None:
    async with old(retention_count=40) as made:
        await found(made)
        await quick(made, 41)
        await asyncio.sleep(retention.PAUSE_S / 2)
        for _ in range(2):
            await quick(made, 1)
            await asyncio.sleep(retention.PAUSE_S)
        await asyncio.sleep(1)
        assert sum(made.colony.closed) == 40


@virtual
async def test_too_many_at_the_start_are_removed_at_once() -> None:
    async with MemoryStore() as store:
        async with old(store) as made:
            await found(made)
            ids = await quick(made, 120)
        async with old(store, retention_count=50) as made:
            await asyncio.sleep(2)
            assert [await is_there(made, id) for id in ids] == [False] * 70 + [True] * 50


@virtual
async def test_statistics_are_what_is_kept_after_a_restart_too() -> None:
    async with MemoryStore() as store:
        async with old(store, retention_count=30) as made:
            await found(made)
            await quick(made, 100)
            await asyncio.sleep(1)
            before = await made.statistics()
        async with old(store) as made:
            assert await made.statistics() == before


@virtual
async def test_what_waits_or_runs_is_never_removed() -> None:
    async with old(retention_age_s=10.0, retention_count=1) as made:
        await found(made)
        running = (await made.submit("uma")).processid
        await made.assign("ada")
        await made.call(AddLog(processid=running, message="long ago"), ADA)
        waiting = (await made.submit("uma")).processid
        await quick(made, 50)
        await asyncio.sleep(HOUR)
        assert await is_there(made, running)
        assert await is_there(made, waiting)
        await made.close("ada", running)


@virtual
async def test_a_colony_keeps_its_own_number() -> None:
    async with old(retention_count=10) as made:
        await made.populate()
        ids = await quick(made, 10)
        await asyncio.sleep(1)
        assert all([await is_there(made, id) for id in ids])


@pytest.mark.parametrize("commits", range(8))
@virtual
async def test_what_is_half_removed_is_found_again(commits: int) -> None:
    """Stopped after each commit in turn; the next start removes the rest."""
    async with MemoryStore() as store:
        async with old(store) as made:
            await found(made)
            ids = [await end(made) for _ in range(3)]
            retirement = Retirement(made.rooms.members._writes, made.rooms.removal)
            batch = await retirement.oldest(made.colony).take(9, 2**64)
            assert [old.pid.hex() for old in batch] == ids
            commit, left = store.commit, [commits]

            async def stopping(guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
                left[0] -= 1
                if left[0] < 0:
                    raise Stopped
                return await commit(guards, ops)

            store.commit = stopping
            try:
                await retirement.retire(made.colony, batch)
            except Stopped:
                pass
            finally:
                store.commit = commit
        async with old(store, retention_age_s=DAY) as made:
            await asyncio.sleep(2 * DAY)
            assert await of_processes(made) == []
            assert await lines(made) == []


@virtual
async def test_what_somebody_removes_meanwhile_stops_nothing() -> None:
    async with old() as made:
        await found(made)
        ids = [await end(made) for _ in range(4)]
        retirement = Retirement(made.rooms.members._writes, made.rooms.removal)
        batch = await retirement.oldest(made.colony).take(9, 2**64)
        await made.call(RemoveProcess(processid=ids[1]), UMA)
        await retirement.retire(made.colony, batch)
        assert await of_processes(made) == []
        assert sum(made.colony.closed) == 0


@virtual
async def test_processes_with_much_beside_them_take_more_commits() -> None:
    async with old(retention_count=1) as made:
        await found(made)
        for n in range(12):
            env = {f"E{number}": str(n) for number in range(30)}
            id = (await made.submit("uma", env=env)).processid
            await made.call(CancelProcess(processid=id), UMA)
        await asyncio.sleep(1)
        left = await of_processes(made)
        assert len(left) == 3 + 30
        assert sum(made.colony.closed) == 1


@virtual
async def test_a_store_that_refuses_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async with MemoryStore() as store, old(store, retention_count=10) as made:
        await found(made)
        ids = await quick(made, 10)
        commit = store.commit

        async def refusing(guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
            if any(isinstance(op, Delete) and op.key.startswith(keys.ENDED) for op in ops):
                raise UnavailableError("the disk is full")
            return await commit(guards, ops)

        store.commit = refusing
        ids += await quick(made, 1)
        await asyncio.sleep(retention.RETRY_S / 2)
        assert "history is not removed, trying again" in caplog.text
        assert await is_there(made, ids[0])
        store.commit = commit
        await asyncio.sleep(retention.RETRY_S)
        assert not await is_there(made, ids[0])
        assert sum(made.colony.closed) == 10


@virtual
async def test_old_lines_and_records_are_forgotten_by_age_and_new_ones_kept() -> None:
    async with old(retention_age_s=DAY) as made:
        await found(made)
        for n in range(250):
            await made.call(
                AddExecutorLog(colonyname=COLONY, executorname="ada", message=f"old {n}"), ADA
            )
            approve: Message = ApproveExecutor(colonyname=COLONY, executorname="ada")
            await made.call(approve, COLONY_OWNER)
        running = (await made.submit("uma")).processid
        await made.assign("ada")
        await made.call(AddLog(processid=running, message="old line of mine"), ADA)
        gone = await end(made)
        await made.call(RemoveProcess(processid=gone), UMA)
        await asyncio.sleep(DAY / 2)
        mine = AddExecutorLog(colonyname=COLONY, executorname="ada", message="new")
        await made.call(mine, ADA)
        await made.call(ApproveExecutor(colonyname=COLONY, executorname="ada"), COLONY_OWNER)
        assert len(await lines(made)) == 250 + 2 + 2 + 1
        await asyncio.sleep(DAY / 2 + 1.1 * HOUR)
        of_executor = GetLogs(colonyname=COLONY, executorname="ada", count=500)
        assert [line["message"] for line in await made.call(of_executor, UMA)] == ["new"]
        of_process = GetLogs(colonyname=COLONY, processid=running, count=500)
        texts = [line["message"] for line in await made.call(of_process, UMA)]
        assert texts == ["old line of mine"]  # it runs: what it said stays with it
        assert len(await lines(made)) == 2
        trail = await made.call(GetMemberHistory(colonyname=COLONY), COLONY_OWNER)
        assert len(trail) == 100  # a page of what tells who was a member when


@virtual
async def test_members_of_workflows_are_left_to_their_workflow() -> None:
    calls: list[tuple[str, int]] = []

    async def retire_workflows(colony: object, until_ns: int) -> None:
        calls.append((colony.record.name, until_ns))

    async with old() as made:
        await found(made)
        ids = await quick(made, 3)
        writes, colony = made.rooms.members._writes, made.colony
        member = bytes.fromhex(ids[0])[:-4] + b"\0\0\0\x01"
        index = keys.ended(colony.tag, State.CANCELLED, 1, member)
        ended = encode(Ended("t", "", "", "", "", 0, 0, 1))
        await writes.commit([Guard(index, 0)], [Put(index, ended)])
        policy = ServerConfig(retention_age_s=1.0, retention_count=2).retention
        loop = retention.Retention(
            writes.view,
            made.rooms.clock,
            retirement=Retirement(writes, made.rooms.removal),
            leftovers=Leftovers(writes),
            leadership=Leadership(writes, made.rooms.nodes, made.rooms.clock),
            policy=policy,
            retire_workflows=retire_workflows,
        )
        task = asyncio.create_task(loop.run())
        await asyncio.sleep(5)
        assert [await is_there(made, id) for id in ids] == [False] * 3
        assert [key for key in await of_processes(made) if key.startswith(keys.ENDED)] == [index]
        assert calls
        assert {name for name, _ in calls} == {COLONY}
        task.cancel()


@pytest.mark.parametrize("settings", [{"retention_age_s": DAY}, {"retention_count": 2}])
@virtual
async def test_a_workflow_goes_whole_when_it_is_its_turn(settings: dict[str, Any]) -> None:
    async with bench(MemoryStore(), tallies_every_s=1e9, presence_every_s=1e9, **settings) as made:
        await made.found("ada")
        graphs = []
        for _ in range(2):
            graphs.append(await made.submit_workflow("ada", {"a": [], "b": ["a"]}))
            for _ in range(2):
                await made.close("ada", (await made.assign("ada")).processid)
        running = await made.submit_workflow("ada", {"a": [], "b": ["a"]})
        await made.close("ada", (await made.assign("ada")).processid)
        await asyncio.sleep(DAY + HOUR)
        listed = await made.call(GetProcessGraphs(colonyname=COLONY, count=10), ADA)
        kept = [each["processgraphid"] for each in listed]
        assert running.processgraphid in kept
        assert graphs[0].processgraphid not in kept
        for id in graphs[0].processids:
            with pytest.raises(Refused):
                await made.get("ada", id)
        await made.close("ada", (await made.assign("ada")).processid)


@virtual
async def test_what_must_stay_does_not_make_it_look_again_and_again() -> None:
    async with CountingStore() as store, old(store, retention_count=5) as made:
        await found(made)
        writes, colony = made.rooms.members._writes, made.colony
        for n in range(300):
            member = colony.tag + bytes(24) + (n + 1).to_bytes(4, "big")
            index = keys.ended(colony.tag, State.CANCELLED, n + 1, member)
            ended = encode(Ended("t", "", "", "", "", 0, 0, 1))
            await writes.commit([Guard(index, 0)], [Put(index, ended)])
        await asyncio.sleep(5)
        before = store.asked.count("range")
        ids = await quick(made, 3)
        await asyncio.sleep(5)
        assert store.asked.count("range") == before
        assert all([await is_there(made, id) for id in ids])


async def test_it_is_so_in_sqlite_and_after_a_kill(tmp_path: Path) -> None:
    async with house(tmp_path, retention_count=40) as made:
        await found(made)
        ids = [await end(made, state) for state in (State.SUCCESS, State.FAILED, State.CANCELLED)]
        ids += await quick(made, 60)
        async with asyncio.timeout(20):
            while sum(made.rooms.view.colonies[COLONY].closed) > 40:
                await made.request("GET", "/livez")
        counts = await made.statistics()
    async with house(tmp_path) as made:
        assert await made.statistics() == counts
        assert [await is_there(made, id) for id in ids] == [False] * 23 + [True] * 40
        assert {len(key) for key in await of_processes(made) if key.startswith(b"ai/")} == set()
