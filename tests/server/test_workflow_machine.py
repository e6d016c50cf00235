"""Workflows against a naive model, step by step: all that callers can do to them, time, restarts.

The model keeps edges, states and times, and computes everything else from scratch.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colonist_protocol.attribute import AddAttribute, Attribute, AttributeType
from colonist_protocol.colony import (
    GetColonyStatistics,
    PauseAssignments,
    RemoveColony,
    ResumeAssignments,
)
from colonist_protocol.process import (
    FINAL,
    CloseFailed,
    GetProcesses,
    Process,
    ReleaseProcess,
    State,
)
from colonist_protocol.workflow import (
    AddChild,
    CancelProcessGraph,
    GetProcessGraphs,
    RemoveAllProcessGraphs,
    RemoveProcessGraph,
)
from colonist_server.repo import keys, new_workflow
from tests.support.clock import run_virtual
from tests.support.memory_store import MemoryStore
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
from tests.support.workflow_audit import audit, check_view, keys_under, wids_of

SLEEPS = (0.7, 1.31, 3.17)
"""Sums of these meet no limit, which are whole seconds, to the instant."""
NEVER = float("inf")


class Node:
    def __init__(self, id: str, parents: list[Node], limits: dict[str, int]) -> None:
        self.id = id
        self.parents = parents
        self.wait_s = limits["maxwaittime"]
        self.exec_s = limits["maxexectime"]
        self.tries = limits["maxretries"]
        self.state = State.WAITING
        self.retries = 0
        self.out = ""
        self.executor = ""
        self.ended_at = 0.0
        self.since = 0.0
        """When it was submitted, started, or put back."""

    @property
    def is_free(self) -> bool:
        is_ready = all(parent.state == State.SUCCESS for parent in self.parents)
        return self.state == State.WAITING and is_ready

    @property
    def is_doomed(self) -> bool:
        return any(p.state == State.FAILED or p.is_doomed for p in self.parents)

    @property
    def due(self) -> float:
        if self.state == State.RUNNING:
            return self.since + self.exec_s if self.exec_s > 0 else NEVER
        if not self.is_free or self.wait_s <= 0:
            return NEVER
        return max([self.since, *(parent.ended_at for parent in self.parents)]) + self.wait_s

    def requeue(self, now: float) -> None:
        self.state, self.executor, self.since = State.WAITING, "", now


class Flow:
    def __init__(self, id: str, nodes: list[Node]) -> None:
        self.id = id
        self.nodes = nodes
        self.is_cancelled = False

    @property
    def state(self) -> State:
        states = {node.state for node in self.nodes}
        if self.is_cancelled:
            return State.CANCELLED
        if states <= FINAL:
            return State.FAILED if State.FAILED in states else State.SUCCESS
        return State.WAITING if states == {State.WAITING} else State.RUNNING


Step = Callable[[], Awaitable[None]]


class Machine:
    """A server, a model of it, and what may be done to both."""

    def __init__(self, data: st.DataObject, store: MemoryStore) -> None:
        self.data = data
        self.store = store
        self.flows: list[Flow] = []
        self.is_paused = False
        self.is_gone = False
        self.order: dict[str, int] = {}
        self.server: Bench

    async def start(self, stack: AsyncExitStack) -> None:
        self.server = await stack.enter_async_context(bench(self.store))

    # -- the model

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def nodes(self) -> list[Node]:
        return [node for flow in self.flows for node in flow.nodes]

    def those(self, *states: State) -> list[Node]:
        return [node for node in self.nodes if node.state in states]

    def flow_of(self, node: Node) -> Flow:
        return next(flow for flow in self.flows if node in flow.nodes)

    def end(self, node: Node, state: State, at: float, out: str = "") -> None:
        node.state, node.ended_at, node.out = state, at, out
        for other in self.nodes:
            if other.state not in FINAL and other.is_doomed:
                other.state, other.ended_at = State.FAILED, at

    def pass_time(self) -> None:
        """Let all happen that is due by now, in order."""
        while True:
            node = min(self.nodes, key=lambda node: node.due, default=None)
            if node is None or node.due > self.now:
                return
            due = node.due
            if node.state == State.WAITING or 0 <= node.tries <= node.retries:
                self.end(node, State.FAILED, due)
            else:
                node.retries += 1
                node.requeue(due)

    # -- what may be done

    def limits(self) -> dict[str, int]:
        return {
            "maxwaittime": self.data.draw(st.sampled_from([0, 0, 2, 5])),
            "maxexectime": self.data.draw(st.sampled_from([0, 0, 2, 5])),
            "maxretries": self.data.draw(st.sampled_from([0, 1, -1])),
        }

    async def submit(self) -> None:
        size = self.data.draw(st.integers(1, 5), "size")
        specs, above, limits = [], [], []
        for number in range(size):
            parents = self.data.draw(st.sets(st.integers(0, number - 1))) if number else set()
            above.append(sorted(parents))
            limits.append(self.limits())
            names = [f"n{parent}" for parent in above[-1]]
            priority = self.data.draw(st.integers(0, 2))
            env = {"A": "a"} if self.data.draw(st.booleans()) else {}
            wanted = spec(nodename=f"n{number}", dependencies=names, priority=priority, env=env)
            specs.append(_with(wanted, limits[-1]))
        graph = await self.server.submit_specs("e1", specs)
        nodes: list[Node] = []
        for number, id in enumerate(graph.processids):
            node = Node(id, [nodes[each] for each in above[number]], limits[number])
            node.since = self.now
            nodes.append(node)
        self.flows.append(Flow(graph.processgraphid, nodes))

    async def assign(self) -> None:
        name = self.data.draw(st.sampled_from(["e1", "e2"]), "who")
        free = [node for node in self.nodes if node.is_free]
        if self.is_paused or not free:
            with pytest.raises(Refused):
                await self.server.assign(name, timeout=-1)
            return
        got = await self.server.assign(name, timeout=-1)
        rows = [await self.server.get("e1", node.id) for node in free if node.id != got.processid]
        assert all(
            (got.prioritytime, got.processid) < (each.prioritytime, each.processid) for each in rows
        )
        node = next(node for node in free if node.id == got.processid)
        node.state, node.executor, node.since = State.RUNNING, name, self.now
        outs = ",".join(parent.out for parent in node.parents if parent.out)
        assert bytes(got.inputs).decode() == f"[{outs}]"

    async def close(self) -> None:
        node = self.data.draw(st.sampled_from(self.those(State.RUNNING)), "which")
        if self.data.draw(st.booleans()):
            attribute = Attribute(
                targetid=node.id, attributetype=AttributeType.OUT, key="k", value="v"
            )
            await self.server.call(AddAttribute(attribute=attribute), key(node.executor))
        out = self.data.draw(st.sampled_from(["", '"x"', "1,{}"]))
        await self.server.close(node.executor, node.id, f"[{out}]".encode())
        self.end(node, State.SUCCESS, self.now, out)

    async def fail(self) -> None:
        node = self.data.draw(st.sampled_from(self.those(State.RUNNING)), "which")
        await self.server.call(CloseFailed(processid=node.id, errors=["no"]), key(node.executor))
        self.end(node, State.FAILED, self.now)

    async def release(self) -> None:
        node = self.data.draw(st.sampled_from(self.those(State.RUNNING)), "which")
        await self.server.call(ReleaseProcess(processid=node.id), key(node.executor))
        node.requeue(self.now)

    async def cancel(self) -> None:
        flow = self.data.draw(st.sampled_from(self.flows), "which")
        wanted = CancelProcessGraph(processgraphid=flow.id)
        if flow.state in FINAL:
            with pytest.raises(Refused, match="has ended"):
                await self.server.call(wanted, key("e1"))
            return
        await self.server.call(wanted, key("e1"))
        flow.is_cancelled = True
        for node in flow.nodes:
            if node.state not in FINAL:
                node.state, node.ended_at = State.CANCELLED, self.now

    async def add_child(self) -> None:
        parent = self.data.draw(st.sampled_from(self.those(State.RUNNING)), "parent")
        flow = self.flow_of(parent)
        child = self.data.draw(st.sampled_from([None, *flow.nodes]), "child")
        insert = self.data.draw(st.booleans(), "insert")
        limits = self.limits()
        wanted = AddChild(
            processgraphid=flow.id,
            parentprocessid=parent.id,
            childprocessid=child.id if child is not None else "",
            insert=insert,
            spec=_with(spec(nodename="new"), limits),
        )
        if not insert and child is not None and child.state != State.WAITING:
            with pytest.raises(Refused, match="it cannot wait"):
                await self.server.call(wanted, key(parent.executor))
            return
        made = await self.server.process(wanted, key(parent.executor))
        new = Node(made.processid, [parent], limits)
        if insert:
            for node in flow.nodes:
                node.parents = [new if each is parent else each for each in node.parents]
        elif child is not None:
            child.parents.append(new)
        flow.nodes.append(new)

    async def remove(self) -> None:
        flow = self.data.draw(st.sampled_from(self.flows), "which")
        wanted = RemoveProcessGraph(processgraphid=flow.id)
        if flow.state == State.RUNNING:
            with pytest.raises(Refused, match="cannot remove a running processgraph"):
                await self.server.call(wanted, key("e1"))
            return
        await self.server.call(wanted, key("e1"))
        self.flows.remove(flow)
        await self.check_gone(flow)

    async def remove_all(self) -> None:
        state = self.data.draw(st.sampled_from([-1, 0, 2, 3, 4]), "state")
        await self.server.call(RemoveAllProcessGraphs(colonyname=COLONY, state=state), COLONY_OWNER)
        for flow in [*self.flows]:
            if flow.state == state or (state == -1 and flow.state != State.RUNNING):
                self.flows.remove(flow)
                await self.check_gone(flow)

    async def check_gone(self, flow: Flow) -> None:
        wid = bytes.fromhex(flow.id)[: keys.WID_BYTES]
        assert wid not in wids_of(self.store)
        for node in flow.nodes:
            with pytest.raises(Refused):
                await self.server.get("e1", node.id)

    async def pause(self) -> None:
        self.is_paused = not self.is_paused
        kind = PauseAssignments if self.is_paused else ResumeAssignments
        await self.server.call(kind(colonyname=COLONY), COLONY_OWNER)

    async def sleep(self) -> None:
        # Not by one great leap: what rings in between is dealt with at its time.
        await asyncio.sleep(self.data.draw(st.sampled_from(SLEEPS)))
        self.pass_time()

    # -- what must hold

    async def check(self) -> None:
        await settle(100)
        await check_view(self.server.rooms.view, self.store)
        audit(self.store)
        await self.check_members()
        await self.check_lists()
        await self.check_counts()

    async def check_members(self) -> None:
        for flow in self.flows:
            graph = await self.server.graph("e1", flow.id)
            assert graph.state == flow.state
            assert graph.processids == [node.id for node in flow.nodes]
            assert graph.rootprocessids == [node.id for node in flow.nodes if not node.parents]
            edges = {(p.id, node.id) for node in flow.nodes for p in node.parents}
            assert {(edge.source, edge.target) for edge in graph.edges} == edges
            assert len(graph.edges) == len(edges)
            assert [node.id for node in graph.nodes] == graph.processids
            for node in flow.nodes:
                self.check_member(flow, node, await self.server.get("e1", node.id))

    def check_member(self, flow: Flow, node: Node, shown: Process) -> None:
        assert (shown.state, shown.retries) == (node.state, node.retries)
        assert shown.processgraphid == flow.id
        is_done = all(parent.state == State.SUCCESS for parent in node.parents)
        waits = node.state == State.WAITING and not is_done
        assert shown.waitforparents == waits
        if node.state not in FINAL:  # an ended one shows its kin as they were at its end
            assert shown.parents == [parent.id for parent in node.parents]
            children = [each.id for each in flow.nodes if node in each.parents]
            assert sorted(shown.children) == sorted(children)
        if node.state == State.WAITING:
            assert shown.waitdeadline.startswith("0001") == (node.due == NEVER)

    async def check_lists(self) -> None:
        for state in State:
            got = await self.server.call(
                GetProcesses(colonyname=COLONY, count=100, state=state), key("e1")
            )
            ids = [each["processid"] for each in got]
            assert len(ids) == len(set(ids))
            assert set(ids) == {node.id for node in self.those(state)}
            flows = await self.server.call(
                GetProcessGraphs(colonyname=COLONY, count=100, state=state), key("e1")
            )
            found = [each["processgraphid"] for each in flows]
            assert found == [flow.id for flow in reversed(self.flows) if flow.state == state]

    async def check_counts(self) -> None:
        shown = await self.server.call(GetColonyStatistics(colonyname=COLONY), key("e1"))
        words = ("waiting", "running", "successful", "failed", "cancelled")
        members = Counter(node.state for node in self.nodes)
        flows = Counter(flow.state for flow in self.flows)
        for state, word in zip(State, words, strict=True):
            assert shown[f"{word}processes"] == members[state]
            assert shown[f"{word}workflows"] == flows[state]

    def steps(self) -> list[Step]:
        found: list[Step] = [self.submit, self.assign, self.assign, self.sleep, self.pause]
        if self.those(State.RUNNING):
            found += [self.close, self.close, self.close, self.fail, self.release, self.add_child]
            found += [self.add_child]
        if self.flows:
            found += [self.cancel, self.remove, self.remove_all]
        return found


def _with(wanted: Any, limits: dict[str, int]) -> Any:
    return msgspec.structs.replace(wanted, **limits)


async def _live(data: st.DataObject) -> None:
    store = MemoryStore()
    machine = Machine(data, store)
    async with AsyncExitStack() as stack:
        await machine.start(stack)
        await machine.server.found("e1", "e2")
        for number in range(data.draw(st.integers(3, 30), "steps")):
            if data.draw(st.integers(0, 9), f"{number}: restart?") == 0:
                await stack.aclose()
                await asyncio.sleep(0.001)  # the bench's clock begins anew
                await machine.start(stack)
            step = data.draw(st.sampled_from(machine.steps()), f"{number}")
            await step()
            await machine.check()
        if data.draw(st.booleans(), "remove the colony"):
            await machine.server.call(RemoveColony(colonyname=COLONY), OWNER)
            await settle(200)
            tag = next(iter({key[2:6] for key in keys_under(store, keys.LIVE)}), None)
            assert tag is None
            assert not wids_of(store)
            assert not keys_under(store, keys.ENDED)
            assert not keys_under(store, b"ai/")


def _run(data: st.DataObject, *, is_staged: bool) -> None:
    most = new_workflow.MAX_OPS
    try:
        if is_staged:  # one member a commit, and all but the smallest in several
            new_workflow.MAX_OPS = 5  # pyright: ignore[reportConstantRedefinition]
        run_virtual(_live(data))
    finally:
        new_workflow.MAX_OPS = most  # pyright: ignore[reportConstantRedefinition]


_few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
_many = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("is_staged", [False, True])
@_few
@given(data=st.data())
def test_workflows_do_what_a_naive_model_says(is_staged: bool, data: st.DataObject) -> None:
    _run(data, is_staged=is_staged)


@pytest.mark.campaign
@pytest.mark.parametrize("is_staged", [False, True])
@_many
@given(data=st.data())
def test_workflows_do_so_in_many_lives(is_staged: bool, data: st.DataObject) -> None:
    _run(data, is_staged=is_staged)
