"""S14 of COLONIES-RPC section 5.1 in bytes: no reply, and nothing kept, grows without a bound."""

from __future__ import annotations

import json
from typing import Any

import pytest

from colonist_core import workflow as core
from colonist_protocol.cron import GetCrons, RemoveCron
from colonist_protocol.generator import GetGenerators
from colonist_protocol.log import AddExecutorLog, GetLogs, SearchLogs
from colonist_protocol.process import GetProcesses, GetProcessHistory, State
from colonist_protocol.workflow import ANY_STATE, AddChild, CancelProcessGraph, GetProcessGraphs
from colonist_server.repo import budget, listing
from tests.support import crons, generators
from tests.support.clock import virtual
from tests.support.generators import node, workflow
from tests.support.memory_store import MemoryStore
from tests.support.rooms import COLONY, Bench, Refused, bench, key, settle, spec

E1 = key("e1")
LIMIT = 100_000


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies of a hundredth of their size."""
    monkeypatch.setattr(budget, "REPLY_BYTES", LIMIT)
    monkeypatch.setattr(listing, "MAX_JOINED_BYTES", LIMIT // 2)


def _check(found: list[Any], asked: int) -> None:
    """As much as fits was shown, and no more."""
    sizes = [len(json.dumps(each)) for each in found]
    assert 1 < len(found) < asked
    assert LIMIT * 0.6 < sum(sizes) < LIMIT * 1.2


@pytest.mark.parametrize("state", [State.WAITING, State.RUNNING, State.SUCCESS])
@pytest.mark.usefixtures("small")
@virtual
async def test_S14_lists_of_processes_end_where_their_bytes_are_used_up(state: State) -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        for _ in range(30):
            made = await server.submit("e1", args=["x" * 9_000])
            if state != State.WAITING:
                await server.assign("e1")
            if state == State.SUCCESS:
                await server.close("e1", made.processid)
        wanted = GetProcesses(colonyname=COLONY, count=30, state=state)
        _check(await server.call(wanted, E1), 30)
        history = GetProcessHistory(colonyname=COLONY, state=state, seconds=1_000)
        shown = await server.call(history, E1)
        _check(shown, 30)
        times = [each["submissiontime"] for each in shown]
        assert times == sorted(times)


@pytest.mark.usefixtures("small")
@virtual
async def test_S14_the_first_entry_is_shown_however_large_it_is() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        for _ in range(2):
            await server.submit("e1", args=["x" * 2 * LIMIT])
        assert len(await server.call(GetProcesses(colonyname=COLONY, count=9), E1)) == 1
        for _ in range(2):
            line = AddExecutorLog(colonyname=COLONY, executorname="e1", message="y" * 2 * LIMIT)
            await server.call(line, E1)
        logs = GetLogs(colonyname=COLONY, executorname="e1", count=9)
        assert len(await server.call(logs, E1)) == 1


@pytest.mark.usefixtures("small")
@virtual
async def test_S14_the_inputs_of_a_list_have_one_budget() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        children = {f"c{number}": ["a"] for number in range(10)}
        graph = await server.submit_workflow("e1", {"a": [], **children})
        first = await server.assign("e1")
        await server.close("e1", first.processid, json.dumps(["x" * 15_000]).encode())
        wanted = GetProcesses(colonyname=COLONY, count=10, state=State.WAITING)
        found = await server.call(wanted, E1)
        assert [bool(each["in"]) for each in found] == [True] * 3 + [False] * 7
        assert all("read the parents' outputs" in each["errors"][0] for each in found[3:])
        alone = await server.get("e1", found[-1]["processid"])  # what a list leaves out
        assert not alone.errors
        assert len(bytes(alone.inputs)) > 15_000
        members = GetProcesses(
            colonyname=COLONY, processgraphid=graph.processgraphid, count=11, state=-1
        )
        shown = await server.call(members, E1)
        assert sum(bool(each["in"]) for each in shown) == 3


@pytest.mark.usefixtures("small")
@virtual
async def test_S14_the_relations_of_members_count_too() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        roots = [f"r{number}" for number in range(100)]
        wide = {f"c{number}": roots for number in range(40)}
        await server.submit_workflow("e1", {**{root: [] for root in roots}, **wide})
        wanted = GetProcesses(colonyname=COLONY, count=100, state=State.WAITING)
        _check(await server.call(wanted, E1), 100)


@pytest.mark.usefixtures("small")
@virtual
async def test_S14_lists_of_workflows_end_where_their_bytes_are_used_up() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        for _ in range(20):
            nodes = {f"n{number}": ["n0"] if number else [] for number in range(200)}
            await server.submit_workflow("e1", nodes)
        wanted = GetProcessGraphs(colonyname=COLONY, count=20, state=State.WAITING)
        waiting = await server.call(wanted, E1)
        _check(waiting, 20)
        for each in waiting[::2]:
            await server.call(CancelProcessGraph(processgraphid=each["processgraphid"]), E1)
        await settle(2_000)
        wanted = GetProcessGraphs(colonyname=COLONY, count=20, state=ANY_STATE)
        newest = await server.call(wanted, E1)
        assert [each["processgraphid"] for each in newest] == [
            each["processgraphid"] for each in waiting
        ]
        _check(newest, 20)


@pytest.mark.usefixtures("small")
@virtual
async def test_S14_log_lists_end_where_their_bytes_are_used_up_and_go_on_from_there() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        for number in range(120):
            text = f"{number} " + "x" * 2_000
            await server.call(
                AddExecutorLog(colonyname=COLONY, executorname="e1", message=text), E1
            )
        found: list[Any] = []
        since = 0
        while len(found) < 120:
            logs = GetLogs(colonyname=COLONY, executorname="e1", count=200, since=since)
            part = await server.call(logs, E1)
            assert part
            assert len(json.dumps(part)) < LIMIT * 1.2
            found += part
            since = part[-1]["timestamp"]
        assert [int(each["message"].split()[0]) for each in found] == list(range(120))
        newest = GetLogs(colonyname=COLONY, executorname="e1", count=200, latest=True)
        shown = await server.call(newest, E1)
        _check(shown, 120)
        assert shown == found[-len(shown) :]
        search = SearchLogs(colonyname=COLONY, text="x", days=1, count=100)
        _check(await server.call(search, E1), 100)


@virtual
async def test_S14_a_negative_count_of_log_lines_is_refused() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        for count in (-1, -(2**62)):
            wanted = GetLogs(colonyname=COLONY, executorname="e1", count=count)
            with pytest.raises(Refused, match="400 invalid_value: Count is negative"):
                await server.call(wanted, E1)


@pytest.mark.usefixtures("small")
@virtual
async def test_S14_lists_of_crons_and_generators_end_where_their_bytes_are_used_up() -> None:
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        long = workflow(node("a", args=["x" * 9_000]))
        for number in range(20):
            await crons.add(server, name=f"k{number}", spec=long)
            await generators.add(server, name=f"g{number}", spec=long)
        _check(await server.call(GetCrons(colonyname=COLONY, count=20), E1), 20)
        _check(await server.call(GetGenerators(colonyname=COLONY, count=20), E1), 20)


@virtual
async def test_S14_what_the_crons_of_a_colony_keep_in_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "MAX_SPECS_BYTES", LIMIT)
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        long = workflow(node("a", args=["ä" * 8_000]))
        first = await crons.add(server, name="k0", spec=long)
        size = len(long.encode())
        for number in range(1, LIMIT // size):
            await crons.add(server, name=f"k{number}", spec=long)
        await _expect_full(server, crons.add_of(name="more", spec=long), "crons")
        await server.call(RemoveCron(cronid=first), E1)
        await crons.add(server, name="more", spec=long)


@virtual
async def test_S14_what_the_generators_of_a_colony_keep_in_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "MAX_SPECS_BYTES", LIMIT)
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        long = workflow(node("a", args=["x" * 30_000]))
        for number in range(3):
            await generators.add(server, name=f"g{number}", spec=long)
        await _expect_full(server, generators.add_of(name="more", spec=long), "generators")


async def _expect_full(server: Bench, message: Any, what: str) -> None:
    with pytest.raises(Refused, match=f"429 busy: the workflow specs of the colony's {what}"):
        await server.call(message, E1)


@virtual
async def test_S14_the_dependencies_of_a_workflow_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core, "MAX_EDGES", 5)
    async with MemoryStore() as store, bench(store) as server:
        await server.found("e1")
        roots: dict[str, list[str]] = {"a": [], "b": []}
        with pytest.raises(Refused, match="400 invalid_value: a workflow has at most 5"):
            await server.submit_workflow(
                "e1", {**roots, **{f"c{number}": ["a", "b"] for number in range(3)}}
            )
        graph = await server.submit_workflow("e1", {**roots, "c": ["a", "b"]})
        parent = await server.assign("e1")
        wanted = AddChild(
            processgraphid=graph.processgraphid,
            parentprocessid=parent.processid,
            childprocessid=graph.processids[2],
            spec=spec(nodename="n"),
        )
        await server.call(wanted, E1)
        with pytest.raises(Refused, match="400 invalid_value: a workflow has at most 5"):
            await server.call(wanted, E1)
