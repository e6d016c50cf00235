"""Store invariant 4 over nodes: after a storm of requests at all of them, all believe the same.

Each node hears of the others' commits late, and is answered late itself. Their views are those of
one that is loaded afresh, and what they count is what there is.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from colonist_protocol.colony import PauseAssignments, ResumeAssignments
from colonist_protocol.executor import ApproveExecutor, RejectExecutor
from colonist_protocol.message import Message
from colonist_protocol.process import CancelProcess, CloseFailed, RemoveProcess, State
from colonist_protocol.workflow import CancelProcessGraph, RemoveProcessGraph
from colonist_server.repo import keys
from colonist_server.repo.records import decode_ended
from tests.server.people import function_of
from tests.support.clock import virtual
from tests.support.cluster import Cluster, Member, cluster
from tests.support.rooms import COLONY, COLONY_OWNER, Bench, Refused, key
from tests.support.workflow_audit import check_view

WORKERS = [f"worker {number}" for number in range(5)]
ROUNDS = 25
EDGES = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


class Storm:
    """Everybody asks any node for anything."""

    def __init__(self, made: Cluster, seed: int) -> None:
        self.made = made
        self.random = random.Random(seed)
        self.ids: list[str] = []
        self.graphs: list[str] = []
        self.refusals: set[str] = set()

    @property
    def somewhere(self) -> Bench:
        """Any node."""
        members: list[Member] = list(self.made.members.values())
        return self.random.choice(members).bench

    async def tries(self, work: Any) -> Any:
        """What it gives, or None for a refusal, which must be a sensible one."""
        try:
            return await work
        except Refused as refused:
            self.refusals.add(refused.failure.code)
            assert refused.failure.status != 500
            return None

    async def member(self, name: str) -> None:
        """An executor's busy day."""
        for _ in range(ROUNDS):
            await asyncio.sleep(self.random.random() * 0.02)
            await self.tries(self._something(name))
            process = await self.tries(self.somewhere.assign(name, self.random.choice([-1, 1])))
            if process is not None:
                self.ids.append(process.processid)
                await asyncio.sleep(self.random.random() * 0.02)
                await self.tries(self._ending(name, process.processid))

    async def _something(self, name: str) -> None:
        match self.random.randint(0, 5):
            case 0:
                graph = await self.somewhere.submit_workflow(name, EDGES)
                self.graphs.append(graph.processgraphid)
            case 1:
                await self.somewhere.call(self._meddling(), key(name))
            case 2:
                await self.somewhere.submit(name, maxexectime=1, maxretries=1)
            case _:
                await self.somewhere.submit(name)

    def _meddling(self) -> Message:
        id = self.random.choice(self.ids) if self.ids else "ab" * 32
        graph = self.random.choice(self.graphs) if self.graphs else "ab" * 32
        return self.random.choice(
            [
                CancelProcess(processid=id),
                RemoveProcess(processid=id),
                CancelProcessGraph(processgraphid=graph),
                RemoveProcessGraph(processgraphid=graph),
            ]
        )

    async def _ending(self, name: str, id: str) -> None:
        if self.random.random() < 0.2:
            await self.somewhere.call(CloseFailed(processid=id), key(name))
        else:
            await self.somewhere.close(name, id)

    async def owner(self) -> None:
        """The owner's whims."""
        for _ in range(ROUNDS):
            await asyncio.sleep(self.random.random() * 0.05)
            name = self.random.choice(WORKERS)
            for message in self.random.choice(
                [
                    [PauseAssignments(colonyname=COLONY), ResumeAssignments(colonyname=COLONY)],
                    [
                        RejectExecutor(colonyname=COLONY, executorname=name),
                        ApproveExecutor(colonyname=COLONY, executorname=name),
                    ],
                ]
            ):
                await self.tries(self.somewhere.call(message, COLONY_OWNER))


@pytest.mark.parametrize("number", range(4))
@virtual
async def test_after_a_storm_all_nodes_believe_the_same(number: int, seed: int) -> None:
    async with cluster("a", "b", "c") as made:
        await made["a"].bench.found(*WORKERS)
        for name in WORKERS:
            await made["a"].bench.call(function_of(name), key(name))
        for at, (answer_s, lag_s) in zip(
            "abc", [(0.001, 0.0), (0.004, 0.02), (0.01, 0.2)], strict=True
        ):
            made[at].line.answer_s, made[at].line.lag_s = answer_s, lag_s
        storm = Storm(made, seed + number)
        async with asyncio.TaskGroup() as group:
            group.create_task(storm.owner())
            for name in WORKERS:
                group.create_task(storm.member(name))
            if number % 2:
                group.create_task(_lose_leader(made))
        await asyncio.sleep(30)
        assert len(made.store.under(keys.CLOSED)) > ROUNDS // 5
        assert "conflict" in storm.refusals
        for member in made.members.values():
            await check_view(member.bench.rooms.view, made.store)
            _check_tallies(member.bench, made)


async def _lose_leader(made: Cluster) -> None:
    await asyncio.sleep(0.4)
    leader = await made.elected()
    leader.line.is_cut = True
    await asyncio.sleep(4)
    leader.line.is_cut = False


def _check_tallies(server: Bench, made: Cluster) -> None:
    """Each function's tally is the number of its runs, wherever they were closed."""
    ended = made.store.under(keys.ended_in(server.colony.tag, State.SUCCESS))
    runs = [decode_ended(item.value).executor for item in ended]
    for function in server.colony.functions.values():
        assert function.tally.counter >= runs.count(key(function.record.executor).id)


@pytest.mark.parametrize("at", "ab")
@virtual
async def test_tallies_are_right_at_every_node_and_after_a_start(at: str) -> None:
    async with cluster("a", "b", tallies_every_s=3.0) as made:
        assert await made.elected() is made["a"]
        await made["a"].bench.found("e1", "e2")
        for name in ("e1", "e2"):
            await made["a"].bench.call(function_of(name), key(name))
        made["a"].line.lag_s, made["b"].line.lag_s = 0.05, 0.2
        await asyncio.sleep(1)
        async with asyncio.TaskGroup() as group:
            for name, where in (("e1", "a"), ("e2", "b")):
                group.create_task(_run(made[where].bench, name, 60))
        await asyncio.sleep(1)
        assert _counted(made["a"]) == _counted(made["b"]) == [60, 60]
        await made.kill(at)
        await made.start("c")
        assert _counted(made["c"]) == [60, 60]
        await asyncio.sleep(20)
        await made.start("d")
        assert _counted(made["d"]) == [60, 60]


async def _run(server: Bench, name: str, count: int) -> None:
    for _ in range(count):
        await server.submit(name, executornames=[name])
        process = await server.assign(name, timeout=10)
        await server.close(name, process.processid)
        await asyncio.sleep(0.09)


def _counted(member: Member) -> list[int]:
    return [each.tally.counter for each in member.bench.colony.functions.values()]
