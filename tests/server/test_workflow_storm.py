"""Workflows when everything happens at once: no model, but a store and views that must agree.

Answers of the store come late and in turns that are drawn, so commits, answers and the watch cross
in every way. Two nodes on one store see each other's commits by the watch alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from colonist_protocol.colony import PauseAssignments, RemoveColony, ResumeAssignments
from colonist_protocol.function_spec import FunctionSpec
from colonist_protocol.process import CloseFailed, GetProcesses, ReleaseProcess, State
from colonist_protocol.workflow import (
    AddChild,
    CancelProcessGraph,
    GetProcessGraphs,
    RemoveAllProcessGraphs,
    RemoveProcessGraph,
)
from colonist_server.repo import keys, new_workflow
from colonist_server.store.interface import Guard, Item, Op, Range, Revision
from tests.support.clock import virtual
from tests.support.rooms import (
    COLONY,
    COLONY_OWNER,
    OWNER,
    Bench,
    Refused,
    bench,
    key,
    settle,
    spec,
)
from tests.support.stores import DeafStore
from tests.support.workflow_audit import audit, check_view, keys_under, wids_of

EXECUTORS = ("e1", "e2", "e3")
SEEDS = range(12)


class SlowStore(DeafStore):
    """Answers come some turns late: those of commits in their order, those of reads in any."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self.dice = dice
        self._last: asyncio.Future[None] | None = None

    async def commit(self, guards: Sequence[Guard], ops: Sequence[Op]) -> Revision | None:
        await settle(self.dice.choice([0, 0, 1, 3]))
        revision = await super().commit(guards, ops)
        before, mine = self._last, asyncio.get_running_loop().create_future()
        self._last = mine
        try:
            await settle(self.dice.choice([0, 0, 1, 2, 5]))
            if before is not None:
                await asyncio.shield(before)
        finally:
            mine.set_result(None)
        return revision

    async def get_many(self, keys: Sequence[bytes]) -> list[Item | None]:
        found = await super().get_many(keys)
        await settle(self.dice.choice([0, 0, 1, 4]))
        return found

    async def range(self, prefix: bytes, **wanted: Any) -> Range:
        found = await super().range(prefix, **wanted)
        await settle(self.dice.choice([0, 0, 1, 4]))
        return found


class Storm:
    """Callers without a plan."""

    def __init__(self, dice: random.Random, servers: list[Bench]) -> None:
        self.dice = dice
        self.servers = servers
        self.flows: list[str] = []

    @property
    def server(self) -> Bench:
        return self.dice.choice(self.servers)

    def limits(self) -> dict[str, Any]:
        return {
            "maxwaittime": self.dice.choice([0, 0, 0, 1]),
            "maxexectime": self.dice.choice([0, 0, 1]),
            "maxretries": self.dice.choice([0, 1]),
            "env": self.dice.choice([{}, {"A": "a"}]),
        }

    async def submitter(self) -> None:
        for _ in range(4):
            specs: list[FunctionSpec] = []
            for number in range(self.dice.randint(1, 6)):
                above = [f"n{p}" for p in range(number) if self.dice.random() < 0.5]
                specs.append(spec(nodename=f"n{number}", dependencies=above, **self.limits()))
            graph = await self.server.submit_specs("e1", specs)
            self.flows.append(graph.processgraphid)
            await self.rest()

    async def worker(self, name: str) -> None:
        for _ in range(12):
            try:
                got = await self.server.assign(name, timeout=self.dice.choice([-1, 1]))
            except Refused:
                await self.rest()
                continue
            for _ in range(self.dice.randint(0, 2)):
                with suppress(Refused):
                    await self.add(name, got.processgraphid, got.processid)
            await self.rest()
            with suppress(Refused):
                match self.dice.randint(0, 5):
                    case 0:
                        failed = CloseFailed(processid=got.processid, errors=["no"])
                        await self.server.call(failed, key(name))
                    case 1:
                        await self.server.call(ReleaseProcess(processid=got.processid), key(name))
                    case _:
                        await self.server.close(name, got.processid)

    async def add(self, name: str, flow: str, parent: str) -> None:
        child = ""
        if self.dice.random() < 0.6:
            child = flow[:56] + self.dice.randint(1, 6).to_bytes(4, "big").hex()
        await self.server.process(
            AddChild(
                processgraphid=flow,
                parentprocessid=parent,
                childprocessid=child,
                insert=self.dice.random() < 0.4,
                spec=spec(nodename="new", **self.limits()),
            ),
            key(name),
        )

    async def spoiler(self) -> None:
        for _ in range(5):
            await self.rest()
            with suppress(Refused, IndexError):
                flow = self.dice.choice(self.flows)
                match self.dice.randint(0, 5):
                    case 0:
                        await self.server.call(CancelProcessGraph(processgraphid=flow), key("e2"))
                    case 1:
                        wanted = RemoveAllProcessGraphs(colonyname=COLONY, state=-1)
                        await self.server.call(wanted, COLONY_OWNER)
                    case 2:
                        pause = PauseAssignments(colonyname=COLONY)
                        await self.server.call(pause, COLONY_OWNER)
                        await self.server.call(ResumeAssignments(colonyname=COLONY), COLONY_OWNER)
                    case _:
                        await self.server.call(RemoveProcessGraph(processgraphid=flow), key("e2"))

    async def reader(self) -> None:
        for _ in range(8):
            await self.rest()
            wanted = GetProcessGraphs(colonyname=COLONY, count=100, state=-1)
            found = await self.server.call(wanted, key("e3"))
            ids = [each["processgraphid"] for each in found]
            assert len(ids) == len(set(ids))
            for state in State:
                got = await self.server.call(
                    GetProcesses(colonyname=COLONY, count=100, state=state), key("e3")
                )
                ids = [each["processid"] for each in got]
                assert len(ids) == len(set(ids))
            for id in ids:
                with suppress(Refused):
                    graph = await self.server.graph("e3", id)
                    assert len(graph.nodes) == len(graph.processids)

    async def rest(self) -> None:
        if self.dice.random() < 0.3:
            await asyncio.sleep(self.dice.random())
        else:
            await settle(self.dice.randint(0, 12))

    async def blow(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.submitter())
            group.create_task(self.submitter())
            for name in EXECUTORS:
                group.create_task(self.worker(name))
            group.create_task(self.spoiler())
            group.create_task(self.spoiler())
            group.create_task(self.reader())


async def _check(store: SlowStore, servers: list[Bench]) -> None:
    await asyncio.sleep(5)  # what is left to be done is done
    await settle(300)
    audit(store)
    for server in servers:
        view = server.rooms.view
        await check_view(view, store)
        assert not any(row.claimed for row in view.rows.values())
        assert not view._graves
        assert not server.rooms.settling._locks
        assert not server.rooms.settling._todo
        assert not server.rooms.settling.staging


@pytest.mark.parametrize("most", [127, 5])
@pytest.mark.parametrize("seed", SEEDS)
@virtual
async def test_a_storm_leaves_nothing_undone(seed: int, most: int) -> None:
    dice = random.Random(seed)
    before, new_workflow.MAX_OPS = new_workflow.MAX_OPS, most  # pyright: ignore[reportConstantRedefinition]
    try:
        store = SlowStore(dice)
        async with bench(store, stale_s=0) as server:
            await server.found(*EXECUTORS)
            await Storm(dice, [server]).blow()
            await _check(store, [server])
        async with bench(store, stale_s=0) as server:
            await _check(store, [server])
            await _finish(server)
            await _check(store, [server])
            assert not server.rooms.view.workflows
    finally:
        new_workflow.MAX_OPS = before  # pyright: ignore[reportConstantRedefinition]


@pytest.mark.parametrize("seed", SEEDS)
@virtual
async def test_a_view_that_is_loaded_anew_in_a_storm_is_what_the_store_holds(seed: int) -> None:
    dice = random.Random(3000 + seed)
    store = SlowStore(dice)
    async with bench(store, stale_s=0) as server:
        await server.found(*EXECUTORS)
        storm = asyncio.create_task(Storm(dice, [server]).blow())
        loads = 0
        while not storm.done():
            await settle(dice.randint(5, 60))
            await asyncio.sleep(dice.random() / 4)
            store.forget()
            await settle(dice.randint(1, 4))
            store.remember()
            loads += 1
        await storm
        assert loads > 3
        await settle(300)
        await asyncio.sleep(5)
        await settle(300)
        audit(store)
        await check_view(server.rooms.view, store)
        await _finish(server)
        await asyncio.sleep(5)
        audit(store)
        await check_view(server.rooms.view, store)
        assert not server.rooms.view.workflows


async def _finish(server: Bench) -> None:
    """Close all that runs and may run."""
    for row in list(server.rooms.view.rows.values()):
        if row.state == State.RUNNING:
            holder = server.colony.holder(row.live().executor)
            assert holder is not None
            await server.close(holder.name, row.id)
    while True:
        try:
            got = await server.assign("e1", timeout=-1)
        except Refused:
            return
        await server.close("e1", got.processid)


@pytest.mark.parametrize("seed", SEEDS)
@virtual
async def test_two_nodes_in_a_storm_come_to_the_same_end(seed: int) -> None:
    """W10: the last members, the last parents, edits and cancels meet on two nodes."""
    dice = random.Random(1000 + seed)
    store = SlowStore(dice)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(bench(store, node="one", stale_s=0))
        await first.found(*EXECUTORS)
        second = await stack.enter_async_context(bench(store, node="two", stale_s=0))
        await Storm(dice, [first, second]).blow()
        await _check(store, [first, second])
        await _finish(first)
        await _check(store, [first, second])
        assert not second.rooms.view.workflows


@pytest.mark.parametrize("most", [127, 5])
@pytest.mark.parametrize("seed", SEEDS)
@virtual
async def test_a_colony_removed_in_a_storm_leaves_no_key(seed: int, most: int) -> None:
    dice = random.Random(2000 + seed)
    before, new_workflow.MAX_OPS = new_workflow.MAX_OPS, most  # pyright: ignore[reportConstantRedefinition]
    try:
        store = SlowStore(dice)
        async with bench(store, stale_s=0) as server:
            await server.found(*EXECUTORS)
            storm = asyncio.create_task(Storm(dice, [server]).blow())
            await settle(dice.randint(10, 400))
            await server.call(RemoveColony(colonyname=COLONY), OWNER)
            with suppress(BaseExceptionGroup):
                await storm
            await asyncio.sleep(5)
            await settle(300)
            assert not wids_of(store)
            for prefix in (*keys.BY_TAG, keys.REMAINS, b"ai/", b"i/"):
                assert not keys_under(store, prefix), prefix
            assert not server.rooms.view.workflows
            assert not server.rooms.view.rows
    finally:
        new_workflow.MAX_OPS = before  # pyright: ignore[reportConstantRedefinition]
